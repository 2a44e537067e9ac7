//! What is asked of the model: the engine, the context, the concurrency, and how sure one wants to be.

use std::fmt;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Risk, Vendor};

/// The inference server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Engine {
    /// vLLM: safetensors, tensor parallel.
    Vllm,
    /// `SGLang`: safetensors, tensor parallel.
    Sglang,
    /// llama.cpp's server: GGUF, layers spread over the GPUs.
    LlamaCpp,
    /// Any other server: weights of any kind, and nothing known of what it takes beside them.
    Custom,
}

/// For people: the engine's own spelling.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::LlamaCpp => "llama.cpp",
            Self::Custom => "a custom engine",
        })
    }
}

/// The version of an engine, as far as memory depends on it: what stands behind the second point
/// never mattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl Version {
    /// A version by its numbers.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The version that a tag or a log states: the first two numbers with a point between them.
    /// `v0.33.0`, `0.18.0+rhaiv.7` and `v0.19.0-cu129` are read, `latest` is not.
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        words.filter(|word| !word.is_empty()).find_map(|word| {
            let mut numbers = word.split('.');
            let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            Some(Self { major, minor })
        })
    }
}

/// For people: `0.33`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
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
    /// 8-bit floats (vLLM); packed with scales where a kernel wants it so.
    Fp8,
    /// 8-bit floats and nothing else, whatever the kernel (`DeepSeek`-V3.2 on Blackwell).
    Fp8E4m3,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8-bit integers with a 16-bit scale for 32 (llama.cpp).
    Q8_0,
    /// 4-bit integers with a 16-bit scale for 32 (llama.cpp; its `iq4_nl` takes as much).
    Q4_0,
    /// The same with a 16-bit offset.
    Q4_1,
    /// 5-bit integers with a 16-bit scale for 32 (llama.cpp).
    Q5_0,
    /// The same with a 16-bit offset.
    Q5_1,
    /// 32-bit floats (llama.cpp).
    F32,
}

impl KvDtype {
    /// Whether it stores blocks of small integers with a scale.
    pub(crate) const fn is_block(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1)
    }

    /// Whether only llama.cpp has it.
    pub(crate) const fn is_llama_cpp(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::F32)
    }

    /// Half bits that one element takes: a block format takes half a bit for its scale, and another
    /// for its offset.
    pub(crate) const fn half_bits(self) -> u64 {
        match self {
            Self::Auto | Self::F16 | Self::Bf16 => 32,
            Self::Fp8 | Self::Fp8E4m3 => 16,
            Self::Q8_0 => 17,
            Self::Q4_0 => 9,
            Self::Q4_1 => 10,
            Self::Q5_0 => 11,
            Self::Q5_1 => 12,
            Self::F32 => 64,
        }
    }
}

/// What one replica has to hold, and what holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The engine that serves the model.
    pub engine: Engine,
    /// The engine's version; absent = the one that Berth renders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Who made the GPUs.
    #[serde(default)]
    pub vendor: Vendor,
    /// The memory of one GPU, where it is known: `SGLang` keeps more of a large one for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Bytes>,
    /// Tokens of the longest sequence, prompt and answer together.
    pub context_length: u32,
    /// Sequences of that length that the KV cache must hold at once.
    pub max_concurrency: u32,
    /// How the KV cache is stored.
    pub kv_dtype: KvDtype,
    /// How its values are stored, where that differs from the keys (llama.cpp's `--cache-type-v`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_dtype: Option<KvDtype>,
    /// Sequences that the engine runs in one step (vLLM's `--max-num-seqs`): a cap of the engine's,
    /// not a floor for the cache, and what the sampler's memory depends on.
    pub max_num_seqs: u32,
    /// Tokens that the engine runs in one step (vLLM's `--max-num-batched-tokens`, `SGLang`'s
    /// `--chunked-prefill-size`).
    pub max_num_batched_tokens: u32,
    /// Whether the engine captures graphs (vLLM without `--enforce-eager`).
    pub cuda_graphs: bool,
    /// Tokens of one step of llama.cpp (`--ubatch-size`).
    #[serde(default = "ubatch")]
    pub ubatch: u32,
    /// Whether llama.cpp's attention is fused (`--flash-attn`, on by itself wherever it can be).
    #[serde(default = "yes")]
    pub flash_attention: bool,
    /// How often the memory may turn out to be too little: what the margin is made for.
    #[serde(default)]
    pub risk: Risk,
}

const fn ubatch() -> u32 {
    512
}

const fn yes() -> bool {
    true
}

impl Workload {
    /// A workload with the defaults that Berth renders: 256 sequences and 8,192 tokens a step,
    /// graphs on, the engine's own KV cache type, on NVIDIA.
    pub fn new(engine: Engine, context_length: u32, max_concurrency: u32) -> Self {
        Self {
            engine,
            version: None,
            vendor: Vendor::Nvidia,
            gpu_memory: None,
            context_length,
            max_concurrency,
            kv_dtype: KvDtype::Auto,
            value_dtype: None,
            max_num_seqs: max_concurrency.max(256),
            max_num_batched_tokens: 8192,
            cuda_graphs: true,
            ubatch: ubatch(),
            flash_attention: true,
            risk: Risk::DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_tags_and_logs() {
        for (text, version) in [
            ("v0.33.0", Some(Version::new(0, 33))),
            ("0.18.0+rhaiv.7", Some(Version::new(0, 18))),
            ("V0 ~0.6.4", Some(Version::new(0, 6))),
            ("v0.13.1.dev8+g2841a84ac", Some(Version::new(0, 13))),
            ("0.11.x", Some(Version::new(0, 11))),
            ("latest", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version::new(0, 9) < Version::new(0, 11));
    }
}
