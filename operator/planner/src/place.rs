//! The choice of a node: whatever fits, and of that the best.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use berth_units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

use crate::{
    Fleet, Node, NodeName, NodeState, Overlay, Refusal, Request, Strategy, Vendor, View,
    cache::shelf::Shelf,
    fleet::standing::{demand, room},
    index::KindId,
    judge,
    occupant::Taken,
    refusal::Collector,
    usable,
};

/// Where a replica goes, and why there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node: NodeName,
    /// Whose GPUs it has; absent if it has none.
    pub vendor: Option<Vendor>,
    /// Their product; empty if it has none.
    pub product: String,
    /// How many of them the replica takes.
    pub gpus: u32,
    /// What it claims on each: an exclusive claim is the whole usable GPU.
    pub vram_per_gpu: Bytes,
    /// What each has in total, what no claim may use included.
    pub total_vram_per_gpu: Bytes,
    /// What made this node the best of those.
    pub score: Score,
}

/// What nodes that fit are compared by. Less is better: what comes first decides, for
/// [`Strategy::Pack`] without the siblings and always without the GPUs left; then the least CPU and
/// memory free, then the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Score {
    /// Replicas of the same deployment on the node.
    pub siblings: u32,
    /// Usable bytes of each GPU of the node beyond those needed.
    pub wasted_vram_per_gpu: Bytes,
    /// What the node is expected to lose by it, in millionths of a GPU: see
    /// [`crate::policy::Named::Berth`].
    pub stranded: i64,
    /// Bytes of the model that are still to be downloaded there. Last: a download takes minutes,
    /// but GPUs that nobody can use are in the way for as long as it runs.
    pub download: Bytes,
    /// GPUs still free on the node afterwards.
    pub gpus_left: u32,
}

/// The best node for `request`, or why there is none. Changes nothing.
pub fn place(view: &impl View, request: &Request) -> Result<Placement, Refusal> {
    best(view, request).ok_or_else(|| refusal(view, request))
}

/// Why no node will do, where [`best`] finds none.
pub fn refusal(view: &impl View, request: &Request) -> Refusal {
    let mut refusals = Collector::new(request);
    for state in view.states() {
        if let Some(reason) = judge::refused(&state, request) {
            refusals.add(state, reason);
        }
    }
    refusals.finish()
}

/// Whether `request` could fit if nobody held anything, nothing lay in the caches, and every node
/// were ready, not cordoned and not avoided. If not, waiting is in vain.
pub fn could_ever(fleet: &Fleet, request: &Request) -> Result<(), Refusal> {
    let mut refusals = Collector::new(request);
    let (nobody, nothing) = (Taken::default(), Shelf::default());
    for node in fleet.nodes() {
        let state = NodeState { node, taken: nobody, shelf: &nothing };
        match judge::never(node, request).or_else(|| judge::no_room(&state, request)) {
            Some(reason) => refusals.add(state, reason),
            None => return Ok(()),
        }
    }
    Err(refusals.finish())
}

/// Places replicas of one deployment one after the other, each beside those before it. The overlay
/// ends up with all that were placed.
pub fn place_all(
    overlay: &mut Overlay<'_>,
    requests: &[Request],
) -> Vec<Result<Placement, Refusal>> {
    let mut placed: Vec<NodeName> = Vec::new();
    requests
        .iter()
        .map(|request| {
            let placement = place(overlay, &beside(request, &placed))?;
            overlay.carry_out(&placement, request);
            placed.push(placement.node.clone());
            Ok(placement)
        })
        .collect()
}

/// The request of a replica whose siblings were just placed on those nodes.
pub(crate) fn beside<'a>(request: &'a Request, placed: &[NodeName]) -> Cow<'a, Request> {
    let mut request = Cow::Borrowed(request);
    if request.strategy == Strategy::Spread {
        for node in placed {
            *request.to_mut().siblings.entry(node.clone()).or_default() += 1;
        }
    }
    request
}

