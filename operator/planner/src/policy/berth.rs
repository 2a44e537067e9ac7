//! Berth's own: where the least GPU is expected to be left over, with large requests kept possible.
//!
//! What a room is expected to lose, in GPUs, is the sum of
//! - what is *left over* once the node is filled at random from the demand seen so far ([`fill`]);
//! - the free GPUs that demands of the mix *cannot use*, at a price for each ([`prices`]). It is
//!   what FGD goes by, but a GPU costs the more, the fewer of those that are free in the fleet are
//!   of use to the demand: so none is starved, however rare it is;
//! - the same for CPU and pods without GPUs.
//!
//! A step costs what that grows by. Everything is learnt
//! from the demand seen, from a prior while that is little. Rooms are looked at in coarse steps, so
//! that many nodes look equal and each look is worked out once.

mod cell;
mod fill;
mod prices;

use std::collections::HashMap;

use berth_units::{Bytes, MilliCpu};

use self::{
    cell::{Cell, Need},
    prices::{Priced, Prices},
};
use super::{Alike, Cost, Policy, Step, mix::Mix};
use crate::room::{Ask, Demand, Kind, Room, Sizes};

/// Rooms that are remembered with what they lose.
const MOST: usize = 1 << 16;
/// Steps in which CPU and memory of a node are looked at.
const STEPS: u64 = 96;
/// Demands seen until the mix is learnt; later again whenever there are twice as many.
const FIRST: u64 = 50;
/// Prices are made anew whenever so much of the fleet's GPUs was asked for: one part in that many.
const REPRICE: f64 = 25.0;
/// The prior, while less was seen: GPUs of a request, and how often. Each GPU comes with
/// 4 cores and 24 GiB.
const PRIOR: [(u32, f64); 4] = [(1, 8.0), (2, 3.0), (4, 2.0), (8, 2.0)];

/// The policy.
pub struct Berth {
    mix: Mix,
    /// How many demands had been seen when the mix was learnt.
    learnt: u64,
    /// GPUs asked for since prices were made, and GPUs in the fleet then.
    asked: f64,
    fleet: f64,
    /// The mix as it was learnt: demands with their counts.
    demands: Vec<(Demand, f64)>,
    fillings: Vec<Vec<usize>>,
    prices: Prices,
    /// By the kind's number.
    needs: HashMap<u32, Needs>,
    left_over: HashMap<(u32, Room), f64>,
    losses: HashMap<(u32, Room), f64>,
}

/// What is asked of nodes of a kind.
struct Needs {
    /// By the numbers of the demands; absent where they do not serve one.
    mix: Vec<Option<Need>>,
    priced: Vec<Priced>,
}

impl Default for Berth {
    fn default() -> Self {
        let demands = PRIOR.map(|(count, often)| {
            let each = u64::from(count);
            let (cpu, memory) = (MilliCpu::cores(4 * each), Bytes::gib(24 * each));
            let ask = Ask::Whole { count, vram: Bytes::ZERO };
            (Demand { cpu, memory, ask, products: Vec::new() }, often)
        });
        let mut policy = Self {
            mix: Mix::default(),
            learnt: 0,
            asked: 0.0,
            fleet: 0.0,
            demands: demands.to_vec(),
            fillings: Vec::new(),
            prices: Prices::default(),
            needs: HashMap::new(),
            left_over: HashMap::new(),
            losses: HashMap::new(),
        };
        policy.learn(&mut std::iter::empty());
        policy
    }
}

impl Policy for Berth {
    fn look(&self, kind: &Kind, room: &Room) -> Room {
        rounded(kind, room)
    }

    fn most(&self, kind: &Kind, look: &Room) -> Room {
        let above = |free: u64, all: u64| free + (all / STEPS).max(1) - 1;
        let hundredth = Bytes(kind.vram.get() / 100 + 1);
        Room {
            cpu: MilliCpu(above(look.cpu.get(), kind.cpu.get())),
            memory: Bytes(above(look.memory.get(), kind.memory.get())),
            open: look.open.iter().map(|free| *free + hundredth).collect(),
            ..look.clone()
        }
    }

    fn cost(&mut self, Step { kind, number, before, after, .. }: Step<'_>) -> Cost {
        let after = self.look(kind, after);
        let more = self.loss(kind, number, &after) - self.loss(kind, number, before);
        Cost::of(more)
    }

    fn fullest_first(&self) -> bool {
        true
    }

    fn arrives(&mut self, demand: &Demand) -> bool {
        self.mix.add(demand);
        self.asked += self.prices.gpus(demand);
        let total = self.mix.total();
        let of_mix = total >= FIRST.max(self.learnt * 2);
        of_mix || total >= FIRST && self.asked * REPRICE >= self.fleet
    }

    fn learn(&mut self, fleet: &mut dyn Iterator<Item = Alike<'_>>) {
        let fleet: Vec<Alike<'_>> = fleet.collect();
        let total = self.mix.total();
        let anew = total >= FIRST.max(self.learnt * 2);
        if anew {
            self.learnt = total;
            self.demands = self.mix.ranked();
        }
        self.prices = Prices::of(&self.demands, &fleet);
        self.asked = 0.0;
        let gpus = |alike: &Alike<'_>| f64::from(alike.kind.gpus) * alike.nodes as f64;
        self.fleet = fleet.iter().map(gpus).sum();
        self.needs.clear();
        self.losses.clear();
        if anew || self.fillings.is_empty() {
            let weight = |(demand, often): &(Demand, f64)| self.prices.gpus(demand) * often;
            self.fillings = fill::draw(&self.demands.iter().map(weight).collect::<Vec<_>>());
            self.left_over.clear();
        }
    }
}

impl Berth {
    /// What a room is expected to lose, in GPUs.
    fn loss(&mut self, kind: &Kind, number: u32, room: &Room) -> f64 {
        let key = (number, room.clone());
        if let Some(loss) = self.losses.get(&key) {
            return *loss;
        }
        let (demands, prices) = (&self.demands, &self.prices);
        let needs = self.needs.entry(number).or_insert_with(|| Needs {
            mix: demands.iter().map(|(demand, _)| Need::of(demand, kind)).collect(),
            priced: prices.on(kind).collect(),
        });
        if self.left_over.len() >= MOST {
            self.left_over.clear();
            self.losses.clear();
        }
        let cell = Cell::of(kind, room);
        let fillings = &self.fillings;
        let left_over = *self
            .left_over
            .entry(key.clone())
            .or_insert_with(|| fill::left_over(cell, fillings, &needs.mix));
        let loss = left_over + prices::unused(&cell, &needs.priced);
        self.losses.insert(key, loss);
        loss
    }
}

/// A room in coarse steps, rounded down; of the parts of GPUs hundredths.
fn rounded(kind: &Kind, room: &Room) -> Room {
    let coarse = |free: u64, all: u64| {
        let step = (all / STEPS).max(1);
        free / step * step
    };
    let hundredths = |free: &Bytes| {
        let vram = u128::from(kind.vram.get().max(1));
        let whole = u128::from(free.get()) * 100 / vram;
        Bytes(u64::try_from((whole * vram).div_ceil(100)).unwrap_or(u64::MAX))
    };
    let open = room.open.iter().map(hundredths);
    Room {
        cpu: MilliCpu(coarse(room.cpu.get(), kind.cpu.get())),
        memory: Bytes(coarse(room.memory.get(), kind.memory.get())),
        whole: room.whole,
        open: open.filter(|free| *free > Bytes::ZERO).collect(),
        sizes: Sizes::default(),
    }
}
