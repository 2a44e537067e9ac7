//! vLLM: tensor parallelism, and overheads fitted to its start-up logs.
//!
//! The constants were fitted to complete logs of vLLM 0.19 on H100 80 GB; "activation" is the peak
//! that its profiling run reports, "non-torch" what grows outside `PyTorch`'s allocator.

use berth_units::Bytes;

use super::Overheads;
use crate::{
    Basis, EstimateError, KvDtype, ModelFacts, Parallelism, Quantization, Workload, kv,
    parallelism::check_tensor, weights::tensor_parallel_share,
};

/// Tokens of a block of the KV cache (vLLM's default on NVIDIA).
const BLOCK: u64 = 16;

/// Bytes that the sampler's dummy run takes for each sequence and token of the vocabulary: about
/// four copies of the logits in fp32. Fitted; vLLM 0.19, vocabularies of 32 k to 262 k. Not divided
/// by tensor parallelism.
const SAMPLER_BYTES: f64 = 15.9;

/// Least activation in the logs.
const LEAST_ACTIVATION: Bytes = Bytes::mib(768);

/// What a mixture of experts adds to it (0.55 GiB, fitted).
const EXPERTS_ACTIVATION: Bytes = Bytes::mib(563);

/// Memory outside the allocator on one GPU (0.26 GiB), and with NCCL on several (2.1 GiB).
const NON_TORCH_ALONE: Bytes = Bytes::mib(266);
const NON_TORCH_TOGETHER: Bytes = Bytes::mib(2150);

/// CUDA graphs, all sizes captured: 0.37 GiB and 0.0172 for each layer, 0.15 less where layers are
/// divided, 0.25 more with experts. Fitted over pipeline stages of 8 layers to models of 80 (0.5 to
/// 1.6 GiB); one figure for all, 1.1 GiB, would err by 0.5 at both ends.
const GRAPHS: Bytes = Bytes::mib(379);
const GRAPHS_LAYER: Bytes = Bytes(18_470_000);
const GRAPHS_TOGETHER: Bytes = Bytes::mib(154);
const GRAPHS_EXPERTS: Bytes = Bytes::mib(256);

pub(super) fn check(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<(), EstimateError> {
    if let quantization @ Quantization::Gguf(_) = facts.quantization {
        return Err(EstimateError::Format {
            engine: workload.engine,
            quantization,
            advice: "use engine LlamaCpp, or a safetensors checkpoint of the model",
        });
    }
    if let KvDtype::Q8_0 | KvDtype::Q4_0 = workload.kv_dtype {
        return Err(EstimateError::KvDtype {
            engine: workload.engine,
            kv_dtype: format!("{:?}", workload.kv_dtype),
            use_instead: "Auto or Fp8",
        });
    }
    check_tensor(facts, parallelism.tensor)
}

pub(super) fn weights(facts: &ModelFacts, parallelism: Parallelism) -> Bytes {
    tensor_parallel_share(facts, parallelism.tensor)
}

pub(super) fn kv_cache(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Bytes {
    let (dtype, gpus) = (workload.kv_dtype, parallelism.tensor);
    let length = u64::from(workload.context_length).next_multiple_of(BLOCK);
    let step = u64::from(workload.max_num_batched_tokens);
    let sequence = kv::full_bytes_per_token(facts, dtype, gpus) * length
        + kv::window_bytes(facts, dtype, gpus, length, step)
        + kv::state_bytes(facts, gpus);
    sequence * u64::from(workload.max_concurrency)
}

pub(super) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    kv::full_bytes_per_token(facts, workload.kv_dtype, parallelism.tensor)
}

pub(super) fn overheads(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Overheads {
    Overheads {
        activation: sampler(facts, workload).max(forward(facts, workload, parallelism.tensor)),
        non_torch: if parallelism.tensor > 1 { NON_TORCH_TOGETHER } else { NON_TORCH_ALONE },
        graphs: if workload.cuda_graphs { graphs(facts, parallelism) } else { Bytes::ZERO },
    }
}

fn graphs(facts: &ModelFacts, parallelism: Parallelism) -> Bytes {
    let mut graphs = GRAPHS + GRAPHS_LAYER * u64::from(facts.layers);
    if facts.moe.is_some() {
        graphs += GRAPHS_EXPERTS;
    }
    if parallelism.tensor > 1 {
        graphs -= GRAPHS_TOGETHER;
    }
    graphs
}

/// The peak of the sampler's dummy run, which follows `max_num_seqs`, not the model's size.
fn sampler(facts: &ModelFacts, workload: &Workload) -> Bytes {
    let logits = u64::from(workload.max_num_seqs).saturating_mul(u64::from(facts.vocab_size));
    let dense = Bytes(logits).scale(SAMPLER_BYTES).max(LEAST_ACTIVATION);
    if facts.moe.is_some() { dense + EXPERTS_ACTIVATION } else { dense }
}

/// The peak of a forward pass: for each token four hidden states (the input, the residual, two in
/// flight) and a feed-forward layer's gate, up and product, in 16 bits. It rules where vocabulary
/// and `max_num_seqs` are small: CodeLlama-7B 0.75 GiB (0.77 in the log), Granite-3.1-8B 0.84
/// (0.85).
fn forward(facts: &ModelFacts, workload: &Workload, gpus: u32) -> Bytes {
    let hidden = u64::from(facts.hidden_size);
    let share = |width: u32| 3 * u64::from(width.div_ceil(gpus));
    let routed = facts.moe.map_or(0, |moe| {
        u64::from(moe.experts_per_token)
            .saturating_mul(share(moe.expert_intermediate_size) + hidden)
    });
    let values = share(facts.intermediate_size).max(routed) + 4 * hidden;
    Bytes(values) * u64::from(workload.max_num_batched_tokens) * 2
}

pub(super) fn basis(facts: &ModelFacts, parallelism: Parallelism) -> Basis {
    let reason = if facts.recurrent.is_some() {
        "no complete vLLM log of a model with recurrent layers"
    } else if facts.quantization == Quantization::Mxfp4 || facts.quantization == Quantization::Nvfp4
    {
        "one complete vLLM log at most of a model with 4-bit floats"
    } else if facts.moe.is_some() {
        "four complete vLLM logs of mixtures of experts"
    } else if parallelism.tensor > 4 {
        "no complete vLLM log on more than 4 GPUs"
    } else {
        return Basis::Fitted;
    };
    Basis::Extrapolated { reason: reason.to_owned() }
}
