//! The init step that downloads a model, from what the kubelet says of it to what people are told.

use std::{collections::BTreeMap, sync::Arc};

use berth_operator::{
    reconcile::reason::Reason,
    usage::download::Download,
    world::{
        World, fetch,
        pod::{self, Progress, Trouble},
    },
};
use berth_units::Bytes;
use futures::channel::mpsc;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const UNAUTHORIZED: &str = "huggingface.co refuses org/model (401): it is gated or private";

/// A pod of ours on its node, whose init step is as given.
fn pod(step: &Value) -> Pod {
    let name = berth_render::pod_name("llm", "abc", 0, 0, 0);
    let owner = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "LLMDeployment", "name": "llm", "uid": "owner",
        "controller": true,
    });
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "team", "uid": "pod", "ownerReferences": [owner],
            "labels": {
                "berth.dev/revision": "abc", "berth.dev/replica": "0", "berth.dev/rank": "0",
                "berth.dev/attempt": "0",
            },
            "annotations": {
                "berth.dev/claim": json!({"gpus": 1, "bytesPerGpu": 1, "product": "H100"}).to_string(),
            },
        },
        "spec": {"nodeName": "gpu-1", "containers": []},
        "status": {
            "phase": "Pending",
            "podIP": "10.0.0.7",
            "initContainerStatuses": [step],
            "containerStatuses": [{
                "name": "engine", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "PodInitializing"}},
            }],
        },
    }))
    .unwrap()
}

fn step(restarts: i32, state: &Value, last: &Value) -> Value {
    json!({
        "name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
        "state": state, "lastState": last,
    })
}

fn ended(code: i32) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": "Error", "message": format!("{UNAUTHORIZED}\n"),
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
    }})
}

fn progress(step: &Value) -> Progress {
    pod::replica(&pod(step)).expect("a pod of ours").progress
}

fn failing(reason: &str, message: &str) -> Progress {
    Progress::Failing { reason: reason.to_owned(), message: message.to_owned() }
}

#[test]
fn a_step_that_runs_is_a_download() {
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    assert_eq!(
        progress(&step(0, &running, &json!({}))),
        Progress::Fetching { tries: 0, failed: None }
    );
    let waiting = json!({"waiting": {"reason": "PodInitializing"}});
    assert_eq!(progress(&step(0, &waiting, &json!({}))), Progress::Loading);
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    assert_eq!(progress(&step(0, &done, &json!({}))), Progress::Loading);
}

#[test]
fn a_step_that_failed_says_why_at_once_and_while_it_waits_to_be_tried_again() {
    let message = format!("container fetch: {UNAUTHORIZED}");
    assert_eq!(progress(&step(0, &ended(11), &json!({}))), failing("Unauthorized", &message));
    let again = json!({"waiting": {
        "reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=fetch",
    }});
    assert_eq!(progress(&step(3, &again, &ended(11))), failing("Unauthorized", &message));
    // What Berth does not know is the kubelet's word.
    assert_eq!(progress(&step(3, &again, &ended(99))), failing("Error", &message));
    let silent = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let text = "container fetch ended with code 137";
    assert_eq!(progress(&step(3, &again, &silent)), failing("OOMKilled", text));
}

#[test]
fn a_step_that_cannot_start_says_so_in_the_kubelets_words() {
    let waiting = json!({"waiting": {
        "reason": "CreateContainerConfigError", "message": "secret \"hf-token\" not found",
    }});
    assert_eq!(
        progress(&step(0, &waiting, &json!({}))),
        failing("CreateContainerConfigError", "container fetch: secret \"hf-token\" not found")
    );
}

#[test]
fn another_init_step_that_failed_is_told_of_too() {
    let mut copy = step(0, &ended(1), &json!({}));
    copy["name"] = json!("copy");
    assert_eq!(progress(&copy), failing("Error", "container copy ended with code 1"));
}

#[test]
fn a_second_try_is_failing_until_it_is_known_to_go_better() {
    let (triggers, _) = mpsc::unbounded();
    let world = World::new(triggers);
    let running = json!({"running": {"startedAt": "2026-01-01T00:01:00Z"}});
    let again = pod(&step(1, &running, &ended(15)));
    let seen = || Arc::clone(&world.lock().replicas_of("owner")[0]);
    let look = |tries, expected| {
        let download = Download { expected, bytes: Bytes::ZERO, ..Download::default() };
        let looks = BTreeMap::from([("pod".to_owned(), (tries, download))]);
        world
            .update(|state| state.learn("owner", |learning| learning.downloads("owner", &looks, 0)))
    };

    world.saw_pod(&again);
    let failed = Trouble {
        reason: "DownloadFailed".to_owned(),
        message: format!("container fetch: {UNAUTHORIZED}"),
    };
    assert_eq!(seen().progress, Progress::Fetching { tries: 1, failed: Some(failed.clone()) });
    assert!(!look(1, Bytes::ZERO), "it has found nothing yet");
    assert!(look(1, Bytes::gib(15)), "now it goes better");
    let known = Progress::Fetching { tries: 1, failed: None };
    assert_eq!(seen().progress, known);
    let told = "downloading: 0 B of 15.0 GiB";
    assert_eq!(seen().learnt.download.as_deref(), Some(told));
    // Another event about the pod changes nothing of that.
    world.saw_pod(&again);
    assert_eq!((seen().progress.clone(), seen().learnt.download.as_deref()), (known, Some(told)));
    // The next try is another.
    world.saw_pod(&pod(&step(2, &running, &ended(15))));
    assert_eq!(seen().progress, Progress::Fetching { tries: 2, failed: Some(failed) });
    assert_eq!(seen().learnt.download, None);
    // When it is over, it is forgotten.
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    world.saw_pod(&pod(&step(2, &done, &json!({}))));
    assert_eq!(seen().progress, Progress::Loading);
    assert!(world.lock().learning().download("pod").is_none());
}

/// `operator/fetch` lists its exit codes; each has a word here, and each word a remedy.
#[test]
fn every_exit_code_has_a_reason_and_every_reason_a_remedy() {
    let listed = include_str!("../../fetch/src/lib.rs").lines().filter_map(|line| {
        let (code, meaning) = line.strip_prefix("//! | ")?.split_once(" | ")?;
        // A download never ends with what only a look at a model can find.
        code.parse::<i32>().ok().filter(|_| !meaning.starts_with("`inspect`:"))
    });
    // Success, wrong usage (Berth's own mistake), those that no step of a replica ends with (of
    // `keep` and `inspect`), a signal.
    let codes: Vec<i32> = listed.filter(|code| ![0, 2, 21, 22, 23, 143].contains(code)).collect();
    let known: Vec<i32> = fetch::REASONS.iter().map(|(code, _)| *code).collect();
    assert_eq!(known, codes);
    for (_, word) in fetch::REASONS {
        let told = Reason::ALL
            .iter()
            .any(|(reason, _, remedy)| reason.as_str() == word && !remedy.is_empty());
        assert!(told, "{word} is not in reconcile/reason.rs, or without a remedy");
    }
}
