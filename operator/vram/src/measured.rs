//! What an engine said it takes, in place of what was estimated.
//!
//! An engine tells of its weights, its KV cache and sometimes of a step's buffers; never of the
//! driver's context or of graphs. So parts are replaced one by one, and the rest stays estimated. The
//! margin shrinks by what is now known: the error of the weights, and where a step's buffers are told
//! too, that of the overheads as far as no [`Gap`](crate::Gap) is about what is told of nowhere.
//!
//! What is said for one context and concurrency holds for another: weights are the same, the KV cache
//! differs as the formula says, and a step's buffers are taken as they were, with what the formula
//! adds where more is asked. A log can be misread, and a figure that is too low is an engine that
//! dies: one that is out of all proportion to the estimate refutes itself, and nothing of it counts.

use berth_units::Bytes;

use crate::{
    Breakdown, Estimate, EstimateError, ModelFacts, Parallelism, Workload,
    engine::{self, Constants},
    estimate::estimate,
    margin::{margin, margin_of_told},
};

/// How far what was told holds for what is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Weights and cache can only be as large or larger: told by an engine on the CPU, where buffers
    /// are others, or of files that may have changed since. The margin is that of an estimate.
    Raises,
    /// The same files, all of them on GPUs.
    Replaces,
}

/// What an engine told of its fullest GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How far it holds.
    pub trust: Trust,
    /// Weights, as loaded.
    pub weights: Bytes,
    /// The KV cache, and the tokens that it holds.
    pub kv_cache: Option<(Bytes, u64)>,
    /// Buffers of a step.
    pub activation: Option<Bytes>,
}

/// Why nothing of what was told is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// There is no estimate to put it into.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// It cannot be what it says it is.
    #[error("{told} of {what} cannot be where {estimated} are estimated: the estimate stays")]
    OutOfProportion {
        /// The part.
        what: &'static str,
        /// What was told.
        told: Bytes,
        /// What was estimated.
        estimated: Bytes,
    },
}

/// What is estimated for `now`, with what an engine told of `then`: the same model and engine, maybe
/// another context and concurrency.
pub fn measured(
    facts: &ModelFacts,
    (now, then): (&Workload, &Workload),
    parallelism: Parallelism,
    told: &Told,
) -> Result<Estimate, Disbelief> {
    let mut asked = estimate(facts, now, parallelism)?;
    let before = estimate(facts, then, parallelism)?.per_gpu;
    let guess = asked.per_gpu;
    let weights = in_proportion("weights", told.weights, before.weights, 2)?;
    // Where layers are of several kinds, the tokens that a log counts are not those that it holds.
    let counts = engine::logged_kv_bytes_per_token(facts, then, parallelism)
        == engine::kv_bytes_per_token(facts, then, parallelism);
    let kv_cache = match told.kv_cache.filter(|(_, tokens)| counts && *tokens > 0) {
        Some((bytes, tokens)) => {
            let tokens_then = u64::from(then.context_length) * u64::from(then.max_concurrency);
            let needed = share(bytes, tokens_then, tokens);
            in_proportion("KV cache", needed, before.kv_cache, 2)?;
            share(guess.kv_cache, needed.get(), before.kv_cache.get())
        }
        None => guess.kv_cache,
    };
    let sure = told.trust == Trust::Replaces;
    let activation = match told.activation.filter(|_| sure) {
        Some(told) => {
            in_proportion("a step's buffers", told, before.activation, 4)?
                + guess.activation.saturating_sub(before.activation)
        }
        None => guess.activation,
    };
    let mut parts = match told.trust {
        Trust::Replaces => Breakdown { weights, kv_cache, activation, ..guess },
        Trust::Raises => Breakdown {
            weights: weights.max(guess.weights),
            kv_cache: kv_cache.max(guess.kv_cache),
            ..guess
        },
    };
    parts.margin = match told.trust {
        Trust::Replaces => {
            margin_of_told(&Constants::FITTED, &asked.basis, told.activation.is_some(), now.risk)
        }
        Trust::Raises => margin(&Constants::FITTED, &parts, &asked.basis, now.risk),
    };
    let per_token = asked.kv_bytes_per_token;
    let kv_bytes_per_token = share(per_token, parts.kv_cache.get(), guess.kv_cache.get());
    asked.per_gpu = parts;
    asked.kv_bytes_per_token = kv_bytes_per_token;
    Ok(asked)
}

/// `whole × part ÷ of`, rounded up; the whole, where there is nothing to divide by.
fn share(whole: Bytes, part: u64, of: u64) -> Bytes {
    if of == 0 {
        return whole;
    }
    let exact = (u128::from(whole.get()) * u128::from(part)).div_ceil(u128::from(of));
    Bytes(u64::try_from(exact).unwrap_or(u64::MAX))
}

