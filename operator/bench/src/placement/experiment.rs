//! One run: pods arrive one by one, each is placed or passed over for good.
//!
//! The pods are shuffled (Fisher-Yates from the end) and more are drawn from them with replacement
//! until 130 % of the GPUs are requested; the draws are `SplitMix64`'s from the seed on.

use std::time::Instant;

use berth_planner::{
    index::{Index, KindId},
    policy::{Draws, Named},
    room::{Demand, Kind, Room},
};

use super::trace::{Trace, milli};

/// Requested GPU as a part of all GPU, in tenths.
const LOAD_TENTHS: u64 = 13;

/// The pods in the order in which they arrive.
pub struct Arrivals {
    seed: u64,
    /// By their numbers in the trace.
    pods: Vec<usize>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// GPU allocated, as a part of all.
    pub allocation: f64,
    /// Pods that arrived, by [`berth_planner::room::Size`].
    pub arrived: [u64; 6],
    /// Those of them that were placed.
    pub placed: [u64; 6],
    /// The time of each decision.
    pub nanoseconds: Vec<u64>,
}

impl Outcome {
    /// Pods that fitted nowhere.
    pub fn unplaced(&self) -> u64 {
        self.arrived.iter().sum::<u64>() - self.placed.iter().sum::<u64>()
    }
}

impl Arrivals {
    /// The order of one seed.
    pub fn new(trace: &Trace, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let mut pods: Vec<usize> = (0..trace.pods.len()).collect();
        for last in (1..pods.len()).rev() {
            pods.swap(last, draws.below(last + 1));
        }
        let given = pods.len();
        let mut requested: u64 = trace.pods.iter().map(milli).sum();
        let target = capacity(trace) * LOAD_TENTHS / 10;
        // A list without GPUs never gets there.
        while requested > 0 && requested < target {
            let again = pods[draws.below(given)];
            requested += milli(&trace.pods[again]);
            pods.push(again);
        }
        Self { seed, pods }
    }

    /// Places them with a policy.
    pub fn play(&self, trace: &Trace, policy: Named) -> Outcome {
        let mut index: Index<u32> = Index::new(policy.policy(self.seed));
        let mut rooms: Vec<(KindId, Room)> = Vec::new();
        for (number, (_, kind)) in (0..).zip(&trace.nodes) {
            let (id, room) = (index.kind(kind, 0), kind.empty());
            index.put(&number, id, &room);
            rooms.push((id, room));
        }
        let mut outcome = Outcome {
            allocation: 0.0,
            arrived: [0; 6],
            placed: [0; 6],
            nanoseconds: Vec::with_capacity(self.pods.len()),
        };
        let mut taken = 0;
        for pod in &self.pods {
            let demand = &trace.pods[*pod];
            let start = Instant::now();
            let placed = place(&mut index, &mut rooms, trace, demand);
            outcome.nanoseconds.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            outcome.arrived[demand.size() as usize] += 1;
            if placed {
                outcome.placed[demand.size() as usize] += 1;
                taken += milli(demand);
            }
        }
        outcome.allocation = taken as f64 / capacity(trace).max(1) as f64;
        outcome
    }
}

/// Places one pod: the decision, and the change of the ledger.
fn place(
    index: &mut Index<u32>,
    rooms: &mut [(KindId, Room)],
    trace: &Trace,
    demand: &Demand,
) -> bool {
    index.arrives(demand);
    let kind_of = |node: u32| -> &Kind { &trace.nodes[node as usize].1 };
    let fits = |node: &u32| rooms[*node as usize].1.fits(kind_of(*node), demand);
    let Some(found) = index.best_of_all(demand, fits) else { return false };
    let (id, room) = &mut rooms[found.node as usize];
    let Some(after) = index.take(*id, room, demand) else { return false };
    *room = after;
    index.put(&found.node, *id, room);
    true
}

fn capacity(trace: &Trace) -> u64 {
    trace.nodes.iter().map(|(_, kind)| u64::from(kind.gpus) * 1000).sum()
}
