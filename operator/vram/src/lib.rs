//! How much VRAM a model needs on each GPU, and what would fit.
//!
//! Pure: no clock, no network, no Kubernetes. The controller, the command line and the benchmarks
//! all call [`estimate`] with plain values: facts about the model ([`ModelFacts`]), what is asked
//! of it ([`Workload`]), and over how many GPUs it is spread ([`Parallelism`]). Facts come from the
//! manifest, from the model's own files ([`read`]), or from the embedded [`catalogue()`].
//!
//! The answer is a [`Breakdown`] per GPU: weights, KV cache, activation, memory outside the
//! framework's allocator, graphs, and an explicit margin. Each constant is documented where it
//! stands, with where it comes from; [`Basis`] says how good the data behind an answer is.
//!
//! The chapters: [`ModelFacts`] and their check, the readers of configs and of the headers of weight
//! files, parameter counts, weights (per quantisation), KV cache, one file per engine's overheads,
//! the estimate that adds them up with a margin for the [`Risk`] that one takes, the searches
//! ([`max_context`], [`max_concurrency`], [`capacity`], [`tensor_degrees`]) built on it, and the
//! flags with which an engine takes its claim and no more ([`memory_flags`]).

pub mod advise;
mod catalogue;
mod engine;
mod error;
mod estimate;
mod facts;
mod fit;
mod gguf;
mod kv;
mod margin;
mod measured;
mod parallelism;
mod parameters;
mod quantization;
pub mod read;
mod validate;
mod weights;
mod workload;

pub use catalogue::{Catalogue, CatalogueError, Entry, Format, catalogue};
pub use engine::{
    Buffers, Constant, Constants, Gap, MemoryFraction, RENDERED_VLLM, buffers, memory_flags,
};
pub use error::{EstimateError, InvalidFact};
pub use estimate::{
    Basis, Breakdown, Estimate, Vendor, estimate, logged_kv_bytes_per_token, stages, stages_with,
};
pub use facts::{CrossAttention, Heads, Mla, ModelFacts, Moe, Recurrent, Window};
pub use fit::{Capacity, capacity, max_concurrency, max_context};
pub use gguf::GgufType;
pub use kv::kv_cache;
pub use margin::Risk;
pub use measured::{Disbelief, Told, Trust, measured};
pub use parallelism::{Parallelism, tensor_degrees};
pub use parameters::{counted_parameters, parameters};
pub use quantization::Quantization;
pub use read::{Classes, LayerCache, LayerRun, Tensors};
pub use weights::weights;
pub use workload::{Engine, KvDtype, Version, Workload};
