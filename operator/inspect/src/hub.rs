//! A hub or its mirror: the list of a revision's files, and parts of a few of them.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::{
    error::{Failure, InspectError},
    http::{Ask, Http},
    inspection::Inspection,
    listing::Snapshot,
    meter::Meter,
    model::{self, Files, Item, Piece, Selection},
    name::{FileName, Repository, Revision},
    remote::{Remote, in_time, pause},
    retry::{Attempts, Policy},
    settings::Settings,
};

/// How a hub is asked. Keeps connections: make one, and use it for all models.
pub struct Hub {
    http: Http,
    policy: Policy,
    deadline: Duration,
}

impl Hub {
    /// A hub; reads certificates. `deadline` bounds a whole inspection, `settings.timeout` each of
    /// its requests.
    pub fn new(
        settings: Settings,
        policy: Policy,
        deadline: Duration,
    ) -> Result<Self, InspectError> {
        Ok(Self { http: Http::new(settings)?, policy, deadline })
    }
}

/// Learns what a model on a hub is.
pub async fn inspect(
    hub: &Hub,
    repository: &Repository,
    revision: &Revision,
    selection: Selection<'_>,
) -> Result<Inspection, InspectError> {
    let remote = Remote { http: &hub.http, repository, policy: hub.policy, retried: &|| {} };
    // Boxed, and so known to be good for any thread: callers spawn it.
    let all: BoxFuture<'_, _> = Box::pin(look(&remote, revision, selection));
    in_time(hub.deadline, &repository.to_string(), &hub.http.host(), all).await
}

async fn look(
    remote: &Remote<'_>,
    revision: &Revision,
    selection: Selection<'_>,
) -> Result<Inspection, InspectError> {
    let meter = Meter::new(model::MOST);
    let snapshot = remote.snapshot(revision, &meter).await?;
    let item = |file: &crate::listing::Listed| Item {
        name: file.name.as_str().to_owned(),
        size: file.size,
    };
    let items: Vec<Item> = snapshot.files.iter().map(item).collect();
    let files = OnHub { remote, snapshot: &snapshot, meter: &meter };
    let learnt = model::learn(&files, &items, selection).await?;
    Ok(Inspection {
        facts: learnt.facts,
        exact: learnt.exact,
        licence: snapshot.licence,
        commit: Some(snapshot.commit.as_str().to_owned()),
        bytes_read: meter.total(),
    })
}

struct OnHub<'a> {
    remote: &'a Remote<'a>,
    snapshot: &'a Snapshot,
    meter: &'a Meter,
}

impl Files for OnHub<'_> {
    fn whole(&self) -> String {
        let (repository, host) = (self.remote.repository, self.remote.http.host());
        format!("{repository} at commit {:.12} on {host}", self.snapshot.commit.as_str())
    }

    async fn read(&self, item: &Item, from: u64, to: u64) -> Result<Piece, InspectError> {
        let wrong = InspectError::Nonsense;
        let name = FileName::try_from(item.name.clone()).map_err(wrong)?;
        let (what, host) = (self.remote.what(&name), self.remote.http.host());
        let mut attempts = Attempts::new(self.remote.policy);
        // Not by a closure: what it gives back could not be sent to another thread.
        loop {
            match self.attempt(&name, from, to).await {
                Ok(piece) => return Ok(piece),
                Err(failure) => pause(failure, &mut attempts, 0, &what, &host).await?,
            }
        }
    }
}

impl OnHub<'_> {
    async fn attempt(&self, name: &FileName, from: u64, to: u64) -> Result<Piece, Failure> {
        let commit = &self.snapshot.commit;
        let answer = self.remote.file(commit, name, Ask::Range(from, to)).await?;
        self.remote.http.part(answer, from, to, &self.what(name.as_str()), self.meter).await
    }
}
