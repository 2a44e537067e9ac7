//! Replicas, claims and conditions by deployment.

use std::sync::Arc;

use berth_crds::{LLMDeployment, LLMDeploymentStatus};
use kube::ResourceExt;
use prometheus::{CounterVec, GaugeVec};

use super::registrar::Registrar;
use crate::{
    measured,
    usage::ledger::Usage,
    world::{pod::Progress, state::State},
};

/// Deployments in figures.
pub struct Deployments {
    replicas: GaugeVec,
    vram: GaugeVec,
    gpus: GaugeVec,
    conditions: GaugeVec,
    position: GaugeVec,
    measured: GaugeVec,
    estimate_error: GaugeVec,
    tokens: CounterVec,
    tokens_per_second: GaugeVec,
    requests: GaugeVec,
    kv_cache: GaugeVec,
    mean_kv_cache: GaugeVec,
    first_token_seconds: CounterVec,
    first_tokens: CounterVec,
}

/// Conditions that are worth an alert.
const CONDITIONS: [&str; 5] = ["Ready", "Placed", "Progressing", "Degraded", "Stalled"];

impl Deployments {
    /// Registers them.
    pub fn new(registrar: &mut Registrar) -> prometheus::Result<Self> {
        let labels = ["namespace", "deployment"];
        let with = |more: &'static str| ["namespace", "deployment", more];
        Ok(Self {
            replicas: registrar.gauges(
                "berth_deployment_replicas",
                "Replicas by state: desired, existing, updated (of the newest revision), ready.",
                &with("state"),
            )?,
            vram: registrar.gauges(
                "berth_deployment_claimed_vram_bytes",
                "VRAM that the replicas claim.",
                &labels,
            )?,
            gpus: registrar.gauges(
                "berth_deployment_claimed_gpus",
                "GPUs that the replicas claim.",
                &labels,
            )?,
            conditions: registrar.gauges(
                "berth_deployment_condition",
                "1 where a condition holds, 0 where it does not.",
                &with("condition"),
            )?,
            position: registrar.gauges(
                "berth_deployment_queue_position",
                "Place in the queue for GPUs, from 1; absent where nothing waits.",
                &labels,
            )?,
            measured: registrar.gauges(
                "berth_deployment_measured_bytes",
                "What the newest revision's engine takes on its fullest GPU, by its own log: part \
                 weights, kv_cache or compute; absent where the engine does not tell.",
                &with("part"),
            )?,
            estimate_error: registrar.gauges(
                "berth_deployment_estimate_error_ratio",
                "What a GPU needs by the engine's own log, over the estimate without its margin, less \
                 1: above 0 where the estimate was too low; absent where nothing is known.",
                &labels,
            )?,
            tokens: registrar.sums(
                "berth_deployment_tokens_total",
                "Tokens served, by the engines' own counters: kind prompt or generated.",
                &with("kind"),
            )?,
            tokens_per_second: registrar.gauges(
                "berth_deployment_tokens_per_second",
                "Tokens generated a second, all replicas together.",
                &labels,
            )?,
            requests: registrar.gauges(
                "berth_deployment_requests",
                "Requests in the engines by state: running, waiting.",
                &with("state"),
            )?,
            kv_cache: registrar.gauges(
                "berth_deployment_kv_cache_use_ratio",
                "Part of the KV cache in use, the fullest replica's; absent where the engine does \
                 not tell.",
                &labels,
            )?,
            mean_kv_cache: registrar.gauges(
                "berth_deployment_mean_kv_cache_use_ratio",
                "Part of the KV cache in use, the mean of all replicas; absent where the engine does \
                 not tell.",
                &labels,
            )?,
            first_token_seconds: registrar.sums(
                "berth_deployment_time_to_first_token_seconds_total",
                "What requests waited for their first token, added up; absent where the engine does \
                 not tell. Divided by `berth_deployment_first_tokens_total`, it is their mean.",
                &labels,
            )?,
            first_tokens: registrar.sums(
                "berth_deployment_first_tokens_total",
                "Requests that got their first token; absent where the engine does not tell.",
                &labels,
            )?,
        })
    }

