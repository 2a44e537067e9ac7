//! Which of the rooms that a demand fits in is best: policies, selectable by name.
//!
//! A policy puts one number on one step, from what is free on a node before to what is free after;
//! less is better. Whether a demand fits is not its business ([`Room::afters`]), nor are ties: of
//! nodes with equal costs the first by name is taken ([`crate::index`]). Pure.

mod berth;
mod best_fit;
mod clustering;
mod dot_product;
mod fgd;
mod mix;
mod most_allocated;
mod packing;
mod random;

use std::fmt;

pub use berth::Berth;
pub use mix::Draws;

use crate::room::{Demand, Kind, Room};

/// What a step costs, in millionths of a GPU or whatever unit a policy counts in; less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub i64);

impl Cost {
    /// Of a number of about the size of one.
    pub(crate) fn of(number: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Self((number * 1e6).round() as i64)
    }
}

/// A demand is taken on a node.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The kind of the node.
    pub kind: &'a Kind,
    /// Its number: two kinds that a policy is asked about never share one.
    pub number: u32,
    /// What is free on it, as the policy sees it.
    pub before: &'a Room,
    /// What would be, as it is.
    pub after: &'a Room,
    /// What is taken.
    pub demand: &'a Demand,
    /// How many nodes have that room.
    pub equals: usize,
}

/// A way to choose among nodes that fit.
pub trait Policy: Send {
    /// What the policy sees of a room: nodes that look equal are scored once. Never more than is
    /// free.
    fn look(&self, kind: &Kind, room: &Room) -> Room;

    /// The most that can be free where a room looks like that.
    fn most(&self, _kind: &Kind, look: &Room) -> Room {
        look.clone()
    }

    /// What a step costs.
    fn cost(&mut self, step: Step<'_>) -> Cost;

    /// Which of nodes with equal costs is best: the one with the least CPU and memory left, or else
    /// the first by name.
    fn fullest_first(&self) -> bool {
        false
    }

    /// A demand arrives. Tells whether the policy wants to learn now.
    fn arrives(&mut self, _demand: &Demand) -> bool {
        false
    }

    /// Learns from what arrived and from the fleet as it is. Costs told before hold no more.
    fn learn(&mut self, _fleet: &mut dyn Iterator<Item = Alike<'_>>) {}
}

/// Nodes that look equal to a policy.
#[derive(Clone, Copy, Debug)]
pub struct Alike<'a> {
    /// Their kind.
    pub kind: &'a Kind,
    /// Its number.
    pub number: u32,
    /// What is free on each.
    pub room: &'a Room,
    /// How many they are.
    pub nodes: usize,
}

/// The policies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Named {
    /// Ours.
    Berth,
    /// Fragmentation Gradient Descent (Weng et al., ATC '23).
    Fgd,
    /// The least CPU and GPU left.
    BestFit,
    /// The direction of what is free nearest to that of the demand.
    DotProduct,
    /// GPUs in use first, then nodes in use.
    Packing,
    /// Nodes whose pods are of the same size.
    Clustering,
    /// Any.
    Random,
    /// kube-scheduler's: the most CPU, memory and GPUs allocated.
    MostAllocated,
}

impl Named {
    /// All of them, ours first.
    pub const ALL: [Self; 8] = [
        Self::Berth,
        Self::Fgd,
        Self::BestFit,
        Self::DotProduct,
        Self::Packing,
        Self::Clustering,
        Self::Random,
        Self::MostAllocated,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Berth => "berth",
            Self::Fgd => "fgd",
            Self::BestFit => "best-fit",
            Self::DotProduct => "dot-product",
            Self::Packing => "packing",
            Self::Clustering => "clustering",
            Self::Random => "random",
            Self::MostAllocated => "most-allocated",
        }
    }

    /// The policy of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// A fresh one. Only [`Self::Random`] uses the seed.
    pub fn policy(self, seed: u64) -> Box<dyn Policy> {
        match self {
            Self::Berth => Box::new(Berth::default()),
            Self::Fgd => Box::new(fgd::Fgd::default()),
            Self::BestFit => Box::new(best_fit::BestFit),
            Self::DotProduct => Box::new(dot_product::DotProduct),
            Self::Packing => Box::new(packing::Packing),
            Self::Clustering => Box::new(clustering::Clustering),
            Self::Random => Box::new(random::Random::new(seed)),
            Self::MostAllocated => Box::new(most_allocated::MostAllocated),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The largest node, to which the published policies normalise: 128 cores and 8 GPUs.
const LARGEST: (f64, f64) = (128_000.0, 8.0);

/// A room without what only [`clustering`] looks at.
fn plain(room: &Room) -> Room {
    Room { sizes: crate::room::Sizes::default(), ..room.clone() }
}

/// A score as kube-scheduler has it: whole points, more is better.
fn points(score: f64) -> Cost {
    #[expect(clippy::cast_possible_truncation, reason = "0 to 100")]
    Cost(-(score as i64))
}
