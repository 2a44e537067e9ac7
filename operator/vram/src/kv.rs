//! The KV cache: bytes a token, bytes a sequence, bytes for what is asked.
//!
//! Formulas as measured on start-up logs (203 of 209 checked cases within 1 %):
//! - heads: `2 · layers · kv_heads / gpus · head_dim · element`; heads repeat where there are more
//!   GPUs than heads;
//! - MLA: `layers · (kv_lora_rank + qk_rope_head_dim) · element`, the same on every GPU;
//! - a windowed layer holds `min(window − 1 + batched tokens, length)` tokens of a sequence;
//! - recurrent layers hold a fixed state a sequence.

use berth_units::Bytes;

use crate::{EstimateError, KvDtype, Mla, ModelFacts, Parallelism, Quantization, Workload, engine};

/// The KV cache per GPU that holds `max_concurrency` sequences of `context_length` tokens.
pub fn kv_cache(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Bytes, EstimateError> {
    engine::check(facts, workload, parallelism)?;
    Ok(engine::kv_cache(facts, workload, parallelism))
}

/// What one token takes in one layer, on a GPU that holds `1 / gpus` of the heads.
pub(crate) fn layer_bytes_per_token(facts: &ModelFacts, dtype: KvDtype, gpus: u32) -> Bytes {
    if let Some(mla) = &facts.mla {
        mla_bytes(mla, dtype, facts.quantization)
    } else {
        let heads = facts.kv_heads.div_ceil(gpus.max(1));
        let values = crate::parameters::product(&[2, heads, facts.head_dim]);
        elements(values, dtype, facts.quantization)
    }
}

/// What the full-attention layers take for a token, on a GPU that holds `1 / gpus` of the heads.
pub(crate) fn full_bytes_per_token(facts: &ModelFacts, dtype: KvDtype, gpus: u32) -> Bytes {
    let full_layers = facts.kv_layers() - facts.windowed_layers();
    layer_bytes_per_token(facts, dtype, gpus) * u64::from(full_layers)
}

/// What the windowed layers take for a sequence of `length` tokens, when up to `step` of them are
/// computed at once.
pub(crate) fn window_bytes(
    facts: &ModelFacts,
    dtype: KvDtype,
    gpus: u32,
    length: u64,
    step: u64,
) -> Bytes {
    let Some(window) = facts.window else { return Bytes::ZERO };
    let held = (u64::from(window.tokens) - 1 + step).min(length);
    layer_bytes_per_token(facts, dtype, gpus) * u64::from(facts.windowed_layers()) * held
}

/// What the recurrent layers take for a sequence, on a GPU that holds `1 / gpus` of them.
pub(crate) fn state_bytes(facts: &ModelFacts, gpus: u32) -> Bytes {
    facts.recurrent.map_or(Bytes::ZERO, |recurrent| {
        Bytes(recurrent.state_bytes_per_sequence).div_ceil(u64::from(gpus))
    })
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
    use crate::{Engine, Recurrent, catalogue};

    fn facts(id: &str) -> ModelFacts {
        catalogue().find(id, None).unwrap().facts.clone()
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
            assert_eq!(full_bytes_per_token(&llama, KvDtype::Auto, gpus), Bytes(bytes));
        }
        assert_eq!(full_bytes_per_token(&llama, KvDtype::Fp8, 1), Bytes(65_536));
        assert_eq!(full_bytes_per_token(&llama, KvDtype::Q8_0, 1), Bytes(69_632));
        assert_eq!(full_bytes_per_token(&llama, KvDtype::Q4_0, 1), Bytes(36_864));
        let fp32 = ModelFacts { quantization: Quantization::Fp32, ..llama };
        assert_eq!(full_bytes_per_token(&fp32, KvDtype::Auto, 1), Bytes(262_144));
    }

    #[test]
    fn mla_is_the_same_on_every_gpu() {
        let r1 = facts("deepseek-ai/DeepSeek-R1");
        for gpus in [1, 8] {
            assert_eq!(full_bytes_per_token(&r1, KvDtype::Auto, gpus), Bytes(70_272));
        }
        assert_eq!(full_bytes_per_token(&r1, KvDtype::Q8_0, 1), Bytes(37_332));
        let indexed = Mla { indexer_bytes_per_token: 132, ..r1.mla.unwrap() };
        let v32 = ModelFacts { mla: Some(indexed), ..r1 };
        assert_eq!(full_bytes_per_token(&v32, KvDtype::Fp8, 8), Bytes(61 * (656 + 132)));
    }

    #[test]
    fn a_sequence_takes_whole_blocks() {
        let llama = facts("meta-llama/Llama-3.1-8B-Instruct");
        assert_eq!(cache(&llama, KvDtype::Auto, 1000, 1, 1), 1008 * 131_072);
        assert_eq!(cache(&llama, KvDtype::Auto, 8192, 4, 1), 4 * 8192 * 131_072);
    }

    #[test]
    fn windowed_layers_hold_the_window_and_one_step() {
        let gemma = facts("google/gemma-3-27b-it");
        let layer = 2 * 16 * 128 * 2;
        let expected = 10 * layer * 131_072 + 52 * layer * (1024 - 1 + 8192);
        assert_eq!(cache(&gemma, KvDtype::Auto, 131_072, 1, 1), expected);
        // Shorter than the window: every layer is full.
        assert_eq!(cache(&gemma, KvDtype::Auto, 512, 1, 1), 62 * layer * 512);
    }

    #[test]
    fn recurrent_layers_hold_a_state() {
        let hybrid = ModelFacts {
            recurrent: Some(Recurrent { attention_layers: 4, state_bytes_per_sequence: 1 << 20 }),
            ..facts("meta-llama/Llama-3.1-8B-Instruct")
        };
        assert_eq!(cache(&hybrid, KvDtype::Auto, 1024, 2, 1), 2 * (1024 * 16_384 + (1 << 20)));
    }
}
