//! `cache://NAME/PATH`: a model that the administrator put onto nodes by hand, into the folder
//! `shared` of their caches, and labelled the nodes that have it with `models.berth.dev/NAME=true`.
//!
//! Every namespace may read it, none may write: the folder belongs to root.

use super::{Mounted, claimed, mount};
use crate::{ModelSource, Replica, Site, cache};

pub(super) fn parse(rest: &str, files: Option<String>) -> Option<ModelSource> {
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!name.is_empty()).then(|| ModelSource::Cache {
        name: name.to_owned(),
        path: path.trim_matches('/').to_owned(),
        files,
    })
}

/// The label of the nodes that have it.
pub(super) fn label(name: &str) -> (String, String) {
    (format!("models.berth.dev/{name}"), "true".to_owned())
}

pub(super) fn mounted(replica: &Replica, site: &Site) -> Mounted {
    let folder = cache::Folder::shared(&replica.node, &replica.deployment.namespace);
    Mounted {
        volumes: vec![claimed(folder.name())],
        mounts: vec![mount(true)],
        group: site.cache.as_ref().map(|cache| cache.group),
        ..Mounted::default()
    }
}
