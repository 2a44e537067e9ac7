//! Leader election over a Lease: one operator acts at a time. Talks to the API server.
//!
//! A term ends by our own monotonic clock, never by the clock of another machine: we hold the
//! lease until `duration` after the *start* of the last renewal that succeeded, and take over from
//! somebody else only when we ourselves saw their lease unchanged for its whole duration. Every
//! write carries the resourceVersion that was read, so of two candidates one gets a conflict.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{sleep, timeout};

/// Name of the Lease.
pub const LEASE: &str = "berth-operator";

/// Whether we lead, and until when. Cheap to clone; checked right before every write.
#[derive(Clone, Default)]
pub struct Leadership(Arc<Mutex<Option<Term>>>);

/// One term of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The lease's `leaseTransitions`: grows with each change of leader.
    pub epoch: i32,
    /// When it ends unless it is renewed.
    pub expires: Instant,
}

/// We do not lead, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not hold the lease; another one may be acting")]
pub struct NotLeader;

impl Leadership {
    /// The current term.
    pub fn check(&self) -> Result<Term, NotLeader> {
        let term = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        term.filter(|term| Instant::now() < term.expires).ok_or(NotLeader)
    }

    fn set(&self, term: Option<Term>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = term;
    }
}

/// A candidate for the lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    duration: Duration,
    leadership: Leadership,
}

/// What one look at the lease led to.
enum Look {
    /// We hold it.
    Held { lease: Box<Lease>, expires: Instant },
    /// Somebody else does; how it looked.
    Other(Sighting),
}

/// Somebody else's lease, as it looked when it last changed.
struct Sighting {
    holder: String,
    version: Option<String>,
    since: Instant,
}

impl Candidate {
    /// A candidate named `name`; a random suffix tells it from one that bears the same name by
    /// mistake. `duration` is how long the lease outlives a leader that is gone.
    pub fn new(client: Client, namespace: &str, name: &str, duration: Duration) -> Self {
        let suffix = RandomState::new().build_hasher().finish();
        Self {
            api: Api::namespaced(client, namespace),
            identity: format!("{name}_{suffix:016x}"),
            duration,
            leadership: Leadership::default(),
        }
    }

    /// What writers check.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until the lease is ours, then returns it. Errors are logged and tried again.
    pub async fn acquire(&self) -> Lease {
        let mut seen = None;
        loop {
            match self.look(seen.take()).await {
                Ok(Look::Held { lease, expires }) => {
                    let epoch = transitions(&lease);
                    self.leadership.set(Some(Term { epoch, expires }));
                    tracing::info!(identity = self.identity, epoch, "acquired the lease");
                    return *lease;
                }
                Ok(Look::Other(sighting)) => {
                    tracing::debug!(holder = sighting.holder, "waiting for the lease");
                    seen = Some(sighting);
                }
                Err(error) => tracing::warn!(%error, "cannot read or take the lease"),
            }
            sleep(self.duration / 8).await;
        }
    }

    /// Renews the lease until it is lost, then returns. The process must not act after that.
    pub async fn keep(&self, mut lease: Lease) {
        loop {
            sleep(self.duration / 3).await;
            while let Err(error) = self.renew(&mut lease).await {
                if matches!(&error, kube::Error::Api(status) if status.code == 409) {
                    tracing::error!("the lease was taken by another operator");
                    return self.leadership.set(None);
                }
                if self.leadership.check().is_err() {
                    tracing::error!(%error, "the lease ran out before it could be renewed");
                    return self.leadership.set(None);
                }
                tracing::warn!(%error, "cannot renew the lease; trying again");
                sleep(self.duration / 15).await;
            }
        }
    }

    /// Gives the lease back, so that the next leader need not wait. Call it when nothing acts any
    /// more.
    pub async fn release(&self) {
        let Ok(term) = self.leadership.check() else { return };
        self.leadership.set(None);
        let released = async {
            let mut lease = self.api.get(LEASE).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api.replace(LEASE, &PostParams::default(), &lease).await?;
            }
            kube::Result::<()>::Ok(())
        };
        match timeout(term.expires.saturating_duration_since(Instant::now()), released).await {
            Ok(Ok(())) => tracing::info!("released the lease"),
            Ok(Err(error)) => tracing::warn!(%error, "could not release the lease"),
            Err(_) => tracing::warn!("could not release the lease in time"),
        }
    }

    async fn look(&self, seen: Option<Sighting>) -> kube::Result<Look> {
        let started = Instant::now();
        let held =
            |lease: Lease| Look::Held { lease: Box::new(lease), expires: started + self.duration };
        let Some(mut lease) = self.bounded(self.api.get_opt(LEASE)).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
                spec: Some(self.spec(0, None)),
            };
            let created = self.bounded(self.api.create(&PostParams::default(), &lease)).await?;
            return Ok(held(created));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() {
            let version = lease.meta().resource_version.clone();
            let since = seen
                .filter(|seen| seen.holder == holder && seen.version == version)
                .map_or(started, |seen| seen.since);
            let theirs = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
            if since.elapsed() <= Duration::from_secs(theirs).max(self.duration) {
                return Ok(Look::Other(Sighting { holder, version, since }));
            }
        }
        lease.spec = Some(self.spec(transitions(&lease) + 1, None));
        let taken = self.bounded(self.api.replace(LEASE, &PostParams::default(), &lease)).await?;
        Ok(held(taken))
    }

    async fn renew(&self, lease: &mut Lease) -> kube::Result<()> {
        let started = Instant::now();
        let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
        lease.spec = Some(self.spec(transitions(lease), acquired));
        *lease = self.bounded(self.api.replace(LEASE, &PostParams::default(), lease)).await?;
        let epoch = transitions(lease);
        self.leadership.set(Some(Term { epoch, expires: started + self.duration }));
        Ok(())
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs().max(1)).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// No call about the lease may take longer than a third of it.
    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        timeout(self.duration / 3, call).await.unwrap_or_else(|_| {
            Err(kube::Error::Service("the API server did not answer in time".into()))
        })
    }
}

fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}
