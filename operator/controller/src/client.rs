//! The one way in which the operator reads single objects from the API server, and writes to it.
//!
//! Every write checks the lease right before it is sent, is sent once, and ends before the lease
//! can; the client's own retries are off. What comes back is one of a few outcomes that a caller
//! can match on.

use std::{fmt::Debug, time::Duration};

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, LogParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{leader::Leadership, metrics::Calls};

/// A client that never retries by itself.
pub async fn connect() -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Watches end by themselves within a minute; a connection silent for longer is dead.
    config.read_timeout = Some(Duration::from_secs(75));
    Ok(Client::try_from(config)?)
}

/// Why a write did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The lease is not ours: nothing was sent.
    #[error(transparent)]
    NotLeader(#[from] crate::leader::NotLeader),
    /// The object exists already, or changed since it was read. Look again.
    #[error("the object changed in the meantime: {0}")]
    Conflict(String),
    /// The object is not there.
    #[error("the object is gone: {0}")]
    NotFound(String),
    /// The API server will not have it (quota, admission, validation, rights). Sending it again
    /// changes nothing.
    #[error("the API server refused it: {0}")]
    Refused(String),
    /// The API server was busy or failed before it did anything. Try again later.
    #[error("the API server is not able to answer now: {0}")]
    Unavailable(String),
    /// No answer came: whether it was done is not known. Read before trying again.
    #[error("no answer from the API server: {0}")]
    Unknown(String),
}

impl WriteError {
    /// The kind of error, as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotLeader(_) => "not_leader",
            Self::Conflict(_) => "conflict",
            Self::NotFound(_) => "not_found",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                match status.code {
                    404 => Self::NotFound(message),
                    409 => Self::Conflict(message),
                    429 | 500 | 503 => Self::Unavailable(message),
                    // The server gave up waiting for itself: it may still be doing it.
                    504 => Self::Unknown(message),
                    _ => Self::Refused(message),
                }
            }
            other => Self::Unknown(other.to_string()),
        }
    }
}

/// Something that is gone already need not be written or deleted.
pub fn gone(result: Result<(), WriteError>) -> Result<(), WriteError> {
    match result {
        // A conflict on a precondition: another object bears the name now.
        Err(WriteError::NotFound(_) | WriteError::Conflict(_)) => Ok(()),
        other => other,
    }
}

/// Writes, each guarded by the lease, and the reads that go with them.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    limit: Duration,
    calls: Calls,
}

impl Writer {
    /// Writes through `client` while `leadership` lasts; each takes at most `limit`, which must
    /// be shorter than the lease.
    pub fn new(client: Client, leadership: Leadership, limit: Duration, calls: Calls) -> Self {
        Self { client, leadership, limit, calls }
    }

    /// The client, to make an `Api` from.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads an object by name, from the API server itself.
    pub async fn get<K>(&self, api: &Api<K>, name: &str) -> Result<Option<K>, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.counted::<K, _>("get", api.get_opt(name)).await
    }

    /// Reads the beginning of a container's log. What is no text is replaced.
    pub async fn log(
        &self,
        api: &Api<Pod>,
        name: &str,
        container: &str,
        most_bytes: u32,
    ) -> Result<String, WriteError> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: Some(most_bytes.into()),
            ..LogParams::default()
        };
        let read = async {
            let log = api.log_stream(name, &parameters).await?;
            let mut bytes = Vec::new();
            let read = log.take(most_bytes.into()).read_to_end(&mut bytes).await;
            read.map_err(|error| kube::Error::Service(error.into()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        self.counted::<Pod, _>("log", read).await
    }

    /// Creates an object; one that exists already is a conflict.
    pub async fn create<K>(&self, api: &Api<K>, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        self.send::<K, _>("create", api.create(&PostParams::default(), object)).await
    }

    /// Deletes the object of that name and UID, and no other.
    pub async fn delete<K>(&self, api: &Api<K>, name: &str, uid: &str) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let uid = Some(uid.to_owned());
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::background()
        };
        self.send::<K, _>("delete", api.delete(name, &parameters)).await.map(drop)
    }

    /// Server-side apply.
    pub async fn apply<K>(&self, api: &Api<K>, name: &str, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let parameters = PatchParams::apply(berth_crds::names::MANAGER).force();
        self.send::<K, _>("apply", api.patch(name, &parameters, &Patch::Apply(object))).await
    }

    /// A merge patch. Put the resourceVersion into it to make it fail where the object changed.
    pub async fn merge<K, P>(&self, api: &Api<K>, name: &str, patch: &P) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
        P: Serialize + Debug,
    {
        let parameters = PatchParams::default();
        self.send::<K, _>("patch", api.patch(name, &parameters, &Patch::Merge(patch))).await
    }

    /// Server-side apply of a status.
    pub async fn apply_status<K, P>(
        &self,
        api: &Api<K>,
        name: &str,
        object: &P,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
        P: Serialize + Debug,
    {
        let parameters = PatchParams::apply(berth_crds::names::MANAGER).force();
        let patch = Patch::Apply(object);
        let call = api.patch_status(name, &parameters, &patch);
        self.send::<K, _>("apply_status", call).await
    }

    async fn send<K: Resource<DynamicType = ()>, T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        self.leadership.check()?;
        self.counted::<K, T>(verb, call).await
    }

    async fn counted<K: Resource<DynamicType = ()>, T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let result = match timeout(self.limit, call).await {
            Ok(result) => result.map_err(WriteError::from),
            Err(_) => Err(WriteError::Unknown(format!("none within {:?}", self.limit))),
        };
        let outcome = result.as_ref().map_or_else(WriteError::label, |_| "ok");
        self.calls.count(verb, &K::kind(&()), outcome);
        result
    }
}
