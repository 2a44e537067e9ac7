//! From a frozen template to Kubernetes objects. Pure: no client, no clock.
//!
//! A [`Template`] is all that the pods of one revision have in common; it is what a
//! `ControllerRevision` keeps. [`Replica`] is what tells one pod from the next. The controller
//! creates what comes out of here; the CLI prints it.
//!
//! One file per kind of change: an engine is a file in [`engine`], a model source a file in
//! [`source`], a GPU vendor an arm in [`vendor`]; every kind of object has a module.

pub mod budget;
pub mod cache;
pub mod claim;
pub mod engine;
pub mod meta;
pub mod pod;
pub mod prefetch;
mod quantity;
pub mod resources;
pub mod revision;
pub mod service;
mod short_hash;
pub mod site;
pub mod source;
pub mod template;
pub mod vendor;

pub use budget::budget;
pub use claim::{CachedModel, Claim};
pub use meta::{Owner, selector};
pub use pod::{Replica, pod, pod_name};
pub use resources::{resources, startup_timeout};
pub use service::service;
pub use site::{CacheSite, Site};
pub use template::{
    CustomServer, EngineTemplate, Estimate, ModelSource, OwnDirectory, Resources, Template,
};
