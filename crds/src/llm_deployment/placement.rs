//! `spec.placement`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where replicas may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that do not keep replicas away. The taint that a GPU vendor's nodes carry by custom
    /// (`nvidia.com/gpu`, `amd.com/gpu`) is always tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Whether the replicas of this deployment go close together or far apart.
    #[serde(default)]
    pub strategy: Strategy,
}

/// Close together, or far apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Where the least VRAM is left over: whole nodes stay free for large models.
    #[default]
    Pack,
    /// On as many nodes as there are, so that the loss of one costs least.
    Spread,
}

/// A taint that does not keep replicas away; the meaning is that of a pod's tolerations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("has(self.key) && self.key != '' || has(self.operator) && self.operator == 'Exists'")
        .message("a toleration without a key needs operator Exists"),
    validation = kube::core::Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''")
        .message("a toleration with operator Exists takes no value"),
)]
pub struct Toleration {
    /// Key of the taint. Absent: every key, with operator `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// How the value is compared.
    #[serde(default)]
    pub operator: Operator,
    /// Value of the taint, for operator `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// How the value of a taint is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The value is equal.
    #[default]
    Equal,
    /// Any value.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// No new pods.
    NoSchedule,
    /// Preferably no new pods.
    PreferNoSchedule,
    /// No new pods, and running ones are evicted.
    NoExecute,
}
