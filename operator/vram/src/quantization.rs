//! How weights are stored, and how many bytes one of them takes.
//!
//! Quantised checkpoints keep the embeddings, the output layer, the norms and the routers in
//! 16 bits: Llama-3.1-8B loads 14.99 GiB in bf16, 8.49 in fp8 and w8a8, 5.38 in w4a16.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::GgufType;

/// How a checkpoint stores its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Quantization {
    /// Not quantised: bf16 or fp16.
    #[default]
    None,
    /// Not even cut to 16 bits.
    Fp32,
    /// 8-bit floats with one scale a tensor or channel.
    Fp8,
    /// 8-bit floats with one scale for each block of 128 × 128, as `DeepSeek` and Qwen publish
    /// them.
    Fp8Block,
    /// 8-bit integers (w8a8, w8a16).
    Int8,
    /// AWQ: integers of `bits` bits, a scale and a zero point for each group.
    Awq {
        /// Bits a weight, usually 4.
        bits: u8,
        /// Weights that share a scale, usually 128.
        group_size: u32,
    },
    /// GPTQ and w4a16: integers of `bits` bits, a scale and a zero point for each group.
    Gptq {
        /// Bits a weight, usually 4.
        bits: u8,
        /// Weights that share a scale, usually 128.
        group_size: u32,
    },
    /// 4-bit floats with one 8-bit scale for 32 weights; only the experts, as gpt-oss has it.
    Mxfp4,
    /// 4-bit floats with one 8-bit scale for 16 weights.
    Nvfp4,
    /// bitsandbytes' 4 bits with one 32-bit scale for 64 weights.
    Bnb4,
    /// A GGUF file of this type, for llama.cpp.
    Gguf(GgufType),
}

/// Bits of a weight that is not quantised.
pub(crate) const PLAIN_BITS: f64 = 16.0;

impl Quantization {
    /// Bits a quantised weight takes, scales and zero points included.
    pub fn bits(self) -> f64 {
        match self {
            Self::None => PLAIN_BITS,
            Self::Fp32 => 32.0,
            Self::Fp8 | Self::Int8 => 8.0,
            // An fp32 scale for 128 × 128 weights.
            Self::Fp8Block => 8.0 + 32.0 / (128.0 * 128.0),
            // An fp16 scale and a zero point of `bits` bits for a group.
            Self::Awq { bits, group_size } | Self::Gptq { bits, group_size } => {
                f64::from(bits) + (16.0 + f64::from(bits)) / f64::from(group_size.max(1))
            }
            Self::Mxfp4 => 4.0 + 8.0 / 32.0,
            // An 8-bit scale for 16, an fp32 scale for 64.
            Self::Nvfp4 | Self::Bnb4 => 4.0 + 0.5,
            Self::Gguf(kind) => kind.layer_bits(),
        }
    }

    /// Bits a weight outside of the experts takes: MXFP4 of a mixture of experts leaves the rest
    /// alone (safetensors), or stores it as `Q8_0` (GGUF).
    pub(crate) fn dense_bits(self, has_experts: bool) -> f64 {
        match self {
            Self::Mxfp4 if has_experts => PLAIN_BITS,
            Self::Gguf(GgufType::Mxfp4) if has_experts => GgufType::Q8_0.layer_bits(),
            _ => self.bits(),
        }
    }

    /// Bits a weight of the embedding table takes.
    pub(crate) fn embedding_bits(self, tied: bool) -> f64 {
        match self {
            Self::Fp32 => 32.0,
            // A shared table is also the output layer, and stored like one.
            Self::Gguf(kind) if tied => kind.output_bits(),
            Self::Gguf(kind) => kind.base_bits(),
            _ => PLAIN_BITS,
        }
    }

    /// Bits a weight of the output layer takes.
    pub(crate) fn output_bits(self) -> f64 {
        match self {
            Self::Fp32 => 32.0,
            Self::Gguf(kind) => kind.output_bits(),
            _ => PLAIN_BITS,
        }
    }

    /// Bits a norm or router weight takes: GGUF keeps them in 32 bits.
    pub(crate) fn other_bits(self) -> f64 {
        match self {
            Self::Fp32 | Self::Gguf(_) => 32.0,
            _ => PLAIN_BITS,
        }
    }

    /// The number of rows or columns that a tensor-parallel share must be a multiple of.
    pub(crate) fn group(self) -> u32 {
        match self {
            Self::Fp8Block => 128,
            Self::Awq { group_size, .. } | Self::Gptq { group_size, .. } => group_size.max(1),
            Self::Nvfp4 => 16,
            _ => 1,
        }
    }
}

/// For people: `bf16`, `fp8`, `AWQ 4-bit`, `GGUF Q4_K_M`.
impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("bf16"),
            Self::Fp32 => f.write_str("fp32"),
            Self::Fp8 => f.write_str("fp8"),
            Self::Fp8Block => f.write_str("fp8 in blocks"),
            Self::Int8 => f.write_str("int8"),
            Self::Awq { bits, .. } => write!(f, "AWQ {bits}-bit"),
            Self::Gptq { bits, .. } => write!(f, "GPTQ {bits}-bit"),
            Self::Mxfp4 => f.write_str("MXFP4"),
            Self::Nvfp4 => f.write_str("NVFP4"),
            Self::Bnb4 => f.write_str("bitsandbytes 4-bit"),
            Self::Gguf(kind) => write!(f, "GGUF {kind}"),
        }
    }
}
