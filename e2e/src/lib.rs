//! The end-to-end tests' own library: a real Kubernetes on this machine, the operator as a process
//! beside it, and what tests ask of both.
//!
//! Every test starts a [`Cluster`] of its own (etcd, API server, controllers, scheduler, simulated
//! GPU nodes; seconds), so tests share nothing. What it looks at is what users see: objects, events,
//! metrics, the API server's audit log. It never looks into the operator.
//!
//! ```no_run
//! # use berth_e2e::*;
//! # async fn test() -> anyhow::Result<()> {
//! let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 1).h100(8)])).await?;
//! cluster.install().await?;
//! let operator = Operator::start(&cluster, Options::default()).await?;
//! cluster.apply_llm("small", json!({"gpu": {"count": 1, "memory": "20Gi"}})).await?;
//! cluster.ready("small", 1).await?;
//! operator.terminate().await?;
//! cluster.passed()
//! # }
//! ```

pub mod apply;
pub mod audit;
pub mod chat;
pub mod clock;
pub mod cluster;
pub mod explain;
pub mod fleet;
pub mod http;
pub mod invariants;
pub mod llm;
pub mod load;
pub mod metrics;
pub mod model_hub;
pub mod observe;
pub mod operator;
pub mod process;
pub mod random;
pub mod real_node;
pub mod resources;
pub mod snapshot;
pub mod verdict;
pub mod wait;

pub use audit::AuditLog;
pub use clock::Clock;
pub use cluster::{Cluster, NAMESPACE};
pub use fleet::{Fleet, Nodes};
pub use invariants::{Strictness, violations};
pub use metrics::Metrics;
pub use observe::Observer;
pub use operator::{Operator, Options};
pub use random::Random;
pub use serde_json::json;
pub use snapshot::Snapshot;
