//! From a frozen template to Kubernetes objects. Pure: no client, no clock.
//!
//! A [`Template`] is all that the pods of one revision have in common; it is what a
//! ControllerRevision keeps. [`Replica`] is what tells one pod from the next. The controller
//! creates what comes out of here; the CLI prints it.

pub mod claim;
pub mod template;

pub use claim::Claim;
pub use template::{EngineTemplate, Estimate, ModelSource, Resources, Template};
