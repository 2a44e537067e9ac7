//! vLLM: tensor and pipeline parallelism, and what it takes beside weights and KV cache.
//!
//! At start-up vLLM runs a step of full size and sees what that took. So the activation follows from
//! its own code: which tensors are alive at the peak, and how large each is ([`activation`]). Versions
//! differ in one thing above all, the sampler: until 0.16 it sorted all logits, since 0.17 it does
//! not. What is taken outside of `PyTorch`, and by CUDA graphs, is fitted
//! ([`Constants`](super::Constants)).

mod activation;
mod amd;
mod kv;

use berth_units::Bytes;

pub(super) use amd::{on_amd, repacked};

use super::{Constant, Constants, gap::Gap};
use crate::{
    Breakdown, EstimateError, ModelFacts, Parallelism, Quantization, Vendor, Version, Workload,
    parallelism::{Stage, check_tensor},
    weights::{Parts, stage_share, tensor_parallel_share},
};

/// What Berth renders where nobody asks for another image.
pub(super) const RENDERED: Version = Version::new(0, 33);

/// The newest version that logs of the constants' kind are of.
const NEWEST_LOGS: Version = Version::new(0, 20);

/// What versions have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Era {
    /// Before 0.8: a prompt is one step, however long.
    WholePrompts,
    /// 0.8 to 0.16: the sampler sorts all logits.
    Sorting,
    /// Since 0.17.
    Now,
}

impl Era {
    pub(super) fn of(workload: &Workload) -> Self {
        let version = version(workload);
        if version < Version::new(0, 8) {
            Self::WholePrompts
        } else if version < Version::new(0, 17) {
            Self::Sorting
        } else {
            Self::Now
        }
    }
}

fn version(workload: &Workload) -> Version {
    workload.version.unwrap_or(RENDERED)
}

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
    let other = [Some(workload.kv_dtype), workload.value_dtype].into_iter().flatten();
    if let Some(dtype) = other.into_iter().find(|dtype| dtype.is_llama_cpp()) {
        return Err(EstimateError::KvDtype {
            engine: workload.engine,
            kv_dtype: format!("{dtype:?}"),
            use_instead: "Auto or Fp8",
        });
    }
    check_tensor(facts, parallelism)
}

/// What a GPU of each stage needs, without a margin.
pub(super) fn stages(
    constants: &Constants,
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Vec<Breakdown> {
    parallelism
        .stages(facts.layers)
        .map(|stage| {
            let mut parts = Breakdown {
                weights: weights(facts, parallelism, &stage)
                    + padded_experts(facts, workload, parallelism, &stage),
                kv_cache: kv_cache(facts, workload, parallelism, &stage),
                activation: activation::peak(constants, facts, workload, parallelism, &stage),
                non_torch: non_torch(constants, workload, parallelism),
                graphs: graphs(constants, facts, workload, &stage),
                margin: Bytes::ZERO,
            };
            if workload.vendor == Vendor::Amd {
                on_amd(constants, repacked(facts, parallelism, stage.len()), &mut parts);
            }
            parts
        })
        .collect()
}

/// The share of one GPU: of the whole model, or of the layers of its stage and the tables there.
pub(super) fn weights(facts: &ModelFacts, parallelism: Parallelism, stage: &Stage) -> Bytes {
    if parallelism.pipeline <= 1 || facts.layers == 0 {
        return tensor_parallel_share(facts, parallelism.tensor);
    }
    stage_share(facts, parallelism.tensor, stage)
}

/// What fp8 experts take more since 0.17: the kernels that serve them want an expert's share of the
/// width in multiples of 16, or of 128 where there is no gate. Nemotron-3-Nano's 1,856 are padded to
/// 1,920, and it loads 31.4 GiB instead of 30.5.
fn padded_experts(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    stage: &Stage,
) -> Bytes {
    let (Quantization::Fp8, Some(moe), Era::Now) =
        (facts.quantization, facts.moe, Era::of(workload))
    else {
        return Bytes::ZERO;
    };
    let cut = if parallelism.expert { 1 } else { parallelism.tensor.max(1) };
    let width = moe.expert_intermediate_size.div_ceil(cut).max(1);
    let padded = width.next_multiple_of(if facts.gated { 16 } else { 128 });
    let experts = Parts::of_layers(facts, stage.layers.clone()).experts;
    let held = experts.div_ceil(u64::from(parallelism.tensor.max(1)));
    held.scale(f64::from(padded - width) / f64::from(width))
}

/// The KV cache of what is asked, on a GPU of one stage.
pub(super) fn kv_cache(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    stage: &Stage,
) -> Bytes {
    let layout = kv::Layout::of(facts, workload, parallelism.tensor, stage);
    layout.sequence(facts, workload) * u64::from(workload.max_concurrency)
}

/// What a token more takes in the layers that look back over all of it.
pub(super) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    let token = |stage| kv::Layout::of(facts, workload, parallelism.tensor, &stage).token();
    parallelism.stages(facts.layers).map(token).max().unwrap_or_default()
}

/// What vLLM's log counts for a token: "GPU KV cache size: N tokens" is the cache's size divided by
/// this.
pub(super) fn logged_kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    let token =
        |stage| kv::Layout::of(facts, workload, parallelism.tensor, &stage).logged(facts, workload);
    parallelism.stages(facts.layers).map(token).max().unwrap_or_default()
}

fn non_torch(constants: &Constants, workload: &Workload, parallelism: Parallelism) -> Bytes {
    let together = parallelism.tensor > 1;
    let constant = match (Era::of(workload), together) {
        (Era::Now, false) => Constant::NonTorchAlone,
        (Era::Now, true) => Constant::NonTorchTogether,
        (_, false) => Constant::NonTorchAloneBefore,
        (_, true) => Constant::NonTorchTogetherBefore,
    };
    bytes(constants.mib(constant))
}

fn graphs(constants: &Constants, facts: &ModelFacts, workload: &Workload, stage: &Stage) -> Bytes {
    if !workload.cuda_graphs {
        return Bytes::ZERO;
    }
    if Era::of(workload) != Era::Now {
        return bytes(constants.mib(Constant::GraphsBefore));
    }
    let layers = f64::from(stage.len());
    let mut graphs =
        constants.mib(Constant::Graphs) + constants.mib(Constant::GraphsLayer) * layers;
    if facts.moe.is_some() {
        graphs += constants.mib(Constant::GraphsExperts);
    }
    if facts.mla.is_some() {
        graphs += constants.mib(Constant::GraphsLatentLayer) * layers;
    }
    bytes(graphs)
}

/// Rounded up; never negative.
fn bytes(amount: f64) -> Bytes {
    Bytes(1).scale(amount)
}

/// What there are no complete logs of.
pub(super) fn gaps(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Vec<Gap> {
    let version = version(workload);
    let four_bits = matches!(
        facts.quantization,
        Quantization::Mxfp4 | Quantization::Nvfp4 | Quantization::Bnb4
    );
    [
        (Era::of(workload) != Era::Now, Gap::Older(version)),
        (version > NEWEST_LOGS, Gap::Newer(version)),
        (facts.recurrent.is_some(), Gap::Recurrent),
        (four_bits, Gap::FourBitFloats),
        (parallelism.tensor > 8, Gap::ManyGpus),
        (workload.vendor == Vendor::Amd, Gap::Amd),
    ]
    .into_iter()
    .filter_map(|(applies, gap)| applies.then_some(gap))
    .collect()
}
