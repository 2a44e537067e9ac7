//! What status says, as people and as kstatus, Flux and Argo CD read it.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use berth_crds::{
    LLMDeployment, LLMDeploymentStatus,
    llm_deployment::{AcceleratorStatus, Placement, ReplicaPhase},
};
use berth_operator::{
    reconcile::{
        placing::{Misfit, Terms, place_first},
        problem::Problem,
        reason::Reason,
        report::{Seen, report},
        resolve::resolve,
    },
    world::pod::{Progress, Replica, Trouble},
};
use berth_planner::Overlay;
use berth_render::Template;
use berth_units::Bytes;
use common::{defaults, deployment, fleet, need, node, replica, site};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

const READY: Progress = Progress::Ready { since: 0 };

fn asked(replicas: u32) -> LLMDeployment {
    deployment(json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}, "replicas": replicas}))
}

fn template() -> Template {
    let wish = resolve(&asked(1), &defaults(), None).unwrap();
    wish.template(wish.contexts[0], 1, wish.vendors[0]).unwrap()
}

fn pod(revision: &str, number: u32, progress: Progress) -> Arc<Replica> {
    Arc::new(Replica { progress, ..replica(revision, number) })
}

fn misfit() -> Misfit {
    let fleet = fleet([node("gpu-1", "H100", 1, Bytes::gib(8))]);
    let wish = resolve(&asked(1), &defaults(), None).unwrap();
    let site = site();
    let terms = Terms::new("team", &site, &Placement::default(), BTreeMap::new());
    *place_first(&Overlay::new(&fleet), &wish, &need(), &terms).unwrap_err()
}

/// A report on a deployment whose newest revision is `new`.
fn status(
    deployment: &LLMDeployment,
    pods: &[Arc<Replica>],
    misfits: &[Misfit],
    problem: Option<&Problem>,
) -> LLMDeploymentStatus {
    report(&Seen {
        deployment,
        pods,
        revision: Some("new"),
        shown: Some(("new", &template())),
        model: None,
        problem,
        waits: None,
        misfits,
        position: (!misfits.is_empty()).then_some(0),
        hourly: Some(("2.00 EUR".to_owned(), true)),
        usage: None,
        now: Timestamp::UNIX_EPOCH,
    })
}

/// Conditions as `type=status/reason`.
fn conditions(status: &LLMDeploymentStatus) -> BTreeMap<&str, String> {
    let conditions = status.conditions.iter();
    conditions.map(|c| (c.type_.as_str(), format!("{}/{}", c.status, c.reason))).collect()
}

#[track_caller]
fn says(status: &LLMDeploymentStatus, expected: &[(&str, &str)]) {
    let expected: BTreeMap<&str, String> =
        expected.iter().map(|(type_, text)| (*type_, (*text).to_owned())).collect();
    assert_eq!(conditions(status), expected);
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(1)));
}

#[test]
fn all_that_is_wanted_answers() {
    let status = status(&asked(2), &[pod("new", 0, READY), pod("new", 1, READY)], &[], None);
    says(
        &status,
        &[
            ("Ready", "True/Ready"),
            ("Progressing", "False/Complete"),
            ("Placed", "True/AllReplicasPlaced"),
            ("Degraded", "False/NoReplicaFails"),
        ],
    );
    assert_eq!(status.ready.as_deref(), Some("2/2"));
    assert_eq!((status.gpus, status.vram.as_deref()), (2, Some("150.0 GiB")));
    assert_eq!(status.endpoint.as_deref(), Some("http://llm.team.svc/v1"));
}

#[test]
fn an_old_pod_never_fills_the_count() {
    let pods = [pod("old", 0, READY), pod("new", 1, READY)];
    let status = status(&asked(2), &pods, &[], None);
    says(
        &status,
        &[
            ("Ready", "False/RollingOut"),
            ("Progressing", "True/RollingOut"),
            ("Placed", "True/AllReplicasPlaced"),
            ("Degraded", "False/NoReplicaFails"),
            ("Reconciling", "True/RollingOut"),
        ],
    );
    let counts = (status.replicas, status.updated_replicas, status.available_replicas);
    assert_eq!(counts, (2, 1, 1));
}

