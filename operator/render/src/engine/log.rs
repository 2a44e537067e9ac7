//! What engines say of themselves while they start, read from the beginning of their logs. Pure.
//!
//! Logs are for people and change with every version, so a reader takes only what is sure, and
//! answers `None` for all else.

pub(super) mod llama_cpp;
pub(super) mod sglang;
pub(super) mod vllm;

use berth_units::Bytes;

/// How much of a log is read, from its beginning. llama.cpp has said all in 12 KiB; vLLM says more,
/// its whole configuration among it.
pub const MOST_BYTES: u32 = 256 << 10;

/// What an engine said of itself while it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// What it really runs on.
    pub accelerator: Option<Accelerator>,
    /// What it takes there; `None` where nothing of it is told.
    pub measured: Option<Measured>,
}

/// What an engine really runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// [`CPU`], [`GPU`], or the engine's own names of its GPUs, such as `CUDA0, CUDA1`.
    pub device: String,
    /// How much of the model is there, where the engine tells.
    pub layers: Option<Layers>,
}

/// Layers of a model. The output counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// On the GPUs.
    pub on_gpu: u32,
    /// In all.
    pub of: u32,
}

/// The memory that an engine says it takes: on the fullest of its GPUs, or in the host's memory
/// where it serves from the CPU. Each part is `None` where the engine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Weights.
    pub weights: Option<Bytes>,
    /// The KV cache as it was made, which may hold more than was asked for; states of recurrent
    /// layers included.
    pub kv_cache: Option<Bytes>,
    /// Buffers of a step: activations.
    pub compute: Option<Bytes>,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Option<u64>,
}

impl Measured {
    /// `None` where nothing is told.
    fn told(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// The device of an engine that has no GPU.
pub const CPU: &str = "CPU";

/// The device of an engine that has GPUs and does not say which.
pub const GPU: &str = "GPU";

/// The text between two others in a line.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    Some(rest.split_once(after)?.0)
}
