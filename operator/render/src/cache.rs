//! The nodes' caches: where models stay when their pods go, as volumes that `restricted` pods may
//! mount.
//!
//! On every node the administrator's folder holds `namespaces/NAMESPACE` (what replicas of that
//! namespace downloaded, written by them) and `shared` (what the administrator put there, read by
//! all). Each pair of a node and a namespace is a PersistentVolume with a claim bound to it. A
//! keeper, a one-shot pod in Berth's own namespace, prepares a namespace's folder and removes models
//! that make room for others.

mod keeper;
mod volume;

pub use keeper::{Work, keeper};
pub use volume::{Folder, STORAGE_CLASS, claim, volume};