#[test]
fn what_waits_says_where_it_stands_and_what_for() {
    let misfits = [misfit()];
    let status = status(&asked(1), &[], &misfits, None);
    says(
        &status,
        &[
            ("Ready", "False/InsufficientVRAM"),
            ("Progressing", "False/InsufficientVRAM"),
            ("Placed", "False/InsufficientVRAM"),
            ("Degraded", "False/NoReplicaFails"),
            ("Stalled", "True/InsufficientVRAM"),
        ],
    );
    let queue = status.queue.unwrap();
    assert_eq!((queue.position, queue.replicas), (1, 1));
    assert!(queue.waiting_for.starts_with("1 GPU with "), "{}", queue.waiting_for);
}

#[test]
fn what_waits_for_something_that_will_come_is_not_stalled() {
    let misfits = [Misfit { ever: true, ..misfit() }];
    let status = status(&asked(1), &[], &misfits, None);
    assert_eq!(conditions(&status)["Reconciling"], "True/InsufficientVRAM");
    assert!(!conditions(&status).contains_key("Stalled"));
}

#[test]
fn a_blocked_rollout_says_so_while_the_old_revision_serves() {
    let misfits = [Misfit { ever: true, ..misfit() }];
    let status = status(&asked(1), &[pod("old", 0, READY)], &misfits, None);
    assert_eq!(conditions(&status)["Ready"], "False/RolloutBlocked");
    assert_eq!(conditions(&status)["Placed"], "True/AllReplicasPlaced");
    assert!(status.resolved.is_some());
}

#[test]
fn a_replacement_that_waits_for_its_image_says_so() {
    let waits = (Reason::Prefetching, "image and model come onto node gpu-1".to_owned());
    let (asked, pods) = (asked(1), [pod("old", 0, READY)]);
    let status = report(&Seen { waits: Some(&waits), ..seen(&asked, &pods) });
    assert_eq!(conditions(&status)["Ready"], "False/Prefetching");
    assert_eq!(conditions(&status)["Degraded"], "False/NoReplicaFails");
}

#[test]
fn a_bad_edit_stalls_and_what_serves_stays_in_sight() {
    let problem = Problem::ContextTooLong("too long".to_owned());
    let status = status(&asked(1), &[pod("new", 0, READY)], &[], Some(&problem));
    says(
        &status,
        &[
            ("Ready", "False/ContextTooLong"),
            ("Progressing", "False/ContextTooLong"),
            ("Placed", "True/AllReplicasPlaced"),
            ("Degraded", "False/NoReplicaFails"),
            ("Stalled", "True/ContextTooLong"),
        ],
    );
    assert_eq!(status.ready_replicas, 1);
}

#[test]
fn a_failing_replica_is_named_with_the_kubelets_reason() {
    let failing = Progress::Failing {
        reason: "CrashLoopBackOff".to_owned(),
        message: "container engine ended with code 1".to_owned(),
    };
    let status = status(&asked(2), &[pod("new", 0, READY), pod("new", 1, failing)], &[], None);
    assert_eq!(conditions(&status)["Ready"], "False/CrashLoopBackOff");
    assert_eq!(conditions(&status)["Degraded"], "True/CrashLoopBackOff");
    let message = &status.conditions[0].message;
    assert!(message.contains("llm-new-1-0-0"), "{message}");
    assert_eq!(status.placements[1].phase, ReplicaPhase::Failing);
}

#[test]
fn a_download_is_told_of_while_no_replica_is_further() {
    let fetching = Progress::Fetching { tries: 0, failed: None };
    let mut first = pod("new", 0, fetching.clone());
    let word = "downloading: 3.2 GiB of 15.0 GiB, 210 MiB/s, 58 s left";
    Arc::make_mut(&mut first).learnt.download = Some(word.to_owned());
    let pods = [first.clone(), pod("new", 1, fetching)];
    let both = status(&asked(2), &pods, &[], None);
    says(
        &both,
        &[
            ("Ready", "False/Downloading"),
            ("Progressing", "True/Downloading"),
            ("Placed", "True/AllReplicasPlaced"),
            ("Degraded", "False/NoReplicaFails"),
            ("Reconciling", "True/Downloading"),
        ],
    );
    let message = &both.conditions[0].message;
    assert!(!message.contains("GiB"), "it would be written again and again: {message}");
    let placements: Vec<_> =
        both.placements.iter().map(|placed| (placed.phase, placed.message.as_deref())).collect();
    assert_eq!(placements, [(ReplicaPhase::Loading, Some(word)), (ReplicaPhase::Loading, None)]);
    for further in [Progress::Loading, READY] {
        let status = status(&asked(2), &[first.clone(), pod("new", 1, further)], &[], None);
        assert_eq!(conditions(&status)["Ready"], "False/Loading");
    }
}

