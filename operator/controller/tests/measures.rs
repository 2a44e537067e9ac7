//! What engines say they take, beside what was estimated for them.

mod common;

use std::sync::Arc;

use berth_crds::{
    LLMDeploymentStatus,
    llm_deployment::{AcceleratorStatus, MeasuredStatus},
};
use berth_operator::{
    measured::{error, follow, news},
    reconcile::{
        reason::Reason,
        report::{Seen, report},
        resolve::resolve,
    },
    world::pod::{Learnt, Progress, Replica},
};
use berth_render::{Estimate, Template, engine::log::Measured};
use berth_units::Bytes;
use common::{defaults, deployment, replica};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

/// 8 GiB of weights, 2 GiB of cache, 1 GiB of all else, 1 GiB of margin, for 4 requests of 4,096
/// tokens.
fn template() -> Template {
    let asked = deployment(json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}}));
    let wish = resolve(&asked, &defaults(), None).unwrap();
    let template = wish.template(wish.contexts[0], 1, wish.vendors[0]).unwrap();
    let estimate = Estimate {
        weights: Bytes::gib(8),
        kv_cache: Bytes::gib(2),
        activation: Bytes::mib(512),
        non_torch: Bytes::mib(256),
        graphs: Bytes::mib(256),
        margin: Bytes::gib(1),
        total: Bytes::gib(12),
        ..template.estimate
    };
    Template { context_length: 4_096, max_concurrency: 4, estimate, ..template }
}

/// What is exactly as it was estimated, where the engine made a cache of five times what was asked.
fn as_estimated() -> Measured {
    Measured {
        weights: Some(Bytes::gib(8)),
        kv_cache: Some(Bytes::gib(10)),
        compute: None,
        kv_tokens: Some(5 * 4 * 4_096),
    }
}

fn pod(revision: &str, number: u32, measured: Option<Measured>) -> Arc<Replica> {
    let accelerator =
        AcceleratorStatus { device: "GPU".to_owned(), layers: None, of_layers: None, restarts: 0 };
    let learnt = Learnt { download: None, accelerator: Some(accelerator), measured };
    Arc::new(Replica { learnt, ..replica(revision, number) })
}

fn on_cpu(mut pod: Arc<Replica>) -> Arc<Replica> {
    let accelerator = Arc::make_mut(&mut pod).learnt.accelerator.as_mut().unwrap();
    "CPU".clone_into(&mut accelerator.device);
    pod
}

fn first(measured: Measured) -> MeasuredStatus {
    follow(None, "new", &template(), &[pod("new", 0, Some(measured))]).unwrap()
}

/// A whole status after the first replica said so.
fn status(template: &Template, measured: Measured) -> LLMDeploymentStatus {
    let mut deployment = deployment(json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}}));
    let pods = [pod("new", 0, Some(measured))];
    let mut seen = || {
        let status = report(&Seen {
            deployment: &deployment,
            pods: &pods,
            revision: Some("new"),
            shown: Some(("new", template)),
            model: None,
            problem: None,
            waits: None,
            misfits: &[],
            position: None,
            hourly: None,
            usage: None,
            now: Timestamp::UNIX_EPOCH,
        });
        deployment.status = Some(status.clone());
        status
    };
    let status = seen();
    assert_eq!(seen(), status, "a second look writes nothing");
    status
}

#[test]
fn the_cache_counts_as_far_as_it_was_asked_for() {
    let gib = |gib| i64::try_from(Bytes::gib(gib).get()).ok();
    assert_eq!(
        first(as_estimated()),
        MeasuredStatus {
            pod: "llm-new-0-0-0".to_owned(),
            revision: "new".to_owned(),
            weights: gib(8),
            kv_cache: gib(10),
            compute: None,
            kv_tokens: Some(81_920),
            needed: gib(11),
            difference: Some("0 %".to_owned()),
        }
    );
    let more = Measured { weights: Some(Bytes::mib(8_192 + 338)), ..as_estimated() };
    assert_eq!(first(more).difference.as_deref(), Some("+3 %"));
    let less = Measured { weights: Some(Bytes::gib(7)), ..as_estimated() };
    assert_eq!(first(less).difference.as_deref(), Some("-9 %"));
    // What an engine does not tell is as it was estimated.
    let untold = Measured { kv_tokens: None, ..as_estimated() };
    assert_eq!(first(untold).needed, gib(11));
}

