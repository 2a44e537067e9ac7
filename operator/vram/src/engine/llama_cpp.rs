//! llama.cpp's server: layers dealt out over the GPUs, memory as its buffers name it.
//!
//! `-c contextLength·maxConcurrency -np maxConcurrency`, all layers on GPUs. Nothing is fitted: the
//! buffers follow from the graph that it builds, as of b11434. `berth-bench llama` compares them with
//! what a real llama-server prints, to within 1 %; on a GPU only what CUDA takes outside of them is
//! rough.
//!
//! - **model buffer**: the tensors as they are in the file. On GPUs without the input table, which
//!   stays on the host; a table that is the output layer too is there a second time.
//! - **KV buffer**: cells in multiples of 256 for each slot; a windowed layer has the window and one
//!   step.
//! - **compute buffer**: the largest of a few moments in a layer, for a step of `ubatch` tokens in
//!   fp32, and the attention mask. The allocator puts a tensor into the smallest hole that it fits
//!   into; that is where "five hidden states" come from, of which two are alive.
//! - **output buffer**: a row of logits for each slot, on the host.

use std::ops::Range;

use berth_units::Bytes;

use crate::{
    Breakdown, EstimateError, KvDtype, LayerCache, Mla, ModelFacts, Parallelism, Quantization,
    Workload,
    kv::{CacheType, full_layer_bytes, window_layer_bytes},
    parallelism::check_layer_split,
    weights::Parts,
};

/// Cells of the KV cache come in multiples of this.
const CELLS: u64 = 256;

/// The CUDA context and cuBLAS' workspace, outside of llama.cpp's own buffers. Rough.
const CONTEXT: Bytes = Bytes::mib(512);

/// Copies of a step's inputs where layers are spread over GPUs, so that they work side by side
/// (`GGML_SCHED_MAX_COPIES`).
const COPIES: u64 = 4;

/// Bytes of a value in a graph.
const FP32: u64 = 4;

