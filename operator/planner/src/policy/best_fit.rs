//! Best fit: the least CPU and GPU left, each as a share of the largest node's, in whole points of
//! a hundred as the published experiment counts them.

use super::{Cost, LARGEST, Policy, Step, plain, points};
use crate::room::{Kind, Room};

pub struct BestFit;

impl Policy for BestFit {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    fn cost(&mut self, Step { kind, after, .. }: Step<'_>) -> Cost {
        let left = after.cpu.get() as f64 / LARGEST.0 + after.gpus(kind) / LARGEST.1;
        points((1.0 - left / 2.0) * 100.0)
    }
}
