//! `LLMDeployment`: a model that serves, as someone asks for it, and what became of it.

mod endpoint;
mod engine;
mod facts;
mod gpu;
mod model;
mod placement;
mod pod;
mod status;

pub use endpoint::Endpoint;
pub use engine::{
    Engine, EngineImage, EngineType, EnvSource, EnvVar, KvCacheDtype, PullPolicy, WritableDirectory,
};
pub use facts::{
    Facts, GroupedBits, MixtureOfExperts, MultiHeadLatentAttention, Quantization, Recurrent,
    SlidingWindow,
};
pub use gpu::{Gpu, Parallelism, Vendor};
pub use model::{Model, SecretKey, SecretRef};
pub use placement::{Effect, Operator, Placement, Strategy, Toleration};
pub use pod::{LocalObject, PodTemplate, Resources};
pub use status::{
    AcceleratorStatus, CostStatus, EstimateStatus, FieldValue, FirstTokenUsage,
    LLMDeploymentStatus, MeasuredStatus, ModelSummary, PodUsage, QueueStatus, ReplicaPhase,
    ReplicaPlacement, Resolved, ResolvedResources, UsageStatus, WouldFit,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A large language model served on the GPUs of this cluster. Berth estimates the VRAM that it
/// needs, picks nodes and GPUs, and runs the inference engine there.
///
/// The smallest useful spec is `model: {uri: "hf://Qwen/Qwen2.5-7B-Instruct"}`. Whatever is left
/// out, Berth decides, and says in `status.resolved` what it chose.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "LLMDeployment",
    plural = "llmdeployments",
    singular = "llmdeployment",
    shortname = "llm",
    category = "all",
    category = "berth",
    namespaced,
    status = "LLMDeploymentStatus",
    derive = "PartialEq",
    doc = "A large language model served on the GPUs of this cluster.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.model.name"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.resolved.engine"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Replicas that answer / replicas wanted"),
    printcolumn(name = "GPUs", type_ = "integer", json_path = ".status.gpus", description = "GPUs claimed by all replicas"),
    printcolumn(name = "VRAM", type_ = "string", json_path = ".status.vram", description = "VRAM claimed by all replicas"),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.cost.hourly"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Replica", type_ = "string", priority = 1, json_path = ".status.placements[0].message", description = "Of the first replica: how far its download is, or what is odd about it"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    validation = kube::core::Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be 1 to 40 lower-case letters, digits and '-', and start with a letter: Services and pods are named after it"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.engine) || !has(self.engine.type) || !(self.engine.type in ['VLLM', 'SGLang']) || !self.model.uri.lowerAscii().contains('gguf') && (!has(self.model.files) || !self.model.files.lowerAscii().contains('gguf'))")
        .message("engine.type VLLM and SGLang do not serve GGUF files; use engine.type LlamaCpp or leave it out"),
    validation = kube::core::Rule::new("!has(self.engine) || !has(self.engine.type) || self.engine.type != 'Custom' || !has(self.engine.image) || !has(self.gpu) || !has(self.gpu.vendor) || (self.gpu.vendor == 'NVIDIA' ? has(self.engine.image.nvidia) : has(self.engine.image.amd))")
        .message("engine.type Custom needs an image for gpu.vendor: set engine.image.nvidia or engine.image.amd"),
)]
pub struct LLMDeploymentSpec {
    /// The model to serve and where its files are.
    pub model: Model,

    /// The inference server. Absent: it follows from the model (GGUF files are served by
    /// llama.cpp, everything else by vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,

    /// The GPUs of one replica. Absent: any vendor and product, as many as the estimate needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,

    /// CPU, memory and storage of one replica. Absent: derived from the size of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// How many copies of the model serve.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// True takes all replicas down and frees their GPUs; the object and its history stay.
    #[serde(default)]
    pub suspend: bool,

    /// Where replicas may run.
    #[serde(default)]
    pub placement: Placement,

    /// How clients reach the model inside the cluster.
    #[serde(default)]
    pub endpoint: Endpoint,

    /// Priority class of the pods. It must have `preemptionPolicy: Never`: Berth plans
    /// preemption itself. Absent: `berth-default`, which Berth installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Runtime class of the pods, where GPUs need one (`nvidia` on many bare-metal clusters).
    /// Absent: what the administrator configured for the GPU's vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,

    /// Secrets in this namespace that hold the credentials of image registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalObject>,

    /// What the pods carry besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn one() -> i32 {
    1
}

impl LLMDeployment {
    /// The condition of a type, where status has it.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)
    }

    /// The replicas that shall run: none while suspended.
    pub fn desired_replicas(&self) -> u32 {
        if self.spec.suspend { 0 } else { u32::try_from(self.spec.replicas).unwrap_or(0) }
    }
}
