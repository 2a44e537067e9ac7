//! `pvc://CLAIM/PATH`: a `PersistentVolumeClaim` of the same namespace, mounted read-only, so that
//! any number of replicas can share it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};

use super::{Mounted, VOLUME, mount};
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
        volumes: vec![Volume {
            name: VOLUME.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                // Only the mount is read-only: with `readOnly` here too, volumes that are already
                // attached for writing on the node (by the Job that filled them) could not be
                // mounted beside it.
                read_only: None,
            }),
            ..Volume::default()
        }],
        mounts: vec![mount(true)],
        ..Mounted::default()
    }
}
