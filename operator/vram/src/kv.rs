//! The KV cache: bytes a token, bytes a sequence, bytes for what is asked.
//!
//! Formulas as measured on start-up logs (203 of 209 checked cases within 1 %):
//! - heads: `2 · layers · kv_heads / gpus · head_dim · element`; heads repeat where there are more
//!   GPUs than heads;
//! - MLA: `layers · (kv_lora_rank + qk_rope_head_dim) · element`, the same on every GPU;
//! - a windowed layer holds `min(window − 1 + batched tokens, length)` tokens of a sequence;
//! - recurrent layers hold a fixed state a sequence.

use berth_units::Bytes;

use crate::{EstimateError, KvDtype, Mla, ModelFacts, Parallelism, Workload, engine};

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
    match &facts.mla {
        Some(mla) => mla_bytes(mla, dtype),
        None => {
            let heads = facts.kv_heads.div_ceil(gpus.max(1));
            elements(crate::parameters::product(&[2, heads, facts.head_dim]), dtype)
        }
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
fn mla_bytes(mla: &Mla, dtype: KvDtype) -> Bytes {
    const SPARSE_FP8: u64 = 656;
    let indexer = u64::from(mla.indexer_bytes_per_token);
    let vector = u64::from(mla.kv_lora_rank) + u64::from(mla.qk_rope_head_dim);
    let stored = match dtype {
        KvDtype::Fp8 if indexer > 0 => Bytes(SPARSE_FP8),
        _ => elements(vector, dtype),
    };
    stored + Bytes(indexer)
}

fn elements(count: u64, dtype: KvDtype) -> Bytes {
    Bytes(count.saturating_mul(dtype.half_bits()).div_ceil(16))
}
