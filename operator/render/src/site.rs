//! What the administrator configured for all models of a cluster.

use berth_units::Bytes;

use crate::vendor::GpuResources;

/// How models come to their nodes, and what the GPUs there are called. No part of a revision: which
/// hub a file comes from, where it is kept, and as which resource a GPU is offered changes nothing
/// about what serves, and must be right on the day a pod starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The resources that GPUs are.
    pub gpu_resources: GpuResources,
    /// Image of `berth-fetch`.
    pub fetch_image: String,
    /// The hub in place of `https://huggingface.co`: a mirror that speaks its file API.
    pub hub: Option<String>,
    /// Certificates to trust besides the usual ones, in PEM: those of the mirror.
    pub hub_ca: Option<String>,
    /// Whether nothing may be downloaded: what is not on a node already is an error.
    pub offline: bool,
    /// Where nodes keep models. `None`: each pod downloads into a volume of its own.
    pub cache: Option<CacheSite>,
}

/// Where nodes keep models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSite {
    /// The folder on every node: absolute, without a slash at its end.
    pub path: String,
    /// How much of it models may take on a node that does not say otherwise.
    pub size: Bytes,
    /// The group that may read and write it, and that engine pods carry.
    pub group: i64,
    /// Namespace of the pods that prepare it and make room in it.
    pub namespace: String,
    /// Secrets in that namespace for the registry of their image.
    pub pull_secrets: Vec<String>,
}
