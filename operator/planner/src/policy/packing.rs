//! Packing: GPUs that are held in part first, then free GPUs of nodes in use, then idle nodes; the
//! points are those of the published experiment.

use super::{Cost, Policy, Step, plain};
use crate::room::{Ask, Kind, Room};

pub struct Packing;

impl Policy for Packing {
    fn look(&self, _: &Kind, room: &Room) -> Room {
        plain(room)
    }

    fn cost(&mut self, Step { kind, before, after, demand, .. }: Step<'_>) -> Cost {
        let free = i64::from(before.whole);
        let score = if demand.ask == Ask::Nothing {
            0
        } else if before.whole == kind.gpus {
            (100 / 3 - free).max(free)
        } else if after.whole < before.whole {
            (100 / 2 - i64::from(before.whole - after.whole)).max(100 / 3)
        } else {
            // The fullest GPU that it fits beside others on.
            let bytes = if let Ask::Part(bytes) = demand.ask { bytes } else { kind.vram };
            let was = before.open.iter().find(|free| **free >= bytes).copied().unwrap_or_default();
            #[expect(clippy::cast_possible_truncation, reason = "0 to 100")]
            let hundredths = (kind.in_gpus(was) * 100.0) as i64;
            (100 - hundredths / 10).max(100 / 2)
        };
        Cost(-score)
    }
}