/// A figure as it was told, if it is at least one `slack`th of the estimate and at most four times it:
/// files that are named F16 and hold fp32 are twice as large, other errors that large are of reading.
fn in_proportion(
    what: &'static str,
    told: Bytes,
    estimated: Bytes,
    slack: u64,
) -> Result<Bytes, Disbelief> {
    let least = estimated / slack;
    let most = estimated.get().saturating_mul(4);
    if (least.get()..=most).contains(&told.get()) {
        Ok(told)
    } else {
        Err(Disbelief::OutOfProportion { what, told, estimated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Gap, catalogue};

    const ONE: Parallelism = Parallelism::SINGLE;

    fn llama() -> &'static ModelFacts {
        &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts
    }

    /// vLLM by its log: weights of 15.2 GiB, and a cache that is larger than asked for.
    fn told() -> Told {
        Told {
            trust: Trust::Replaces,
            weights: Bytes::mib(15_565),
            kv_cache: Some((Bytes(131_072 * 400_000), 400_000)),
            activation: None,
        }
    }

    fn asked(context: u32, sequences: u32) -> Workload {
        Workload::new(Engine::Vllm, context, sequences)
    }

    fn found(now: &Workload, told: &Told) -> Result<Breakdown, Disbelief> {
        measured(llama(), (now, &asked(8192, 1)), ONE, told).map(|found| found.per_gpu)
    }

    #[test]
    fn weights_are_as_told_and_the_cache_follows_what_is_asked() {
        for (context, sequences) in [(8192, 1), (4096, 1), (32_768, 4)] {
            let now = asked(context, sequences);
            let guess = estimate(llama(), &now, ONE).unwrap().per_gpu;
            let parts = found(&now, &told()).unwrap();
            assert_eq!(parts.weights, Bytes::mib(15_565));
            assert_eq!(parts.kv_cache, Bytes(131_072) * u64::from(context * sequences));
            assert_eq!(parts.activation, guess.activation, "told of nowhere");
            assert!(parts.margin < guess.margin, "{parts}, {guess}");
            assert!(parts.margin > Bytes::ZERO);
        }
        let wide = Told { kv_cache: Some((Bytes(262_144 * 400_000), 400_000)), ..told() };
        let now = asked(16_384, 1);
        let found = measured(llama(), (&now, &asked(8192, 1)), ONE, &wide).unwrap();
        assert_eq!(found.per_gpu.kv_cache, Bytes(262_144 * 16_384));
        assert_eq!(found.kv_bytes_per_token, Bytes(262_144));
    }

    #[test]
    fn a_log_that_was_misread_changes_nothing() {
        let now = asked(8192, 1);
        for odd in [
            Told { weights: Bytes::gib(7), ..told() },
            Told { weights: Bytes::ZERO, ..told() },
            Told { weights: Bytes::gib(61), ..told() },
            Told { weights: Bytes(u64::MAX), ..told() },
            Told { kv_cache: Some((Bytes::mib(10), 400_000)), ..told() },
            Told { kv_cache: Some((Bytes(u64::MAX), 1)), ..told() },
            Told { activation: Some(Bytes(1)), ..told() },
        ] {
            let refused = found(&now, &odd).unwrap_err();
            assert!(matches!(refused, Disbelief::OutOfProportion { .. }), "{odd:?}: {refused}");
        }
        let unsaid = Told { kv_cache: Some((Bytes::gib(50), 0)), ..told() };
        let guess = estimate(llama(), &now, ONE).unwrap().per_gpu;
        assert_eq!(found(&now, &unsaid).unwrap().kv_cache, guess.kv_cache);
    }

    #[test]
    fn what_is_not_sure_can_only_raise_an_estimate() {
        let now = asked(8192, 1);
        let guess = estimate(llama(), &now, ONE).unwrap().per_gpu;
        let less = Told {
            trust: Trust::Raises,
            weights: guess.weights - Bytes::gib(2),
            activation: Some(guess.activation / 2),
            ..told()
        };
        assert_eq!(found(&now, &less).unwrap(), guess);
        let more = Told { weights: guess.weights * 2, ..less };
        let parts = found(&now, &more).unwrap();
        assert_eq!((parts.weights, parts.activation), (guess.weights * 2, guess.activation));
        assert!(parts.margin > guess.margin, "as if it were an estimate");
    }

    #[test]
    fn a_step_takes_what_it_took_and_more_where_more_is_asked() {
        let facts =
            &catalogue().find("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", Some("*Q4_K_M.gguf"));
        let facts = &facts.unwrap().facts;
        let ask = |context, sequences| Workload::new(Engine::LlamaCpp, context, sequences);
        let guess = |workload: &Workload| estimate(facts, workload, ONE).unwrap();
        let then = ask(8192, 1);
        let before = guess(&then).per_gpu;
        let told = Told {
            weights: before.weights,
            kv_cache: Some((before.kv_cache, 8192)),
            activation: Some(before.activation + Bytes::mib(20)),
            trust: Trust::Replaces,
        };
        let found = |now: &Workload| measured(facts, (now, &then), ONE, &told).unwrap().per_gpu;
        let more = ask(65_536, 2);
        assert!(guess(&more).per_gpu.activation > before.activation);
        assert_eq!(found(&more).activation, guess(&more).per_gpu.activation + Bytes::mib(20));
        assert_eq!(found(&ask(2048, 1)).activation, before.activation + Bytes::mib(20));
        assert_eq!(found(&more).kv_cache, guess(&more).per_gpu.kv_cache);
        // All is told but what CUDA takes outside of the buffers.
        let gap = Gap::LlamaCpp.error();
        let left = Bytes(1).scale(Constants::FITTED.mib(gap) * 10f64.ln());
        assert_eq!(found(&more).margin, left);
    }

    #[test]
    fn a_cache_whose_tokens_mean_something_else_stays_estimated() {
        let facts = &catalogue().find("google/gemma-3-12b-it", None).unwrap().facts;
        let then = asked(32_768, 1);
        let guess = estimate(facts, &then, ONE).unwrap().per_gpu;
        let told = Told {
            weights: guess.weights,
            kv_cache: Some((guess.kv_cache, 32_768 * 2)),
            activation: None,
            trust: Trust::Replaces,
        };
        let found = measured(facts, (&then, &then), ONE, &told).unwrap().per_gpu;
        assert_eq!(found.kv_cache, guess.kv_cache);
    }
}
