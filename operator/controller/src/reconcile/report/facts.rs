//! The facts about a deployment that its conditions state. Pure.

use berth_crds::LLMDeploymentStatus;
use berth_planner::RefusalReason;

use super::{Seen, tally::Tally};
use crate::{
    reconcile::{
        advice::Advice,
        conditions::{DEGRADED, Fact, PLACED, PROGRESSING, READY, RECONCILING, STALLED},
        placing::Misfit,
        reason::Reason,
    },
    world::pod::{Progress, Replica, Trouble},
};

/// Why, in one word and for people.
type Why = (Reason, String);

/// The facts.
pub fn facts(seen: &Seen<'_>, tally: &Tally, before: &LLMDeploymentStatus) -> Vec<Fact> {
    let outdated = tally.existing > tally.updated;
    let misfit = seen.misfits.first();
    let never = misfit.is_some_and(|misfit| !misfit.ever);
    let settled = seen.problem.is_none() && misfit.is_none();
    let complete = settled && tally.is_complete();

    let is_placed = tally.placed == tally.wanted && (seen.misfits.is_empty() || outdated);
    let placed = placed(seen, tally, is_placed);
    let failing = tally.failing.first().map(|pod| trouble(pod));
    let ready = ready(seen, tally, complete, &placed, failing.as_ref());
    // Replicas that were only just asked for are no sign of trouble.
    let unchanged = before.observed_generation == seen.deployment.metadata.generation;
    let fewer = tally.ready < i32::try_from(tally.wanted).unwrap_or(0) && !outdated;
    let (is_degraded, degraded) = match failing {
        Some(why) => (true, why),
        None if unchanged && fewer && was_ready(before) => {
            let text = format!("{} of {} replicas answer", tally.ready, tally.wanted);
            (true, (Reason::TooFewReplicas, text))
        }
        None => (false, (Reason::NoReplicaFails, "no replica fails".to_owned())),
    };
    let stalled = seen.problem.is_some_and(|problem| !problem.passes()) || never;
    let progressing = if complete {
        (Reason::Complete, "nothing is left to do".to_owned())
    } else {
        ready.clone()
    };
    let fact = |type_, holds, (reason, message): Why| Fact::new(type_, holds, reason, message);
    let mut facts = vec![
        fact(READY, complete, ready.clone()),
        fact(PROGRESSING, !complete && !stalled, progressing),
        fact(PLACED, is_placed, placed),
        fact(DEGRADED, is_degraded, degraded),
    ];
    if stalled {
        facts.push(fact(STALLED, true, ready));
    } else if !complete {
        facts.push(fact(RECONCILING, true, ready));
    }
    facts
}

fn placed(seen: &Seen<'_>, tally: &Tally, is_placed: bool) -> Why {
    let Tally { placed, wanted, .. } = tally;
    match (seen.problem, seen.misfits.first()) {
        _ if is_placed => {
            (Reason::AllReplicasPlaced, format!("{placed} of {wanted} replicas have a node"))
        }
        (Some(problem), _) => (problem.reason(), problem.to_string()),
        (None, Some(misfit)) => (misfit_reason(misfit), misfit_message(misfit)),
        (None, None) => (Reason::Placing, format!("{placed} of {wanted} replicas have a pod yet")),
    }
}

/// What stands between a deployment and being ready; of several things the gravest.
fn ready(
    seen: &Seen<'_>,
    tally: &Tally,
    complete: bool,
    placed: &Why,
    failing: Option<&Why>,
) -> Why {
    let Tally { existing, updated, ready, wanted, .. } = tally;
    let suspended = seen.deployment.spec.suspend;
    let outdated = existing > updated;
    if let Some(problem) = seen.problem {
        (problem.reason(), problem.to_string())
    } else if suspended && *existing == 0 {
        (Reason::Suspended, "suspended by spec.suspend; no replica runs".to_owned())
    } else if complete && *wanted == 0 {
        (Reason::ScaledToZero, "no replicas are wanted".to_owned())
    } else if complete {
        (Reason::Ready, format!("{ready} of {wanted} replicas answer"))
    } else if let Some(misfit) = seen.misfits.first().filter(|_| outdated) {
        let why = misfit_message(misfit);
        (Reason::RolloutBlocked, format!("the new revision waits, the old one serves: {why}"))
    } else if !seen.misfits.is_empty() {
        placed.clone()
    } else if let Some(failing) = failing {
        failing.clone()
    } else if let Some(waits) = seen.waits.filter(|_| outdated) {
        waits.clone()
    } else if outdated {
        let text = format!("{updated} of {wanted} replicas are of the newest revision");
        (Reason::RollingOut, text)
    } else if *existing > i32::try_from(*wanted).unwrap_or(i32::MAX) {
        (Reason::ScalingDown, format!("{existing} replicas are left, {wanted} are wanted"))
    } else if tally.placed < *wanted {
        placed.clone()
    } else if tally.downloading > 0 {
        let text = format!("{ready} of {wanted} replicas answer; the model is being downloaded");
        (Reason::Downloading, text)
    } else {
        (Reason::Loading, format!("{ready} of {wanted} replicas answer; the others load"))
    }
}