pub(super) fn check(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<(), EstimateError> {
    let Quantization::Gguf(_) = facts.quantization else {
        return Err(EstimateError::Format {
            engine: workload.engine,
            quantization: facts.quantization,
            advice: "use a GGUF file of the model, or engine Vllm",
        });
    };
    let asked = [Some(workload.kv_dtype), workload.value_dtype].into_iter().flatten();
    let other = asked.into_iter().find(|d| matches!(d, KvDtype::Fp8 | KvDtype::Fp8E4m3));
    if let Some(dtype) = other {
        return Err(EstimateError::KvDtype {
            engine: workload.engine,
            kv_dtype: format!("{dtype:?}"),
            use_instead: "F16, Q8_0 or Q4_0",
        });
    }
    check_layer_split(facts, parallelism.gpus())
}

/// What the fullest GPU needs, without a margin.
pub(super) fn fullest(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Breakdown {
    let gpus = parallelism.gpus();
    let caches = Caches::of(facts, workload);
    let copies = if gpus > 1 { COPIES } else { 1 };
    let inputs = caches.mask(workload)
        + Bytes(u64::from(facts.hidden_size)) * FP32 * u64::from(workload.ubatch);
    let (weights, kv_cache) = dealt(facts.layers, gpus)
        .map(|layers| {
            let kv = caches.of_layers(facts, layers.clone()) * u64::from(workload.max_concurrency);
            (weights(facts, layers), kv)
        })
        .max_by_key(|(weights, kv)| *weights + *kv)
        .unwrap_or_default();
    Breakdown {
        weights,
        kv_cache,
        activation: compute_buffer(facts, workload) + inputs * (copies - 1),
        non_torch: CONTEXT,
        graphs: Bytes::ZERO,
        margin: Bytes::ZERO,
    }
}

/// The layers of each GPU, for GPUs of the same free memory: the output layer is dealt out as one more
/// at the end, so the first GPUs have more of the others.
fn dealt(layers: u32, gpus: u32) -> impl Iterator<Item = Range<u32>> {
    let (items, gpus) = (u64::from(layers) + 1, u64::from(gpus.max(1)));
    let first = move |gpu: u64| {
        u32::try_from((gpu * items).div_ceil(gpus)).map_or(layers, |first| first.min(layers))
    };
    (0..gpus).map(move |gpu| first(gpu)..first(gpu + 1))
}

/// The weights of a GPU with these layers; with the last one, the output layer and all else.
fn weights(facts: &ModelFacts, layers: Range<u32>) -> Bytes {
    let held = |parts: &Parts| parts.total() - parts.embedding - parts.output;
    let part = Parts::of_layers(facts, layers.clone());
    if layers.end < facts.layers {
        return held(&part);
    }
    let (whole, all) = (Parts::of(facts), Parts::of_layers(facts, 0..facts.layers));
    let output = if facts.tied_embeddings { whole.embedding } else { whole.output };
    held(&part) + (held(&whole) - held(&all)) + output
}

pub(super) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    let caches = Caches::of(facts, workload);
    let one = Caches { full: caches.token, window: Bytes::ZERO, state: Bytes::ZERO, ..caches };
    let of_gpu = |layers| one.of_layers(facts, layers);
    dealt(facts.layers, parallelism.gpus()).map(of_gpu).max().unwrap_or_default()
}

/// The caches of one slot, all layers.
struct Caches {
    /// Cells of layers that look back over everything, and over a window.
    full_cells: u64,
    window_cells: u64,
    full: Bytes,
    window: Bytes,
    state: Bytes,
    /// What a token takes in the layers that look back over everything.
    token: Bytes,
}

impl Caches {
    fn of(facts: &ModelFacts, workload: &Workload) -> Self {
        let cache = CacheType::of(facts, workload);
        let windowed = u64::from(facts.windowed_layers());
        let token = full_layer_bytes(facts, cache, 1) * (u64::from(facts.kv_layers()) - windowed);
        let full_cells = u64::from(workload.context_length).next_multiple_of(CELLS);
        let window_cells = facts.window.filter(|_| windowed > 0).map_or(0, |window| {
            let held = u64::from(window.tokens) + u64::from(workload.ubatch);
            held.next_multiple_of(CELLS).min(full_cells)
        });
        Self {
            full_cells,
            window_cells,
            full: token * full_cells,
            window: window_layer_bytes(facts, cache, 1) * windowed * window_cells,
            state: facts.recurrent.map_or(Bytes::ZERO, |r| Bytes(r.state_bytes_per_sequence)),
            token,
        }
    }

    fn total(&self) -> Bytes {
        self.full + self.window + self.state
    }

    /// What some layers keep: by what each does where that is known, else evenly.
    fn of_layers(&self, facts: &ModelFacts, layers: Range<u32>) -> Bytes {
        let part =
            |whole: Bytes, held: usize, all: usize| whole.div_ceil(all.max(1) as u64) * held as u64;
        let Some(tensors) = &facts.tensors else {
            return part(self.total(), layers.len(), facts.layers as usize);
        };
        let share = |whole: Bytes, is: fn(LayerCache) -> bool| {
            let all = tensors.caches().filter(|&cache| is(cache)).count();
            let before = tensors.caches().take(layers.end as usize).skip(layers.start as usize);
            part(whole, before.filter(|&cache| is(cache)).count(), all)
        };
        share(self.full, |cache| matches!(cache, LayerCache::Full | LayerCache::StateAndFull))
            + share(self.window, |cache| cache == LayerCache::Window)
            + share(self.state, |cache| {
                matches!(cache, LayerCache::State | LayerCache::StateAndFull)
            })
    }

    /// The masks of a step, which is shared out among the slots: fp16 for fused attention.
    fn mask(&self, workload: &Workload) -> Bytes {
        let value = if workload.flash_attention { 2 } else { FP32 };
        Bytes(self.full_cells + self.window_cells) * value * step(workload)
    }
}

/// Tokens of a step: no more than there are cells, and the same number for each slot.
fn step(workload: &Workload) -> u64 {
    let slots = u64::from(workload.max_concurrency.max(1));
    let cells = u64::from(workload.context_length).next_multiple_of(CELLS) * slots;
    u64::from(workload.ubatch).min(cells).next_multiple_of(slots)
}

/// A cache of few bits is rotated before it is stored: a square matrix of a head's width for each of
/// the caches.
fn rotations(facts: &ModelFacts, workload: &Workload) -> Bytes {
    let asked = [Some(workload.kv_dtype), workload.value_dtype].into_iter().flatten();
    if facts.mla.is_some() || !asked.into_iter().any(KvDtype::is_block) {
        return Bytes::ZERO;
    }
    let square = |width: u32| Bytes(u64::from(width) * u64::from(width)) * FP32;
    let window = facts.window.map_or(Bytes::ZERO, |_| {
        square(facts.window_heads.map_or(facts.head_dim, |heads| heads.head_dim))
    });
    square(facts.head_dim) + window
}

/// The compute buffer of one device with all layers.
pub(super) fn compute_buffer(facts: &ModelFacts, workload: &Workload) -> Bytes {
    /// Token numbers, positions, cells' numbers and the like.
    const SMALL: u64 = 10;
    let step = step(workload);
    let caches = Caches::of(facts, workload);
    let hidden = 5 * u64::from(facts.hidden_size);
    let dense = feed_forward(facts.intermediate_size, 1, facts) + hidden;
    let experts = facts.moe.map_or(0, |moe| {
        feed_forward(moe.expert_intermediate_size, moe.experts_per_token, facts) + hidden
    });
    let attention = attention(facts, workload, &caches);
    let values = dense.max(experts).max(attention) + SMALL;
    let logits = u64::from(facts.vocab_size) * u64::from(workload.max_concurrency);
    caches.mask(workload)
        + rotations(facts, workload)
        + (Bytes(values) * step).max(Bytes(logits)) * FP32
}

/// Gate, up and their product in `used` experts, and the experts' outputs where they do not fit
/// into what gate and up leave.
fn feed_forward(width: u32, used: u32, facts: &ModelFacts) -> u64 {
    let (width, hidden) = (u64::from(width), u64::from(facts.hidden_size));
    let matrices = if facts.gated { 3 } else { 2 };
    let outputs = if used > 1 && hidden > 2 * width { hidden } else { 0 };
    u64::from(used) * (matrices * width + outputs)
}

/// Queries, keys, values and what is made of them; without fused attention, also all scores.
fn attention(facts: &ModelFacts, workload: &Workload, caches: &Caches) -> u64 {
    let (heads, hidden) = (u64::from(facts.attention_heads), u64::from(facts.hidden_size));
    let projections = if let Some(mla) = &facts.mla {
        heads * latent(mla) + 5 * hidden
    } else {
        let query = heads * u64::from(facts.head_dim);
        let keys = u64::from(facts.kv_heads) * u64::from(facts.head_dim);
        3 * query + 2 * keys + hidden
    };
    let scores = if workload.flash_attention { 0 } else { heads * caches.full_cells };
    projections + scores
}

/// Values of a head of latent attention: the query, and twice what is compared with the cache.
fn latent(mla: &Mla) -> u64 {
    2 * u64::from(mla.kv_lora_rank)
        + 3 * u64::from(mla.qk_rope_head_dim)
        + u64::from(mla.qk_nope_head_dim)
}

/// The buffers of a llama-server whose model is on one device with all tables: what a build for the
/// CPU prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// "KV buffer size", all of them.
    pub kv: Bytes,
    /// "compute buffer size".
    pub compute: Bytes,
    /// "output buffer size".
    pub output: Bytes,
}

/// The buffers that llama-server prints, but for the model's, which is the file's tensors.
pub fn buffers(facts: &ModelFacts, workload: &Workload) -> Buffers {
    let slots = u64::from(workload.max_concurrency);
    Buffers {
        kv: Caches::of(facts, workload).total() * slots,
        compute: compute_buffer(facts, workload),
        output: Bytes(u64::from(facts.vocab_size)) * FP32 * slots,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_layer_is_dealt_out_too() {
        let lengths = |layers, gpus| dealt(layers, gpus).map(|held| held.len()).collect::<Vec<_>>();
        assert_eq!(lengths(32, 1), [32]);
        assert_eq!(lengths(32, 2), [17, 15]);
        assert_eq!(lengths(32, 3), [11, 11, 10]);
        assert_eq!(lengths(80, 4), [21, 20, 20, 19]);
        for gpus in 1..=40 {
            assert_eq!(lengths(40, gpus).iter().sum::<usize>(), 40, "{gpus}");
        }
    }
}