/// The best node, without collecting reasons.
///
/// Most nodes are answered by the ledger's index. Those that differ from what it knows, or that a
/// request tells apart by name (siblings, copies of the model), are looked at one by one.
pub fn best(view: &impl View, request: &Request) -> Option<Placement> {
    let demand = demand(request);
    view.ledger().with_known(|known| {
        let mut apart: BTreeSet<&NodeName> = view.changed().collect();
        if request.strategy == Strategy::Spread {
            apart.extend(request.siblings.iter().filter(|(_, n)| **n > 0).map(|(name, _)| name));
        }
        let holders: Vec<NodeName> = match &request.cache {
            Some(need) => known.holders(&need.key).cloned().collect(),
            None => Vec::new(),
        };
        apart.extend(&holders);

        let mut best: Option<Candidate<'_>> = None;
        for name in &apart {
            let Some(state) = view.state(name) else { continue };
            if judge::refused(&state, request).is_none() {
                let cost = known.cost(state.node, &room(state.node, &state.taken), &demand);
                let candidate = Candidate::of(state, request, cost.unwrap_or(i64::MAX));
                best = Some(better(best, candidate, request.strategy));
            }
        }
        // Kinds of the same waste compete by cost.
        let mut kinds: BTreeMap<Bytes, Vec<KindId>> = BTreeMap::new();
        let anywhere = Request { node_selector: BTreeMap::new(), ..request.clone() };
        for (kind, node) in known.kinds() {
            if judge::never(node, &anywhere).or_else(|| judge::not_now(node, &anywhere)).is_none() {
                kinds.entry(wasted(node, request)).or_default().push(kind);
            }
        }
        let fits = |name: &NodeName| {
            !apart.contains(name)
                && view.state(name).is_some_and(|s| judge::refused(&s, request).is_none())
        };
        for kinds in kinds.into_values() {
            if let Some(found) = known.index.best(&demand, kinds, fits) {
                let state = view.state(&found.node)?;
                let candidate = Candidate::of(state, request, found.cost.0);
                best = Some(better(best, candidate, request.strategy));
                break;
            }
        }
        best.map(|candidate| candidate.placement(request))
    })
}

/// A node that fits.
struct Candidate<'a> {
    score: Score,
    state: NodeState<'a>,
}

impl<'a> Candidate<'a> {
    fn of(state: NodeState<'a>, request: &Request, stranded: i64) -> Self {
        let score = Score {
            siblings: request.siblings.get(&state.node.name).copied().unwrap_or_default(),
            wasted_vram_per_gpu: wasted(state.node, request),
            stranded,
            download: match &request.cache {
                Some(need) => state.shelf.missing(need),
                None => Bytes::ZERO,
            },
            gpus_left: state.free().gpus - request.gpus,
        };
        Self { score, state }
    }

    /// What it is compared by; less is better.
    fn key(&self, by: Strategy) -> (Score, MilliCpu, Bytes, &NodeName) {
        let siblings = match by {
            Strategy::Pack => 0,
            Strategy::Spread => self.score.siblings,
        };
        let free = self.state.free().resources;
        let score = Score { siblings, gpus_left: 0, ..self.score };
        (score, free.cpu, free.memory, &self.state.node.name)
    }

    fn placement(self, request: &Request) -> Placement {
        let node = self.state.node;
        let gpus = node.gpus.as_ref();
        let vram = gpus.and_then(|gpus| gpus.vram).filter(|_| request.gpus > 0);
        Placement {
            node: node.name.clone(),
            vendor: gpus.map(|gpus| gpus.vendor),
            product: gpus.map(|gpus| gpus.product.clone()).unwrap_or_default(),
            gpus: request.gpus,
            vram_per_gpu: vram.map(usable).unwrap_or_default(),
            total_vram_per_gpu: vram.unwrap_or_default(),
            score: self.score,
        }
    }
}

fn better<'a>(best: Option<Candidate<'a>>, other: Candidate<'a>, by: Strategy) -> Candidate<'a> {
    match best {
        Some(best) if best.key(by) <= other.key(by) => best,
        _ => other,
    }
}

/// A pod without GPUs wastes those of its node: nodes without any come first.
fn wasted(node: &Node, request: &Request) -> Bytes {
    let Some(gpus) = &node.gpus else { return Bytes::ZERO };
    let needed = if request.gpus > 0 { request.vram_needed_on(&gpus.product) } else { Bytes::ZERO };
    gpus.vram.map(usable).unwrap_or_default() - needed
}
