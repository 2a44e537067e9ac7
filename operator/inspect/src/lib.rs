//! What a model is, learnt without its weights: from a hub or its mirror, a directory, or an OCI
//! artifact.
//!
//! `berth-fetch inspect` calls it in a pod in the tenant's namespace, with the tenant's secrets, for
//! whatever a tenant names; the controller calls [`hub`] for the endpoint that the administrator
//! configured, with [`redirects::Redirects::Only`], so that nobody can make it call elsewhere. What
//! was learnt is an [`Inspection`]; it says which version of the model it is about, so it holds for
//! as long as that is used.
//!
//! Whoever answers may be anybody: every request has a time-out and a bound, a model has a bound for
//! all of them together, and what comes is never unpacked unless it is bounded too. The formats
//! themselves are read by [`berth_vram::read`], which is pure.
//!
//! [`name`], [`pattern`], [`select`], [`listing`], [`checksum`], [`retry`] and [`meter`] are pure;
//! [`settings`], [`tls`], [`redirects`], [`http`] and [`remote`] are how hubs are asked, here and by
//! the init step that downloads (`operator/fetch`).

pub mod checksum;
pub mod directory;
pub mod error;
pub mod http;
pub mod hub;
mod inspection;
pub mod listing;
pub mod meter;
mod model;
pub mod name;
pub mod oci;
pub mod pattern;
pub mod redirects;
pub mod remote;
pub mod retry;
pub mod select;
pub mod settings;
pub mod tls;

pub use error::InspectError;
pub use inspection::{FORMAT, Inspection, InspectionError, LONGEST};
pub use model::Selection;
