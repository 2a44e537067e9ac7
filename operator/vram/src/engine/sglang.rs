//! `SGLang`: weights and KV cache as vLLM has them, and a fixed reserve for all the rest.
//!
//! `SGLang` does not measure. It sets aside, in MiB, `512 + 1.5 · max(chunked prefill, 2048) + 2 ·
//! largest graph batch + tensor · pipeline / 8 · 1024`, at least 10 GiB on a GPU of more than 60, and
//! gives weights and KV cache what is left (`mem_fraction_static`; as `GPUStack` models it too). So
//! that is what it takes, whether or not it needs it.

use berth_units::{Bytes, GIB};

use super::vllm;
use crate::{Breakdown, ModelFacts, Parallelism, Workload};

/// Context and library state.
const META: Bytes = Bytes::mib(512);

/// Least tokens of a prefill step that the rule counts with.
const LEAST_PREFILL: u32 = 2048;

/// Half MiB for each token of a prefill step.
const PREFILL_HALF_MIB: u64 = 3;

/// MiB for each sequence of the largest graph.
const GRAPH_MIB: u64 = 2;

/// A GPU with more than this is large, and at least so much of it is kept.
const LARGE: Bytes = Bytes::gib(60);
const LEAST_ON_LARGE: Bytes = Bytes::gib(10);

/// The largest batch that graphs are captured for, by the memory of a GPU in GiB and whether fewer
/// than four share a layer.
const fn graph_batch(memory: Option<Bytes>, tensor: u32) -> u64 {
    let gib = match memory {
        Some(memory) => memory.get() / GIB,
        None => 80,
    };
    match (gib, tensor < 4) {
        (0..20, _) => 8,
        (20..35, true) => 24,
        (20..35, false) => 80,
        (35..60, true) => 32,
        (35..60, false) => 160,
        (60..90, true) => 256,
        _ => 512,
    }
}

pub(super) fn stages(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Vec<Breakdown> {
    let prefill = u64::from(workload.max_num_batched_tokens.max(LEAST_PREFILL));
    let activation = Bytes::mib(prefill) * PREFILL_HALF_MIB / 2;
    let graphs = Bytes::mib(graph_batch(workload.gpu_memory, parallelism.tensor)) * GRAPH_MIB;
    let shared = Bytes::mib(1024) * u64::from(parallelism.gpus()) / 8;
    let least = match workload.gpu_memory {
        Some(memory) if memory > LARGE => LEAST_ON_LARGE,
        _ => Bytes::ZERO,
    };
    let non_torch = (META + shared).max(least - activation - graphs);
    parallelism
        .stages(facts.layers)
        .map(|stage| Breakdown {
            weights: vllm::weights(facts, parallelism, &stage),
            kv_cache: vllm::kv_cache(facts, workload, parallelism, &stage),
            activation,
            non_torch,
            // The reserve is for graphs too, whether or not they are captured.
            graphs,
            margin: Bytes::ZERO,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, catalogue};

    #[test]
    fn the_reserve_follows_the_rule() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let reserve = |memory: Option<u64>, tensor| {
            let gpu_memory = memory.map(Bytes::gib);
            let workload = Workload { gpu_memory, ..Workload::new(Engine::Sglang, 8192, 1) };
            stages(facts, &workload, Parallelism::tensor(tensor))[0].overheads()
        };
        // 512 + 1.5 · 8192 + 2 · 256 + 128 MiB.
        assert_eq!(reserve(Some(80), 1), Bytes::mib(13_440));
        assert_eq!(reserve(None, 1), Bytes::mib(13_440));
        assert_eq!(reserve(Some(24), 1), Bytes::mib(512 + 12_288 + 48 + 128));
        let small = Workload {
            max_num_batched_tokens: 2048,
            gpu_memory: Some(Bytes::gib(80)),
            ..Workload::new(Engine::Sglang, 8192, 1)
        };
        let kept = stages(facts, &small, Parallelism::SINGLE)[0].overheads();
        assert_eq!(kept, Bytes::gib(10));
    }
}
