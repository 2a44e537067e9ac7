//! Why a request fits nowhere: thousands of nodes in a few lines.

use std::fmt;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{NodeName, NodeState, RefusalReason, Request, Resources, judge};

/// Names of nodes kept for each group.
const MAX_EXAMPLES: usize = 3;
/// Groups of one kind of reason; those with further texts fall into the last of them.
const MAX_GROUPS_OF_A_KIND: usize = 8;
/// The length of the text for people, about, in bytes; the rest is counted only.
const MAX_LINE: usize = 560;

/// Why a request fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The nodes by reason: those nearest to fitting first, then the largest groups.
    pub reasons: Vec<RefusedNodes>,
    /// The node that comes nearest, if any comes near.
    pub nearest: Option<Box<NearMiss>>,
}

/// Nodes refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedNodes {
    /// The reason. Of several nodes: the most that is there or free on one of them, and the sums of
    /// GPUs taken.
    pub reason: RefusalReason,
    /// Whether its data differ from node to node.
    pub varies: bool,
    /// How many nodes.
    pub nodes: u32,
    /// The first few of them.
    pub examples: Vec<NodeName>,
}

/// The node that comes nearest to fitting, and what is in the way there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    /// The node.
    pub node: NodeName,
    /// What is in the way.
    pub reason: RefusalReason,
    /// The GPUs needed.
    pub gpus: u32,
    /// The usable bytes needed on each, of that node's product.
    pub vram_per_gpu: Bytes,
    /// What else is needed.
    pub resources: Resources,
}

/// Groups reasons as nodes are refused.
pub(crate) struct Collector<'a> {
    request: &'a Request,
    groups: Vec<RefusedNodes>,
    nearest: Option<((u8, u64), NodeName, RefusalReason, Bytes)>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(request: &'a Request) -> Self {
        Self { request, groups: Vec::new(), nearest: None }
    }

    pub(crate) fn add(&mut self, state: NodeState<'_>, reason: RefusalReason) {
        let name = &state.node.name;
        if let Some(nearness) = self.nearness(&state, &reason)
            && self.nearest.as_ref().is_none_or(|(best, ..)| nearness > *best)
        {
            let product = state.node.gpus.as_ref().map_or("", |gpus| &gpus.product);
            let needed = self.request.vram_needed_on(product);
            self.nearest = Some((nearness, name.clone(), reason.clone(), needed));
        }
        let known = self.groups.iter().position(|group| group.reason.same_group(&reason));
        let full = || {
            let of_kind = |group: &RefusedNodes| group.reason.same_kind(&reason);
            let count = self.groups.iter().filter(|group| of_kind(group)).count();
            (count == MAX_GROUPS_OF_A_KIND).then(|| self.groups.iter().rposition(of_kind))?
        };
        let Some(index) = known.or_else(full) else {
            self.groups.push(RefusedNodes {
                reason,
                varies: false,
                nodes: 1,
                examples: vec![name.clone()],
            });
            return;
        };
        let group = &mut self.groups[index];
        group.varies |= group.reason.differs(&reason);
        group.reason.merge(&reason);
        group.nodes += 1;
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(name.clone());
        }
    }

    pub(crate) fn finish(mut self) -> Refusal {
        self.groups.sort_by(|a, b| {
            if a.reason.same_kind(&b.reason) {
                b.nodes.cmp(&a.nodes).then_with(|| a.reason.cmp(&b.reason))
            } else {
                // Later kinds are nearer to fitting.
                b.reason.cmp(&a.reason)
            }
        });
        let Request { gpus, resources, .. } = self.request;
        Refusal {
            reasons: self.groups,
            nearest: self.nearest.map(|(_, node, reason, vram_per_gpu)| {
                Box::new(NearMiss {
                    node,
                    reason,
                    gpus: *gpus,
                    vram_per_gpu,
                    resources: *resources,
                })
            }),
        }
    }

    /// How near a node comes, the nearest the greatest: first by kind, then by how much is there.
    fn nearness(&self, state: &NodeState<'_>, reason: &RefusalReason) -> Option<(u8, u64)> {
        Some(match reason {
            RefusalReason::CacheLeaving => (7, 6),
            RefusalReason::CacheMissing => (7, 5),
            RefusalReason::Cache { .. } => (7, 4),
            RefusalReason::Pods => (7, 3),
            RefusalReason::EphemeralStorage { .. } => (7, 2),
            RefusalReason::Memory { .. } => (7, 1),
            RefusalReason::Cpu { .. } => (7, 0),
            RefusalReason::GpusTaken { free, .. } if *free > 0 => (6, u64::from(*free)),
            RefusalReason::NotReady | RefusalReason::Cordoned | RefusalReason::Avoided { .. }
                if judge::no_room(state, self.request).is_none() =>
            {
                (5, 0)
            }
            RefusalReason::GpusTaken { .. } => (4, 0),
            RefusalReason::CacheTooSmall { size } => (3, size.get()),
            RefusalReason::NoCache => (3, 0),
            RefusalReason::TooFewGpus { has } => (2, u64::from(*has)),
            RefusalReason::GpuTooSmall { usable } => (1, usable.get()),
            _ => return None,
        })
    }
}

