//! What replicas need next, case by case.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use berth_crds::llm_deployment::{ReplicaPhase, ReplicaPlacement};
use berth_operator::{
    reconcile::intend::{DeleteReason, Intent, Need, Wanted, intend},
    world::pod::{Progress, Replica},
};
use berth_planner::{NodeName, PodKey};
use common::replica;

const NOW: i64 = 10_000;
const READY: Progress = Progress::Ready { since: NOW - 100 };
const UNBOUND: Progress = Progress::Unbound { since: NOW - 5, message: None };

/// A pod whose name and UID spell what it is.
fn pod(revision: &str, number: u32, attempt: u32, progress: Progress) -> Arc<Replica> {
    let name = format!("llm-{revision}-{number}-0-{attempt}");
    Arc::new(Replica {
        key: PodKey::new("team", name.clone()),
        uid: format!("uid-{name}"),
        attempt,
        node: NodeName::from(format!("gpu-{number}")),
        progress,
        created: NOW - 1000 + i64::from(attempt),
        ..replica(revision, number)
    })
}

fn deleting(pod: &Arc<Replica>) -> Arc<Replica> {
    Arc::new(Replica { deleting: true, ..pod.as_ref().clone() })
}

fn ended(reason: &str, at: i64) -> Progress {
    Progress::Ended { reason: reason.to_owned(), message: "it ended".to_owned(), at }
}

fn decide(replicas: u32, revision: &str, pods: &[Arc<Replica>]) -> Intent {
    decide_with(replicas, revision, pods, &[])
}

fn decide_with(
    replicas: u32,
    revision: &str,
    pods: &[Arc<Replica>],
    recorded: &[ReplicaPlacement],
) -> Intent {
    intend(
        &Wanted {
            replicas,
            revision: Some(revision),
            revisions: &BTreeSet::from(["old", "new"]),
            recorded,
            unbound_limit: Duration::from_secs(30),
            now: NOW,
        },
        pods,
    )
}

fn recorded(replica: i32, attempt: i32, revision: &str) -> ReplicaPlacement {
    ReplicaPlacement {
        replica,
        pod: format!("llm-{revision}-{replica}-0-{attempt}"),
        attempt,
        revision: revision.to_owned(),
        node: "gpu-0".to_owned(),
        product: None,
        gpus: 1,
        bytes_per_gpu: 1,
        phase: ReplicaPhase::Ready,
        message: None,
        accelerator: None,
    }
}

fn deleted(intent: &Intent) -> BTreeMap<&str, &DeleteReason> {
    intent.delete.iter().map(|(pod, reason)| (pod.key.name.as_str(), reason)).collect()
}

fn needed(intent: &Intent) -> Vec<(u32, u32)> {
    intent.needs.iter().map(|need| (need.replica, need.attempt)).collect()
}

#[test]
fn missing_replicas_fill_the_lowest_slots() {
    let pods = [pod("new", 1, 0, READY)];
    let intent = decide(3, "new", &pods);
    assert_eq!(needed(&intent), [(0, 0), (2, 0)]);
    assert!(intent.delete.is_empty());
}

#[test]
fn what_is_as_wanted_is_left_alone() {
    let pods = [pod("new", 0, 0, READY), pod("new", 1, 3, Progress::Loading)];
    assert_eq!(decide(2, "new", &pods), Intent::default());
}

#[test]
fn scaling_down_keeps_what_serves() {
    let pods =
        [pod("new", 0, 0, Progress::Loading), pod("new", 1, 0, READY), pod("new", 2, 0, READY)];
    let intent = decide(1, "new", &pods);
    assert_eq!(
        deleted(&intent),
        BTreeMap::from([
            ("llm-new-0-0-0", &DeleteReason::ScaledDown),
            ("llm-new-2-0-0", &DeleteReason::ScaledDown),
        ])
    );
    assert!(intent.needs.is_empty());
}

