//! The Berth operator.
//!
//! [`run`] is the process: stand for election, then watch, then reconcile. Watch events feed
//! [`world`] (the fleet and its ledger); [`reconcile`] brings one deployment closer to its spec;
//! [`client`] is the only way to write. When any part of it ends, the process ends.

pub mod accelerator;
pub mod args;
pub mod cache;
pub mod client;
pub mod leader;
pub mod measured;
pub mod metrics;
pub mod models;
pub mod prices;
pub mod profiles;
pub mod reconcile;
pub mod run;
pub mod server;
pub mod telemetry;
pub mod usage;
pub mod world;
