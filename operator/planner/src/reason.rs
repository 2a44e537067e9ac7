//! Why a node is refused: one reason for each node, the decisive one.

use std::{fmt, mem};

use berth_units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

use crate::{Taint, Vendor};

/// The longest text of others that is printed, in characters.
const MAX_TEXT: usize = 80;

/// Why a node is refused.
///
/// In the order in which they are looked at: first what only a change of the node or the request
/// can mend, then the state of the node, last what is taken. So the reason that is given is what
/// would still be in the way if all later ones were gone, and later ones are nearer to fitting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefusalReason {
    /// It has no GPUs.
    NoGpus,
    /// Its GPUs are of another vendor than asked for.
    WrongVendor {
        /// Whose they are.
        has: Vendor,
    },
    /// Its GPUs are of none of the products asked for.
    WrongProduct {
        /// Their product.
        has: String,
    },
    /// It lacks a label of the node selector.
    SelectorMismatch {
        /// The first one that it lacks, as `key=value`.
        lacks: String,
    },
    /// It has a taint that is not tolerated.
    UntoleratedTaint {
        /// The first such taint.
        taint: Taint,
    },
    /// Nothing can be placed on its GPUs.
    Unusable {
        /// Why.
        why: String,
    },
    /// How much memory its GPUs have is not known.
    UnknownVram,
    /// Its GPUs have less memory than needed.
    GpuTooSmall {
        /// The usable bytes of one.
        usable: Bytes,
    },
    /// It has fewer GPUs than needed.
    TooFewGpus {
        /// How many it has.
        has: u32,
    },
    /// It has no cache for model files.
    NoCache,
    /// Its cache is smaller than the model.
    CacheTooSmall {
        /// Its size.
        size: Bytes,
    },
    /// It is not ready.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// The request keeps away from it.
    Avoided {
        /// Why.
        why: String,
    },
    /// Too many of its GPUs are taken.
    GpusTaken {
        /// GPUs that nobody holds.
        free: u32,
        /// GPUs that replicas of ours hold.
        ours: u32,
        /// GPUs that pods of others hold.
        foreign: u32,
    },
    /// Too little CPU is free.
    Cpu {
        /// How much is.
        free: MilliCpu,
    },
    /// Too little memory is free.
    Memory {
        /// How much is.
        free: Bytes,
    },
    /// Too little ephemeral storage is free.
    EphemeralStorage {
        /// How much is.
        free: Bytes,
    },
    /// It has no room for another pod.
    Pods,
    /// Too much of its cache is in use, or kept for a rollback.
    Cache {
        /// How much the model takes.
        need: Bytes,
        /// How much is free, or would be once all that can be evicted is.
        free: Bytes,
    },
    /// It does not hold the model, which must not be downloaded.
    CacheMissing,
    /// The copy of the model in its cache is being removed; afterwards it can come again.
    CacheLeaving,
}

