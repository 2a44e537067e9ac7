//! Upper bounds of speed: the roofline.
//!
//! What no engine can be faster than on this hardware, from the maker's peaks: a token that is
//! decoded reads every active weight and the keys and values before it once; a token of a prompt
//! takes two operations for each active parameter. Communication, launches, attention's arithmetic
//! and everything else that is left out would only make it slower. Real engines reach 30 to 80 % of
//! it; it ranks hardware, it promises nothing.

use serde::Serialize;

use super::Product;
use crate::{
    Engine, Estimate, ModelFacts, Quantization, Workload, parameters, read::Classes, weights,
};

/// Upper bounds of speed, in tokens a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Roofline {
    /// Tokens of prompts read a second, all GPUs together.
    pub prefill: f64,
    /// Tokens that one sequence is given a second, alone, with the context full.
    pub decode_one: f64,
    /// Tokens that all sequences together are given a second, as many as asked for, each with its
    /// context full.
    pub decode_all: f64,
}

/// What a token goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    /// Parameters that a token is multiplied with.
    parameters: f64,
    /// Of those, the ones that a token of a prompt is: the output layer sees the last one alone.
    of_prompt: f64,
    /// Bytes that are read for it.
    bytes: f64,
}

impl Active {
    pub(super) fn of(facts: &ModelFacts) -> Self {
        let all_bytes = weights(facts).get() as f64;
        let all = parameters(facts).max(1) as f64;
        let table = f64::from(facts.vocab_size) * f64::from(facts.hidden_size);
        // The input table is looked up, not multiplied with; where the output shares it, it is.
        let lookup = if facts.tied_embeddings { 0.0 } else { table };
        let (idle_parameters, idle_bytes) = idle_experts(facts);
        let lookup_bytes = lookup * facts.quantization.embedding_bits(facts.tied_embeddings) / 8.0;
        // Towers for images are not gone through by a token of text.
        let text = all - lookup - idle_parameters - facts.other_parameters as f64;
        Self {
            parameters: text.max(all * 0.005),
            of_prompt: (text - table).max(all * 0.005),
            bytes: (all_bytes - lookup_bytes - idle_bytes - not_read(facts)).max(all_bytes * 0.005),
        }
    }
}

/// Parameters and bytes of the experts that a token does not go through.
fn idle_experts(facts: &ModelFacts) -> (f64, f64) {
    let Some(moe) = facts.moe else { return (0.0, 0.0) };
    let idle = 1.0 - (f64::from(moe.experts_per_token) / f64::from(moe.experts.max(1))).min(1.0);
    if let Some(tensors) = &facts.tensors {
        let sum = |of: fn(&crate::read::LayerRun) -> &Classes| {
            let runs = tensors.layers.iter();
            runs.map(|run| f64::from(run.layers) * of(run).experts as f64).sum::<f64>()
        };
        return (sum(|run| &run.parameters) * idle, sum(|run| &run.bytes) * idle);
    }
    let matrices = if facts.gated { 3.0 } else { 2.0 };
    let parameters = matrices
        * f64::from(facts.hidden_size)
        * f64::from(moe.expert_intermediate_size)
        * f64::from(moe.experts)
        * f64::from(facts.expert_layers())
        * idle;
    (parameters, parameters * facts.quantization.bits() / 8.0)
}

/// Bytes of the checkpoint that text alone never reads: towers, drafts, what no engine loads.
fn not_read(facts: &ModelFacts) -> f64 {
    match &facts.tensors {
        Some(tensors) => {
            let outside = tensors.outside.bytes.other;
            outside.saturating_add(tensors.draft_bytes).saturating_add(tensors.unused_bytes) as f64
        }
        None => facts.other_parameters as f64 * 2.0,
    }
}

