//! `spec.model.facts`: the architecture of a model that the catalogue lacks.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts about a model's architecture, as its `config.json` states them (the name there in
/// brackets).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("self.kvHeads <= self.attentionHeads")
        .message("facts.kvHeads must not be larger than facts.attentionHeads"),
    validation = kube::core::Rule::new("has(self.intermediateSize) || has(self.moe) || has(self.parameters) || has(self.weightBytes)")
        .message("facts need one of intermediateSize, moe, parameters or weightBytes: the size of the weights cannot be known otherwise"),
    validation = kube::core::Rule::new("!has(self.slidingWindow) || self.slidingWindow.layers <= self.layers")
        .message("facts.slidingWindow.layers must not be larger than facts.layers"),
    validation = kube::core::Rule::new("!has(self.recurrent) || self.recurrent.attentionLayers <= self.layers")
        .message("facts.recurrent.attentionLayers must not be larger than facts.layers"),
)]
pub struct Facts {
    /// Weights in the model, in all. Absent: counted from the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000_000_i64, max = 100_000_000_000_000_i64))]
    pub parameters: Option<i64>,

    /// Size of all weight files in bytes. It overrides what would be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000_000_i64, max = 100_000_000_000_000_i64))]
    pub weight_bytes: Option<i64>,

    /// Layers (`num_hidden_layers`).
    #[schemars(range(min = 1, max = 1000))]
    pub layers: i32,

    /// Width of the hidden state (`hidden_size`).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub hidden_size: i32,

    /// Width of the dense feed-forward layers (`intermediate_size`). Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub intermediate_size: Option<i32>,

    /// Attention heads (`num_attention_heads`).
    #[schemars(range(min = 1, max = 10_000))]
    pub attention_heads: i32,

    /// Key-value heads (`num_key_value_heads`); fewer than the attention heads with GQA, 1 with
    /// MQA.
    #[schemars(range(min = 1, max = 10_000))]
    pub kv_heads: i32,

    /// Width of a head (`head_dim`). Absent: `hiddenSize / attentionHeads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub head_dim: Option<i32>,

    /// Tokens in the vocabulary (`vocab_size`).
    #[schemars(range(min = 1, max = 10_000_000))]
    pub vocab_size: i32,

    /// The longest context in tokens (`max_position_embeddings`).
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_context: i32,

    /// Whether input and output embeddings are one tensor (`tie_word_embeddings`).
    #[serde(default)]
    pub tied_embeddings: bool,

    /// Set for multi-head latent attention (DeepSeek V2, V3 and R1, Kimi).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mla: Option<MultiHeadLatentAttention>,

    /// Set for a mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MixtureOfExperts>,

    /// Set where some layers attend to a window only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<SlidingWindow>,

    /// Set where some layers keep a state of fixed size in place of a KV cache (Mamba, DeltaNet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent: Option<Recurrent>,

    /// How the weights are stored.
    #[serde(default)]
    pub quantization: Quantization,

    /// Group size and bits of the quantisation, for `AWQ` and `GPTQ`. Absent: 4 bits in groups
    /// of 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grouped: Option<GroupedBits>,
}

/// Multi-head latent attention, by its names in `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MultiHeadLatentAttention {
    /// `kv_lora_rank`.
    #[schemars(range(min = 1, max = 100_000))]
    pub kv_lora_rank: i32,
    /// `qk_rope_head_dim`.
    #[schemars(range(min = 1, max = 100_000))]
    pub qk_rope_head_dim: i32,
    /// `qk_nope_head_dim`.
    #[schemars(range(min = 1, max = 100_000))]
    pub qk_nope_head_dim: i32,
    /// `v_head_dim`.
    #[schemars(range(min = 1, max = 100_000))]
    pub v_head_dim: i32,
    /// `q_lora_rank`; absent where queries are not compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub q_lora_rank: Option<i32>,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MixtureOfExperts {
    /// Routed experts in a layer (`num_experts`, `num_local_experts`, `n_routed_experts`).
    #[schemars(range(min = 1, max = 100_000))]
    pub experts: i32,
    /// Experts that a token passes (`num_experts_per_tok`).
    #[schemars(range(min = 1, max = 100_000))]
    pub experts_per_token: i32,
    /// Width of one expert (`moe_intermediate_size`).
    #[schemars(range(min = 1, max = 10_000_000))]
    pub expert_intermediate_size: i32,
    /// Shared experts in a layer (`n_shared_experts`).
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub shared_experts: i32,
    /// First layers that are dense (`first_k_dense_replace`).
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub dense_layers: i32,
}

/// Layers that attend to a window only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlidingWindow {
    /// Width of the window in tokens (`sliding_window`).
    #[schemars(range(min = 1, max = 100_000_000))]
    pub tokens: i32,
    /// How many of the layers have it.
    #[schemars(range(min = 1, max = 1000))]
    pub layers: i32,
}

/// Layers with a state of fixed size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recurrent {
    /// How many layers have attention, and so a KV cache.
    #[schemars(range(min = 0, max = 1000))]
    pub attention_layers: i32,
    /// Bytes of state that one sequence keeps in all recurrent layers together.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub state_bytes_per_sequence: i64,
}

/// Bits and groups of a group-quantised checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupedBits {
    /// Bits of a weight (`bits`).
    #[schemars(range(min = 2, max = 8))]
    pub bits: i32,
    /// Weights that share a scale (`group_size`).
    #[schemars(range(min = 1, max = 100_000))]
    pub group_size: i32,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantization {
    /// 16 bits: bfloat16 or float16.
    #[default]
    None,
    /// 8-bit floating point.
    FP8,
    /// 8-bit integers (w8a8).
    INT8,
    /// AWQ.
    AWQ,
    /// GPTQ.
    GPTQ,
    /// 4-bit microscaling floats, experts only (gpt-oss).
    MXFP4,
    /// NVIDIA's 4-bit floats.
    NVFP4,
    /// GGUF; the type of its tensors follows from the name in `model.files`.
    GGUF,
}
