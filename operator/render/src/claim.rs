//! What a replica takes on one node, as it stands on the pod.

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

/// The claim of one pod. Written on it as the annotation `berth.dev/claim`: the pods are the
/// ledger. It counts only beside the pod's own resource requests, never against them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Whole GPUs.
    pub gpus: u32,
    /// Bytes claimed on each: the usable VRAM of the GPU, as exclusive claims take all of it.
    pub bytes_per_gpu: Bytes,
    /// Bytes of each in total, of which engines are told a part; zero on pods of versions that did
    /// not write it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total_per_gpu: Bytes,
    /// Product of the GPUs, as the node's labels name it.
    pub product: String,
    /// What it keeps in the node's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CachedModel>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(bytes: &Bytes) -> bool {
    *bytes == Bytes::ZERO
}

impl Claim {
    /// As it stands on the pod.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a claim has only text and numbers")
    }
}

/// A model in a node's cache. Replicas of one namespace share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedModel {
    /// Its directory in the namespace's folder.
    pub directory: String,
    /// The most that it takes.
    pub bytes: Bytes,
}
