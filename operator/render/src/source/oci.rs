//! `oci://REGISTRY/REPOSITORY:TAG`: an OCI artifact, mounted by the kubelet as an image volume.
//!
//! The kubelet pulls it with the pod's `imagePullSecrets` and the node's own credentials, keeps it
//! in the node's image store, and mounts it read-only: no copy per pod, no step of ours. It needs
//! Kubernetes 1.33 or newer with a runtime that knows image volumes (containerd 2.1, CRI-O 1.31).

use k8s_openapi::api::core::v1::{ImageVolumeSource, Volume};

use super::{Mounted, VOLUME, mount};
use crate::{ModelSource, Template, pod::pull_policy};

pub(super) fn parse(rest: &str, files: Option<String>) -> Option<ModelSource> {
    let (registry, repository) = rest.split_once('/')?;
    (!registry.is_empty() && !repository.is_empty())
        .then(|| ModelSource::Oci { reference: rest.to_owned(), files })
}

pub(super) fn mounted(reference: &str, template: &Template) -> Mounted {
    Mounted {
        volumes: vec![Volume {
            name: VOLUME.to_owned(),
            image: Some(ImageVolumeSource {
                reference: Some(reference.to_owned()),
                pull_policy: Some(pull_policy(template.engine.image_pull_policy).to_owned()),
            }),
            ..Volume::default()
        }],
        mounts: vec![mount(true)],
        ..Mounted::default()
    }
}
