//! What AMD's builds take more or otherwise.
//!
//! vLLM on ROCm lengthens the rows of some matrices by 256 bytes, so that they lie in different banks
//! of memory (`VLLM_ROCM_MOE_PADDING` and `VLLM_ROCM_FP8_PADDING`, both on by default; the
//! `_maybe_pad_weight` of its fused experts without quantisation and of its fp8 layers), where a row
//! is a multiple of 512 bytes. Its log states the memory of the device that is gone, not that of
//! tensors as on CUDA, so what the allocator cannot give back counts too.

use berth_units::Bytes;

use super::super::{Constant, Constants};
use crate::{ModelFacts, Parallelism, Quantization, parameters::product};

/// What a row is lengthened by, in bytes.
const PAD: u64 = 256;

/// The rows that are, are multiples of this, in bytes.
const ROW: u64 = 512;

/// What the weights of a GPU with a share of `held` of the layers load more on AMD.
pub(in crate::engine) fn repacked(
    facts: &ModelFacts,
    parallelism: Parallelism,
    held: u32,
) -> Bytes {
    let all = match facts.quantization {
        Quantization::None => experts(facts, parallelism),
        Quantization::Fp8 | Quantization::Fp8Block => layers(facts, parallelism.tensor),
        _ => return Bytes::ZERO,
    };
    all.div_ceil(u64::from(facts.layers.max(1))) * u64::from(held)
}

/// Experts in 16 bits. Each layer's gates are copied, then its down-projections, which find their
/// place in what the gates left: as much as the down-projections took is then too small for the next
/// layer's gates, and not given back while something lies beside it. So Qwen3-VL-30B loads 79.3 GiB
/// instead of 58.2, Llama-4-Maverick on 8 GPUs 126.7 instead of 93.8, and Qwen3-235B on 4, where
/// only the gate is padded, 112.6 instead of 109.6.
fn experts(facts: &ModelFacts, parallelism: Parallelism) -> Bytes {
    const VALUE: u64 = 2;
    let Some(moe) = facts.moe else { return Bytes::ZERO };
    let hidden = u64::from(facts.hidden_size);
    let gpus = parallelism.tensor.max(1);
    let (cut, dealt) = if parallelism.expert { (1, gpus) } else { (gpus, 1) };
    let width = u64::from(moe.expert_intermediate_size.div_ceil(cut));
    let experts = u64::from(moe.experts.div_ceil(dealt)) * u64::from(facts.expert_layers());
    let padded = |row: u64| (row * VALUE).is_multiple_of(ROW);
    let added = if padded(width) {
        hidden * PAD + hidden * width * VALUE
    } else if padded(hidden) {
        2 * width * PAD
    } else {
        0
    };
    Bytes(experts) * added
}

/// Everything but routed experts in 8-bit floats: only what the rows are lengthened by. `DeepSeek`-R1
/// loads 81.3 GiB on each of 8 GPUs, 79.6 without and 79.9 with this; the rest is memory that is not
/// given back.
fn layers(facts: &ModelFacts, gpus: u32) -> Bytes {
    let share = |width: u64| width.div_ceil(u64::from(gpus.max(1)));
    let pad = |rows: u64, row: u64| if row.is_multiple_of(ROW) { rows * PAD } else { 0 };
    let (hidden, heads) = (u64::from(facts.hidden_size), u64::from(facts.attention_heads));
    let feed_forward = |width: u64| {
        let width = share(width);
        let rows = if facts.gated { 2 * width } else { width };
        pad(rows, hidden) + pad(hidden, width)
    };
    let attention = facts.mla.map_or_else(
        || {
            let (head, kv) =
                (u64::from(facts.head_dim), product(&[2, facts.kv_heads, facts.head_dim]));
            pad(share(heads * head) + share(kv), hidden) + pad(hidden, share(heads * head))
        },
        |mla| {
            let [latent, rope, nope, value] =
                [mla.kv_lora_rank, mla.qk_rope_head_dim, mla.qk_nope_head_dim, mla.v_head_dim]
                    .map(u64::from);
            let query = share(heads * (nope + rope));
            let queries = mla.q_lora_rank.map(u64::from).map_or_else(
                || pad(query, hidden),
                |compressed| pad(compressed, hidden) + pad(query, compressed),
            );
            queries
                + pad(latent + rope, hidden)
                + pad(share(heads * (nope + value)), latent)
                + pad(hidden, share(heads * value))
        },
    );
    let with_experts = u64::from(facts.expert_layers());
    let dense = u64::from(facts.layers) - with_experts;
    let shared = facts.moe.map_or(0, |moe| moe.shared_width());
    Bytes(
        attention * u64::from(facts.layers)
            + feed_forward(u64::from(facts.intermediate_size)) * dense
            + if shared > 0 { feed_forward(shared) * with_experts } else { 0 },
    )
}

/// Makes of what a GPU of NVIDIA's needs what one of AMD's does.
pub(in crate::engine) fn on_amd(
    constants: &Constants,
    repacked: Bytes,
    parts: &mut crate::Breakdown,
) {
    parts.weights += repacked;
    parts.non_torch += super::bytes(constants.mib(Constant::NonTorchAmd));
    if parts.graphs > Bytes::ZERO {
        parts.graphs = super::bytes(constants.mib(Constant::GraphsAmd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn gib(id: &str, gpus: u32) -> f64 {
        let facts = &catalogue().find(id, None).unwrap().facts;
        repacked(facts, Parallelism::tensor(gpus), facts.layers).as_gib_f64()
    }

    #[test]
    fn rows_of_whole_multiples_are_lengthened() {
        // Experts of 768: gates and down-projections. A quarter of 1,536 is no multiple of 256 values,
        // so only the gates. What the logs say more than the checkpoint: 21.1 and 3.0.
        assert!((gib("Qwen/Qwen3-30B-A3B", 1) - 21.0).abs() < 0.01);
        assert!((gib("Qwen/Qwen3-235B-A22B", 4) - 2.2).abs() < 0.01);
        // Nothing but experts is padded in 16 bits.
        assert!(gib("meta-llama/Llama-3.1-8B-Instruct", 1).abs() < f64::EPSILON);
        let r1 = gib("deepseek-ai/DeepSeek-R1", 8);
        assert!((0.2..0.4).contains(&r1), "{r1}");
    }

    #[test]
    fn a_stage_and_experts_dealt_out_have_their_part() {
        let facts = &catalogue().find("Qwen/Qwen3-30B-A3B", None).unwrap().facts;
        let whole = repacked(facts, Parallelism::SINGLE, facts.layers);
        assert_eq!(repacked(facts, Parallelism::SINGLE, facts.layers / 2), whole.div_ceil(2));
        // A quarter of the experts, each as wide as before: cut to 192, only gates would be padded.
        let dealt = Parallelism { expert: true, ..Parallelism::tensor(4) };
        assert_eq!(repacked(facts, dealt, facts.layers), whole.div_ceil(4));
        assert!(repacked(facts, Parallelism::tensor(4), facts.layers) < whole.div_ceil(4));
    }
}
