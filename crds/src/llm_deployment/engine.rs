//! `spec.engine`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretKey;
use crate::{Amount, Period};

/// The inference server of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.kvCacheDtype) || !has(self.type) || self.kvCacheDtype == 'Auto' || self.type == 'Custom' || (self.type == 'VLLM' ? self.kvCacheDtype == 'FP8' : self.type == 'SGLang' ? self.kvCacheDtype in ['FP8', 'FP8_E5M2'] : self.kvCacheDtype in ['F16', 'Q8_0', 'Q4_0'])")
        .message("engine.kvCacheDtype must be Auto or FP8 for VLLM, Auto, FP8 or FP8_E5M2 for SGLang, and Auto, F16, Q8_0 or Q4_0 for LlamaCpp")
        .field_path(".kvCacheDtype"),
    validation = kube::core::Rule::new("has(self.type) && self.type == 'Custom' || !has(self.command) && !has(self.port) && !has(self.healthPath) && !has(self.runAsUser) && !has(self.writableDirectories)")
        .message("engine.command, port, healthPath, runAsUser and writableDirectories are for engine.type Custom only: Berth knows them of its own engines"),
    validation = kube::core::Rule::new("!has(self.type) || self.type != 'Custom' || has(self.image) && (has(self.image.nvidia) || has(self.image.amd))")
        .message("engine.type Custom needs an image: set engine.image.nvidia, engine.image.amd or both"),
    validation = kube::core::Rule::new("!has(self.startupTimeout) || self.startupTimeout.size() > 0 && duration(self.startupTimeout) >= duration('30s') && duration(self.startupTimeout) <= duration('24h')")
        .message("engine.startupTimeout must be between 30s and 24h")
        .field_path(".startupTimeout"),
    validation = kube::core::Rule::new("!has(self.shutdownGrace) || self.shutdownGrace.size() > 0 && duration(self.shutdownGrace) <= duration('24h')")
        .message("engine.shutdownGrace must be at most 24h")
        .field_path(".shutdownGrace"),
)]
pub struct Engine {
    /// Which engine. Absent: `LlamaCpp` for GGUF files, else `VLLM`. `Custom` takes an image and
    /// arguments of your own.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<EngineType>,

    /// Container images in place of Berth's own choice, by GPU vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<EngineImage>,

    /// When the kubelet pulls the image.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// Arguments for the engine, after Berth's own. Those that Berth computes (model, parallelism,
    /// memory, context, port) are refused. For `Custom` they are all that the server is given; what
    /// Berth decided stands in its environment: `$(BERTH_MODEL_PATH)`, `$(BERTH_MODEL_NAME)`,
    /// `$(BERTH_CONTEXT_LENGTH)`, `$(BERTH_MAX_CONCURRENCY)`, `$(BERTH_TENSOR_PARALLEL_SIZE)`,
    /// `$(BERTH_GPU_COUNT)`, `$(BERTH_GPU_MEMORY_BYTES)`, `$(BERTH_GPU_MEMORY_FRACTION)`,
    /// `$(BERTH_KV_CACHE_DTYPE)`, `$(BERTH_PORT)`.
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

    /// `Custom`: what is run in place of the image's own entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub command: Vec<String>,

    /// `Custom`: the port on which the server answers. Absent: 8000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: Option<i32>,

    /// `Custom`: HTTP path that answers 200 once requests are served. Absent: `/health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^/[^\s]*$"))]
    pub health_path: Option<String>,

    /// `Custom`: the id of the user and group that the server runs as; not root. Absent: 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,

    /// `Custom`: directories that the server writes to, besides `/tmp` and its home `/home/berth`.
    /// They live as long as the pod; everything else is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub writable_directories: Vec<WritableDirectory>,
}

/// A directory that a server writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!self.path.contains('..') && !self.path.matches('^/(model|dev|proc|sys)(/|$)')")
        .message("path must not contain '..', nor be in /model, /dev, /proc or /sys")
        .field_path(".path"),
)]
pub struct WritableDirectory {
    /// Its path.
    #[schemars(length(max = 256), regex(pattern = r"^(/[A-Za-z0-9._-]+)+$"))]
    pub path: String,
    /// The most that it may hold; the pod requests so much of the node's disk. Absent: 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Amount>,
}

/// An inference server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum EngineType {
    /// vLLM.
    VLLM,
    /// `SGLang`.
    SGLang,
    /// llama.cpp's server.
    LlamaCpp,
    /// Any server with the API of `OpenAI`, by an image and arguments of your own.
    Custom,
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
    /// 8-bit floating point (vLLM, `SGLang`): four bits of exponent.
    FP8,
    /// 8-bit floating point with five bits of exponent (`SGLang`).
    FP8_E5M2,
    /// 16-bit floating point (llama.cpp).
    F16,
    /// 8 bits in blocks (llama.cpp).
    Q8_0,
    /// 4 bits in blocks (llama.cpp).
    Q4_0,
}