impl RefusalReason {
    /// Its name, for metric labels and condition reasons.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoGpus => "NoGpus",
            Self::WrongVendor { .. } => "WrongVendor",
            Self::WrongProduct { .. } => "WrongProduct",
            Self::SelectorMismatch { .. } => "SelectorMismatch",
            Self::UntoleratedTaint { .. } => "UntoleratedTaint",
            Self::Unusable { .. } => "Unusable",
            Self::UnknownVram => "UnknownVram",
            Self::GpuTooSmall { .. } => "GpuTooSmall",
            Self::TooFewGpus { .. } => "TooFewGpus",
            Self::NoCache => "NoCache",
            Self::CacheTooSmall { .. } => "CacheTooSmall",
            Self::NotReady => "NotReady",
            Self::Cordoned => "Cordoned",
            Self::Avoided { .. } => "Avoided",
            Self::GpusTaken { .. } => "GpusTaken",
            Self::Cpu { .. } => "Cpu",
            Self::Memory { .. } => "Memory",
            Self::EphemeralStorage { .. } => "EphemeralStorage",
            Self::Pods => "Pods",
            Self::Cache { .. } => "Cache",
            Self::CacheMissing => "CacheMissing",
            Self::CacheLeaving => "CacheLeaving",
        }
    }

    /// Whether it is of the same kind, whatever the data.
    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }

    /// Whether nodes refused for it and for `other` are told of together: figures may differ, texts
    /// may not.
    pub(crate) fn same_group(&self, other: &Self) -> bool {
        match self {
            Self::WrongVendor { .. }
            | Self::WrongProduct { .. }
            | Self::SelectorMismatch { .. }
            | Self::UntoleratedTaint { .. }
            | Self::Unusable { .. }
            | Self::Avoided { .. } => self == other,
            _ => self.same_kind(other),
        }
    }

    /// Whether the text for people, of both together, must say that they differ.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::GpusTaken { free: a, .. }, Self::GpusTaken { free: b, .. }) => a != b,
            _ => self != other,
        }
    }

    /// Makes it tell of both: the most that is there or free on one node, and the sums of what is
    /// taken. Texts stay.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::GpuTooSmall { usable: a }, Self::GpuTooSmall { usable: b })
            | (Self::CacheTooSmall { size: a }, Self::CacheTooSmall { size: b })
            | (Self::Memory { free: a }, Self::Memory { free: b })
            | (Self::EphemeralStorage { free: a }, Self::EphemeralStorage { free: b }) => {
                *a = (*a).max(*b);
            }
            (Self::Cache { need, free }, Self::Cache { need: other_need, free: other_free }) => {
                *need = (*need).max(*other_need);
                *free = (*free).max(*other_free);
            }
            (Self::TooFewGpus { has: a }, Self::TooFewGpus { has: b }) => *a = (*a).max(*b),
            (Self::Cpu { free: a }, Self::Cpu { free: b }) => *a = (*a).max(*b),
            (
                Self::GpusTaken { free: a, ours, foreign },
                Self::GpusTaken { free: b, ours: more_ours, foreign: more_foreign },
            ) => {
                *a = (*a).max(*b);
                *ours = ours.saturating_add(*more_ours);
                *foreign = foreign.saturating_add(*more_foreign);
            }
            _ => {}
        }
    }

    /// For people; `varies` when it stands for nodes whose figures or texts differ.
    pub(crate) fn text(&self, varies: bool) -> impl fmt::Display {
        let up_to = if varies { "up to " } else { "" };
        let more = if varies { " and others" } else { "" };
        match self {
            Self::NoGpus => "no GPUs".to_owned(),
            Self::WrongVendor { has } => format!("GPUs of another vendor ({has}{more})"),
            Self::WrongProduct { has } => {
                format!("product not asked for ({}{more})", shortened(has))
            }
            Self::SelectorMismatch { lacks } => {
                format!("label missing ({}{more})", shortened(lacks))
            }
            Self::UntoleratedTaint { taint } => {
                format!("taint not tolerated ({}{more})", shortened(&taint.to_string()))
            }
            Self::Unusable { why } => format!("GPUs not usable ({}{more})", shortened(why)),
            Self::UnknownVram => "VRAM unknown".to_owned(),
            Self::GpuTooSmall { usable } => format!("GPU too small ({up_to}{usable} usable)"),
            Self::TooFewGpus { has } => format!("too few GPUs ({up_to}{has})"),
            Self::NoCache => "no model cache".to_owned(),
            Self::CacheTooSmall { size } => format!("model cache too small ({up_to}{size})"),
            Self::NotReady => "not ready".to_owned(),
            Self::Cordoned => "cordoned".to_owned(),
            Self::Avoided { why } => format!("avoided ({}{more})", shortened(why)),
            Self::GpusTaken { free, ours, foreign } => {
                let mut facts = Vec::new();
                if *ours > 0 {
                    facts.push(format!("{ours} by LLMDeployments"));
                }
                if *foreign > 0 {
                    facts.push(format!("{foreign} by other pods"));
                }
                if *free > 0 {
                    facts.push(format!("{up_to}{free} free"));
                }
                if facts.is_empty() {
                    "GPUs taken".to_owned()
                } else {
                    format!("GPUs taken ({})", facts.join(", "))
                }
            }
            Self::Cpu { free } => format!("too little CPU ({up_to}{free} free)"),
            Self::Memory { free } => format!("too little memory ({up_to}{free} free)"),
            Self::EphemeralStorage { free } => {
                format!("too little ephemeral storage ({up_to}{free} free)")
            }
            Self::Pods => "no room for another pod".to_owned(),
            Self::Cache { need: _, free } => {
                format!("too little model cache ({up_to}{free} can be freed)")
            }
            Self::CacheMissing => "model not there, and downloads are off".to_owned(),
            Self::CacheLeaving => "its copy of the model is being removed".to_owned(),
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(false).fmt(f)
    }
}

fn shortened(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
