//! Dot product: the least inner product of what is free and what is asked for, CPU and GPU as
//! shares of the largest node's, in whole points of a hundred as the published experiment counts.

use super::{Cost, LARGEST, Policy, Step, plain, points};
use crate::room::{Kind, Room};

pub struct DotProduct;

impl Policy for DotProduct {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    fn cost(&mut self, Step { kind, before, demand, .. }: Step<'_>) -> Cost {
        let cpu = before.cpu.get() as f64 * demand.cpu.get() as f64 / (LARGEST.0 * LARGEST.0);
        let gpu = before.gpus(kind) * demand.gpus_on(kind) / (LARGEST.1 * LARGEST.1);
        points((1.0 - f64::midpoint(cpu, gpu)) * 100.0)
    }
}
