//! Asks the engines what they served. Talks to the replicas' own metrics pages and to nobody else:
//! the address is the one that the kubelet reported for the pod, the port and path are the engine
//! file's.
//!
//! One look a replica and round, so many at once, so long, so many bytes: a replica that hangs or
//! sends without end costs a time-out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::sample::{self, Missing, Sample};

/// Looks at so many replicas at once.
const AT_ONCE: usize = 32;
/// A look may take so long.
const LIMIT: Duration = Duration::from_secs(3);
/// A metrics page may be so long.
const MOST_BYTES: usize = 4 << 20;

/// Where a replica's metrics are.
#[derive(Clone, Debug)]
pub struct Target {
    /// UID of the deployment.
    pub deployment: String,
    /// UID of the pod.
    pub pod: String,
    /// Address of the pod, once it has one and its engine answers.
    pub address: Option<IpAddr>,
    /// How often its engine was started anew.
    pub restarts: i32,
    /// What the engine's metrics are called.
    pub names: &'static berth_render::engine::Metrics,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No answer in time.
    #[error("no answer within {LIMIT:?}")]
    TimedOut,
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// An answer other than 200.
    #[error("the engine answered {0}")]
    Status(u16),
    /// The page is too long, or broke off.
    #[error("cannot read the page: {0}")]
    Page(String),
    /// The page says nothing about tokens.
    #[error(transparent)]
    Missing(#[from] Missing),
}

impl LookError {
    /// The kind of error, as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Connection(_) => "connection",
            Self::Status(_) => "status",
            Self::Page(_) => "page",
            Self::Missing(_) => "missing",
        }
    }
}

/// The samples of a round: by deployment, then by pod; `None` where a pod gave none.
pub type Round = BTreeMap<String, BTreeMap<String, Option<Look>>>;

/// What an engine said, and which start of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// What it said.
    pub sample: Sample,
    /// How often it was started anew before.
    pub restarts: i32,
}

/// Asks engines.
#[derive(Clone)]
pub struct Scraper(Client<HttpConnector, Empty<Bytes>>);

impl Default for Scraper {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(LIMIT));
        // Connections are not kept: a thousand idle ones are no help once a minute.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }
}

impl Scraper {
    /// One look at every target. `failed` is told of each look that came to nothing.
    pub async fn round(
        &self,
        targets: Vec<Target>,
        failed: impl Fn(&Target, &LookError) + Send + Sync,
    ) -> Round {
        let failed = &failed;
        let looks = stream::iter(targets).map(|target| async move {
            let sample = match target.address {
                Some(address) => self
                    .look(address, target.names)
                    .await
                    .inspect_err(|error| failed(&target, error))
                    .ok(),
                None => None,
            };
            (target, sample)
        });
        let mut round = Round::new();
        let mut looks = looks.buffer_unordered(AT_ONCE);
        while let Some((target, sample)) = looks.next().await {
            let look = sample.map(|sample| Look { sample, restarts: target.restarts });
            round.entry(target.deployment).or_default().insert(target.pod, look);
        }
        round
    }

    async fn look(
        &self,
        address: IpAddr,
        names: &berth_render::engine::Metrics,
    ) -> Result<Sample, LookError> {
        let at = SocketAddr::new(address, berth_render::engine::PORT);
        let request = Request::get(format!("http://{at}{}", names.path))
            .body(Empty::new())
            .map_err(|error| LookError::Connection(error.to_string()))?;
        let look = async {
            let answer = self.0.request(request).await;
            let answer = answer.map_err(|error| LookError::Connection(error.to_string()))?;
            if !answer.status().is_success() {
                return Err(LookError::Status(answer.status().as_u16()));
            }
            let page = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            let page = page.map_err(|error| LookError::Page(error.to_string()))?.to_bytes();
            Ok(sample::read(&String::from_utf8_lossy(&page), names)?)
        };
        timeout(LIMIT, look).await.unwrap_or(Err(LookError::TimedOut))
    }
}
