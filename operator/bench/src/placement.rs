//! `berth-bench placement`: every policy side by side on the published experiment.
//!
//! [`trace`] reads the files, [`experiment`] plays one shuffle with one policy, this file sums up.
//! Nodes and pods are turned into the planner's own rooms and demands; who chooses is the planner's
//! index with the planner's policies, as in the controller.

pub mod experiment;
pub mod trace;

use std::collections::BTreeMap;

use berth_planner::{policy::Named, room::Size};
use serde::Serialize;

use self::{
    experiment::{Arrivals, Outcome},
    trace::Trace,
};
use crate::table::Table;

/// The first seed of the published experiment.
pub const FIRST_SEED: u64 = 42;

/// What a policy reached, over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub policy: &'static str,
    /// GPU allocated, in hundredths of all GPU there is: the mean of the seeds.
    pub allocation_pct: f64,
    /// Of the pods of each size that arrived, the part that was placed; absent where none arrived.
    pub placed_share: BTreeMap<&'static str, f64>,
    /// Decisions a second, the change of the ledger included.
    pub decisions_per_s: f64,
    /// The median time of a decision, in microseconds.
    pub p50_us: f64,
    /// The time that one decision of a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// Pods that fitted nowhere: the mean of the seeds.
    pub unplaced: f64,
}

/// Plays the experiment with each policy.
pub fn compare(trace: &Trace, seeds: u64, policies: &[Named]) -> Vec<Figures> {
    let arrivals: Vec<Arrivals> =
        (FIRST_SEED..FIRST_SEED + seeds).map(|seed| Arrivals::new(trace, seed)).collect();
    let figures = policies.iter().map(|policy| {
        let runs = arrivals.iter().map(|arrivals| arrivals.play(trace, *policy));
        sum_up(*policy, &runs.collect::<Vec<_>>())
    });
    figures.collect()
}

fn sum_up(policy: Named, runs: &[Outcome]) -> Figures {
    let count = runs.len().max(1) as f64;
    let mut times: Vec<u64> = runs.iter().flat_map(|run| run.nanoseconds.iter().copied()).collect();
    times.sort_unstable();
    let all: u64 = times.iter().sum();
    let shares = Size::ALL.into_iter().filter_map(|size| {
        let sum = |of: &dyn Fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>();
        let arrived = sum(&|run| run.arrived[size as usize]);
        let placed = sum(&|run| run.placed[size as usize]);
        (arrived > 0).then(|| (size.name(), placed as f64 / arrived as f64))
    });
    Figures {
        policy: policy.name(),
        allocation_pct: runs.iter().map(|run| run.allocation * 100.0).sum::<f64>() / count,
        placed_share: shares.collect(),
        decisions_per_s: times.len() as f64 / (all.max(1) as f64 / 1e9),
        p50_us: quantile(&times, 50),
        p99_us: quantile(&times, 99),
        unplaced: runs.iter().map(|run| run.unplaced() as f64).sum::<f64>() / count,
    }
}

/// Of sorted nanoseconds, in microseconds.
pub fn quantile(sorted: &[u64], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default() as f64 / 1e3
}

/// For people.
pub fn table(figures: &[Figures]) -> Table {
    let mut table = Table::new([
        "policy",
        "allocation %",
        "cpu",
        "share",
        "1",
        "2",
        "4",
        "8",
        "decisions/s",
        "p50 µs",
        "p99 µs",
        "unplaced",
    ]);
    for of in figures {
        let placed = |size: &str| {
            of.placed_share
                .get(size)
                .map_or_else(String::new, |part| format!("{:.1}", part * 100.0))
        };
        table.row(&[
            of.policy.to_owned(),
            format!("{:.2}", of.allocation_pct),
            placed("cpu"),
            placed("share"),
            placed("1"),
            placed("2"),
            placed("4"),
            placed("8"),
            format!("{:.0}", of.decisions_per_s),
            format!("{:.1}", of.p50_us),
            format!("{:.1}", of.p99_us),
            format!("{:.0}", of.unplaced),
        ]);
    }
    table
}
