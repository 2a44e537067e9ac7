//! Whether one request fits on one node, in three steps: could it ever, may it now, is there room.

use berth_units::Bytes;

use crate::{Free, Node, NodeState, RefusalReason, Request, Taint, taint::Lifecycle, usable};

/// What is in the way for as long as node and request stay what they are.
pub(crate) fn never(node: &Node, request: &Request) -> Option<RefusalReason> {
    let gpus = node.gpus.as_ref().filter(|gpus| gpus.count > 0);
    if request.gpus > 0 {
        let Some(gpus) = gpus else { return Some(RefusalReason::NoGpus) };
        if request.vendor.is_some_and(|vendor| vendor != gpus.vendor) {
            return Some(RefusalReason::WrongVendor { has: gpus.vendor });
        }
        if !request.products.is_empty()
            && !request.products.iter().any(|wanted| wanted.eq_ignore_ascii_case(&gpus.product))
        {
            return Some(RefusalReason::WrongProduct { has: gpus.product.clone() });
        }
    }
    for (key, value) in &request.node_selector {
        if node.labels.get(key) != Some(value) {
            return Some(RefusalReason::SelectorMismatch { lacks: format!("{key}={value}") });
        }
    }
    if let Some(taint) = untolerated(node, request).find(|taint| taint.lifecycle().is_none()) {
        return Some(RefusalReason::UntoleratedTaint { taint: taint.clone() });
    }
    if let Some(gpus) = gpus.filter(|_| request.gpus > 0) {
        if let Some(why) = &gpus.unusable {
            return Some(RefusalReason::Unusable { why: why.clone() });
        }
        let Some(vram) = gpus.vram else { return Some(RefusalReason::UnknownVram) };
        if usable(vram) < request.vram_needed_on(&gpus.product) {
            return Some(RefusalReason::GpuTooSmall { usable: usable(vram) });
        }
        if gpus.count < request.gpus {
            return Some(RefusalReason::TooFewGpus { has: gpus.count });
        }
    }
    let need = request.cache.as_ref()?;
    if node.cache == Bytes::ZERO {
        return Some(RefusalReason::NoCache);
    }
    (node.cache < need.bytes).then_some(RefusalReason::CacheTooSmall { size: node.cache })
}

/// What the node's state has against it for now.
///
/// A node that is not ready or cordoned is left alone even by those who tolerate its taints: a
/// replica that loads for minutes must not start where somebody is draining.
pub(crate) fn not_now(node: &Node, request: &Request) -> Option<RefusalReason> {
    let passing = untolerated(node, request).find_map(|taint| Some((taint, taint.lifecycle()?)));
    if !node.ready || matches!(passing, Some((_, Lifecycle::NotReady))) {
        return Some(RefusalReason::NotReady);
    }
    if node.cordoned || matches!(passing, Some((_, Lifecycle::Cordoned))) {
        return Some(RefusalReason::Cordoned);
    }
    if let Some((taint, Lifecycle::Pressure)) = passing {
        return Some(RefusalReason::UntoleratedTaint { taint: taint.clone() });
    }
    let why = request.avoid.get(&node.name)?.clone();
    Some(RefusalReason::Avoided { why })
}

/// What there is too little of beside what is taken.
pub(crate) fn no_room(state: &NodeState<'_>, request: &Request) -> Option<RefusalReason> {
    let NodeState { node, taken, shelf } = state;
    let Free { gpus, resources: free } = taken.free(node);
    if gpus < request.gpus {
        return Some(RefusalReason::GpusTaken {
            free: gpus,
            ours: taken.gpus_ours(),
            foreign: taken.gpus_foreign(),
        });
    }
    let needed = &request.resources;
    if free.cpu < needed.cpu {
        return Some(RefusalReason::Cpu { free: free.cpu });
    }
    if free.memory < needed.memory {
        return Some(RefusalReason::Memory { free: free.memory });
    }
    if free.ephemeral_storage < needed.ephemeral_storage {
        return Some(RefusalReason::EphemeralStorage { free: free.ephemeral_storage });
    }
    if free.pods < needed.pods.max(1) {
        return Some(RefusalReason::Pods);
    }
    shelf.refuses(request.cache.as_ref()?, node.cache)
}

/// All three.
pub(crate) fn refused(state: &NodeState<'_>, request: &Request) -> Option<RefusalReason> {
    never(state.node, request)
        .or_else(|| not_now(state.node, request))
        .or_else(|| no_room(state, request))
}

fn untolerated<'a>(node: &'a Node, request: &Request) -> impl Iterator<Item = &'a Taint> {
    node.taints.iter().filter(|taint| {
        taint.blocks() && !request.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    })
}
