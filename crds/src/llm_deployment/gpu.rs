//! `spec.gpu`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Amount;

/// The GPUs of one replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.count) || !has(self.parallelism) || !has(self.parallelism.tensor) || self.count == self.parallelism.tensor")
        .message("gpu.count must equal gpu.parallelism.tensor (leave one of them out)"),
)]
pub struct Gpu {
    /// Vendor of the GPUs. Absent: any that the engine has an image for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,

    /// Products that will do, as the node labels name them, such as `NVIDIA-H100-80GB-HBM3`.
    /// Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub products: Vec<String>,

    /// GPUs of one replica. Absent: the fewest that hold the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i32>,

    /// How the model is split over them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<Parallelism>,

    /// VRAM that the replica needs on each GPU, in place of Berth's estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
}

/// How a model is split over GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// GPUs that share every layer. It must divide the attention heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub tensor: Option<i32>,
}

/// A maker of GPUs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Vendor {
    /// NVIDIA: `nvidia.com/gpu`.
    NVIDIA,
    /// AMD: `amd.com/gpu`.
    AMD,
}
