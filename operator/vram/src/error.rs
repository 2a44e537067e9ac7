//! Why there is no estimate, in words for the person who wrote the manifest.

use crate::{Engine, Quantization};

/// A fact about a model that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model facts: {field} {problem}")]
pub struct InvalidFact {
    /// The field, as a manifest spells it: `kvHeads`, `moe.experts`.
    pub field: &'static str,
    /// What is wrong with it, to be read after the field's name.
    pub problem: String,
}

/// Why a request has no estimate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EstimateError {
    /// The model facts contradict themselves or are out of all proportion.
    #[error(transparent)]
    Facts(#[from] InvalidFact),
    /// The context asked for is longer than the model's.
    #[error(
        "a context of {asked} tokens is more than the model's maximum of {max}; \
         use contextLength {max} or less"
    )]
    ContextTooLong {
        /// Tokens asked for.
        asked: u32,
        /// The model's maximum.
        max: u32,
    },
    /// A size that must be at least one is zero.
    #[error("{field} is 0; use at least 1")]
    Zero {
        /// The field, as a manifest spells it.
        field: &'static str,
    },
    /// No GPU asked for.
    #[error("a replica needs at least 1 GPU, 0 were asked for")]
    NoGpu,
    /// The engine would refuse this tensor-parallel degree.
    #[error("tensor degree {degree} {obstacle}: use {use_instead}")]
    TensorDegree {
        /// The degree asked for.
        degree: u32,
        /// What is in its way.
        obstacle: String,
        /// Degrees that are possible.
        use_instead: String,
    },
    /// More GPUs than layers.
    #[error("{layers} layers cannot be spread over {gpus} GPUs: use {layers} GPUs or fewer")]
    LayerSplit {
        /// GPUs asked for.
        gpus: u32,
        /// Layers of the model.
        layers: u32,
    },
    /// The engine cannot serve weights stored so.
    #[error("{engine} cannot serve {quantization} weights: {advice}")]
    Format {
        /// The engine.
        engine: Engine,
        /// How the weights are stored.
        quantization: Quantization,
        /// What to do.
        advice: &'static str,
    },
    /// The engine cannot store the KV cache so.
    #[error("{engine} has no KV cache type {kv_dtype}: use {use_instead}")]
    KvDtype {
        /// The engine.
        engine: Engine,
        /// The type asked for.
        kv_dtype: String,
        /// Types that are possible.
        use_instead: &'static str,
    },
    /// More memory than any machine has: a fact or the workload is wrong.
    #[error(
        "{what} would need over {limit_tib} TiB on a GPU; check the model facts and the workload"
    )]
    TooLarge {
        /// The part of the estimate.
        what: &'static str,
        /// The limit that it goes beyond.
        limit_tib: u64,
    },
}