#[test]
fn a_download_that_failed_before_fails_until_it_goes_better() {
    let trouble = Trouble {
        reason: "Unauthorized".to_owned(),
        message: "container fetch: the hub refuses it".to_owned(),
    };
    let again = Progress::Fetching { tries: 1, failed: Some(trouble) };
    let status = status(&asked(1), &[pod("new", 0, again)], &[], None);
    assert_eq!(conditions(&status)["Ready"], "False/Unauthorized");
    assert_eq!(conditions(&status)["Degraded"], "True/Unauthorized");
    let [placement] = status.placements.as_slice() else { panic!("{:?}", status.placements) };
    let message = placement.message.as_deref().unwrap_or_default();
    assert_eq!(placement.phase, ReplicaPhase::Failing);
    assert!(message.contains("the hub refuses it"), "{message}");
}

#[test]
fn a_replica_that_serves_from_the_cpu_is_ready_and_says_so() {
    let on_cpu = AcceleratorStatus {
        device: "CPU".to_owned(),
        layers: Some(0),
        of_layers: Some(33),
        restarts: 0,
    };
    let mut serves = pod("new", 0, READY);
    Arc::make_mut(&mut serves).learnt.accelerator = Some(on_cpu.clone());
    let mut deployment = asked(1);
    let first = status(&deployment, &[serves], &[], None);
    assert_eq!(conditions(&first)["Ready"], "True/Ready");
    let [placement] = first.placements.as_slice() else { panic!("{:?}", first.placements) };
    assert_eq!(placement.accelerator, Some(on_cpu));
    let message = placement.message.clone().unwrap_or_default();
    assert!(message.starts_with("serves from the CPU, 0 of 33 layers"), "{message}");

    // The next operator has it from status, until the engine is started anew.
    deployment.status = Some(first.clone());
    let later = status(&deployment, &[pod("new", 0, READY)], &[], None);
    assert_eq!(later.placements, first.placements);
    let mut anew = pod("new", 0, READY);
    Arc::make_mut(&mut anew).restarts = 1;
    let later = status(&deployment, &[anew], &[], None);
    assert_eq!((&later.placements[0].accelerator, &later.placements[0].message), (&None, &None));
}

#[test]
fn nothing_wanted_is_ready_and_suspended_says_so() {
    let none = status(&asked(0), &[], &[], None);
    assert_eq!(conditions(&none)["Ready"], "True/ScaledToZero");
    let mut suspended = asked(3);
    suspended.spec.suspend = true;
    let status = status(&suspended, &[], &[], None);
    assert_eq!(conditions(&status)["Ready"], "True/Suspended");
    assert_eq!(status.ready.as_deref(), Some("0/0"));
    assert_eq!(status.endpoint, None);
}

#[test]
fn a_second_look_at_the_same_says_the_same() {
    let mut deployment = asked(1);
    let pods = [pod("new", 0, Progress::Loading)];
    let first = status(&deployment, &pods, &[], None);
    deployment.status = Some(first.clone());
    let later = report(&Seen { now: Timestamp::now(), ..seen(&deployment, &pods) });
    assert_eq!(later, first, "times stay where the truth did not change");
}

fn seen<'a>(deployment: &'a LLMDeployment, pods: &'a [Arc<Replica>]) -> Seen<'a> {
    // Leaked: a test's template lives as long as the test.
    let template: &'static Template = Box::leak(Box::new(template()));
    Seen {
        deployment,
        pods,
        revision: Some("new"),
        shown: Some(("new", template)),
        model: None,
        problem: None,
        waits: None,
        misfits: &[],
        position: None,
        hourly: Some(("2.00 EUR".to_owned(), true)),
        usage: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_cost_that_moved_a_little_is_left_as_it_was() {
    let mut deployment = asked(1);
    let pods = [pod("new", 0, READY)];
    deployment.status = Some(status(&deployment, &pods, &[], None));
    for (now, shown) in [("2.05 EUR", "2.00 EUR"), ("2.20 EUR", "2.20 EUR")] {
        let hourly = Some((now.to_owned(), true));
        let later = report(&Seen { hourly, ..seen(&deployment, &pods) });
        assert_eq!(later.cost.unwrap().hourly, shown);
    }
}
