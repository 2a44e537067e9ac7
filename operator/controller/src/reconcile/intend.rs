//! What a deployment's replicas need next: which pods go, which are missing, which is replaced.
//! Pure; it decides nothing about nodes.
//!
//! Replicas are numbered slots. A slot has at most one pod that counts, but for the time of a
//! replacement, when the new one exists beside the old one. Pods that ended stay for a while: they
//! are the memory of how often a slot failed, and where.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use berth_crds::llm_deployment::ReplicaPlacement;
use berth_planner::NodeName;

use super::sooner;
use crate::world::pod::{Progress, Replica};

/// What shall be.
pub struct Wanted<'a> {
    /// Replicas.
    pub replicas: u32,
    /// Hash of the newest revision; `None` while it waits for its first placement.
    pub revision: Option<&'a str>,
    /// Hashes of all revisions that can still be rendered.
    pub revisions: &'a BTreeSet<&'a str>,
    /// What status recorded of each replica.
    pub recorded: &'a [ReplicaPlacement],
    /// How long a pod may stay unbound before its node is given up.
    pub unbound_limit: Duration,
    /// Unix seconds.
    pub now: i64,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Intent {
    /// Pods to delete, each with the reason.
    pub delete: Vec<(Arc<Replica>, DeleteReason)>,
    /// Pods to create.
    pub needs: Vec<Need>,
    /// When to look again though nothing happened.
    pub again: Option<Duration>,
}

impl Intent {
    fn look_again_in(&mut self, wait: Duration) {
        self.again = Some(sooner(self.again, wait));
    }
}

/// A pod that is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The slot.
    pub replica: u32,
    /// The attempt that the pod will be.
    pub attempt: u32,
    /// An older revision that the pod comes back with; `None` for the newest.
    pub revision: Option<String>,
    /// The pod of an older revision that it replaces.
    pub replaces: Option<Arc<Replica>>,
    /// Whether that pod is taken down first where there is no room for both: not while GPUs of
    /// this deployment are about to become free anyway.
    pub in_place: bool,
    /// Nodes that refused earlier attempts, with the reason.
    pub avoid: BTreeMap<NodeName, String>,
}

/// Why a pod is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// More replicas than wanted.
    ScaledDown,
    /// Its successor of the newest revision answers, or waits for its GPUs.
    Replaced,
    /// A second pod for one replica.
    Duplicate,
    /// It ended, and a later attempt answers or its record is no longer needed.
    Ended,
    /// The scheduler does not bind it to its node.
    Unbound {
        /// The scheduler's message.
        message: String,
    },
}

impl DeleteReason {
    /// The reason of the event.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ScaledDown => "ScaledDown",
            Self::Replaced => "Replaced",
            Self::Duplicate => "DuplicateDeleted",
            Self::Ended => "EndedDeleted",
            Self::Unbound { .. } => "NotScheduled",
        }
    }
}

/// Attempts that ended in a row before the next one waits so many seconds.
const BACKOFF: [i64; 4] = [0, 10, 60, 300];
/// Pods that ended are kept until the replica serves, so many of each.
const ENDED_KEPT: usize = BACKOFF.len();
/// Seconds after the end of its grace that a deleted pod is still waited for.
const GONE_LATE: i64 = 10;
/// Reasons of the kubelet's that say: not on this node.
const REFUSED_BY_NODE: [&str; 6] = [
    "UnexpectedAdmissionError",
    "TopologyAffinityError",
    "NodeAffinity",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
];

/// Seconds for which a node is left out after it refused a pod once, twice, and so on.
const AVOIDED: [i64; 4] = [30, 60, 120, 300];

/// Decides what is to be done.
pub fn intend(wanted: &Wanted<'_>, pods: &[Arc<Replica>]) -> Intent {
    let mut intent = Intent::default();
    let mut slots: BTreeMap<u32, Slot> = BTreeMap::new();
    for pod in pods {
        slots.entry(pod.replica).or_default().add(pod, wanted);
    }
    let keep = keep(&slots, wanted);
    let missing = (wanted.replicas as usize).saturating_sub(keep.len());
    let empty: BTreeSet<u32> = (0..).filter(|slot| !keep.contains(slot)).take(missing).collect();
    let present: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
    for (replica, slot) in &slots {
        if keep.contains(replica) {
            slot.tidy(wanted, &present, &mut intent);
        } else {
            let live = slot.live().map(|pod| (Arc::clone(pod), DeleteReason::ScaledDown));
            intent.delete.extend(live);
            let keep = if empty.contains(replica) { ENDED_KEPT } else { 0 };
            slot.forget_ended(keep, &mut intent);
        }
    }
    fill(wanted, &slots, &empty, &mut intent);
    if let Some(need) = update(wanted, &slots, &keep, &mut intent) {
        let leaves = |pod: &Arc<Replica>| {
            pod.deleting && pod.gone_by.is_none_or(|end| wanted.now <= end + GONE_LATE)
        };
        let in_place = !pods.iter().any(leaves)
            && intent.delete.iter().all(|(_, reason)| *reason == DeleteReason::Ended);
        intent.needs.push(Need { in_place, ..need });
    }
    intent
}