/// Whether the deployment answered in full before, or was degraded since it did.
fn was_ready(before: &LLMDeploymentStatus) -> bool {
    before.conditions.iter().any(|condition| {
        condition.status == "True"
            && (condition.type_ == READY && condition.reason == "Ready"
                || condition.type_ == DEGRADED && condition.reason == "TooFewReplicas")
    })
}

/// Why a replica does not serve: reason and message.
pub fn trouble(pod: &Replica) -> Why {
    let name = &pod.key.name;
    match &pod.progress {
        Progress::Failing { reason, message }
        | Progress::Fetching { failed: Some(Trouble { reason, message }), .. } => {
            (Reason::Pod(reason.clone()), format!("pod {name}: {message}"))
        }
        Progress::Ended { reason, message, .. } => {
            let reason =
                if is_word(reason) { Reason::Pod(reason.clone()) } else { Reason::PodFailed };
            (reason, format!("pod {name}: {message}"))
        }
        _ => {
            let text = format!("pod {name}: its engine does not answer any more");
            (Reason::NotAnswering, text)
        }
    }
}

/// Reasons of conditions are CamelCase words.
fn is_word(reason: &str) -> bool {
    reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Why a pod finds no node, in one word.
pub fn misfit_reason(misfit: &Misfit) -> Reason {
    let any = |of: fn(&RefusalReason) -> bool| {
        misfit.refusal.reasons.iter().any(|group| of(&group.reason))
    };
    if any(|reason| {
        matches!(
            reason,
            RefusalReason::GpuTooSmall { .. }
                | RefusalReason::TooFewGpus { .. }
                | RefusalReason::GpusTaken { .. }
        )
    }) {
        return Reason::InsufficientVRAM;
    }
    if any(|reason| {
        matches!(
            reason,
            RefusalReason::Cpu { .. }
                | RefusalReason::Memory { .. }
                | RefusalReason::EphemeralStorage { .. }
                | RefusalReason::Cache { .. }
                | RefusalReason::CacheTooSmall { .. }
                | RefusalReason::CacheLeaving
                | RefusalReason::NoCache
                | RefusalReason::Pods
        )
    }) {
        return Reason::InsufficientResources;
    }
    if any(|reason| matches!(reason, RefusalReason::CacheMissing)) {
        return Reason::Offline;
    }
    let only_without =
        misfit.refusal.reasons.iter().all(|group| group.reason == RefusalReason::NoGpus);
    if only_without { Reason::NoGPUNodes } else { Reason::NoMatchingNodes }
}

/// Why a pod finds no node, for people: the nearest miss, what would fit, and all nodes in groups.
pub fn misfit_message(misfit: &Misfit) -> String {
    let nearest = misfit.refusal.nearest.as_ref().map(ToString::to_string);
    let ways: Vec<String> = misfit.would_fit.iter().map(Advice::text).collect();
    let advice = (!ways.is_empty()).then(|| format!("would fit with {}", ways.join(", or with ")));
    let parts: Vec<String> = [nearest, advice].into_iter().flatten().collect();
    if parts.is_empty() {
        return format!("no node can take a replica: {}", misfit.refusal);
    }
    let how = if misfit.ever { "" } else { "no node of this cluster could hold a replica: " };
    format!("{how}{} ({})", parts.join("; "), misfit.refusal)
}
