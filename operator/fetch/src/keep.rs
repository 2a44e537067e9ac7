//! A node's cache, kept: models removed that make room for others, then folders of namespaces
//! prepared. A one-shot pod of the operator runs it on the node, at the same time as pods that
//! download there.
//!
//! It runs as root with the capabilities CHOWN and FOWNER and the cache's group, or, where nothing is
//! to be prepared, as anybody of that group. What it does not do is follow links: whoever may write
//! into a folder could lead it anywhere on the node. All of it can be repeated, and what fails or
//! cannot be done now keeps nothing else from being done. Blocking.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use berth_units::Bytes;

use crate::{
    error::Error,
    name::{Component, Place},
};

mod evict;
mod folder;
mod prepare;
mod remove;

use folder::Folder;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Work {
    /// The folder that holds those of all namespaces.
    pub root: PathBuf,
    /// Models to remove.
    pub evict: Vec<Place>,
    /// Folders to prepare.
    pub prepare: Vec<Component>,
    /// The group that prepared folders belong to.
    pub group: u32,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A model is gone.
    Removed {
        /// Where it was.
        place: String,
        /// What the volume has more room for now.
        freed: Bytes,
        /// Whether an earlier run had begun it.
        leftover: bool,
    },
    /// A folder is there, with its owner and mode.
    Prepared(Component),
}

/// Does it all, and tells each deed. The error is the first one, or that something is in use.
pub fn keep(work: &Work, mut tell: impl FnMut(&Deed)) -> Result<(), Error> {
    let root = Folder::open(&work.root)?;
    let mut in_use = Vec::new();
    let mut failed = None;
    let mut fail = |error: Error| match error {
        Error::InUse(what) => {
            tracing::warn!("in use: {what}");
            in_use.push(what);
        }
        error => {
            tracing::warn!("{error}");
            failed.get_or_insert(error);
        }
    };
    let mut evictions: BTreeMap<&Component, Vec<&Component>> = BTreeMap::new();
    for Place { folder, key } in &work.evict {
        evictions.entry(folder).or_default().push(key);
    }
    for (folder, keys) in evictions {
        evict::evict(&root, folder, &keys, &mut tell, &mut fail);
    }
    for folder in &work.prepare {
        match prepare::prepare(&root, folder, work.group) {
            Ok(()) => tell(&Deed::Prepared(folder.clone())),
            Err(error) => fail(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None if in_use.is_empty() => Ok(()),
        None => Err(Error::InUse(in_use.join(", "))),
    }
}

/// An error of the kernel about a path. The one about pods of a model tells another remedy.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::Io { action, path, source: errno.into() }
}
