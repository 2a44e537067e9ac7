//! `MostAllocated`, kube-scheduler's: the mean of what would be allocated of CPU, memory and GPUs,
//! each as a share of the node's own, in whole points of a hundred.

use super::{Cost, Policy, Step, plain, points};
use crate::room::{Kind, Room};

pub struct MostAllocated;

impl Policy for MostAllocated {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    fn cost(&mut self, Step { kind, after, .. }: Step<'_>) -> Cost {
        let used = |free: f64, all: f64| if all > 0.0 { 1.0 - free / all } else { 0.0 };
        let cpu = used(after.cpu.get() as f64, kind.cpu.get() as f64);
        let memory = used(after.memory.get() as f64, kind.memory.get() as f64);
        let gpus = used(after.gpus(kind), f64::from(kind.gpus));
        points((cpu + memory + gpus) / 3.0 * 100.0)
    }
}
