//! llama.cpp's server: layers dealt out over the GPUs, memory as its buffers name it.
//!
//! `-c contextLength·maxConcurrency -np maxConcurrency`, all layers on GPUs, flash attention on.
//! No fitted constants: the buffers follow from the graph; what lies outside of them is rough.

use berth_units::Bytes;

use super::Overheads;
use crate::{
    Basis, EstimateError, KvDtype, ModelFacts, Parallelism, Quantization, Workload, kv,
    parallelism::check_layer_split, weights::Parts,
};

/// Tokens of one step (`--ubatch-size`, llama-server's default).
const STEP: u64 = 512;

/// Cells of the KV cache come in multiples of this.
const CELLS: u64 = 256;

/// The CUDA context and cuBLAS' workspace, outside of llama.cpp's own buffers. Rough.
const CONTEXT: Bytes = Bytes::mib(512);

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
    if workload.kv_dtype == KvDtype::Fp8 {
        return Err(EstimateError::KvDtype {
            engine: workload.engine,
            kv_dtype: "Fp8".to_owned(),
            use_instead: "F16, Q8_0 or Q4_0",
        });
    }
    check_layer_split(facts, parallelism.tensor)
}

/// The fullest GPU's weights: its layers and the output layer. The input table stays in the host's
/// memory; one shared with the output is loaded twice, once there and once on the GPU.
pub(super) fn weights(facts: &ModelFacts, parallelism: Parallelism) -> Bytes {
    let parts = Parts::of(facts);
    let layers = parts.divided + parts.experts + parts.kv_projection + parts.replicated;
    let output = if facts.tied_embeddings { parts.embedding } else { parts.output };
    fullest(facts, parallelism, layers) + output
}

pub(super) fn kv_cache(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Bytes {
    let dtype = workload.kv_dtype;
    let length = u64::from(workload.context_length).next_multiple_of(CELLS);
    // A windowed layer holds the window and one step, in whole multiples of cells.
    let window = facts.window.map_or(0, |window| u64::from(window.tokens));
    let step = (window + STEP).next_multiple_of(CELLS) - window + 1;
    let sequence = kv::full_bytes_per_token(facts, dtype, 1) * length
        + kv::window_bytes(facts, dtype, 1, length, step)
        + kv::state_bytes(facts, 1);
    fullest(facts, parallelism, sequence * u64::from(workload.max_concurrency))
}

pub(super) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    fullest(facts, parallelism, kv::full_bytes_per_token(facts, workload.kv_dtype, 1))
}

/// The compute buffer of one step: logits in fp32, a feed-forward layer's gate, up and product and
/// four hidden states in fp32, and the attention mask in fp16 over all slots.
pub(super) fn overheads(
    facts: &ModelFacts,
    workload: &Workload,
    _parallelism: Parallelism,
) -> Overheads {
    let experts = facts.moe.map_or(0, |moe| {
        u64::from(moe.experts_per_token)
            * (3 * u64::from(moe.expert_intermediate_size) + u64::from(facts.hidden_size))
    });
    let layer =
        (3 * u64::from(facts.intermediate_size)).max(experts) + 4 * u64::from(facts.hidden_size);
    let step = Bytes(layer.max(u64::from(facts.vocab_size))) * 4;
    let cells = u64::from(workload.context_length).next_multiple_of(CELLS);
    let mask = Bytes(cells) * u64::from(workload.max_concurrency) * 2;
    Overheads { activation: (step + mask) * STEP, non_torch: CONTEXT, graphs: Bytes::ZERO }
}

pub(super) fn basis() -> Basis {
    Basis::Extrapolated { reason: "no measured memory of llama.cpp on whole GPUs".to_owned() }
}

/// The part of `whole`, spread evenly over the layers, on the GPU with the most layers.
fn fullest(facts: &ModelFacts, parallelism: Parallelism, whole: Bytes) -> Bytes {
    let layers = u64::from(facts.layers);
    let most = layers.div_ceil(u64::from(parallelism.tensor.max(1)));
    whole.div_ceil(layers) * most
}