/// The pods of one replica.
#[derive(Default)]
struct Slot {
    newest: Vec<Arc<Replica>>,
    older: Vec<Arc<Replica>>,
    ended: Vec<Arc<Replica>>,
    attempts: u32,
}

impl Slot {
    fn add(&mut self, pod: &Arc<Replica>, wanted: &Wanted<'_>) {
        self.attempts = self.attempts.max(pod.attempt + 1);
        if matches!(pod.progress, Progress::Ended { .. }) {
            if !pod.deleting {
                self.ended.push(Arc::clone(pod));
            }
        } else if pod.is_live() {
            let newest = wanted.revision == Some(pod.revision.as_str());
            let list = if newest { &mut self.newest } else { &mut self.older };
            list.push(Arc::clone(pod));
        }
    }

    fn live(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.newest.iter().chain(&self.older)
    }

    fn is_ready(&self) -> bool {
        self.live().any(|pod| pod.is_ready())
    }

    /// Deletes what a kept slot has too much. `present` are the UIDs of all pods that still exist.
    fn tidy(&self, wanted: &Wanted<'_>, present: &BTreeSet<&str>, intent: &mut Intent) {
        let mut delete = |pod: &Arc<Replica>, why| intent.delete.push((Arc::clone(pod), why));
        // Of two pods of one revision the younger yields.
        let newest =
            self.newest.iter().min_by_key(|pod| (!pod.is_ready(), pod.created, pod.attempt));
        let rest = self.newest.iter().filter(|pod| Some(*pod) != newest);
        rest.for_each(|pod| delete(pod, DeleteReason::Duplicate));
        let serving =
            self.older.iter().min_by_key(|pod| (!pod.is_ready(), pod.created, pod.attempt));
        for pod in &self.older {
            let replaced = newest.is_some_and(|newest| {
                newest.is_ready() || newest.replaces.as_deref() == Some(&pod.uid)
            });
            if replaced || Some(pod) != serving {
                delete(pod, DeleteReason::Replaced);
            }
        }
        for pod in newest.into_iter().chain(serving) {
            let Progress::Unbound { since, message } = &pod.progress else { continue };
            // It waits for its predecessor's GPUs: not the node's fault.
            let waits = pod.replaces.as_deref().is_some_and(|uid| present.contains(uid));
            let left = since + seconds(wanted.unbound_limit) - wanted.now;
            if waits || left > 0 {
                let left = u64::try_from(left.max(1)).unwrap_or(1);
                intent.look_again_in(Duration::from_secs(left));
            } else {
                let message = message.clone().unwrap_or_else(|| "no word from it".to_owned());
                intent.delete.push((Arc::clone(pod), DeleteReason::Unbound { message }));
            }
        }
        self.forget_ended(if self.is_ready() { 0 } else { ENDED_KEPT }, intent);
    }

    /// Deletes all but the last `keep` of the pods that ended.
    fn forget_ended(&self, keep: usize, intent: &mut Intent) {
        let mut ended = self.ended.clone();
        ended.sort_by_key(|pod| pod.attempt);
        ended.truncate(ended.len().saturating_sub(keep));
        intent.delete.extend(ended.into_iter().map(|pod| (pod, DeleteReason::Ended)));
    }

    /// Seconds until the next attempt may be made.
    fn backoff(&self, now: i64) -> i64 {
        let last = self.ended.iter().filter_map(|pod| match pod.progress {
            Progress::Ended { at, .. } => Some(at),
            _ => None,
        });
        let step = self.ended.len().saturating_sub(1).min(BACKOFF.len() - 1);
        last.max().map_or(0, |last| last + BACKOFF[step] - now).max(0)
    }

    /// Nodes to leave out, with the reason. They are looked at again when that is over.
    fn leave_out(&self, now: i64, intent: &mut Intent) -> BTreeMap<NodeName, String> {
        let avoid = self.avoid(now);
        if let Some(end) = avoid.values().map(|(_, until)| *until).min() {
            intent.look_again_in(Duration::from_secs(u64::try_from(end - now).unwrap_or(1)));
        }
        avoid.into_iter().map(|(node, (why, _))| (node, why)).collect()
    }

