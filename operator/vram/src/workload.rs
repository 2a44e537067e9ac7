//! What is asked of the model: the engine, the context, the concurrency.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The inference server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Engine {
    /// vLLM: safetensors, tensor parallel.
    Vllm,
    /// llama.cpp's server: GGUF, layers spread over the GPUs.
    LlamaCpp,
}

/// For people: the engine's own spelling.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vllm => "vLLM",
            Self::LlamaCpp => "llama.cpp",
        })
    }
}

/// How keys and values are stored in the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum KvDtype {
    /// What the engine takes by itself: 16 bits (32 for weights in fp32).
    #[default]
    Auto,
    /// 8-bit floats (vLLM).
    Fp8,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8-bit integers with a 16-bit scale for 32 (llama.cpp).
    Q8_0,
    /// 4-bit integers with a 16-bit scale for 32 (llama.cpp).
    Q4_0,
}

impl KvDtype {
    /// Half bits that one element takes: the block formats take 8.5 and 4.5 bits.
    pub(crate) const fn half_bits(self) -> u64 {
        match self {
            Self::Auto | Self::F16 | Self::Bf16 => 32,
            Self::Fp8 => 16,
            Self::Q8_0 => 17,
            Self::Q4_0 => 9,
        }
    }
}

/// What one replica has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The engine that serves the model.
    pub engine: Engine,
    /// Tokens of the longest sequence, prompt and answer together.
    pub context_length: u32,
    /// Sequences of that length that the KV cache must hold at once.
    pub max_concurrency: u32,
    /// How the KV cache is stored.
    pub kv_dtype: KvDtype,
    /// Sequences that the engine runs in one step (vLLM's `--max-num-seqs`): a cap of the engine's,
    /// not a floor for the cache, and what the sampler's memory depends on.
    pub max_num_seqs: u32,
    /// Tokens that the engine runs in one step (vLLM's `--max-num-batched-tokens`).
    pub max_num_batched_tokens: u32,
    /// Whether the engine captures graphs (vLLM without `--enforce-eager`).
    pub cuda_graphs: bool,
}

impl Workload {
    /// A workload with the defaults that Berth renders: 256 sequences and 8,192 tokens a step,
    /// graphs on, the engine's own KV cache type.
    pub fn new(engine: Engine, context_length: u32, max_concurrency: u32) -> Self {
        Self {
            engine,
            context_length,
            max_concurrency,
            kv_dtype: KvDtype::Auto,
            max_num_seqs: max_concurrency.max(256),
            max_num_batched_tokens: 8192,
            cuda_graphs: true,
        }
    }
}
