//! Asks replicas: their engines what they served, their init steps how far the download is. Talks to
//! the replicas' own metrics pages and to nobody else: the address is the one that the kubelet
//! reported for the pod, the ports and paths are Berth's own.
//!
//! One look a replica and round, so many at once, so long, so many bytes: a replica that hangs or
//! sends without end costs a time-out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use berth_render::{
    engine::{Metrics, PORT},
    source::FETCH_PORT,
};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::{
    download::{self, Download},
    sample::{self, Missing, Sample},
};

/// Looks at so many replicas at once.
const AT_ONCE: usize = 32;
/// A look may take so long.
const LIMIT: Duration = Duration::from_secs(3);
/// A metrics page may be so long.
const MOST_BYTES: usize = 4 << 20;

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// UID of the deployment.
    pub deployment: String,
    /// UID of the pod.
    pub pod: String,
    /// Address of the pod, once it has one and somebody answers there.
    pub address: Option<IpAddr>,
    /// Who answers.
    pub of: Of,
}

/// Who answers at a pod's address.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// The engine.
    Engine {
        /// What its metrics are called.
        names: &'static Metrics,
        /// How often it was started anew.
        restarts: i32,
    },
    /// The init step that downloads the model.
    Fetch {
        /// How often it failed before.
        tries: i32,
    },
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
    #[error("the answer was {0}")]
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

/// What came of a round, by deployment.
pub type Round = BTreeMap<String, Looks>;

/// What came of a round for one deployment, by pod.
#[derive(Debug, Default)]
pub struct Looks {
    /// Engines; `None` where one gave no answer.
    pub engines: BTreeMap<String, Option<Look>>,
    /// Downloads that answered, each with how often it failed before.
    pub downloads: BTreeMap<String, (i32, Download)>,
}

/// What an engine said, and which start of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// What it said.
    pub sample: Sample,
    /// How often it was started anew before.
    pub restarts: i32,
}

/// What was answered.
enum Answer {
    Engine(Look),
    Fetch(i32, Download),
}

/// Asks replicas.
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
        let answers = stream::iter(targets).map(|target| async move {
            let answer = match target.address {
                Some(address) => self
                    .look(address, target.of)
                    .await
                    .inspect_err(|error| failed(&target, error))
                    .ok(),
                None => None,
            };
            (target, answer)
        });
        let mut round = Round::new();
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some((target, answer)) = answers.next().await {
            let looks = round.entry(target.deployment).or_default();
            match (target.of, answer) {
                (_, Some(Answer::Engine(look))) => {
                    looks.engines.insert(target.pod, Some(look));
                }
                (_, Some(Answer::Fetch(tries, download))) => {
                    looks.downloads.insert(target.pod, (tries, download));
                }
                // An engine that does not answer is remembered as one that exists.
                (Of::Engine { .. }, None) => {
                    looks.engines.insert(target.pod, None);
                }
                (Of::Fetch { .. }, None) => {}
            }
        }
        round
    }

    async fn look(&self, address: IpAddr, of: Of) -> Result<Answer, LookError> {
        match of {
            Of::Engine { names, restarts } => {
                let page = self.page(address, PORT, names.path).await?;
                Ok(Answer::Engine(Look { sample: sample::read(&page, names)?, restarts }))
            }
            Of::Fetch { tries } => {
                let page = self.page(address, FETCH_PORT, download::PATH).await?;
                Ok(Answer::Fetch(tries, download::read(&page)?))
            }
        }
    }

    async fn page(&self, address: IpAddr, port: u16, path: &str) -> Result<String, LookError> {
        let at = SocketAddr::new(address, port);
        let request = Request::get(format!("http://{at}{path}"))
            .body(Empty::new())
            .map_err(|error| LookError::Connection(error.to_string()))?;
        let page = async {
            let answer = self.0.request(request).await;
            let answer = answer.map_err(|error| LookError::Connection(error.to_string()))?;
            if !answer.status().is_success() {
                return Err(LookError::Status(answer.status().as_u16()));
            }
            let page = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            let page = page.map_err(|error| LookError::Page(error.to_string()))?.to_bytes();
            Ok(String::from_utf8_lossy(&page).into_owned())
        };
        timeout(LIMIT, page).await.unwrap_or(Err(LookError::TimedOut))
    }
}