    /// Nodes that refused a pod not long ago, with the reason, and until when each is left out: it
    /// may be the only one that fits, and may have refused because it had only just started.
    fn avoid(&self, now: i64) -> BTreeMap<NodeName, (String, i64)> {
        let mut refusals: BTreeMap<NodeName, (String, usize, i64)> = BTreeMap::new();
        for pod in &self.ended {
            let Progress::Ended { reason, at, .. } = &pod.progress else { continue };
            if !REFUSED_BY_NODE.contains(&reason.as_str()) {
                continue;
            }
            let why = format!("its kubelet refused the pod: {reason}");
            let (_, count, last) = refusals.entry(pod.node.clone()).or_insert((why, 0, *at));
            *count += 1;
            *last = (*last).max(*at);
        }
        let left_out = refusals.into_iter().map(|(node, (why, count, last))| {
            (node, (why, last + AVOIDED[count.min(AVOIDED.len()) - 1]))
        });
        left_out.filter(|(_, (_, until))| *until > now).collect()
    }
}

/// The slots to keep: those that serve first, then those of the newest revision.
fn keep(slots: &BTreeMap<u32, Slot>, wanted: &Wanted<'_>) -> BTreeSet<u32> {
    let mut live: Vec<_> = slots.iter().filter(|(_, slot)| slot.live().next().is_some()).collect();
    live.sort_by_key(|(replica, slot)| (!slot.is_ready(), slot.newest.is_empty(), **replica));
    live.into_iter().map(|(replica, _)| *replica).take(wanted.replicas as usize).collect()
}

/// Fills the slots that lack a pod.
fn fill(
    wanted: &Wanted<'_>,
    slots: &BTreeMap<u32, Slot>,
    empty: &BTreeSet<u32>,
    intent: &mut Intent,
) {
    let proven = slots.values().any(|slot| slot.newest.iter().any(|pod| pod.is_ready()));
    let none = Slot::default();
    for &replica in empty {
        let slot = slots.get(&replica).unwrap_or(&none);
        let wait = slot.backoff(wanted.now);
        if wait > 0 {
            intent.look_again_in(Duration::from_secs(u64::try_from(wait).unwrap_or(1)));
            continue;
        }
        let recorded = wanted.recorded.iter().find(|r| u32::try_from(r.replica) == Ok(replica));
        // Until the newest revision has proven itself, a replica comes back as what it was.
        let revision = recorded
            .map(|recorded| recorded.revision.clone())
            .filter(|was| !proven && wanted.revision != Some(was.as_str()))
            .filter(|was| wanted.revisions.contains(was.as_str()));
        let avoid = slot.leave_out(wanted.now, intent);
        intent.needs.push(Need {
            replica,
            attempt: attempt(slot, recorded),
            revision,
            replaces: None,
            in_place: false,
            avoid,
        });
    }
}

/// The next replica to bring to the newest revision: one at a time, those that do not serve first.
fn update(
    wanted: &Wanted<'_>,
    slots: &BTreeMap<u32, Slot>,
    keep: &BTreeSet<u32>,
    intent: &mut Intent,
) -> Option<Need> {
    let kept = || slots.iter().filter(|(replica, _)| keep.contains(replica));
    let under_way = |slot: &Slot| slot.newest.iter().any(|pod| !pod.is_ready());
    if kept().any(|(_, slot)| under_way(slot)) {
        return None;
    }
    let outdated = kept().filter(|(_, slot)| slot.newest.is_empty() && !slot.older.is_empty());
    let (replica, slot) = outdated.min_by_key(|(replica, slot)| (slot.is_ready(), **replica))?;
    let old = slot.older.iter().min_by_key(|pod| (!pod.is_ready(), pod.created, pod.attempt))?;
    let recorded = wanted.recorded.iter().find(|r| u32::try_from(r.replica) == Ok(*replica));
    Some(Need {
        replica: *replica,
        attempt: attempt(slot, recorded),
        revision: None,
        replaces: Some(Arc::clone(old)),
        in_place: true,
        avoid: slot.leave_out(wanted.now, intent),
    })
}

/// The attempt after all that are there and all that status remembers.
fn attempt(slot: &Slot, recorded: Option<&ReplicaPlacement>) -> u32 {
    let remembered = recorded.map_or(0, |recorded| {
        u32::try_from(recorded.attempt).map_or(0, |attempt| attempt.saturating_add(1))
    });
    slot.attempts.max(remembered)
}

/// Whole seconds.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
