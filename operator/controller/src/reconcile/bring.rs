//! Before a replica makes way for its successor on the same GPUs, the successor's image and model
//! are brought onto the node. Pure.

use berth_planner::NodeName;
use berth_render::prefetch;

use super::{
    Observed,
    intend::{Need, seconds},
    placing::Placed,
    reason::Reason,
};
use crate::{
    reconcile::Context,
    world::{
        prefetch::{Bringing, Prefetch},
        state::State,
    },
};

/// What stands before a replacement in place.
pub enum Bring {
    /// Nothing: it may go on.
    Nothing,
    /// A pod that brings what is missing has to be created.
    Begin,
    /// One is there; why it is still waited for.
    Wait(Reason, String),
}

/// Looks at a placement that takes over the GPUs of an older pod.
pub(super) fn bring(
    state: &State,
    observed: &Observed,
    need: &Need,
    placed: &Placed,
    now: i64,
    context: &Context,
) -> Bring {
    let Some(old) = need.replaces.as_ref().filter(|_| placed.in_place) else {
        return Bring::Nothing;
    };
    let older = observed.revisions.iter().find(|revision| revision.hash == old.revision);
    let is_needed = older
        .is_some_and(|older| prefetch::is_needed(&older.template, &placed.template, &context.site));
    if !is_needed {
        return Bring::Nothing;
    }
    let node = &placed.placement.node;
    let is_it = |known: &&Prefetch| known.revision == placed.revision && known.node == *node;
    let Some(prefetch) = state.prefetches_of(&observed.owner.uid).find(is_it) else {
        return Bring::Begin;
    };
    match &prefetch.state {
        Bringing::Done => Bring::Nothing,
        // The node has no room for it beside the replica: then it is brought when that is gone.
        Bringing::Unbound(since) if now - since > seconds(context.unbound_limit) => Bring::Nothing,
        Bringing::Unbound(_) | Bringing::UnderWay => {
            let (reason, message) = under_way(node, old.replica);
            Bring::Wait(reason, message)
        }
        Bringing::Failing { reason, message } => Bring::Wait(
            Reason::RolloutBlocked,
            format!(
                "the old revision serves: image and model of the new one cannot be brought onto node \
                 {node}: {reason}: {message}"
            ),
        ),
    }
}

/// What is said while they come.
pub(super) fn under_way(node: &NodeName, replica: u32) -> (Reason, String) {
    let text = format!("image and model come onto node {node} before replica {replica} makes way");
    (Reason::Prefetching, text)
}

/// Pods that brought something onto a node where nothing of an older revision is left to replace.
pub(super) fn superfluous(
    state: &State,
    observed: &Observed,
    revision: Option<&str>,
) -> Vec<Prefetch> {
    let outdated = |node: &NodeName| {
        let live = observed.pods.iter().filter(|pod| pod.is_live());
        live.filter(|pod| Some(pod.revision.as_str()) != revision).any(|pod| pod.node == *node)
    };
    let all = state.prefetches_of(&observed.owner.uid);
    all.filter(|one| Some(one.revision.as_str()) != revision || !outdated(&one.node))
        .cloned()
        .collect()
}
