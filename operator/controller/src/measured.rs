//! What an engine takes by its own log, beside what was estimated for it. Pure.
//!
//! An engine does not tell of all that is on a GPU: what it leaves out, such as the driver's context,
//! is taken from the estimate. And it tells of more than was asked for: vLLM's KV cache takes all
//! that is left. So the two are compared as what one GPU *needs*.

pub mod notes;

use std::sync::Arc;

use berth_crds::{
    LLMDeploymentStatus,
    llm_deployment::{EstimateStatus, MeasuredStatus},
};
use berth_render::{Estimate, Template, engine::log::Measured};
use berth_units::Bytes;

use crate::{accelerator, reconcile::reason::Reason, world::pod::Replica};

/// What status says of it next: what it said, as long as that is of the same revision and not far
/// off. Engines on other nodes may take a little more or less, which is no news: only the same pod
/// changes it, or another one once that is gone.
pub fn follow(
    before: Option<&MeasuredStatus>,
    revision: &str,
    template: &Template,
    pods: &[Arc<Replica>],
) -> Option<MeasuredStatus> {
    let before = before.filter(|before| before.revision == revision);
    let is_of = |pod: &Replica| before.is_some_and(|before| before.pod == pod.key.name);
    let of_revision = || pods.iter().filter(|pod| pod.revision == revision);
    let stays = of_revision().any(|pod| is_of(pod));
    let now = of_revision()
        .filter(|pod| pod.is_ready() && (is_of(pod) || !stays))
        .filter_map(|pod| Some((pod, pod.learnt.measured?)))
        .min_by_key(|(pod, _)| (pod.replica, pod.created, pod.attempt))
        .map(|(pod, measured)| status(pod, &measured, template));
    match (before, now) {
        (Some(before), Some(now)) if is_news(before, &now) => Some(now),
        (Some(before), _) => Some(before.clone()),
        (None, now) => now,
    }
}

fn status(pod: &Replica, measured: &Measured, template: &Template) -> MeasuredStatus {
    let bytes = |bytes: Option<Bytes>| bytes.map(number);
    let is_on_gpus = pod.learnt.accelerator.as_ref().is_some_and(accelerator::is_on);
    let needed = is_on_gpus.then(|| needed(measured, template, &pod.claim.product));
    let planned = planned(template.estimate_on(&pod.claim.product));
    MeasuredStatus {
        pod: pod.key.name.clone(),
        revision: pod.revision.clone(),
        weights: bytes(measured.weights),
        kv_cache: bytes(measured.kv_cache),
        compute: bytes(measured.compute),
        kv_tokens: measured.kv_tokens.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX)),
        needed: bytes(needed),
        difference: needed
            .and_then(|needed| Some(percent(ratio(number(needed), number(planned))?))),
    }
}

fn number(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

/// The estimate without its margin.
fn planned(estimate: &Estimate) -> Bytes {
    let Estimate { weights, kv_cache, activation, non_torch, graphs, .. } = *estimate;
    weights + kv_cache + activation + non_torch + graphs
}

/// What one GPU needs: what was measured, and what was estimated of all else.
fn needed(measured: &Measured, template: &Template, product: &str) -> Bytes {
    let estimate = template.estimate_on(product);
    let asked = u64::from(template.context_length) * u64::from(template.max_concurrency);
    let kv_cache = match (measured.kv_cache, measured.kv_tokens) {
        (Some(bytes), Some(tokens)) if tokens > 0 => {
            let needed = u128::from(bytes.get()) * u128::from(asked);
            Bytes(u64::try_from(needed.div_ceil(u128::from(tokens))).unwrap_or(u64::MAX))
        }
        _ => estimate.kv_cache,
    };
    measured.weights.unwrap_or(estimate.weights)
        + kv_cache
        + measured.compute.unwrap_or(estimate.activation)
        + estimate.non_torch
        + estimate.graphs
}

/// Whether a part moved by more than a twentieth, or more is told than before. What fell back to the
/// CPU since says nothing of GPUs and takes nothing back, nor does a log that lost its beginning.
fn is_news(before: &MeasuredStatus, now: &MeasuredStatus) -> bool {
    if before.needed.is_some() && now.needed.is_none() {
        return false;
    }
    let parts = |status: &MeasuredStatus| {
        [status.weights, status.kv_cache, status.compute, status.kv_tokens, status.needed]
    };
    moved(&parts(before), &parts(now))
}

/// Whether a part moved by more than a twentieth, or is told for the first time.
fn moved(before: &[Option<i64>], now: &[Option<i64>]) -> bool {
    before.iter().zip(now).any(|parts| match parts {
        (Some(old), Some(new)) => old.abs_diff(*new) > old.unsigned_abs() / 20,
        (None, Some(_)) => true,
        (_, None) => false,
    })
}

fn ratio(needed: i64, planned: i64) -> Option<f64> {
    (planned > 0).then(|| needed as f64 / planned as f64 - 1.0)
}

fn percent(ratio: f64) -> String {
    let percent = (ratio * 100.0).round();
    if percent == 0.0 { "0 %".to_owned() } else { format!("{percent:+} %") }
}

fn planned_of(estimate: &EstimateStatus) -> i64 {
    let EstimateStatus { weights, kv_cache, activation, non_torch, graphs, .. } = *estimate;
    [weights, kv_cache, activation, non_torch, graphs].into_iter().fold(0, i64::saturating_add)
}

/// By how much of the estimate what is needed is more, or less where it is below 0.
pub fn error(measured: &MeasuredStatus, estimate: Option<&EstimateStatus>) -> Option<f64> {
    ratio(measured.needed?, planned_of(estimate?))
}

/// Whether an estimate turned out to be off by more than its margin, and what to say of it. Told
/// once for each revision.
pub fn news(
    before: Option<&LLMDeploymentStatus>,
    after: &LLMDeploymentStatus,
) -> Option<(Reason, String)> {
    let (measured, estimate) = (after.measured.as_ref()?, after.estimate.as_ref()?);
    let needed = measured.needed?;
    let known = before.and_then(|before| before.measured.as_ref());
    if known.is_some_and(|known| known.revision == measured.revision && known.needed.is_some()) {
        return None;
    }
    let planned = planned_of(estimate);
    // A figure of the user's own may be more than the parts; it is his.
    let own = estimate.total != planned.saturating_add(estimate.margin);
    let reason = if needed > estimate.total {
        Reason::EstimateTooLow
    } else if !own && needed < planned - estimate.margin {
        Reason::EstimateTooHigh
    } else {
        return None;
    };
    let say = |bytes: i64| Bytes(u64::try_from(bytes).unwrap_or(0)).to_string();
    let part = |name: &str, bytes: Option<i64>| {
        bytes.map(|bytes| format!("{name} {}", say(bytes))).into_iter()
    };
    let parts: Vec<_> = part("weights", measured.weights)
        .chain(part("KV cache", measured.kv_cache))
        .chain(part("compute", measured.compute))
        .collect();
    let cache = measured.kv_tokens.map(|tokens| format!(" for {tokens} tokens"));
    let note = format!(
        "pod {} needs {} of a GPU, and {} were planned, margin of {} included; its engine says: {}{}",
        measured.pod,
        say(needed),
        say(estimate.total),
        say(estimate.margin),
        parts.join(", "),
        cache.unwrap_or_default(),
    );
    Some((reason, note))
}
