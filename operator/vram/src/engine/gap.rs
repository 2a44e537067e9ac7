//! What an estimate rests on less than on complete logs, and what that costs in margin.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Constant;
use crate::Version;

/// Something that there are no complete logs of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Gap {
    /// vLLM before 0.17: few logs, and of unknown flags.
    Older(Version),
    /// vLLM after 0.20: its code was read, no log.
    Newer(Version),
    /// AMD GPUs: what they took in all is known, not the parts; experts load larger than stored.
    Amd,
    /// Layers with a recurrent state.
    Recurrent,
    /// 4-bit floats, whose kernels differ by GPU.
    FourBitFloats,
    /// More GPUs for a layer than any log has.
    ManyGpus,
    /// `SGLang`: its own rule for what it keeps, and no log.
    Sglang,
    /// llama.cpp on a GPU: its buffers are exact on the CPU; what CUDA takes beside them is not known.
    LlamaCpp,
    /// An engine that is not known at all.
    Custom,
}

impl Gap {
    /// The size of errors that comes on top with it. Where nothing is measured, as much again as
    /// where all is.
    pub(crate) const fn error(self) -> Constant {
        match self {
            Self::Older(_) => Constant::ErrorOlder,
            // Nothing is known of a custom engine: the widest that there is.
            Self::Amd | Self::Custom => Constant::ErrorAmd,
            Self::Recurrent | Self::FourBitFloats | Self::ManyGpus => Constant::ErrorBudgets,
            Self::Newer(_) | Self::Sglang | Self::LlamaCpp => Constant::ErrorFitted,
        }
    }
}

/// For people: what there is none of.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older(version) => write!(f, "few logs of vLLM {version}"),
            Self::Newer(version) => write!(f, "no log of vLLM {version}, 0.20 is the newest"),
            Self::Amd => f.write_str("no complete log on AMD, where graphs take 3 to 9 GiB"),
            Self::Recurrent => f.write_str("no complete log of a model with recurrent layers"),
            Self::FourBitFloats => f.write_str("no complete log of a model with 4-bit floats"),
            Self::ManyGpus => f.write_str("no log on more than 8 GPUs"),
            Self::Sglang => f.write_str("SGLang's own rule, no log"),
            Self::LlamaCpp => f.write_str("no measured memory of llama.cpp on whole GPUs"),
            Self::Custom => f.write_str("a custom engine, of which nothing is known"),
        }
    }
}
