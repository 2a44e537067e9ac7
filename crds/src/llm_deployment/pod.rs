//! What the pods take and carry besides the engine.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Amount;

/// CPU, memory and storage of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Whole cores, or thousandths (`1500m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    /// Main memory, shared memory not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
    /// Size of `/dev/shm`, which the GPUs of one replica use to talk to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Amount>,
    /// Disk on the node, where downloaded weights are kept for the life of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Amount>,
}

/// An object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObject {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the pods carry besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.labels) || self.labels.all(k, !k.startsWith('berth.dev/') && !k.startsWith('app.kubernetes.io/'))")
        .message("podTemplate.labels must not be under berth.dev/ or app.kubernetes.io/: Berth sets those")
        .field_path(".labels"),
    validation = kube::core::Rule::new("!has(self.annotations) || self.annotations.all(k, !k.startsWith('berth.dev/'))")
        .message("podTemplate.annotations must not be under berth.dev/: Berth sets those")
        .field_path(".annotations"),
)]
pub struct PodTemplate {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}
