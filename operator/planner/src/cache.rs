//! A node's cache for model files: a folder of a size that the administrator sets.
//!
//! It is planned like memory, but what lies in it outlives the pods that brought it. An entry is
//! *protected* on a node while a pod there uses it, and while it lies there and a deployment with a
//! pod there keeps it for a rollback. What is not protected can be evicted, least recently used
//! first. What is being evicted still lies there, but room for others is planned as if it had gone.
//!
//! [`shelf`] does the sums for one node; [`crate::Fleet`] and [`crate::Overlay`] keep one each.

pub(crate) mod shelf;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::CacheKey;

/// An entry that lies in a node's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cached {
    /// The bytes that it takes there now; fewer than it will have while it is being downloaded.
    pub bytes: Bytes,
    /// When it was last used, in seconds of Unix time.
    pub last_used: i64,
    /// Whether all of it is known to be there.
    pub complete: bool,
    /// Whether it is being evicted. To be set as soon as that is decided: until it is gone, nothing
    /// is placed there that would use it.
    pub leaving: bool,
}

/// What a replica needs of the cache of the node that it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheNeed {
    /// The entry that it uses, shared with whoever else on the node uses it.
    pub key: CacheKey,
    /// The bytes that the entry has when complete.
    pub bytes: Bytes,
    /// Whether nothing may be downloaded: only a node with the complete entry will do.
    pub offline: bool,
}

/// A node's cache in figures. More than its size where it is over-committed, or where what is
/// leaving has not made room yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheUse {
    /// Its size in bytes.
    pub size: Bytes,
    /// The bytes of protected entries, those still to be downloaded included.
    pub protected: Bytes,
    /// The bytes of entries that can be evicted.
    pub evictable: Bytes,
    /// The bytes of entries that are being evicted and that nobody uses.
    pub leaving: Bytes,
}
