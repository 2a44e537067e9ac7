//! Fragmentation Gradient Descent (Weng et al., USENIX ATC '23): where the GPU that typical demands
//! cannot use grows least.
//!
//! As the published experiment counts it: of each typical demand all free GPU of a node is a
//! fragment if the demand does not fit there by CPU, GPUs or product, else the GPUs of which less
//! is free than it takes; differences become whole points of a hundred through a sigmoid, so that
//! small ones tie and the first node by name wins. That tie-breaking is worth two points of
//! allocation on the default trace and seven on one of shares alone. Typical are the most frequent
//! of the demands seen so far, 95 % of them in all.

use std::collections::HashMap;

use super::{Alike, Cost, Policy, Step, mix::Mix, plain, points};
use crate::room::{Ask, Demand, Kind, Room};

/// Of the demands seen, those that count as typical.
const TYPICAL: f64 = 0.95;
/// Demands seen until the first look at them; every later look is at twice as many.
const FIRST: u64 = 50;

#[derive(Default)]
pub struct Fgd {
    mix: Mix,
    learnt: u64,
    typical: Vec<(Demand, f64)>,
    known: HashMap<(u32, Room), f64>,
}

impl Fgd {
    fn fragments(&mut self, kind: &Kind, number: u32, room: &Room) -> f64 {
        let key = (number, plain(room));
        let typical = &self.typical;
        *self.known.entry(key).or_insert_with(|| fragments(kind, room, typical))
    }
}

/// The expected GPUs of a room that a demand of the mix cannot use.
fn fragments(kind: &Kind, room: &Room, mix: &[(Demand, f64)]) -> f64 {
    let all = room.gpus(kind);
    let useless = |demand: &Demand| match demand.ask {
        _ if room.cpu < demand.cpu || !kind.serves(demand) => all,
        Ask::Whole { count, .. } if room.whole >= count => all - f64::from(room.whole),
        Ask::Part(bytes) if room.whole > 0 || room.open.last().is_some_and(|f| *f >= bytes) => {
            room.open.iter().filter(|free| **free < bytes).map(|free| kind.in_gpus(*free)).sum()
        }
        Ask::Nothing | Ask::Whole { .. } | Ask::Part(_) => all,
    };
    mix.iter().map(|(demand, share)| share * useless(demand)).sum()
}

impl Policy for Fgd {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    fn cost(&mut self, Step { kind, number, before, after, .. }: Step<'_>) -> Cost {
        let more = self.fragments(kind, number, after) - self.fragments(kind, number, before);
        points(100.0 / (1.0 + more.exp()))
    }

    fn arrives(&mut self, demand: &Demand) -> bool {
        self.mix.add(demand);
        self.mix.total() >= FIRST.max(self.learnt * 2)
    }

    fn learn(&mut self, _: &mut dyn Iterator<Item = Alike<'_>>) {
        self.learnt = self.mix.total();
        let (mut typical, all) = (self.mix.ranked(), self.mix.total() as f64);
        let mut sum = 0.0;
        typical.retain(|(_, count)| {
            let needed = sum < TYPICAL * all;
            sum += if needed { *count } else { 0.0 };
            needed
        });
        for (_, count) in &mut typical {
            *count /= sum;
        }
        self.typical = typical;
        self.known.clear();
    }
}
