//! The peak of vLLM's profiling run, counted from its code (0.19, checked against 0.33).
//!
//! The run is one step of `max_num_batched_tokens` tokens and then the sampler on `max_num_seqs`
//! rows of logits. The peak is in whichever of the two is larger; buffers of the experts and of an
//! image encoder are there in both.
//!
//! - **forward**: a feed-forward layer's gate and up, their product, and some hidden states;
//! - **sampler**: logits as computed and in fp32, probabilities, and random numbers to divide them
//!   by: 2 + 4 + 4 + 4 bytes a logit; a row of fp32 for each multiprocessor of the GPU to look for
//!   top-k in; the hidden states of the step and three times those of the rows sampled. Logits are
//!   gathered, so tensor parallelism does not divide them.
//! - **experts**: the workspace of the fused kernel, which stays allocated since 0.14.

use berth_units::Bytes;

use super::{Constant, Constants, Era, bytes};
use crate::{ModelFacts, Parallelism, Quantization, Version, Workload, parallelism::Stage};

/// Multiprocessors of an H100; others have from 84 to 160, which matters little.
const MULTIPROCESSORS: f64 = 132.0;

/// Since this version the experts' workspace stays between steps.
const WORKSPACE_STAYS: Version = Version::new(0, 14);

pub(super) fn peak(
    constants: &Constants,
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    stage: &Stage,
) -> Bytes {
    let step = Step::of(facts, workload, parallelism);
    let experts = step.experts(facts);
    let stays = super::version(workload) >= WORKSPACE_STAYS;
    let mut forward = step.forward(constants, facts) + if stays { 0.0 } else { experts };
    if !stage.last {
        // What is handed on to the next stage: the hidden state and the residual.
        forward += 2.0 * step.hidden;
    }
    let sampler = if stage.last { step.sampler(constants, facts, workload) } else { 0.0 };
    let mut peak = forward.max(sampler) + if stays { experts } else { 0.0 };
    if stage.first && facts.other_parameters > 0 {
        peak += step.images(constants, facts);
    }
    bytes(peak + constants.mib(Constant::ActivationBase))
}

/// The sizes of a step; amounts in bytes.
struct Step {
    tokens: f64,
    sampled: f64,
    /// Bytes of a value.
    element: f64,
    gpus: u32,
    /// Hidden states of all tokens.
    hidden: f64,
    cut_experts: bool,
}

impl Step {
    fn of(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Self {
        let whole_prompts = Era::of(workload) == Era::WholePrompts;
        let tokens = if whole_prompts {
            workload.max_num_batched_tokens.max(workload.context_length)
        } else {
            workload.max_num_batched_tokens
        };
        let element = if facts.quantization == Quantization::Fp32 { 4.0 } else { 2.0 };
        Self {
            tokens: f64::from(tokens),
            sampled: f64::from(workload.max_num_seqs.min(tokens)),
            element,
            gpus: parallelism.tensor.max(1),
            hidden: f64::from(tokens) * f64::from(facts.hidden_size) * element,
            cut_experts: !parallelism.expert,
        }
    }

    fn forward(&self, constants: &Constants, facts: &ModelFacts) -> f64 {
        let width = f64::from(facts.intermediate_size.div_ceil(self.gpus));
        let matrices = if facts.gated { 3.0 } else { 2.0 };
        // Where activations are 8 bits too, a copy of the product in them.
        let quantised = match facts.quantization {
            Quantization::Fp8 | Quantization::Fp8Block | Quantization::Int8 => 1.0,
            _ => 0.0,
        };
        self.tokens * width * (matrices * self.element + quantised)
            + constants.get(Constant::HiddenStates) * self.hidden
    }

    fn sampler(&self, constants: &Constants, facts: &ModelFacts, workload: &Workload) -> f64 {
        let vocabulary = f64::from(facts.vocab_size);
        let rows = self.hidden + 2.0 * self.sampled * f64::from(facts.hidden_size) * self.element;
        let logits = self.sampled * vocabulary;
        if Era::of(workload) == Era::Now {
            // Logits that are computed in fp32 are not copied to it.
            let copies = if self.element > 2.0 { 12.0 } else { 14.0 };
            logits * copies + MULTIPROCESSORS * vocabulary * 4.0 + rows
        } else {
            logits * constants.get(Constant::SortedLogit) + rows
        }
    }

    /// The fused kernel's two buffers, each of a row for every expert that a token goes through: one
    /// holds the gated product or the output, the other gate and up or the output.
    fn experts(&self, facts: &ModelFacts) -> f64 {
        facts.moe.map_or(0.0, |moe| {
            let parts = if self.cut_experts { self.gpus } else { 1 };
            let width = f64::from(moe.expert_intermediate_size.div_ceil(parts));
            let hidden = f64::from(facts.hidden_size);
            let rows = self.tokens * f64::from(moe.experts_per_token);
            rows * (width.max(hidden) + (2.0 * width).max(hidden)) * self.element
        })
    }

    /// The encoder's output for as many tokens as a step has, and the pixels that it was made from.
    fn images(&self, constants: &Constants, facts: &ModelFacts) -> f64 {
        let values = f64::from(facts.hidden_size) + constants.get(Constant::PixelsPerToken);
        self.tokens * values * self.element
    }
}
