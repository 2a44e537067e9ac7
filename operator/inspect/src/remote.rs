//! One repository on a hub: what a revision holds, where a file is, why one was refused.

use std::{future::Future, time::Duration};

use reqwest::{StatusCode, Url, header};

use crate::{
    error::{Cause, Failure, InspectError},
    http::{Answer, Ask, Http, Refused},
    listing::{self, Snapshot},
    meter::Meter,
    name::{Commit, FileName, Repository, Revision},
    retry::{Attempts, Policy, jitter},
};

/// The largest list of files that is read.
const LARGEST_LIST: usize = 32 << 20;

/// One repository on a hub.
pub struct Remote<'a> {
    /// The hub.
    pub http: &'a Http,
    /// The repository.
    pub repository: &'a Repository,
    /// When to try again.
    pub policy: Policy,
    /// Told of each further attempt.
    pub retried: &'a (dyn Fn() + Sync),
}

impl Remote<'_> {
    /// The commit that a revision stands for now, and its files.
    pub async fn snapshot(
        &self,
        revision: &Revision,
        meter: &Meter,
    ) -> Result<Snapshot, InspectError> {
        let segments = ["api", "models"].into_iter().chain(self.repository.parts());
        let mut url = self.http.url(segments.chain(["revision", revision.as_str()]));
        url.set_query(Some("blobs=true"));
        let what = format!("the list of files of {}", self.repository);
        let host = self.http.host();
        let mut attempts = Attempts::new(self.policy);
        // Not by a closure: what it gives back could not be sent to another thread.
        loop {
            match self.list(&url, revision, meter).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(failure) => {
                    pause(failure, &mut attempts, 0, &what, &host).await?;
                    (self.retried)();
                }
            }
        }
    }

    async fn list(
        &self,
        url: &Url,
        revision: &Revision,
        meter: &Meter,
    ) -> Result<Snapshot, Failure> {
        let refused = |refused| self.refused_revision(&refused, revision);
        let answer = self.http.ask(url.clone(), Ask::Content(0), refused).await?;
        let host = answer.host.clone();
        let text = self.http.content(answer, LARGEST_LIST, "a list of files", meter).await?;
        Ok(listing::parse(&host, &text)?)
    }

    /// Asks for a file, or a part of it. What answers is that file, as it is, of that commit.
    pub async fn file(
        &self,
        commit: &Commit,
        name: &FileName,
        ask: Ask,
    ) -> Result<Answer, Failure> {
        let refused = |refused| self.refused_file(&refused, name);
        let answer = self.http.ask(self.address(commit, name), ask, refused).await?;
        let host = &answer.host;
        if let Some(other) = answer.linked.commit.as_deref().filter(|c| *c != commit.as_str()) {
            return Err(InspectError::Nonsense(format!(
                "{host} sends {name} of commit {other:?}, and {commit} was asked for"
            ))
            .into());
        }
        as_it_is(&answer, name.as_str())?;
        Ok(answer)
    }

    /// A file, for people.
    pub fn what(&self, name: &FileName) -> String {
        format!("{name} of {}", self.repository)
    }

    fn address(&self, commit: &Commit, name: &FileName) -> Url {
        let segments = self.repository.parts().chain(["resolve", commit.as_str()]);
        self.http.url(segments.chain(name.parts()))
    }

    /// Attempts one thing until it is done or there is no point in going on.
    pub async fn persistently<T>(
        &self,
        what: &str,
        attempt: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, InspectError> {
        persistently(self.policy, what, &self.http.host(), self.retried, attempt).await
    }

    fn refused_revision(&self, refused: &Refused, revision: &Revision) -> InspectError {
        let Refused { status, host, code, .. } = refused;
        let repository = self.repository;
        if *status != StatusCode::NOT_FOUND {
            return Self::refused(refused, repository.to_string());
        }
        InspectError::NotFound(match code.as_deref() {
            Some("RevisionNotFound") => {
                format!("{host} has no revision {revision} of {repository} (404)")
            }
            Some("RepoNotFound") => format!("{host} has no repository {repository} (404)"),
            _ => format!("{host} has no {repository}, or no revision {revision} of it (404)"),
        })
    }

    /// Why a file was refused.
    pub fn refused_file(&self, refused: &Refused, name: &FileName) -> InspectError {
        if refused.status == StatusCode::NOT_FOUND {
            let host = &refused.host;
            return InspectError::NotFound(format!(
                "{host} lists {} and does not have it (404)",
                self.what(name)
            ));
        }
        Self::refused(refused, self.what(name))
    }

    /// Headers about a file.
    pub async fn headers(&self, commit: &Commit, name: &FileName) -> Result<Answer, Failure> {
        let refused = |refused| self.refused_file(&refused, name);
        self.http.ask(self.address(commit, name), Ask::Headers, refused).await
    }

    fn refused(refused: &Refused, what: String) -> InspectError {
        let Refused { status, host, token, .. } = refused;
        let (host, status, token) = (host.clone(), status.as_u16(), *token);
        match status {
            401 | 403 => InspectError::Denied { host, what, status, token },
            _ => InspectError::Nonsense(format!("{host} answers {status} when asked for {what}")),
        }
    }
}

/// Refuses a web page, and what would have to be unpacked: no byte of it is where it is asked for.
pub fn as_it_is(answer: &Answer, name: &str) -> Result<(), InspectError> {
    let host = &answer.host;
    let text = |name| answer.response.headers().get(name).and_then(|v| v.to_str().ok());
    if text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
        return Err(listing::html(host));
    }
    match text(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        None => Ok(()),
        Some(coding) => Err(InspectError::Nonsense(format!(
            "{host} sends {name} compressed ({coding:?}), which was not asked for"
        ))),
    }
}

/// Attempts one thing until it is done or there is no point in going on.
pub async fn persistently<T>(
    policy: Policy,
    what: &str,
    host: &str,
    retried: &(dyn Fn() + Sync),
    attempt: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, InspectError> {
    let mut attempts = Attempts::new(policy);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) => {
                pause(failure, &mut attempts, 0, what, host).await?;
                retried();
            }
        }
    }
}

/// Waits after a failed attempt that had brought so many bytes; the error if there is no point in
/// another one.
pub async fn pause(
    failure: Failure,
    attempts: &mut Attempts,
    brought: u64,
    what: &str,
    host: &str,
) -> Result<(), InspectError> {
    let (cause, retry_after) = match failure {
        Failure::Permanent(error) => return Err(error),
        Failure::Transient { cause, retry_after } => (cause, retry_after),
    };
    let Some(pause) = attempts.failed(brought, retry_after, jitter()) else {
        return Err(gave_up(what, host, attempts.count(), cause, retry_after));
    };
    let seconds = pause.as_secs_f64();
    tracing::warn!("{what} from {host}: {cause}; next attempt in {seconds:.1} s");
    tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
    Ok(())
}

/// Works for as long as the whole of it may take.
pub(crate) async fn in_time<T>(
    deadline: Duration,
    what: &str,
    host: &str,
    work: impl Future<Output = Result<T, InspectError>>,
) -> Result<T, InspectError> {
    let late = || gave_up(what, host, 1, Cause::Slow(deadline), None);
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late()))
}

/// There is no point in another attempt.
fn gave_up(
    what: &str,
    host: &str,
    attempts: u32,
    cause: Cause,
    retry_after: Option<Duration>,
) -> InspectError {
    let (what, host) = (what.to_owned(), host.to_owned());
    InspectError::GaveUp { what, host, attempts, cause, retry_after }
}
