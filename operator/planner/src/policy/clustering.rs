//! Clustering: nodes that hold only pods of the same size, then those that hold some, then idle
//! ones, then others; the fullest first. The points are those of the published experiment.

use super::{Cost, LARGEST, Policy, Step, points};
use crate::room::{Kind, Room, Size};

pub struct Clustering;

impl Policy for Clustering {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        room.clone()
    }

    fn cost(&mut self, Step { kind, before, demand, .. }: Step<'_>) -> Cost {
        let size = demand.size();
        let quarter = match (before.sizes.has(size), before.sizes.len()) {
            _ if size == Size::Cpu => return Cost(0),
            (true, 1) => 75.0,
            (true, _) => 50.0,
            (false, 0) => 25.0,
            (false, _) => 0.0,
        };
        points(quarter + 25.0 * (1.0 - before.gpus(kind) / LARGEST.1))
    }
}