#[test]
fn a_terminating_pod_holds_no_slot_but_its_attempt_is_not_used_again() {
    let pods = [deleting(&pod("new", 0, 4, READY))];
    let intent = decide(1, "new", &pods);
    assert_eq!(needed(&intent), [(0, 5)]);
    assert!(intent.delete.is_empty());
}

#[test]
fn an_attempt_that_only_status_remembers_is_not_used_again() {
    let intent = decide_with(1, "new", &[], &[recorded(0, 7, "new")]);
    assert_eq!(needed(&intent), [(0, 8)]);
}

#[test]
fn replicas_are_replaced_one_at_a_time_and_those_that_do_not_serve_first() {
    let pods = [pod("old", 0, 0, READY), pod("old", 1, 0, Progress::Loading)];
    let intent = decide(2, "new", &pods);
    let [Need { replica: 1, replaces: Some(old), .. }] = intent.needs.as_slice() else {
        panic!("{intent:#?}");
    };
    assert_eq!(old.key.name, "llm-old-1-0-0");
    assert!(intent.delete.is_empty(), "the old one stays until its successor is decided on");

    // While the successor loads, nothing else is touched, and the old one stays.
    let pods =
        [pod("old", 0, 0, READY), pod("old", 1, 0, READY), pod("new", 1, 1, Progress::Loading)];
    assert_eq!(decide(2, "new", &pods), Intent::default());

    // Once it answers, the old one goes and the next is replaced.
    let pods = [pod("old", 0, 0, READY), pod("old", 1, 0, READY), pod("new", 1, 1, READY)];
    let intent = decide(2, "new", &pods);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-old-1-0-0", &DeleteReason::Replaced)]));
    assert_eq!(needed(&intent), [(0, 1)]);
    assert!(!intent.needs[0].in_place, "the GPUs of the one that goes will do for the next");

    // So too while it is terminating, but not for ever.
    let leaving = |gone_by| {
        let old = Replica { gone_by: Some(gone_by), ..deleting(&pods[1]).as_ref().clone() };
        [Arc::clone(&pods[0]), Arc::new(old), Arc::clone(&pods[2])]
    };
    assert!(!decide(2, "new", &leaving(NOW + 60)).needs[0].in_place);
    assert!(decide(2, "new", &leaving(NOW - 60)).needs[0].in_place);
}

#[test]
fn an_heir_that_waits_for_its_gpus_has_its_predecessor_deleted() {
    let old = pod("old", 0, 0, READY);
    let heir = Replica {
        replaces: Some(old.uid.clone()),
        progress: Progress::Unbound { since: NOW - 500, message: None },
        ..pod("new", 0, 1, READY).as_ref().clone()
    };
    let intent = decide(1, "new", &[Arc::clone(&old), Arc::new(heir.clone())]);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-old-0-0-0", &DeleteReason::Replaced)]));

    // It waits for as long as the other one is terminating.
    let intent = decide(1, "new", &[deleting(&old), Arc::new(heir.clone())]);
    assert!(intent.delete.is_empty(), "{intent:#?}");

    // With the other one gone it is like any pod that the scheduler does not bind.
    let intent = decide(1, "new", &[Arc::new(heir)]);
    assert!(matches!(intent.delete.as_slice(), [(_, DeleteReason::Unbound { .. })]));
}

#[test]
fn a_pod_that_is_not_bound_in_time_is_planned_again_elsewhere() {
    let soon = decide(1, "new", &[pod("new", 0, 0, UNBOUND)]);
    assert_eq!(soon.again, Some(Duration::from_secs(25)));
    assert!(soon.delete.is_empty());

    let message = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu".to_owned();
    let late = Progress::Unbound { since: NOW - 31, message: Some(message.clone()) };
    let intent = decide(1, "new", &[pod("new", 0, 0, late)]);
    assert_eq!(intent.delete[0].1, DeleteReason::Unbound { message });
}