/// One line for people, the same length for ten nodes and ten thousand:
/// `12 nodes: GPUs taken (8 by other pods); 3 nodes: GPU too small (22.8 GiB usable)`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("there are no nodes");
        }
        let mut line = String::new();
        let mut left: u32 = self.reasons.iter().map(|group| group.nodes).sum();
        for group in &self.reasons {
            let text = group.to_string();
            if !line.is_empty() {
                if line.len() + text.len() > MAX_LINE {
                    break;
                }
                line.push_str("; ");
            }
            line.push_str(&text);
            left -= group.nodes;
        }
        f.write_str(&line)?;
        match left {
            0 => Ok(()),
            1 => f.write_str("; 1 more node"),
            _ => write!(f, "; {left} more nodes"),
        }
    }
}

impl fmt::Display for RefusedNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, varies, nodes, examples: _ } = self;
        write!(f, "{nodes} node{}: {}", plural(*nodes), reason.text(*varies))
    }
}

/// `needs 4 GPUs with 38.2 GiB free each on one node; best is gpu-017 with 3`
impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, reason, gpus, vram_per_gpu, resources } = self;
        match gpus {
            0 => f.write_str("needs no GPU")?,
            1 => write!(f, "needs 1 GPU with {vram_per_gpu} free")?,
            _ => write!(f, "needs {gpus} GPUs with {vram_per_gpu} free each on one node")?,
        }
        let has = if *gpus == 0 { "best is" } else { "the GPUs are on" };
        match reason {
            RefusalReason::GpusTaken { free: 0, .. } => {
                f.write_str("; every GPU that could hold it is taken")
            }
            RefusalReason::GpusTaken { free, .. } => write!(f, "; best is {node} with {free}"),
            RefusalReason::TooFewGpus { has } => {
                write!(f, "; the largest such node is {node} with {has} in all")
            }
            RefusalReason::GpuTooSmall { usable } => {
                write!(f, "; the largest GPU allowed is on {node} with {usable} usable")
            }
            RefusalReason::Cpu { free } => {
                write!(
                    f,
                    "; {has} {node}, where {free} CPU is free of the {} needed",
                    resources.cpu
                )
            }
            RefusalReason::Memory { free } => write!(
                f,
                "; {has} {node}, where {free} of memory is free of the {} needed",
                resources.memory
            ),
            RefusalReason::EphemeralStorage { free } => write!(
                f,
                "; {has} {node}, where {free} of ephemeral storage is free of the {} needed",
                resources.ephemeral_storage
            ),
            RefusalReason::Cache { need, free } => write!(
                f,
                "; {has} {node}, where {free} of model cache can be freed of the {need} needed"
            ),
            reason => write!(f, "; {has} {node}: {reason}"),
        }
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
