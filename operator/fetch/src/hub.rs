//! The hub, as a download needs it: what a file is before it is fetched, and a file's content.

use berth_inspect::{
    InspectError,
    error::Failure,
    http::{Answer, Ask, Linked},
    listing::{self, Listed},
    meter::Meter,
    remote::{self, Remote},
};

use crate::{
    error::Error,
    name::{Commit, FileName, Revision},
    partial::Wanted,
    progress::Progress,
    retry::Attempts,
};

/// One repository on a hub.
pub struct Hub<'a> {
    /// The repository.
    pub remote: Remote<'a>,
    /// Where attempts are counted.
    pub progress: &'a Progress,
}

impl Hub<'_> {
    /// The commit that a revision stands for now, and its files.
    pub async fn snapshot(&self, revision: &Revision) -> Result<listing::Snapshot, Error> {
        Ok(self.remote.snapshot(revision, &Meter::new(u64::MAX)).await?)
    }

    /// All that is to be known of a file before it is fetched; asks only if the list left it out.
    pub async fn describe(&self, commit: &Commit, listed: &Listed) -> Result<Wanted, Error> {
        let Listed { name, size, checksum } = listed.clone();
        if let (Some(size), Some(_)) = (size, checksum) {
            return Ok(Wanted { name, size, checksum });
        }
        let attempt = async || Ok(self.remote.headers(commit, &name).await?.linked);
        let linked: Linked = self.remote.persistently(&self.what(&name), attempt).await?;
        let host = self.remote.http.host();
        let Some(size) = size.or(linked.size) else {
            let problem = format!("{host} does not say how large {name} is");
            return Err(InspectError::Nonsense(problem).into());
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
        let answer = self.remote.file(commit, &wanted.name, Ask::Content(from)).await?;
        if let (Some(linked), Some(listed)) = (answer.linked.checksum, wanted.checksum)
            && std::mem::discriminant(&linked) == std::mem::discriminant(&listed)
            && linked != listed
        {
            return Err(InspectError::Nonsense(format!(
                "{} contradicts itself about {}: its list says {listed}, and with the file it \
                 says {linked}",
                answer.host, wanted.name
            ))
            .into());
        }
        Ok(answer)
    }

    /// A file, for people.
    pub fn what(&self, name: &FileName) -> String {
        self.remote.what(name)
    }

    /// Waits after a failed attempt that had brought so many bytes; the error if there is no point
    /// in another one.
    pub async fn pause(
        &self,
        failure: Failure,
        attempts: &mut Attempts,
        brought: u64,
        name: &FileName,
    ) -> Result<(), Error> {
        let host = self.remote.http.host();
        remote::pause(failure, attempts, brought, &self.what(name), &host).await?;
        self.progress.retried();
        Ok(())
    }
}
