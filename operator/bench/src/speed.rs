//! How long an estimate takes, beside a peer's rule in the same run.

use std::{hint::black_box, time::Instant};

use berth_vram::{Engine, ModelFacts, Parallelism, Workload, catalogue, estimate, parameters};
use serde::Serialize;

use crate::peers::rule_of_thumb;

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Models of the catalogue that were estimated in turn.
    pub models: usize,
    /// Microseconds of one estimate.
    pub estimate_us: f64,
    /// Nanoseconds of `GPUStack`'s rule.
    pub rule_ns: f64,
    /// How many times as long as the rule ours takes.
    pub ratio: f64,
}

/// Measures, the best of some rounds.
pub fn measure() -> Speed {
    const ROUNDS: u32 = 20;
    let models: Vec<&ModelFacts> = catalogue()
        .iter()
        .map(|entry| &entry.facts)
        .filter(|facts| estimate(facts, &asked(facts), Parallelism::SINGLE).is_ok())
        .collect();
    let each = 1e9 / models.len().max(1) as f64;
    let best = |work: &dyn Fn(&ModelFacts)| {
        let round = || {
            let start = Instant::now();
            for facts in &models {
                work(facts);
            }
            start.elapsed().as_secs_f64() * each
        };
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    };
    let estimate_ns = best(&|facts| {
        let _ = black_box(estimate(black_box(facts), &asked(facts), Parallelism::SINGLE));
    });
    let rule_ns = best(&|facts| {
        let (layers, heads) = (u64::from(facts.layers), u64::from(facts.kv_heads));
        let head_dim = u64::from(facts.head_dim);
        // Counting parameters is what takes the rule's time too.
        let bytes = rule_of_thumb(parameters(black_box(facts)), layers, heads, head_dim, 8192);
        let _ = black_box(bytes);
    });
    Speed {
        models: models.len(),
        estimate_us: estimate_ns / 1e3,
        rule_ns,
        ratio: estimate_ns / rule_ns.max(1e-3),
    }
}

fn asked(facts: &ModelFacts) -> Workload {
    let engine = match facts.quantization {
        berth_vram::Quantization::Gguf(_) => Engine::LlamaCpp,
        _ => Engine::Vllm,
    };
    Workload::new(engine, facts.max_context.min(8192), 1)
}
