//! `pvc://CLAIM/PATH`: a `PersistentVolumeClaim` of the same namespace, mounted read-only, so that
//! any number of replicas can share it.

use super::{Mounted, claimed, mount};
use crate::ModelSource;

pub(super) fn parse(rest: &str, files: Option<String>) -> Option<ModelSource> {
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!claim.is_empty()).then(|| ModelSource::Pvc {
        claim: claim.to_owned(),
        path: path.trim_matches('/').to_owned(),
        files,
    })
}

pub(super) fn mounted(claim: &str) -> Mounted {
    Mounted {
        volumes: vec![claimed(claim.to_owned())],
        mounts: vec![mount(true)],
        ..Mounted::default()
    }
}
