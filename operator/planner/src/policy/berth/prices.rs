//! What it costs that a demand cannot use what is free.
//!
//! The price of a GPU for a demand is its part of all GPUs asked for, times the free GPUs of the
//! fleet over those of them that it can use. It is the gradient of a sum of logarithms: parts are
//! weighed as in proportional fairness, and what becomes rare becomes dear.

use berth_units::{Bytes, MilliCpu};

use super::{
    super::Alike,
    cell::{Cell, Need},
};
use crate::room::{Ask, Demand, Kind, Room, Size};

/// What a GPU that a demand cannot use counts, beside one that is left over.
const KEEP: f64 = 0.06;
/// The same for CPU and pods without GPUs.
const KEEP_CPU: f64 = 0.05;
/// Somebody may want a whole node, and each kind of node is kept possible: the part that this has
/// of the mix for each kind.
const WHOLE_NODE: f64 = 0.01;
/// Of such a node's CPU and memory, what is asked for, in hundredths: some is always taken.
const WHOLE_NODE_HUNDREDTHS: u64 = 90;
/// Of the fleet, what is taken to be there of what there is none of.
const LEAST: f64 = 0.01;

/// Demands with the price of what they cannot use.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    priced: Vec<(Demand, f64)>,
    /// GPUs of the fleet with the usable bytes of each.
    products: Vec<(f64, Bytes)>,
    /// Milli-CPU that a GPU of demand comes with.
    cpu_per_gpu: f64,
}

impl Prices {
    /// For that mix in that fleet.
    pub fn of(mix: &[(Demand, f64)], fleet: &[Alike<'_>]) -> Self {
        let mut prices = Self { products: products(fleet), ..Self::default() };
        let gpus: Vec<f64> = mix.iter().map(|(demand, n)| prices.gpus(demand) * n).collect();
        let cpu = |(demand, n): &(Demand, f64)| demand.cpu.get() as f64 * n;
        let (all_gpus, all_cpu) = (gpus.iter().sum::<f64>(), mix.iter().map(cpu).sum::<f64>());
        let without = |(demand, _): &&(Demand, f64)| demand.size() == Size::Cpu;
        let cpu_without: f64 = mix.iter().filter(without).map(cpu).sum();
        prices.cpu_per_gpu = (all_cpu / all_gpus.max(1.0)).max(1.0);

        let parts = mix.iter().zip(gpus).map(|(entry, gpus)| match entry.0.size() {
            Size::Cpu => (entry.0.clone(), KEEP_CPU * cpu(entry) / cpu_without.max(1.0)),
            _ => (entry.0.clone(), KEEP * gpus / all_gpus.max(1.0)),
        });
        let mut kinds: Vec<&Kind> = fleet.iter().map(|alike| alike.kind).collect();
        kinds.sort();
        kinds.dedup();
        let whole = kinds.into_iter().filter(|kind| kind.gpus > 0);
        let whole = whole.map(|kind| (whole_node(kind), KEEP * WHOLE_NODE));
        let rated = parts.chain(whole).map(|(demand, part)| {
            let rarity = rarity(&demand, fleet);
            (demand, part * rarity)
        });
        prices.priced = rated.filter(|(_, price)| *price > 0.0).collect();
        prices
    }

    /// The GPUs that a demand takes, on average over those that serve it.
    pub fn gpus(&self, demand: &Demand) -> f64 {
        let bytes = match demand.ask {
            Ask::Nothing => return 0.0,
            Ask::Whole { count, .. } => return f64::from(count),
            Ask::Part(bytes) => bytes.get() as f64,
        };
        let serving = self.products.iter().filter(|(_, vram)| vram.get() as f64 >= bytes);
        let (mut gpus, mut taken) = (0.0, 0.0);
        for (count, vram) in serving {
            gpus += count;
            taken += count * bytes / vram.get().max(1) as f64;
        }
        if gpus > 0.0 { taken / gpus } else { 1.0 }
    }

    /// The demands on nodes of a kind.
    pub fn on(&self, kind: &Kind) -> impl Iterator<Item = Priced> {
        self.priced.iter().map(|(demand, price)| Priced {
            of: match demand.size() {
                Size::Cpu => Of::Cpu(price / self.cpu_per_gpu),
                _ => Of::Gpu(price / 100.0),
            },
            need: Need::of(demand, kind),
        })
    }
}

/// A demand on nodes of a kind, with the price of what it cannot use, in GPUs.
#[derive(Clone, Copy, Debug)]
pub struct Priced {
    of: Of,
    /// Absent where such nodes do not serve it.
    need: Option<Need>,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    /// A hundredth of a GPU.
    Gpu(f64),
    /// A thousandth of a CPU; for demands without GPUs.
    Cpu(f64),
}

/// What is free on a node and of no use to demands, by price, in GPUs.
pub fn unused(cell: &Cell, demands: &[Priced]) -> f64 {
    let each = demands.iter().map(|Priced { of, need }| match (of, need) {
        (Of::Cpu(_), Some(need)) if cell.holds(need) => 0.0,
        (Of::Cpu(price), _) => price * cell.cpu() as f64,
        (Of::Gpu(price), Some(need)) => price * f64::from(cell.useless(need)),
        (Of::Gpu(price), None) => price * f64::from(cell.gpus()),
    });
    each.sum()
}

/// What is free in the fleet over what of it a demand can use; nothing for a demand that not even
/// idle nodes could take.
fn rarity(demand: &Demand, fleet: &[Alike<'_>]) -> f64 {
    let amount = |alike: &Alike<'_>, room: &Room| match demand.ask {
        Ask::Nothing => room.cpu.get() as f64,
        _ => room.gpus(alike.kind),
    };
    let (mut all, mut free, mut usable, mut ever) = (0.0, 0.0, 0.0, fleet.is_empty());
    for alike in fleet {
        let (nodes, idle) = (alike.nodes as f64, alike.kind.empty());
        all += nodes * amount(alike, &idle);
        free += nodes * amount(alike, alike.room);
        ever |= idle.fits(alike.kind, demand);
        if let Some(need) = Need::of(demand, alike.kind) {
            let cell = Cell::of(alike.kind, alike.room);
            usable += nodes
                * match demand.ask {
                    Ask::Nothing if cell.holds(&need) => cell.cpu() as f64,
                    Ask::Nothing => 0.0,
                    _ => f64::from(cell.gpus() - cell.useless(&need)) / 100.0,
                };
        }
    }
    if all == 0.0 {
        return 1.0;
    }
    if ever { (free + LEAST * all) / (usable + LEAST * all) } else { 0.0 }
}

/// A request for the whole of a node.
fn whole_node(kind: &Kind) -> Demand {
    Demand {
        cpu: MilliCpu(kind.cpu.get() / 100 * WHOLE_NODE_HUNDREDTHS),
        memory: Bytes(kind.memory.get() / 100 * WHOLE_NODE_HUNDREDTHS),
        ask: Ask::Whole { count: kind.gpus, vram: Bytes::ZERO },
        products: Vec::new(),
    }
}

fn products(fleet: &[Alike<'_>]) -> Vec<(f64, Bytes)> {
    let each = fleet.iter().map(|alike| {
        let gpus = f64::from(alike.kind.gpus) * alike.nodes as f64;
        (gpus, alike.kind.vram)
    });
    let mut products: Vec<(f64, Bytes)> = Vec::new();
    for (gpus, vram) in each {
        match products.iter_mut().find(|(_, known)| *known == vram) {
            Some((count, _)) => *count += gpus,
            None => products.push((gpus, vram)),
        }
    }
    products
}
