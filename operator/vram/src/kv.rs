//! The KV cache: bytes of a token in a layer, and of what is asked.
//!
//! - heads: `2 · kv_heads / gpus · head_dim · element`; heads repeat where there are more GPUs than
//!   heads;
//! - MLA: `(kv_lora_rank + qk_rope_head_dim) · element`, the same on every GPU.
//!
//! How engines lay layers out differs: each engine's own file tells.

use berth_units::Bytes;

use crate::{
    Engine, EstimateError, KvDtype, Mla, ModelFacts, Parallelism, Quantization, Workload, engine,
    facts::Heads,
};

/// The KV cache per GPU that holds `max_concurrency` sequences of `context_length` tokens.
pub fn kv_cache(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Bytes, EstimateError> {
    engine::check(facts, workload, parallelism)?;
    let stages = engine::stages(&engine::Constants::FITTED, facts, workload, parallelism);
    Ok(stages.iter().map(|stage| stage.kv_cache).max().unwrap_or_default())
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheType {
    keys: KvDtype,
    values: KvDtype,
}

impl CacheType {
    /// What was asked for, else what the checkpoint asks for, which only vLLM and `SGLang` follow.
    pub(crate) fn of(facts: &ModelFacts, workload: &Workload) -> Self {
        let own = facts.kv_cache.filter(|_| workload.engine != Engine::LlamaCpp);
        let keys = match workload.kv_dtype {
            KvDtype::Auto => own.unwrap_or(KvDtype::Auto),
            asked => asked,
        };
        Self { keys, values: workload.value_dtype.unwrap_or(keys) }
    }
}

/// What one token takes in a layer that looks back over everything, on a GPU with `1 / gpus` of the
/// heads.
pub(crate) fn full_layer_bytes(facts: &ModelFacts, cache: CacheType, gpus: u32) -> Bytes {
    if let Some(mla) = &facts.mla {
        return mla_bytes(mla, cache.keys, facts.quantization);
    }
    let heads = Heads {
        kv_heads: facts.kv_heads,
        head_dim: facts.head_dim,
        value_head_dim: facts.value_head_dim,
    };
    heads_bytes(&heads, cache, gpus, facts.quantization)
        + Bytes(u64::from(facts.index_bytes_per_token))
}

/// The same in a layer that looks back over a window.
pub(crate) fn window_layer_bytes(facts: &ModelFacts, cache: CacheType, gpus: u32) -> Bytes {
    match &facts.window_heads {
        Some(heads) => heads_bytes(heads, cache, gpus, facts.quantization),
        None => full_layer_bytes(facts, cache, gpus),
    }
}

fn heads_bytes(heads: &Heads, cache: CacheType, gpus: u32, weights: Quantization) -> Bytes {
    let held = heads.kv_heads.div_ceil(gpus.max(1));
    let values = heads.value_head_dim.unwrap_or(heads.head_dim);
    let product = |width| crate::parameters::product(&[held, width]);
    elements(product(heads.head_dim), cache.keys, weights)
        + elements(product(values), cache.values, weights)
}

/// One layer of MLA. With a sparse attention indexer and an fp8 cache, vLLM stores 656 bytes: 512
/// fp8 values, four fp32 scales, and the position part in bf16.
fn mla_bytes(mla: &Mla, dtype: KvDtype, weights: Quantization) -> Bytes {
    const SPARSE_FP8: u64 = 656;
    let indexer = u64::from(mla.indexer_bytes_per_token);
    let vector = u64::from(mla.kv_lora_rank) + u64::from(mla.qk_rope_head_dim);
    let stored = match dtype {
        KvDtype::Fp8 if indexer > 0 => Bytes(SPARSE_FP8),
        _ => elements(vector, dtype, weights),
    };
    stored + Bytes(indexer)
}

/// So many elements. Unless told otherwise, the cache follows the weights' type; quantised weights
/// are computed in 16 bits.
fn elements(count: u64, dtype: KvDtype, weights: Quantization) -> Bytes {
    let half_bits = match (dtype, weights) {
        (KvDtype::Auto, Quantization::Fp32) => 64,
        _ => dtype.half_bits(),
    };
    Bytes(count.saturating_mul(half_bits).div_ceil(16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recurrent, catalogue};

    fn facts(id: &str) -> ModelFacts {
        catalogue().find(id, None).unwrap().facts.clone()
    }

    fn layer(facts: &ModelFacts, keys: KvDtype, gpus: u32) -> u64 {
        full_layer_bytes(facts, CacheType { keys, values: keys }, gpus).get()
    }

    fn cache(facts: &ModelFacts, dtype: KvDtype, context: u32, sequences: u32, gpus: u32) -> u64 {
        let workload =
            Workload { kv_dtype: dtype, ..Workload::new(Engine::Vllm, context, sequences) };
        kv_cache(facts, &workload, Parallelism::tensor(gpus)).unwrap().get()
    }

    #[test]
    fn heads_are_divided_then_repeated() {
        let llama = facts("meta-llama/Llama-3.1-8B-Instruct");
        for (gpus, bytes) in [(1, 131_072), (2, 65_536), (8, 16_384), (16, 16_384)] {
            assert_eq!(layer(&llama, KvDtype::Auto, gpus) * 32, bytes);
        }
        assert_eq!(layer(&llama, KvDtype::Fp8, 1) * 32, 65_536);
        assert_eq!(layer(&llama, KvDtype::Q8_0, 1) * 32, 69_632);
        assert_eq!(layer(&llama, KvDtype::Q4_0, 1) * 32, 36_864);
        let mixed = CacheType { keys: KvDtype::Q8_0, values: KvDtype::F16 };
        assert_eq!(full_layer_bytes(&llama, mixed, 1) * 32, Bytes(34_816 + 65_536));
        let fp32 = ModelFacts { quantization: Quantization::Fp32, ..llama };
        assert_eq!(layer(&fp32, KvDtype::Auto, 1) * 32, 262_144);
    }

    #[test]
    fn mla_is_the_same_on_every_gpu() {
        let r1 = facts("deepseek-ai/DeepSeek-R1");
        for gpus in [1, 8] {
            assert_eq!(layer(&r1, KvDtype::Auto, gpus) * 61, 70_272);
        }
        assert_eq!(layer(&r1, KvDtype::Q8_0, 1) * 61, 37_332);
        let indexed = Mla { indexer_bytes_per_token: 132, ..r1.mla.unwrap() };
        let v32 = ModelFacts { mla: Some(indexed), ..r1 };
        assert_eq!(layer(&v32, KvDtype::Fp8, 8), 656 + 132);
        assert_eq!(layer(&v32, KvDtype::Fp8E4m3, 8), 576 + 132);
    }

    #[test]
    fn a_checkpoint_may_ask_for_its_own_cache() {
        let llama = facts("meta-llama/Llama-3.1-8B-Instruct");
        let own = ModelFacts { kv_cache: Some(KvDtype::Fp8), ..llama };
        assert_eq!(cache(&own, KvDtype::Auto, 1024, 1, 1), 1024 * 65_536);
        assert_eq!(cache(&own, KvDtype::Bf16, 1024, 1, 1), 1024 * 131_072);
    }

    #[test]
    fn a_sequence_takes_whole_blocks() {
        let llama = facts("meta-llama/Llama-3.1-8B-Instruct");
        assert_eq!(cache(&llama, KvDtype::Auto, 1000, 1, 1), 1008 * 131_072);
        assert_eq!(cache(&llama, KvDtype::Auto, 8192, 4, 1), 4 * 8192 * 131_072);
    }

    #[test]
    fn windowed_layers_hold_the_window_and_one_step_in_groups() {
        let gemma = facts("google/gemma-3-27b-it");
        let layer = 2 * 16 * 128 * 2;
        // 10 layers in full; 52 with a window, filled up to 6 groups of 10: (1024 − 1 + 8192) tokens
        // are 576 blocks of 16, and one more.
        let expected = 10 * layer * 131_072 + 60 * layer * 577 * 16;
        assert_eq!(cache(&gemma, KvDtype::Auto, 131_072, 1, 1), expected);
        // Shorter than the window: every layer is full.
        assert_eq!(cache(&gemma, KvDtype::Auto, 512, 1, 1), (10 * 32 + 60 * 33) * 16 * layer);
    }

    #[test]
    fn recurrent_layers_hold_a_state_in_blocks() {
        let hybrid = ModelFacts {
            recurrent: Some(Recurrent { attention_layers: 4, state_bytes_per_sequence: 28 << 16 }),
            ..facts("meta-llama/Llama-3.1-8B-Instruct")
        };
        // A state of 64 KiB fits into a block of 16 tokens; 28 layers are 7 groups of 4.
        let expected = 2 * (1024 * 16_384 + 7 * 2 * 4 * (16 * 4096));
        assert_eq!(cache(&hybrid, KvDtype::Auto, 1024, 2, 1), expected);
        // A larger one makes blocks larger, and with them the last one of a sequence.
        let larger = ModelFacts {
            recurrent: Some(Recurrent { attention_layers: 4, state_bytes_per_sequence: 28 << 20 }),
            ..hybrid
        };
        assert_eq!(cache(&larger, KvDtype::Auto, 1025, 1, 1), ((5 + 7 * 2) * 4) << 20);
    }
}
