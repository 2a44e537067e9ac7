//! The frozen choices of a revision.

use std::collections::BTreeMap;

use berth_crds::llm_deployment::{
    EngineType, EnvVar, KvCacheDtype, PullPolicy, Toleration, Vendor,
};
use berth_units::{Bytes, MilliCpu};
use berth_vram::{Breakdown, Version};
use serde::{Deserialize, Serialize};

use crate::{CachedModel, resources};

/// All that the pods of one revision have in common, resolved and frozen. Kept as JSON in a
/// `ControllerRevision`, so every field added later needs a serde default that renders the same
/// pods as before, and is left out where it has that default: the hash of an old template stays.
///
/// Node, replica count and the fraction of VRAM are not in here: they are no part of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Where the model's files are.
    pub source: ModelSource,
    /// Secret with the source's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_secret: Option<String>,
    /// The name that clients put into the request's `model`.
    pub served_name: String,
    /// Whether the engine may run code that comes with the model.
    #[serde(default)]
    pub trust_remote_code: bool,
    /// The engine.
    pub engine: EngineTemplate,
    /// Vendor of the GPUs.
    pub vendor: Vendor,
    /// Products that will do. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,
    /// GPUs of one replica.
    pub gpus: u32,
    /// GPUs that share every layer.
    pub tensor: u32,
    /// The longest context in tokens.
    pub context_length: u32,
    /// Requests of full context length that the KV cache holds at least.
    pub max_concurrency: u32,
    /// Size of all weights in bytes.
    pub weight_bytes: Bytes,
    /// What one GPU must hold.
    pub estimate: Estimate,
    /// The same on products where an engine told of it, as nodes' labels name them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, Estimate>,
    /// CPU, memory and storage.
    pub resources: Resources,
    /// How long the engine may take until it answers.
    pub startup_timeout_seconds: u32,
    /// How long a pod may go on with its requests when it is stopped.
    pub shutdown_grace_seconds: u32,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep replicas away, as the user gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the pods.
    pub priority_class: String,
    /// Runtime class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// Secrets for image registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Labels that the user adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations that the user adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
}

impl Template {
    /// What one GPU of that product must hold.
    pub fn estimate_on(&self, product: &str) -> &Estimate {
        self.measured.get(product).unwrap_or(&self.estimate)
    }

    /// What one pod takes where the model is in the node's cache, or in the pod's own volume: only
    /// then the pod needs disk for it.
    pub fn resources_with(&self, cache: Option<&CachedModel>) -> Resources {
        let room = resources::room(&self.engine);
        let own = self.resources.ephemeral_storage;
        let ephemeral_storage = if cache.is_some() { own.min(room) } else { own };
        Resources { ephemeral_storage, ..self.resources }
    }
}

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum ModelSource {
    /// The Hugging Face hub.
    Hub {
        /// `ORG/NAME`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// One file of many, by name or pattern.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
    /// An OCI artifact, mounted as an image volume.
    Oci {
        /// `REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
        reference: String,
        /// One file of many, by name or pattern.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
    /// An S3 bucket.
    S3 {
        /// Bucket.
        bucket: String,
        /// Key prefix, without a slash at either end.
        prefix: String,
        /// One file of many, by name or pattern.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
    /// A model that the administrator put onto nodes.
    Cache {
        /// Its name: the folder in the caches, and the label of the nodes that have it.
        name: String,
        /// Path in it, without a slash at either end; empty for its root.
        path: String,
        /// One file of many, by name or pattern.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
    /// A `PersistentVolumeClaim` of the same namespace.
    Pvc {
        /// Name of the claim.
        claim: String,
        /// Path in it, without a slash at either end; empty for its root.
        path: String,
        /// One file of many, by name or pattern.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
}

impl ModelSource {
    /// Whether it names the same files for ever: a commit of the hub, or a digest. A branch moves, and
    /// what lies in a bucket, a volume or a cache may be replaced.
    pub fn is_fixed(&self) -> bool {
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self {
            Self::Hub { revision, .. } => revision.len() == 40 && is_hex(revision),
            Self::Oci { reference, .. } => reference
                .split_once("@sha256:")
                .is_some_and(|(_, digest)| digest.len() == 64 && is_hex(digest)),
            Self::S3 { .. } | Self::Cache { .. } | Self::Pvc { .. } => false,
        }
    }
}

/// The engine of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineTemplate {
    /// Which engine.
    #[serde(rename = "type")]
    pub type_: EngineType,
    /// Its image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: PullPolicy,
    /// The user's arguments, after Berth's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The user's environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// How keys and values are stored.
    pub kv_cache_dtype: KvCacheDtype,
    /// Sequences in one batch (vLLM's `--max-num-seqs`).
    pub max_num_seqs: u32,
    /// Tokens in one batch (vLLM's `--max-num-batched-tokens`).
    pub max_num_batched_tokens: u32,
    /// The version that memory is counted for, as the image's tag states it. Absent for engines that
    /// are told no part of the memory, and in revisions of a Berth that told every vLLM 0.95: they
    /// go on so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// What Berth does not know of a custom engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomServer>,
}

/// What the user says of a custom engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomServer {
    /// In place of the image's entrypoint; empty: that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Where it answers.
    pub port: u16,
    /// HTTP path that answers 200 once requests are served.
    pub health_path: String,
    /// Its user and group.
    pub user: i64,
    /// Directories that it writes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<OwnDirectory>,
}

/// A directory that a custom engine writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnDirectory {
    /// Its path.
    pub path: String,
    /// The most that it may hold.
    pub size: Bytes,
}

/// What one GPU must hold, in bytes; the parts are those of the estimator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Weights.
    pub weights: Bytes,
    /// KV cache.
    pub kv_cache: Bytes,
    /// Activations at their peak.
    pub activation: Bytes,
    /// Context and communication buffers.
    pub non_torch: Bytes,
    /// CUDA graphs.
    pub graphs: Bytes,
    /// Margin for the error of the estimate.
    pub margin: Bytes,
    /// What one GPU must have: the sum, or the user's own figure.
    pub total: Bytes,
    /// KV cache that one token takes.
    pub kv_bytes_per_token: Bytes,
    /// What the estimate rests on.
    pub basis: String,
}

impl Estimate {
    /// Its parts.
    pub fn parts(&self) -> Breakdown {
        let Self { weights, kv_cache, activation, non_torch, graphs, margin, .. } = *self;
        Breakdown { weights, kv_cache, activation, non_torch, graphs, margin }
    }
}

/// CPU, memory and storage of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// CPU.
    pub cpu: MilliCpu,
    /// Main memory, shared memory included.
    pub memory: Bytes,
    /// Size of `/dev/shm`.
    pub shared_memory: Bytes,
    /// Disk on the node.
    pub ephemeral_storage: Bytes,
}
