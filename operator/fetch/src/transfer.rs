//! One file: continued, received, checked, put in its place.
//!
//! What comes goes through a short queue to a thread that hashes and writes, so memory is bounded
//! by the queue, and the network does not wait for the disk.

use std::fs;

use axum::body::Bytes;
use berth_inspect::{
    InspectError,
    error::{Cause, Failure},
    http::Answer,
};
use berth_units::Bytes as Size;
use reqwest::{StatusCode, header};
use tokio::sync::mpsc;

use crate::{
    error::Error,
    hub::Hub,
    layout::Layout,
    manifest::Entry,
    name::Commit,
    partial::{Partial, Paths, Wanted, in_place},
    progress::{FileProgress, Progress},
    retry::{Attempts, Policy},
};

/// Pieces between network and disk; each is at most what was read at once, some hundred KiB.
const QUEUE: usize = 8;

/// What transfers have in common.
pub struct Transfer<'a> {
    /// From where.
    pub hub: &'a Hub<'a>,
    /// Of which commit.
    pub commit: &'a Commit,
    /// To where.
    pub layout: &'a Layout,
    /// When to try again.
    pub policy: Policy,
    /// Where it is counted.
    pub progress: &'a Progress,
}

impl Transfer<'_> {
    /// Where a file grows and goes.
    pub fn paths(&self, wanted: &Wanted) -> Paths {
        let content = match wanted.checksum {
            Some(checksum) => {
                checksum.to_string().rsplit(' ').next().unwrap_or_default().to_owned()
            }
            None => self.commit.as_str().to_owned(),
        };
        let partial = self.layout.partial(&wanted.name, &content[..content.len().min(16)]);
        Paths { partial, target: self.layout.file(&wanted.name) }
    }

    /// Brings a file into its place.
    pub async fn bring(&self, wanted: &Wanted) -> Result<Entry, Error> {
        let paths = self.paths(wanted);
        let failed =
            |action, source| self.layout.failed(action, &paths.partial, self.missing(), source);
        let mut counted = self.progress.file();
        let found = {
            let (wanted, paths) = (wanted.clone(), paths.clone());
            blocking(move || in_place(&wanted, &paths)).await
        };
        if let Some(entry) = found.map_err(|source| failed("read", source))? {
            counted.whole(wanted.size);
            return Ok(entry);
        }
        let mut attempts = Attempts::new(self.policy);
        let mut wrong_before = false;
        let mut kept: Option<Partial> = None;
        loop {
            let partial = if let Some(partial) = kept.take() {
                partial
            } else {
                let (wanted, paths) = (wanted.clone(), paths.clone());
                let opened = blocking(move || Partial::open(wanted, paths)).await;
                opened.map_err(|source| failed("open", source))?
            };
            let before = partial.length();
            counted.set(before);
            if before > 0 && partial.missing() > 0 {
                tracing::info!("{}: going on at {} of {} bytes", wanted.name, before, wanted.size);
            }
            let (partial, received) = self.receive(wanted, partial, &mut counted).await?;
            if let Err(failure) = received {
                let brought = partial.length().saturating_sub(before);
                kept = Some(partial);
                self.hub.pause(failure, &mut attempts, brought, &wanted.name).await?;
                continue;
            }
            let finished = blocking(move || partial.finish()).await;
            match finished.map_err(|source| failed("write", source))? {
                Ok(entry) => {
                    counted.whole(wanted.size);
                    return Ok(entry);
                }
                Err(mismatch) if wrong_before => {
                    return Err(Error::Checksum {
                        file: wanted.name.to_string(),
                        host: self.hub.remote.http.host(),
                        expected: mismatch.expected.to_string(),
                        actual: mismatch.actual.to_string(),
                    });
                }
                Err(_) => {
                    tracing::warn!("{} has a wrong checksum; fetching it once more", wanted.name);
                    wrong_before = true;
                    self.progress.retried();
                }
            }
        }
    }

    /// What is still to come of all files.
    fn missing(&self) -> Size {
        Size(self.progress.missing())
    }

    /// One attempt at the rest of a file. An error of the disk ends everything; other failures
    /// leave the file as far as it has come.
    async fn receive(
        &self,
        wanted: &Wanted,
        mut partial: Partial,
        counted: &mut FileProgress<'_>,
    ) -> Result<(Partial, Result<(), Failure>), Error> {
        if partial.missing() == 0 {
            return Ok((partial, Ok(())));
        }
        let from = partial.length();
        let failed = |source| {
            let path = self.layout.file(&wanted.name);
            self.layout.failed("write", &path, self.missing(), source)
        };
        let answer = match self.hub.content(self.commit, wanted, from).await {
            Ok(answer) => answer,
            Err(failure) => {
                if matches!(&failure, Failure::Transient { cause: Cause::Status(416), .. }) {
                    partial.restart().map_err(failed)?;
                }
                return Ok((partial, Err(failure)));
            }
        };
        match start(&answer, wanted, from) {
            Ok(at) if at == from => {}
            Ok(_) => {
                tracing::info!("{}: {} cannot go on in the middle", wanted.name, answer.host);
                partial.restart().map_err(failed)?;
                counted.set(0);
            }
            Err(error) => return Ok((partial, Err(error.into()))),
        }
        let missing = partial.missing();
        let (queue, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        let writer = blocking(move || {
            while let Some(piece) = pieces.blocking_recv() {
                partial.append(&piece)?;
            }
            Ok(partial)
        });
        let reader = self.read(wanted, answer, missing, queue, counted);
        let (received, partial) = tokio::join!(reader, writer);
        let partial = partial.map_err(|source| {
            // What was in the queue is lost.
            let there = fs::metadata(self.paths(wanted).partial).map_or(0, |found| found.len());
            counted.set(there.min(wanted.size));
            failed(source)
        })?;
        counted.set(partial.length());
        Ok((partial, received))
    }

    /// Puts what comes into the queue.
    async fn read(
        &self,
        wanted: &Wanted,
        mut answer: Answer,
        missing: u64,
        queue: mpsc::Sender<Bytes>,
        counted: &mut FileProgress<'_>,
    ) -> Result<(), Failure> {
        let timeout = self.hub.remote.http.timeout();
        let mut came = 0;
        loop {
            let piece = match tokio::time::timeout(timeout, answer.response.chunk()).await {
                Ok(Ok(piece)) => piece,
                Ok(Err(_)) => None,
                Err(_) => return Err(Cause::Stalled(timeout).into()),
            };
            let Some(piece) = piece else {
                let of = wanted.size;
                let cut = Cause::Cut { at: of - missing + came, of };
                return if came == missing { Ok(()) } else { Err(cut.into()) };
            };
            came += piece.len() as u64;
            if came > missing {
                return Err(InspectError::Nonsense(format!(
                    "{} sends more of {} than the {} bytes it has",
                    answer.host, wanted.name, wanted.size
                ))
                .into());
            }
            counted.received(piece.len() as u64);
            if queue.send(piece).await.is_err() {
                // The writer failed, and says why.
                return Ok(());
            }
        }
    }
}

/// The byte at which an answer starts: the one that was asked for, or the first.
fn start(answer: &Answer, wanted: &Wanted, from: u64) -> Result<u64, InspectError> {
    let Answer { response, host, .. } = answer;
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let wrong = |what: &str| {
        InspectError::Nonsense(format!(
            "{host} answers with {what} of {}, which has {} bytes",
            wanted.name, wanted.size
        ))
    };
    let at = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            let last = wanted.size - 1;
            let expected =
                [format!("bytes {from}-{last}/{}", wanted.size), format!("bytes {from}-{last}/*")];
            if !expected.iter().any(|expected| expected == range) {
                let range: String = range.chars().take(80).collect();
                return Err(wrong(&format!("the range {range:?}")));
            }
            from
        }
        _ => 0,
    };
    match text(header::CONTENT_LENGTH) {
        Some(length) if length != (wanted.size - at).to_string() => {
            let length: String = length.chars().take(40).collect();
            Err(wrong(&format!("{length} bytes")))
        }
        _ => Ok(at),
    }
}

/// Work for a thread that may wait for the disk.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels such work; nobody waits for it then.
            Err(_) => std::future::pending().await,
        },
    }
}
