//! `status`: what became of a deployment.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EngineType, KvCacheDtype, Vendor};

/// What became of a deployment. Written by Berth only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LLMDeploymentStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Progressing`, `Degraded`, `Placed`, and, while they hold, `Reconciling` and
    /// `Stalled`. The page on conditions lists every reason and its remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Replicas that exist, of any revision.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that exist, of the newest revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Replicas whose engine answers.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Replicas of the newest revision whose engine answers.
    #[serde(default)]
    pub available_replicas: i32,
    /// `readyReplicas / replicas wanted`, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Label selector of the pods that stand for replicas (rank 0), for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The model as Berth understood it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSummary>,
    /// What Berth chose, where the spec leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// The VRAM that one GPU of a replica needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<EstimateStatus>,
    /// What the engine of the newest revision takes by its own log, on the fullest GPU of its first
    /// replica that answers. Written once for each revision, and again where it moves by more than
    /// 5 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredStatus>,

    /// GPUs claimed by all replicas.
    #[serde(default)]
    pub gpus: i32,
    /// VRAM claimed by all replicas, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram: Option<String>,
    /// Where each replica is; the first 100 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"]))]
    pub placements: Vec<ReplicaPlacement>,
    /// Set while replicas wait for GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostStatus>,
    /// Tokens served, by the engines' own counters. Live figures are metrics; this follows at most
    /// once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,
    /// Where clients inside the cluster reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The model as Berth understood it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelSummary {
    /// The name that clients put into the request's `model`.
    pub name: String,
    /// Weights in the model, in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<i64>,
    /// Size of the weights in bytes.
    pub weight_bytes: i64,
    /// Where the facts come from: `Manifest`; `Inspected`, read from the model's own files; or else
    /// the catalogue's source.
    pub facts: String,
    /// The commit of the hub that is served, where Berth chose it: a branch stands for it until the
    /// next edit of `spec.model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Licence, where the hub or the catalogue names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// What Berth chose. Frozen in the revision, so that an upgrade of Berth changes nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Name of the newest ControllerRevision.
    pub revision: String,
    /// Engine.
    pub engine: EngineType,
    /// Image of the engine.
    pub image: String,
    /// Vendor of the GPUs.
    pub vendor: Vendor,
    /// GPUs of one replica.
    pub gpus: i32,
    /// GPUs that share every layer.
    pub tensor_parallelism: i32,
    /// The longest context in tokens.
    pub context_length: i32,
    /// Requests of full context length that the KV cache holds at least.
    pub max_concurrency: i32,
    /// How keys and values are stored.
    pub kv_cache_dtype: KvCacheDtype,
    /// How long the engine may take until it answers, in seconds.
    pub startup_timeout_seconds: i32,
    /// CPU, memory and storage of one replica.
    pub resources: ResolvedResources,
}

/// CPU, memory and storage of one replica, as quantities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedResources {
    /// CPU.
    pub cpu: String,
    /// Main memory, shared memory included.
    pub memory: String,
    /// Size of `/dev/shm`.
    pub shared_memory: String,
    /// Disk on the node.
    pub ephemeral_storage: String,
}

/// The VRAM that one GPU of a replica needs, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimateStatus {
    /// Weights.
    pub weights: i64,
    /// KV cache for `contextLength × maxConcurrency` tokens.
    pub kv_cache: i64,
    /// Activations at their peak.
    pub activation: i64,
    /// CUDA or ROCm context and communication buffers.
    pub non_torch: i64,
    /// CUDA graphs.
    pub graphs: i64,
    /// Margin for the error of the estimate.
    pub margin: i64,
    /// The sum.
    pub total: i64,
    /// KV cache that one token takes.
    pub kv_bytes_per_token: i64,
    /// What the estimate rests on.
    pub basis: String,
    /// The product that it holds for, where an engine told what it takes there; else it is for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The sum and its parts, for people.
    pub summary: String,
}

