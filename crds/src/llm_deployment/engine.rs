//! `spec.engine`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretKey;
use crate::Period;

/// The inference server of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.kvCacheDtype) || !has(self.type) || self.kvCacheDtype == 'Auto' || (self.type == 'VLLM' ? self.kvCacheDtype == 'FP8' : self.kvCacheDtype in ['F16', 'Q8_0', 'Q4_0'])")
        .message("engine.kvCacheDtype must be Auto or FP8 for VLLM, and Auto, F16, Q8_0 or Q4_0 for LlamaCpp")
        .field_path(".kvCacheDtype"),
    validation = kube::core::Rule::new("!has(self.startupTimeout) || self.startupTimeout.size() > 0 && duration(self.startupTimeout) >= duration('30s') && duration(self.startupTimeout) <= duration('24h')")
        .message("engine.startupTimeout must be between 30s and 24h")
        .field_path(".startupTimeout"),
    validation = kube::core::Rule::new("!has(self.shutdownGrace) || self.shutdownGrace.size() > 0 && duration(self.shutdownGrace) <= duration('24h')")
        .message("engine.shutdownGrace must be at most 24h")
        .field_path(".shutdownGrace"),
)]
pub struct Engine {
    /// Which engine. Absent: `LlamaCpp` for GGUF files, else `VLLM`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<EngineType>,

    /// Container images in place of Berth's own choice, by GPU vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<EngineImage>,

    /// When the kubelet pulls the image.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// Arguments for the engine, after Berth's own. Those that Berth computes (model, parallelism,
    /// memory, context, port) are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,

    /// Environment variables for the engine. Those that choose GPUs
    /// (`CUDA_VISIBLE_DEVICES` and its like) are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// The longest context in tokens that one request may have. Absent: the smallest of the
    /// model's maximum, 32768, and what fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 100_000_000))]
    pub context_length: Option<i32>,

    /// How many requests of full context length the KV cache must hold at once. A floor for
    /// sizing, no cap. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrency: Option<i32>,

    /// How keys and values are stored in the KV cache. Absent: `Auto`, as the engine does by
    /// itself (16 bits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_dtype: Option<KvCacheDtype>,

    /// How long the engine may take until it answers. Absent: from the size of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_timeout: Option<Period>,

    /// How long a replica may go on with its requests when it is stopped. Absent: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_grace: Option<Period>,
}

/// An inference server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum EngineType {
    /// vLLM.
    VLLM,
    /// llama.cpp's server.
    LlamaCpp,
}

/// Images by GPU vendor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineImage {
    /// Image for NVIDIA GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[a-zA-Z0-9][^\s]*$"))]
    pub nvidia: Option<String>,
    /// Image for AMD GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[a-zA-Z0-9][^\s]*$"))]
    pub amd: Option<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Only if the node lacks it.
    #[default]
    IfNotPresent,
    /// At every start.
    Always,
    /// Never; the image must be on the node.
    Never,
}

/// An environment variable: a value, or a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("has(self.value) != has(self.valueFrom)")
        .message("an environment variable takes exactly one of value and valueFrom"),
    validation = kube::core::Rule::new("!(self.name in ['CUDA_VISIBLE_DEVICES', 'NVIDIA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES', 'GPU_DEVICE_ORDINAL', 'ZE_AFFINITY_MASK'])")
        .message("which GPUs a replica sees is decided by Berth and the kubelet; this variable cannot be set")
        .field_path(".name"),
)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A key of a Secret of this namespace.
    pub secret_key_ref: SecretKey,
}

/// How keys and values are stored in the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(non_camel_case_types, reason = "the names are llama.cpp's own")]
pub enum KvCacheDtype {
    /// As the engine does by itself: 16 bits.
    #[default]
    Auto,
    /// 8-bit floating point (vLLM).
    FP8,
    /// 16-bit floating point (llama.cpp).
    F16,
    /// 8 bits in blocks (llama.cpp).
    Q8_0,
    /// 4 bits in blocks (llama.cpp).
    Q4_0,
}
