//! What the engines have in common, and which file answers for which.
//!
//! One file an engine: how it spreads weights and KV cache over GPUs, what it takes beside them,
//! and how good the data behind that is. A new engine is a new file and an arm in each function.

mod llama_cpp;
mod vllm;

use berth_units::Bytes;

use crate::{Basis, Engine, EstimateError, ModelFacts, Parallelism, Workload};

/// What an engine takes on a GPU beside weights and KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overheads {
    pub activation: Bytes,
    pub non_torch: Bytes,
    pub graphs: Bytes,
}

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
        Engine::Vllm => vllm::check(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::check(facts, workload, parallelism),
    }
}

/// The weights on the fullest GPU.
pub(crate) fn weights(facts: &ModelFacts, engine: Engine, parallelism: Parallelism) -> Bytes {
    match engine {
        Engine::Vllm => vllm::weights(facts, parallelism),
        Engine::LlamaCpp => llama_cpp::weights(facts, parallelism),
    }
}

/// The KV cache on the fullest GPU.
pub(crate) fn kv_cache(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Bytes {
    match workload.engine {
        Engine::Vllm => vllm::kv_cache(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::kv_cache(facts, workload, parallelism),
    }
}

/// What a token more takes on the fullest GPU.
pub(crate) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    match workload.engine {
        Engine::Vllm => vllm::kv_bytes_per_token(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::kv_bytes_per_token(facts, workload, parallelism),
    }
}

/// The rest, on the fullest GPU.
pub(crate) fn overheads(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Overheads {
    match workload.engine {
        Engine::Vllm => vllm::overheads(facts, workload, parallelism),
        Engine::LlamaCpp => llama_cpp::overheads(facts, workload, parallelism),
    }
}

/// How good the data behind the engine's constants is, for this model.
pub(crate) fn basis(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Basis {
    match workload.engine {
        Engine::Vllm => vllm::basis(facts, parallelism),
        Engine::LlamaCpp => llama_cpp::basis(),
    }
}