/// What an engine takes by its own log, in bytes: on its fullest GPU, or in the host's memory where
/// it serves from the CPU. A part that the engine does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredStatus {
    /// The pod whose engine said so.
    pub pod: String,
    /// The revision that the pod was rendered from.
    pub revision: String,
    /// Weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<i64>,
    /// The KV cache that the engine made. vLLM takes all that is left for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<i64>,
    /// Activations and other buffers of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<i64>,
    /// Tokens that the KV cache holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<i64>,
    /// What one GPU needs by these: they take the place of the estimate's parts, the KV cache as
    /// far as `contextLength × maxConcurrency` tokens need it. Without a margin. Absent where not
    /// all of the model is on GPUs, which says nothing of their memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<i64>,
    /// How much more (`+3 %`) or less (`-3 %`) that is than the estimate without its margin, for
    /// people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaPlacement {
    /// The replica, counted from 0.
    pub replica: i32,
    /// Its pod.
    pub pod: String,
    /// The attempt at this replica that the pod is.
    pub attempt: i32,
    /// The revision that the pod was rendered from.
    pub revision: String,
    /// The node that was picked.
    pub node: String,
    /// Product of the node's GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// GPUs claimed.
    pub gpus: i32,
    /// Bytes claimed on each GPU.
    pub bytes_per_gpu: i64,
    /// How far it is.
    pub phase: ReplicaPhase,
    /// Why it is not further, how far its download is, or what is odd about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What its engine really runs on, by the engine's own log; absent where that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorStatus>,
}

/// What an engine really runs on, by its own log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorStatus {
    /// `CPU`; `GPU`, where the engine does not say which; or its own names of its GPUs, such as
    /// `CUDA0` or `CUDA0, CUDA1`.
    pub device: String,
    /// Layers of the model that are on its GPUs, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<i32>,
    /// Layers of the model in all. The output counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_layers: Option<i32>,
    /// How often the engine was started anew in this pod before it said so.
    #[serde(default)]
    pub restarts: i32,
}

/// How far a replica is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ReplicaPhase {
    /// Placed; the scheduler has not bound the pod yet.
    Pending,
    /// Bound; images are pulled, or the model is downloaded or loading.
    Loading,
    /// The engine answers.
    Ready,
    /// The engine does not answer any more, or its container fails.
    Failing,
    /// The pod is being deleted.
    Terminating,
}

/// A deployment's place in the queue for GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// 1 is the head of the queue. Exact for the first 10; later ones are rounded up to tens, and
    /// from 100 on to hundreds.
    pub position: i32,
    /// Replicas that wait.
    pub replicas: i32,
    /// Since when.
    pub since: Time,
    /// What they wait for.
    pub waiting_for: String,
    /// Edits of the manifest, each of which would have a replica placed by now, the least loss first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub would_fit: Vec<WouldFit>,
}

/// Fields of a manifest that, set so together, would have a replica placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WouldFit {
    /// The fields.
    #[schemars(length(max = 8))]
    pub set: Vec<FieldValue>,
}

/// One field of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldValue {
    /// Its path, such as `spec.gpu.count`.
    pub field: String,
    /// What to put there, as it stands in YAML; `null` takes the field out.
    pub value: String,
}

/// `spec.gpu.count: 2`.
impl std::fmt::Display for FieldValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.value)
    }
}

/// What a deployment costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostStatus {
    /// Per hour, with its currency, such as `12.34 EUR`.
    pub hourly: String,
    /// Whether every GPU of the deployment has a price.
    pub complete: bool,
}

/// Tokens that a deployment served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatus {
    /// Since when they are counted.
    pub since: Time,
    /// When they were written down.
    pub at: Time,
    /// Tokens of prompts.
    pub prompt_tokens: i64,
    /// Tokens generated.
    pub generated_tokens: i64,
    /// Tokens generated a second, all replicas together.
    pub tokens_per_second: String,
    /// What a million tokens (prompts and generated) cost since the operator began to lead, with
    /// the currency. Absent without tokens or without prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_million_tokens: Option<String>,
    /// What requests waited for their first token, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_tokens: Option<FirstTokenUsage>,
    /// The counters of each pod at the last look: an engine counts from its own start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub pods: Vec<PodUsage>,
}

/// The counters of a pod at the last look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodUsage {
    /// UID of the pod.
    pub uid: String,
    /// Tokens of prompts.
    pub prompt_tokens: i64,
    /// Tokens generated.
    pub generated_tokens: i64,
    /// What requests waited for their first token, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_tokens: Option<FirstTokenUsage>,
    /// How often the engine was started anew in this pod before these were counted.
    #[serde(default)]
    pub restarts: i32,
}

/// How long requests waited for their first token, added up: their mean is the one divided by the
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirstTokenUsage {
    /// Milliseconds, all requests together.
    pub milliseconds: i64,
    /// Requests that got a first token.
    pub requests: i64,
}
