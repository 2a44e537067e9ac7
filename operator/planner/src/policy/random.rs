//! Random: every node that fits is as likely. Seeded, so that a run can be repeated.

use super::{Cost, Policy, Step, mix::Draws, plain};
use crate::room::{Demand, Kind, Room};

pub struct Random(Draws);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Draws::new(seed))
    }
}

impl Policy for Random {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    /// Of independent exponential times with rates as given, each is the first with a probability
    /// in proportion to its rate: here to the number of nodes with that room.
    fn cost(&mut self, step: Step<'_>) -> Cost {
        Cost::of(-(1.0 - self.0.unit()).ln() / step.equals as f64 * 1e3)
    }

    fn arrives(&mut self, _: &Demand) -> bool {
        true
    }
}
