//! The hub's file API: what a revision holds, what a file is, a file's content.

use std::time::Duration;

use reqwest::{StatusCode, header};

use crate::{
    error::{Error, Failure},
    http::{Answer, Ask, Http, Linked, Refused},
    listing::{self, Listed, Snapshot},
    name::{Commit, FileName, Repository, Revision},
    partial::Wanted,
    progress::Progress,
    retry::{Attempts, Policy, jitter},
};

/// The largest list of files that is read.
const LARGEST_LIST: usize = 32 << 20;

/// One repository on a hub.
pub struct Hub<'a> {
    /// The hub.
    pub http: &'a Http,
    /// The repository.
    pub repository: &'a Repository,
    /// When to try again.
    pub policy: Policy,
    /// Where attempts are counted.
    pub progress: &'a Progress,
}

impl Hub<'_> {
    /// The commit that a revision stands for now, and its files.
    pub async fn snapshot(&self, revision: &Revision) -> Result<Snapshot, Error> {
        let segments = ["api", "models"].into_iter().chain(self.repository.parts());
        let mut url = self.http.url(segments.chain(["revision", revision.as_str()]));
        url.set_query(Some("blobs=true"));
        let what = format!("the list of files of {}", self.repository);
        self.persistently(&what, async || {
            let refused = |refused| self.refused_revision(&refused, revision);
            let answer = self.http.ask(url.clone(), Ask::Content(0), refused).await?;
            let host = answer.host.clone();
            Ok(listing::parse(&host, &self.http.content(answer, LARGEST_LIST).await?)?)
        })
        .await
    }

    /// All that is to be known of a file before it is fetched; asks only if the list left it out.
    pub async fn describe(&self, commit: &Commit, listed: &Listed) -> Result<Wanted, Error> {
        let Listed { name, size, checksum } = listed.clone();
        if let (Some(size), Some(_)) = (size, checksum) {
            return Ok(Wanted { name, size, checksum });
        }
        let linked: Linked = self
            .persistently(&self.what(&name), async || {
                let refused = |refused| self.refused_file(&refused, &name);
                Ok(self.http.ask(self.address(commit, &name), Ask::Headers, refused).await?.linked)
            })
            .await?;
        let host = self.http.host();
        let Some(size) = size.or(linked.size) else {
            return Err(Error::Nonsense(format!("{host} does not say how large {name} is")));
        };
        listing::believable(&host, &name, size)?;
        let checksum = checksum.or(linked.checksum).or(linked.etag);
        if checksum.is_none() {
            tracing::warn!("{host} gives no checksum of {name}; it is taken as it comes");
        }
        Ok(Wanted { name, size, checksum })
    }

    /// A file's content from a byte on; one attempt. What the answer says about the file has been
    /// compared with what is wanted.
    pub async fn content(
        &self,
        commit: &Commit,
        wanted: &Wanted,
        from: u64,
    ) -> Result<Answer, Failure> {
        let name = &wanted.name;
        let refused = |refused| self.refused_file(&refused, name);
        let answer = self.http.ask(self.address(commit, name), Ask::Content(from), refused).await?;
        let host = &answer.host;
        if let Some(other) = answer.linked.commit.as_deref().filter(|c| *c != commit.as_str()) {
            return Err(Error::Nonsense(format!(
                "{host} sends {name} of commit {other:?}, and {commit} was asked for"
            ))
            .into());
        }
        if let (Some(linked), Some(listed)) = (answer.linked.checksum, wanted.checksum)
            && std::mem::discriminant(&linked) == std::mem::discriminant(&listed)
            && linked != listed
        {
            return Err(Error::Nonsense(format!(
                "{host} contradicts itself about {name}: its list says {listed}, and with the \
                 file it says {linked}"
            ))
            .into());
        }
        let text = |name| answer.response.headers().get(name).and_then(|v| v.to_str().ok());
        if text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(listing::html(host).into());
        }
        if let Some(coding) = text(header::CONTENT_ENCODING).filter(|c| *c != "identity") {
            return Err(Error::Nonsense(format!(
                "{host} sends {name} compressed ({coding:?}), which was not asked for"
            ))
            .into());
        }
        Ok(answer)
    }

    /// A file, for people.
    pub fn what(&self, name: &FileName) -> String {
        format!("{name} of {}", self.repository)
    }

    fn address(&self, commit: &Commit, name: &FileName) -> reqwest::Url {
        let segments = self.repository.parts().chain(["resolve", commit.as_str()]);
        self.http.url(segments.chain(name.parts()))
    }

    async fn persistently<T>(
        &self,
        what: &str,
        attempt: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut attempts = Attempts::new(self.policy);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(failure) => {
                    let host = self.http.host();
                    pause(failure, &mut attempts, 0, what, &host, self.progress).await?;
                }
            }
        }
    }

    fn refused_revision(&self, refused: &Refused, revision: &Revision) -> Error {
        let Refused { status, host, code, .. } = refused;
        let repository = self.repository;
        if *status != StatusCode::NOT_FOUND {
            return Self::refused(refused, repository.to_string());
        }
        Error::NotFound(match code.as_deref() {
            Some("RevisionNotFound") => {
                format!("{host} has no revision {revision} of {repository} (404)")
            }
            Some("RepoNotFound") => format!("{host} has no repository {repository} (404)"),
            _ => format!("{host} has no {repository}, or no revision {revision} of it (404)"),
        })
    }

    fn refused_file(&self, refused: &Refused, name: &FileName) -> Error {
        if refused.status == StatusCode::NOT_FOUND {
            let host = &refused.host;
            return Error::NotFound(format!(
                "{host} lists {} and does not have it (404)",
                self.what(name)
            ));
        }
        Self::refused(refused, self.what(name))
    }

    fn refused(refused: &Refused, what: String) -> Error {
        let Refused { status, host, token, .. } = refused;
        let (host, status, token) = (host.clone(), status.as_u16(), *token);
        match status {
            401 | 403 => Error::Denied { host, what, status, token },
            _ => Error::Nonsense(format!("{host} answers {status} when asked for {what}")),
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
    progress: &Progress,
) -> Result<(), Error> {
    let (cause, retry_after) = match failure {
        Failure::Permanent(error) => return Err(error),
        Failure::Transient { cause, retry_after } => (cause, retry_after),
    };
    let Some(pause) = attempts.failed(brought, retry_after, jitter()) else {
        let (what, host) = (what.to_owned(), host.to_owned());
        return Err(Error::GaveUp { what, host, attempts: attempts.count(), cause });
    };
    progress.retried();
    let seconds = pause.as_secs_f64();
    tracing::warn!("{what} from {host}: {cause}; next attempt in {seconds:.1} s");
    tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
    Ok(())
}
