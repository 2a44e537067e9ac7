//! What has to be known about a model: the numbers of its `config.json`, under Berth's names.

use serde::{Deserialize, Serialize};

use crate::{KvDtype, Quantization, Tensors};

/// The architecture of a model, as far as memory depends on it.
///
/// The names in parentheses are those of a Hugging Face `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelFacts {
    /// All parameters, as published; without it they are counted from the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Layers (`num_hidden_layers`).
    pub layers: u32,
    /// Width of the hidden state (`hidden_size`).
    pub hidden_size: u32,
    /// Width of the dense feed-forward layers (`intermediate_size`); 0 if every layer has experts.
    pub intermediate_size: u32,
    /// Query heads (`num_attention_heads`).
    pub attention_heads: u32,
    /// Key and value heads (`num_key_value_heads`); equal to the query heads without grouping.
    pub kv_heads: u32,
    /// Width of one head (`head_dim`, or `hidden_size / num_attention_heads`).
    pub head_dim: u32,
    /// Size of the vocabulary (`vocab_size`).
    pub vocab_size: u32,
    /// Longest context in tokens (`max_position_embeddings`).
    pub max_context: u32,
    /// Whether input and output share one embedding table (`tie_word_embeddings`).
    #[serde(default)]
    pub tied_embeddings: bool,
    /// Whether the feed-forward layers have a gate: three matrices instead of two. Nearly all do;
    /// GPT-2, Phi-2 and Falcon do not.
    #[serde(default = "yes")]
    pub gated: bool,
    /// Parameters outside the language model's layers that are loaded too (a vision tower and its
    /// projector). Never quantised.
    #[serde(default)]
    pub other_parameters: u64,
    /// Multi-head latent attention, as `DeepSeek` and Kimi have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mla: Option<Mla>,
    /// Mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<Moe>,
    /// Layers that look back over a window only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Layers with a recurrent state instead of a KV cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent: Option<Recurrent>,
    /// How the weights are stored.
    #[serde(default)]
    pub quantization: Quantization,
    /// The checkpoint's exact size in bytes (the sum of its tensors), where known. Goes before
    /// everything that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
    /// Width of a value head (`v_head_dim`), where it differs from that of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_head_dim: Option<u32>,
    /// The heads of the windowed layers, where they differ from those of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_heads: Option<Heads>,
    /// Layers that read the keys and values of an earlier layer and keep none of their own
    /// (`num_kv_shared_layers`): the last ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kv_shared_layers: u32,
    /// Attention to the output of an encoder, which is kept beside the cache of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_attention: Option<CrossAttention>,
    /// What a sparse attention's index adds to the cache of a layer with heads, in bytes a token;
    /// [`Mla`] has its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index_bytes_per_token: u32,
    /// Part of a head that is rotated, where not all of it is; 0 without rotary positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary_dim: Option<u32>,
    /// Positions that the table of rotations is made for, where they are more than `max_context`:
    /// Gemma 3 stretches its own by 8 (`rope_scaling` of type `linear`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary_positions: Option<u32>,
    /// How the checkpoint asks to have the KV cache stored (`kv_cache_scheme`,
    /// `kv_cache_quant_algo`), which vLLM's `auto` follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvDtype>,
    /// The tensors layer by layer, as a reader of files found or counted them. Goes before what the
    /// other fields would count to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Tensors>,
}

/// Key and value heads that differ from a model's others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heads {
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of a key head.
    pub head_dim: u32,
    /// Width of a value head, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_head_dim: Option<u32>,
}

/// Decoder layers that attend to an encoder's output: keys and values of every position of it, once
/// a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CrossAttention {
    /// The layers that do.
    pub layers: u32,
    /// The most positions that the encoder gives (`max_source_positions`: 1,500 for Whisper's 30 s).
    pub tokens: u32,
}