pub(super) fn roofline(
    facts: &ModelFacts,
    active: Active,
    workload: &Workload,
    estimate: &Estimate,
    product: &Product,
) -> Roofline {
    let gpus = f64::from(estimate.gpus.max(1));
    let bandwidth = product.gigabytes_per_second * 1e9;
    let flops = product.flops(facts.quantization);
    let sequences = f64::from(workload.max_concurrency.max(1));
    // A sparse attention reads the 2,048 tokens that its index picks.
    let sparse = facts.index_bytes_per_token > 0
        || facts.mla.is_some_and(|mla| mla.indexer_bytes_per_token > 0);
    let context = workload.context_length.min(if sparse { 2048 } else { u32::MAX });
    let cache = estimate.kv_bytes_per_token.get() as f64 * f64::from(context);
    // Tensor parallelism reads on all GPUs at once; layers that are dealt out are read one GPU
    // after the other.
    let (weights, cache, together) = match workload.engine {
        Engine::LlamaCpp => {
            let layers = f64::from(facts.layers.max(1));
            let fullest = (layers / gpus).ceil();
            (active.bytes, cache * layers / fullest, 1.0)
        }
        _ => (active.bytes / gpus, cache, gpus),
    };
    let operations = 2.0 * active.parameters;
    let decode = |sequences: f64| {
        let reading = (weights + sequences * cache) / bandwidth;
        let computing = sequences * operations / (flops * together);
        sequences / reading.max(computing).max(f64::MIN_POSITIVE)
    };
    Roofline {
        prefill: flops * gpus / (2.0 * active.of_prompt),
        decode_one: decode(1.0),
        decode_all: decode(sequences),
    }
}

/// Whether weights of this kind are multiplied in a type that the GPU lacks, so that they are
/// unpacked first.
pub(super) fn unpacked(product: &Product, stored: Quantization) -> bool {
    match stored {
        Quantization::Fp8 | Quantization::Fp8Block => product.teraflops.fp8.is_none(),
        Quantization::Mxfp4 | Quantization::Nvfp4 => product.teraflops.fp4.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parallelism, advise::product, catalogue, estimate};

    fn bound(id: &str, gpu: &str, gpus: u32, context: u32, sequences: u32) -> Roofline {
        let facts = &catalogue().find(id, None).unwrap().facts;
        let workload = Workload::new(Engine::Vllm, context, sequences);
        let estimate = estimate(facts, &workload, Parallelism::tensor(gpus)).unwrap();
        roofline(facts, Active::of(facts), &workload, &estimate, product(gpu).unwrap())
    }

    #[test]
    fn a_dense_model_is_bound_by_what_it_reads() {
        // 7.50 billion parameters beside the input table, 15.0 GB, and 1.07 GB of cache for 8,192
        // tokens, at 3,350 GB/s: 208 tokens a second. A token of a prompt goes through the 6.98 billion
        // of the layers: 989 / (2 × 6.98) thousand a second.
        let one = bound("meta-llama/Llama-3.1-8B-Instruct", "H100", 1, 8192, 1);
        assert!((one.decode_one - 208.4).abs() < 1.0, "{one:?}");
        assert!((one.prefill - 70_850.0).abs() < 200.0, "{one:?}");
        assert!((one.decode_all - one.decode_one).abs() < 1e-6);
        let many = bound("meta-llama/Llama-3.1-8B-Instruct", "H100", 1, 8192, 16);
        assert!(many.decode_all > 5.0 * one.decode_one, "{many:?}");
        assert!(many.decode_all < 16.0 * one.decode_one);
    }

    #[test]
    fn a_mixture_reads_its_active_experts_alone() {
        // 3.3 of 30.5 billion parameters are active.
        let moe = bound("Qwen/Qwen3-30B-A3B", "H100", 1, 1024, 1);
        let active = 3350e9 / moe.decode_one / 2e9;
        assert!((2.9..3.4).contains(&active), "{active} billion parameters");
        let two = bound("Qwen/Qwen3-30B-A3B", "H100", 2, 1024, 1);
        assert!(two.decode_one > 1.9 * moe.decode_one);
    }
}
