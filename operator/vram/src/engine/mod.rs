//! What the engines have in common, and which file answers for which.
//!
//! One file or folder an engine: how it spreads weights and KV cache over GPUs, what it takes beside
//! them, and how good the data behind that is. A new engine is a new file and an arm in each function.

mod constants;
mod custom;
mod flags;
mod gap;
mod llama_cpp;
mod sglang;
mod vllm;

use berth_units::Bytes;

pub use constants::{Constant, Constants};
pub use flags::{MemoryFraction, memory_flags};
pub use gap::Gap;
pub use llama_cpp::{Buffers, buffers};

use crate::{Breakdown, Engine, EstimateError, ModelFacts, Parallelism, Vendor, Version, Workload};

/// The version of vLLM that Berth renders where nobody asks for another image, and that estimates are
/// for unless another is named.
pub const RENDERED_VLLM: Version = vllm::RENDERED;

/// Refuses what no engine, or not this engine, can do.
pub(crate) fn check(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<(), EstimateError> {
    facts.validate()?;
    let sizes = [
        ("contextLength", workload.context_length),
        ("maxConcurrency", workload.max_concurrency),
        ("maxNumSeqs", workload.max_num_seqs),
        ("maxNumBatchedTokens", workload.max_num_batched_tokens),
        ("ubatch", workload.ubatch),
    ];
    if let Some(&(field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(EstimateError::Zero { field });
    }
    if workload.context_length > facts.max_context {
        return Err(EstimateError::ContextTooLong {
            asked: workload.context_length,
            max: facts.max_context,
        });
    }
    match workload.engine {
        Engine::Vllm | Engine::Sglang => vllm::check(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::check(facts, workload, parallelism),
        Engine::Custom => custom::check(facts, parallelism),
    }
}

/// What a GPU of each stage needs, from the first to the last, without a margin.
pub(crate) fn stages(
    constants: &Constants,
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Vec<Breakdown> {
    match workload.engine {
        Engine::Vllm => vllm::stages(constants, facts, workload, parallelism),
        Engine::Sglang => sglang::stages(facts, workload, parallelism),
        Engine::LlamaCpp => vec![llama_cpp::fullest(facts, workload, parallelism)],
        Engine::Custom => custom::stages(constants, facts, workload, parallelism),
    }
}

/// What a token more takes on the fullest GPU.
pub(crate) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    match workload.engine {
        Engine::Vllm | Engine::Sglang => vllm::kv_bytes_per_token(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::kv_bytes_per_token(facts, workload, parallelism),
        Engine::Custom => custom::kv_bytes_per_token(facts, workload, parallelism),
    }
}

/// What the engine's log counts for a token of its KV cache.
pub(crate) fn logged_kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    match workload.engine {
        Engine::Vllm => vllm::logged_kv_bytes_per_token(facts, workload, parallelism),
        Engine::Sglang | Engine::LlamaCpp | Engine::Custom => {
            kv_bytes_per_token(facts, workload, parallelism)
        }
    }
}

/// Makes of what an engine needs on NVIDIA what it needs on AMD, where that is known to differ.
pub(crate) fn on_amd(
    constants: &Constants,
    repacked: Bytes,
    parts: &mut Breakdown,
    gaps: &mut Vec<Gap>,
) {
    if !gaps.iter().any(|gap| matches!(gap, Gap::Sglang | Gap::LlamaCpp | Gap::Custom)) {
        vllm::on_amd(constants, repacked, parts);
    }
    gaps.push(Gap::Amd);
}

/// What the weights of the fullest GPU would load more on AMD.
pub(crate) fn repacked(facts: &ModelFacts, parallelism: Parallelism) -> Bytes {
    vllm::repacked(facts, parallelism, facts.layers.div_ceil(parallelism.pipeline.max(1)))
}

/// What there are no complete logs of.
pub(crate) fn gaps(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Vec<Gap> {
    match workload.engine {
        Engine::Vllm => vllm::gaps(facts, workload, parallelism),
        Engine::Sglang => on(workload.vendor, Gap::Sglang),
        Engine::LlamaCpp => on(workload.vendor, Gap::LlamaCpp),
        Engine::Custom => on(workload.vendor, Gap::Custom),
    }
}

fn on(vendor: Vendor, gap: Gap) -> Vec<Gap> {
    match vendor {
        Vendor::Nvidia => vec![gap],
        Vendor::Amd => vec![gap, Gap::Amd],
    }
}