/// Multi-head latent attention: one compressed vector a token and layer instead of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mla {
    /// Width of the compressed vector (`kv_lora_rank`).
    pub kv_lora_rank: u32,
    /// Part of a head that carries the position (`qk_rope_head_dim`).
    pub qk_rope_head_dim: u32,
    /// Part of a head that does not (`qk_nope_head_dim`).
    pub qk_nope_head_dim: u32,
    /// Width of a value head (`v_head_dim`).
    pub v_head_dim: u32,
    /// Width of the compressed query (`q_lora_rank`); absent where queries are not compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q_lora_rank: Option<u32>,
    /// What a sparse attention indexer adds to the cache, in bytes a token and layer: 132 for
    /// `DeepSeek`-V3.2, 0 without one.
    #[serde(default)]
    pub indexer_bytes_per_token: u32,
}

/// Mixture of experts in all layers but the first `dense_layers` (or every so many: only the
/// number matters here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moe {
    /// Routed experts a layer (`num_experts`, `num_local_experts`, `n_routed_experts`).
    pub experts: u32,
    /// Experts that each token goes through (`num_experts_per_tok`).
    pub experts_per_token: u32,
    /// Width of an expert (`moe_intermediate_size`).
    pub expert_intermediate_size: u32,
    /// Experts that every token goes through (`n_shared_experts`).
    #[serde(default)]
    pub shared_experts: u32,
    /// Width of a shared expert, where it differs from that of the routed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_expert_intermediate_size: Option<u32>,
    /// Layers with a dense feed-forward layer instead (`first_k_dense_replace`).
    #[serde(default)]
    pub dense_layers: u32,
}

/// Sliding-window or chunked attention in some of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Tokens a windowed layer looks back over (`sliding_window`, `attention_chunk_size`).
    pub tokens: u32,
    /// How many of the layers are windowed.
    pub windowed_layers: u32,
}

/// Mamba, gated `DeltaNet` and their like, mixed with some layers of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recurrent {
    /// The layers that do have a KV cache.
    pub attention_layers: u32,
    /// Size of the state of all recurrent layers together, in bytes a sequence.
    pub state_bytes_per_sequence: u64,
}

/// No model: the gate that nearly all have, and nothing else. For `..` in literals.
impl Default for ModelFacts {
    fn default() -> Self {
        Self {
            parameters: None,
            layers: 0,
            hidden_size: 0,
            intermediate_size: 0,
            attention_heads: 0,
            kv_heads: 0,
            head_dim: 0,
            vocab_size: 0,
            max_context: 0,
            tied_embeddings: false,
            gated: true,
            other_parameters: 0,
            mla: None,
            moe: None,
            window: None,
            recurrent: None,
            quantization: Quantization::None,
            weight_bytes: None,
            value_head_dim: None,
            window_heads: None,
            kv_shared_layers: 0,
            cross_attention: None,
            index_bytes_per_token: 0,
            rotary_dim: None,
            rotary_positions: None,
            kv_cache: None,
            tensors: None,
        }
    }
}

impl ModelFacts {
    /// The layers that keep keys and values (or MLA's compressed vector) of their own.
    pub(crate) fn kv_layers(&self) -> u32 {
        let attention = self.recurrent.map_or(self.layers, |recurrent| recurrent.attention_layers);
        attention.saturating_sub(self.kv_shared_layers)
    }

    /// Of those, the ones that keep them for a window only.
    pub(crate) fn windowed_layers(&self) -> u32 {
        self.window.map_or(0, |window| window.windowed_layers.min(self.kv_layers()))
    }

    /// The layers with experts.
    pub(crate) fn expert_layers(&self) -> u32 {
        self.moe.map_or(0, |moe| self.layers.saturating_sub(moe.dense_layers))
    }
}

impl Moe {
    /// The width of all shared experts of a layer together.
    pub(crate) fn shared_width(&self) -> u64 {
        let width = self.shared_expert_intermediate_size.unwrap_or(self.expert_intermediate_size);
        u64::from(self.shared_experts) * u64::from(width)
    }
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}
