//! The other way round: how much context, or how many sequences, fit into a GPU's memory.

use berth_units::Bytes;

use crate::{ModelFacts, Parallelism, Workload, estimate, stages};

/// Contexts are found in steps of this many tokens.
const STEP: u32 = 16;

/// The longest context that fits into `usable` bytes a GPU, margin included, with the concurrency
/// of `workload` (its own context does not matter): the model's maximum, or a multiple of 16 tokens
/// below it. `None` if nothing fits or the request is not valid.
pub fn max_context(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    usable: Bytes,
) -> Option<u32> {
    let fits = |context_length: u32| {
        let workload = Workload { context_length, ..workload.clone() };
        estimate(facts, &workload, parallelism).is_ok_and(|e| e.per_gpu.total() <= usable)
    };
    if fits(facts.max_context) {
        return Some(facts.max_context);
    }
    let steps = last(facts.max_context / STEP, |steps| fits(steps * STEP));
    (steps > 0).then_some(steps * STEP)
}

/// The most sequences of `workload`'s context that fit into `usable` bytes a GPU, margin included
/// (its own concurrency does not matter). Zero if not even one does.
pub fn max_concurrency(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    usable: Bytes,
) -> u32 {
    /// More than any engine runs at once.
    const MOST: u32 = 1 << 20;
    last(MOST, |max_concurrency| {
        let workload = Workload { max_concurrency, ..workload.clone() };
        estimate(facts, &workload, parallelism).is_ok_and(|e| e.per_gpu.total() <= usable)
    })
}

/// What a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// What is left for the KV cache on the fullest GPU, margin taken off.
    pub kv_cache: Bytes,
    /// Tokens that this holds, in sequences of the context asked for.
    pub tokens: u64,
    /// Sequences of that context.
    pub sequences: u32,
}

/// What fits into `claim` bytes a GPU for sequences of `workload`'s context. `None` if the model
/// itself does not fit, or the request is not valid.
pub fn capacity(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
    claim: Bytes,
) -> Option<Capacity> {
    let one = Workload { max_concurrency: 1, ..workload.clone() };
    let stages = stages(facts, &one, parallelism).ok()?;
    let beside = stages.iter().map(|stage| stage.total() - stage.kv_cache).max()?;
    if beside > claim {
        return None;
    }
    let sequences = max_concurrency(facts, workload, parallelism, claim);
    // A part of a sequence counts too: what is left holds so much of one.
    let sequence = stages.iter().map(|stage| stage.kv_cache).max()?.get().max(1);
    let left = (claim - beside).get();
    let tokens = u128::from(left) * u128::from(workload.context_length) / u128::from(sequence);
    Some(Capacity {
        kv_cache: Bytes(left),
        tokens: u64::try_from(tokens).unwrap_or(u64::MAX),
        sequences,
    })
}

/// The largest number up to `most` for which `holds`, where it holds for all smaller ones too; 0 if
/// it holds for none.
fn last(most: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut yes, mut no) = (0, u64::from(most) + 1);
    while u64::from(yes) + 1 < no {
        let middle = u32::try_from(u64::midpoint(u64::from(yes), no)).unwrap_or(most);
        if holds(middle) {
            yes = middle;
        } else {
            no = u64::from(middle);
        }
    }
    yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, catalogue};

    #[test]
    fn the_longest_context_fits_and_one_step_more_does_not() {
        let facts = &catalogue().find("Qwen/Qwen3-32B", None).unwrap().facts;
        let workload = Workload::new(Engine::Vllm, 1024, 4);
        let usable = Bytes::gib(76);
        let longest = max_context(facts, &workload, Parallelism::SINGLE, usable).unwrap();
        assert_eq!(longest % 16, 0);
        let needs = |context_length| {
            let workload = Workload { context_length, ..workload.clone() };
            estimate(facts, &workload, Parallelism::SINGLE).unwrap().per_gpu.total()
        };
        assert!(needs(longest) <= usable && needs(longest + 16) > usable, "{longest}");
        assert_eq!(
            max_context(facts, &workload, Parallelism::tensor(4), usable),
            Some(facts.max_context)
        );
        assert_eq!(max_context(facts, &workload, Parallelism::SINGLE, Bytes::gib(40)), None);
        assert_eq!(max_context(facts, &workload, Parallelism::tensor(3), usable), None);
    }

    #[test]
    fn the_most_sequences_fit_and_one_more_does_not() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let workload = Workload::new(Engine::Vllm, 8192, 1);
        let usable = Bytes::gib(70);
        let most = max_concurrency(facts, &workload, Parallelism::SINGLE, usable);
        let needs = |max_concurrency| {
            let workload = Workload { max_concurrency, ..workload.clone() };
            estimate(facts, &workload, Parallelism::SINGLE).unwrap().per_gpu.total()
        };
        assert!(needs(most) <= usable && needs(most + 1) > usable, "{most}");
        assert_eq!(max_concurrency(facts, &workload, Parallelism::SINGLE, Bytes::gib(16)), 0);
    }
    #[test]
    fn a_claim_holds_what_the_estimate_says() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let workload = Workload::new(Engine::Vllm, 8192, 1);
        let holds = |claim| capacity(facts, &workload, Parallelism::SINGLE, claim);
        let held = holds(Bytes::gib(70)).unwrap();
        assert_eq!(held.tokens, held.kv_cache.get() / 131_072);
        assert_eq!(u64::from(held.sequences), held.tokens / 8192);
        assert_eq!(
            held.sequences,
            max_concurrency(facts, &workload, Parallelism::SINGLE, Bytes::gib(70))
        );
        assert_eq!(holds(Bytes::gib(15)), None);
        let little = holds(Bytes::gib(18)).unwrap();
        assert!(little.sequences <= 1, "{little:?}");
    }
}
