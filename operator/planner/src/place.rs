//! The choice of a node: whatever fits, and of that the best.

use std::{borrow::Cow, cmp::Ordering};

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Fleet, Gpus, Node, NodeName, NodeState, Overlay, Refusal, Request, Strategy, Vendor, View,
    cache::shelf::Shelf, judge, occupant::Taken, refusal::Collector, usable,
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
    /// How many nodes were looked at.
    pub considered: u32,
    /// On how many of them it fits.
    pub fitting: u32,
    /// What made this node the best of those.
    pub score: Score,
}

/// What nodes that fit are compared by. Less is better: what comes first decides, for
/// [`Strategy::Pack`] without the siblings; then the product's name, then the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Score {
    /// Replicas of the same deployment on the node.
    pub siblings: u32,
    /// Usable bytes of each GPU beyond those needed.
    pub wasted_vram_per_gpu: Bytes,
    /// GPUs still free on the node afterwards: the fullest node first keeps whole nodes free.
    pub gpus_left: u32,
    /// Bytes of the model that are still to be downloaded there. Last: a download takes minutes,
    /// but a small model on a large GPU or on a node kept whole is in the way for as long as it runs.
    pub download: Bytes,
}

/// The best node for `request`, or why there is none. Changes nothing.
pub fn place(view: &impl View, request: &Request) -> Result<Placement, Refusal> {
    if let Some(placement) = best(view, request) {
        return Ok(placement);
    }
    let mut refusals = Collector::new(request);
    for state in view.states() {
        if let Some(reason) = judge::refused(&state, request) {
            refusals.add(state, reason);
        }
    }
    Err(refusals.finish())
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
pub(crate) fn best(view: &impl View, request: &Request) -> Option<Placement> {
    let (mut considered, mut fitting) = (0, 0);
    let mut best: Option<(Score, NodeState<'_>)> = None;
    for state in view.states() {
        considered += 1;
        if judge::refused(&state, request).is_some() {
            continue;
        }
        fitting += 1;
        let candidate = (score(&state, request), state);
        if best.as_ref().is_none_or(|best| compare(&candidate, best, request.strategy).is_lt()) {
            best = Some(candidate);
        }
    }
    let (score, NodeState { node, .. }) = best?;
    let gpus = node.gpus.as_ref();
    let takes_gpus = request.gpus > 0;
    Some(Placement {
        node: node.name.clone(),
        vendor: gpus.map(|gpus| gpus.vendor),
        product: gpus.map(|gpus| gpus.product.clone()).unwrap_or_default(),
        gpus: request.gpus,
        vram_per_gpu: gpus
            .and_then(|gpus| gpus.vram)
            .filter(|_| takes_gpus)
            .map(usable)
            .unwrap_or_default(),
        considered,
        fitting,
        score,
    })
}

fn score(state: &NodeState<'_>, request: &Request) -> Score {
    let gpus = state.node.gpus.as_ref().filter(|_| request.gpus > 0);
    let wasted = |gpus: &Gpus| {
        gpus.vram.map(usable).unwrap_or_default() - request.vram_needed_on(&gpus.product)
    };
    Score {
        siblings: request.siblings.get(&state.node.name).copied().unwrap_or_default(),
        wasted_vram_per_gpu: gpus.map(wasted).unwrap_or_default(),
        gpus_left: state.free().gpus - request.gpus,
        download: request.cache.as_ref().map(|need| state.shelf.missing(need)).unwrap_or_default(),
    }
}

fn compare(a: &(Score, NodeState<'_>), b: &(Score, NodeState<'_>), by: Strategy) -> Ordering {
    let key = |score: Score| match by {
        Strategy::Pack => Score { siblings: 0, ..score },
        Strategy::Spread => score,
    };
    key(a.0)
        .cmp(&key(b.0))
        .then_with(|| product(a.1.node).cmp(&product(b.1.node)))
        .then_with(|| a.1.node.name.cmp(&b.1.node.name))
}

fn product(node: &Node) -> Option<&str> {
    node.gpus.as_ref().map(|gpus| gpus.product.as_str())
}
