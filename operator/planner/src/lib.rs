//! Where models go: the ledger of GPUs, and the choice of a node for each replica.
//!
//! Pure: no clock, no randomness, no I/O, no Kubernetes client. Whoever calls (the controller, the
//! kubectl plugin, the benchmarks) keeps a [`Fleet`] up to date event by event and asks [`place`]
//! with a [`Request`]; the answer is a [`Placement`] or a [`Refusal`] that says, node by node but
//! grouped, why not. What fits and what does not follows from the input alone, whatever the order of
//! events was; which of the nodes that fit is best also from the demand seen so far.
//!
//! - [`Fleet`] is the ledger: nodes, the pods on them, and claims that are decided but not yet seen
//!   back from the API server ("assumed").
//! - [`Overlay`] is a cheap what-if on top of it: extra claims, pods thought away.
//! - Each node may have a cache for model files, planned like memory: what lies there, what of it may
//!   go, and what has to go for a new model ([`CacheNeed`], [`Fleet::evictions`]).
//! - [`policy`] scores nodes by what is free on them ([`room`]), and [`index`] keeps nodes by that, so
//!   that equal ones are answered once; other policies are there to be compared with.
//! - [`queue`] orders those who wait, and keeps later ones from taking what earlier ones could use.
//!
//! What is placed here: exclusive whole GPUs, each replica on one node.

mod cache;
mod fleet;
pub mod index;
mod judge;
mod name;
mod node;
mod occupant;
mod overlay;
mod place;
pub mod policy;
pub mod queue;
mod reason;
mod refusal;
mod request;
pub mod room;
mod taint;

pub use cache::{CacheNeed, CacheUse, Cached};
pub use fleet::{Fleet, NameTaken, NodeTotals, Shortage, Violation};
pub use name::{CacheKey, DeploymentId, NodeName, OccupantId, PodKey};
pub use node::{Free, Gpus, Node, Resources, Vendor, usable};
pub use occupant::{Assumed, Claim, Occupant, Owner, Taken};
pub use overlay::{NodeState, Overlay, View};
pub use place::{Placement, Score, best, could_ever, place, place_all, refusal};
pub use reason::RefusalReason;
pub use refusal::{NearMiss, Refusal, RefusedNodes};
pub use request::{Request, Strategy};
pub use taint::{Effect, Operator, Taint, Toleration};