#[test]
fn what_serves_from_the_cpu_says_nothing_of_gpus() {
    let pods = [on_cpu(pod("new", 0, Some(as_estimated())))];
    let status = follow(None, "new", &template(), &pods).unwrap();
    assert_eq!((status.needed, &status.difference), (None, &None));
    assert!(status.weights.is_some());
    // It takes back nothing that was said on GPUs, and gives way to it.
    let on_gpu = first(as_estimated());
    assert_eq!(follow(Some(&on_gpu), "new", &template(), &pods), Some(on_gpu.clone()));
    let pods = [pod("new", 0, Some(as_estimated()))];
    assert_eq!(follow(Some(&status), "new", &template(), &pods), Some(on_gpu));
}

#[test]
fn it_is_of_the_first_replica_of_the_newest_revision_that_answers() {
    let mut loads = pod("new", 0, Some(as_estimated()));
    Arc::make_mut(&mut loads).progress = Progress::Loading;
    let pods = [
        pod("old", 0, Some(as_estimated())),
        loads,
        pod("new", 1, None),
        pod("new", 3, Some(as_estimated())),
        pod("new", 2, Some(as_estimated())),
    ];
    let status = follow(None, "new", &template(), &pods).unwrap();
    assert_eq!(status.pod, "llm-new-2-0-0");
    assert_eq!(follow(None, "newer", &template(), &pods), None);
}

#[test]
fn it_stays_while_the_revision_does() {
    let before = first(as_estimated());
    let next = |pods: &[Arc<Replica>]| follow(Some(&before), "new", &template(), pods).unwrap();
    let more = |percent: u64| Measured {
        weights: Some(Bytes::gib(8) * (100 + percent) / 100),
        ..as_estimated()
    };
    assert_eq!(next(&[]), before, "scaled to zero");
    assert_eq!(next(&[pod("new", 0, None)]), before, "another operator has not read the log");
    assert_eq!(next(&[pod("new", 0, Some(more(4)))]), before, "it moved a little");
    assert_ne!(next(&[pod("new", 0, Some(more(6)))]), before);
    let elsewhere = pod("new", 1, Some(more(50)));
    let both = [pod("new", 0, None), Arc::clone(&elsewhere)];
    assert_eq!(next(&both), before, "the pod that said so is there");
    assert_eq!(next(&[elsewhere]).pod, "llm-new-1-0-0");
    assert_eq!(follow(Some(&before), "newer", &template(), &[]), None);
}

#[test]
fn an_estimate_beyond_its_margin_is_told_of_once() {
    let with = |mebibytes| Measured { weights: Some(Bytes::mib(mebibytes)), ..as_estimated() };
    let told = |mebibytes| news(None, &status(&template(), with(mebibytes)));
    let reason = |mebibytes| told(mebibytes).map(|(reason, _)| reason);
    assert_eq!(reason(8 * 1024), None);
    assert_eq!(reason(9 * 1024), None, "the margin holds it");
    assert_eq!(reason(9 * 1024 + 1), Some(Reason::EstimateTooLow));
    assert_eq!(reason(7 * 1024), None);
    assert_eq!(reason(7 * 1024 - 1), Some(Reason::EstimateTooHigh));
    let (_, note) = told(10 * 1024).unwrap();
    assert_eq!(
        note,
        "pod llm-new-0-0-0 needs 13.0 GiB of a GPU, and 12.0 GiB were planned, margin of 1.0 GiB \
         included; its engine says: weights 10.0 GiB, KV cache 10.0 GiB for 81920 tokens"
    );

    let off = status(&template(), with(10 * 1024));
    assert_eq!(news(Some(&off), &off), None, "told already");
    let error = error(off.measured.as_ref().unwrap(), off.estimate.as_ref()).unwrap();
    assert!((error - 2.0 / 11.0).abs() < 1e-9, "{error}");

    // Who gives more than the estimate does so on purpose; who gives less than is needed does not.
    let own = |gib| {
        let template = template();
        let total = Bytes::gib(gib);
        Template { estimate: Estimate { total, ..template.estimate }, ..template }
    };
    assert_eq!(news(None, &status(&own(40), with(1_024))), None);
    let (reason, _) = news(None, &status(&own(6), with(8 * 1024))).unwrap();
    assert_eq!(reason, Reason::EstimateTooLow);
}