#[test]
fn of_two_pods_for_one_replica_the_younger_yields() {
    let pods = [pod("new", 0, 0, Progress::Loading), pod("new", 0, 1, Progress::Loading)];
    let intent = decide(1, "new", &pods);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-new-0-0-1", &DeleteReason::Duplicate)]));

    // Unless the younger one serves already.
    let pods = [pod("new", 0, 0, Progress::Loading), pod("new", 0, 1, READY)];
    let intent = decide(1, "new", &pods);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-new-0-0-0", &DeleteReason::Duplicate)]));
}

#[test]
fn a_replica_that_ends_again_and_again_is_tried_less_and_less_often() {
    let at = NOW - 3;
    let once = [pod("new", 0, 0, ended("Evicted", at))];
    let intent = decide(1, "new", &once);
    assert_eq!(needed(&intent), [(0, 1)]);
    assert!(intent.delete.is_empty(), "it is the memory of the failure");

    let twice = [pod("new", 0, 0, ended("Error", at - 60)), pod("new", 0, 1, ended("Error", at))];
    let intent = decide(1, "new", &twice);
    assert!(intent.needs.is_empty());
    assert_eq!(intent.again, Some(Duration::from_secs(7)));

    let later =
        [pod("new", 0, 0, ended("Error", at - 60)), pod("new", 0, 1, ended("Error", at - 7))];
    assert_eq!(needed(&decide(1, "new", &later)), [(0, 2)]);
}

#[test]
fn what_ended_is_forgotten_once_the_replica_serves() {
    let pods = [pod("new", 0, 0, ended("Evicted", NOW - 60)), pod("new", 0, 1, READY)];
    let intent = decide(1, "new", &pods);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-new-0-0-0", &DeleteReason::Ended)]));
}

#[test]
fn a_node_whose_kubelet_refused_the_pod_is_left_out() {
    let refused = pod("new", 0, 0, ended("UnexpectedAdmissionError", NOW - 5));
    let intent = decide(1, "new", &[Arc::clone(&refused)]);
    assert_eq!(intent.needs[0].avoid.keys().collect::<Vec<_>>(), [&refused.node]);
    assert_eq!(intent.again, Some(Duration::from_secs(25)), "it may be the only one that fits");
    let later = decide(1, "new", &[pod("new", 0, 0, ended("UnexpectedAdmissionError", NOW - 31))]);
    assert!(later.needs[0].avoid.is_empty());
    assert_eq!(later.again, None);

    let evicted = decide(1, "new", &[pod("new", 0, 0, ended("Evicted", NOW - 5))]);
    assert!(evicted.needs[0].avoid.is_empty());
}

#[test]
fn until_the_new_revision_has_proven_itself_a_lost_replica_comes_back_as_it_was() {
    let pods = [pod("old", 0, 0, READY), pod("new", 0, 1, Progress::Loading)];
    let records = [recorded(0, 0, "old"), recorded(1, 0, "old")];
    let intent = decide_with(2, "new", &pods, &records);
    assert_eq!(intent.needs[0].revision.as_deref(), Some("old"));

    let pods = [pod("new", 0, 1, READY)];
    let intent = decide_with(2, "new", &pods, &records);
    assert_eq!(intent.needs[0].revision, None);
}

#[test]
fn an_edit_in_mid_rollout_replaces_the_half_done_replica_and_keeps_the_serving_one() {
    // "new" was under way when a third revision was asked for.
    let pods = [pod("old", 0, 0, READY), pod("new", 0, 1, Progress::Loading)];
    let intent = decide(1, "third", &pods);
    assert_eq!(deleted(&intent), BTreeMap::from([("llm-new-0-0-1", &DeleteReason::Replaced)]));
    assert_eq!(needed(&intent), [(0, 2)]);
    assert_eq!(intent.needs[0].replaces.as_ref().map(|old| &*old.revision), Some("old"));
}

#[test]
fn suspended_means_nothing_is_left() {
    let pods = [
        pod("new", 0, 0, READY),
        pod("old", 1, 0, Progress::Loading),
        pod("new", 2, 0, ended("Evicted", NOW)),
    ];
    let intent = decide(0, "new", &pods);
    assert_eq!(intent.delete.len(), 3);
    assert!(intent.needs.is_empty());
}