    /// Reads them from the world. Deployments that are gone drop out.
    pub fn refresh(&self, state: &State, deployments: &[Arc<LLMDeployment>]) {
        for gauge in [
            &self.replicas,
            &self.vram,
            &self.gpus,
            &self.conditions,
            &self.position,
            &self.measured,
            &self.estimate_error,
            &self.tokens_per_second,
            &self.requests,
            &self.kv_cache,
            &self.mean_kv_cache,
        ] {
            gauge.reset();
        }
        for counter in [&self.tokens, &self.first_token_seconds, &self.first_tokens] {
            counter.reset();
        }
        for deployment in deployments {
            let namespace = deployment.namespace().unwrap_or_default();
            let name = deployment.name_any();
            let uid = deployment.uid().unwrap_or_default();
            let labels = [namespace.as_str(), name.as_str()];
            let pods = state.replicas_of(&uid);
            let holding =
                || pods.iter().filter(|pod| !matches!(pod.progress, Progress::Ended { .. }));
            let vram: u64 = holding()
                .map(|pod| pod.claim.bytes_per_gpu.get() * u64::from(pod.claim.gpus))
                .sum();
            let gpus: u32 = holding().map(|pod| pod.claim.gpus).sum();
            self.vram.with_label_values(&labels).set(vram as f64);
            self.gpus.with_label_values(&labels).set(gpus.into());

            let status = deployment.status.clone().unwrap_or_default();
            let ready = pods.iter().filter(|pod| pod.is_ready()).count();
            for (kind, count) in [
                ("desired", f64::from(deployment.desired_replicas())),
                ("existing", f64::from(status.replicas)),
                ("updated", f64::from(status.updated_replicas)),
                ("ready", ready as f64),
            ] {
                self.replicas.with_label_values(&[labels[0], labels[1], kind]).set(count);
            }
            for type_ in CONDITIONS {
                let holds = deployment.condition(type_).is_some_and(|c| c.status == "True");
                let value = if holds { 1.0 } else { 0.0 };
                self.conditions.with_label_values(&[labels[0], labels[1], type_]).set(value);
            }
            self.measured(labels, &status);
            if let Some(usage) = state.usage.get(&uid) {
                self.usage(labels, usage);
            }
            let waiting = state.queue().iter().find(|waiting| waiting.key.uid == uid);
            if let Some(position) = waiting.and_then(|w| state.queue().position(&w.key)) {
                self.position.with_label_values(&labels).set((position + 1) as f64);
            }
        }
    }

    fn measured(&self, labels: [&str; 2], status: &LLMDeploymentStatus) {
        let Some(measured) = &status.measured else { return };
        for (part, bytes) in [
            ("weights", measured.weights),
            ("kv_cache", measured.kv_cache),
            ("compute", measured.compute),
        ] {
            if let Some(bytes) = bytes {
                let labels = [labels[0], labels[1], part];
                self.measured.with_label_values(&labels).set(bytes as f64);
            }
        }
        if let Some(error) = measured::error(measured, status.estimate.as_ref()) {
            self.estimate_error.with_label_values(&labels).set(error);
        }
    }

    fn usage(&self, labels: [&str; 2], usage: &Usage) {
        let [namespace, name] = labels;
        let counted = &usage.counted;
        for (kind, tokens) in
            [("prompt", counted.prompt_tokens), ("generated", counted.generated_tokens)]
        {
            self.tokens.with_label_values(&[namespace, name, kind]).inc_by(tokens as f64);
        }
        self.tokens_per_second.with_label_values(&labels).set(usage.tokens_per_second);
        for (kind, requests) in [("running", usage.running), ("waiting", usage.waiting)] {
            self.requests.with_label_values(&[namespace, name, kind]).set(requests);
        }
        for (gauge, part) in
            [(&self.kv_cache, usage.kv_cache_use), (&self.mean_kv_cache, usage.mean_kv_cache_use)]
        {
            if let Some(part) = part {
                gauge.with_label_values(&labels).set(part);
            }
        }
        if let Some(first) = counted.first_tokens {
            let seconds = first.milliseconds as f64 / 1000.0;
            self.first_token_seconds.with_label_values(&labels).inc_by(seconds);
            self.first_tokens.with_label_values(&labels).inc_by(first.requests as f64);
        }
    }
}
