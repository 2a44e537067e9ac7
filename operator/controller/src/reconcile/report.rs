//! What a deployment's status says. Pure: from what was seen and done to a status.
//!
//! Status follows what a person would care about: a cost that moved by less than a twentieth, or a
//! queue position far from the head, is not written again.

mod facts;
mod tally;

use std::sync::Arc;

use berth_crds::{
    LLMDeployment, LLMDeploymentStatus,
    llm_deployment::{
        CostStatus, EstimateStatus, MeasuredStatus, ModelSummary, QueueStatus, ReplicaPhase,
        ReplicaPlacement, Resolved, ResolvedResources, UsageStatus,
    },
};
use berth_render::{Template, selector};
use berth_units::Bytes;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;

use super::{
    advice::Advice, conditions::conditions, placing::Misfit, problem::Problem, reason::Reason,
};
use facts::{facts, trouble};
pub use facts::{misfit_message, misfit_reason};
use tally::Tally;

use crate::{
    accelerator, measured,
    world::pod::{Progress, Replica},
};

/// Replicas whose placement stands in status.
const MOST_PLACEMENTS: usize = 100;

/// What was seen and done, as far as status tells of it.
pub struct Seen<'a> {
    /// The deployment.
    pub deployment: &'a LLMDeployment,
    /// Its pods, after what was done.
    pub pods: &'a [Arc<Replica>],
    /// Hash of the revision that it asks for, once that is frozen.
    pub revision: Option<&'a str>,
    /// Hash and template of that revision, or else of the newest one.
    pub shown: Option<(&'a str, &'a Template)>,
    /// The model, where it could be read now.
    pub model: Option<ModelSummary>,
    /// What is wrong with the spec, or with an object that the API server refused.
    pub problem: Option<&'a Problem>,
    /// Pods that found no node, and why.
    pub misfits: &'a [Misfit],
    /// What a replacement waits for, though there is room for it.
    pub waits: Option<&'a (Reason, String)>,
    /// Place in the queue, from 0.
    pub position: Option<usize>,
    /// Cost per hour for people, and whether every GPU has a price.
    pub hourly: Option<(String, bool)>,
    /// What it served.
    pub usage: Option<UsageStatus>,
    /// Now.
    pub now: Timestamp,
}

/// The status.
pub fn report(seen: &Seen<'_>) -> LLMDeploymentStatus {
    let deployment = seen.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.desired_replicas();
    let tally = Tally::of(seen.pods, seen.revision, wanted);
    let generation = deployment.metadata.generation;
    let facts = facts(seen, &tally, &before);
    let endpoint = (!deployment.spec.suspend).then(|| {
        let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
        let port = deployment.spec.endpoint.port;
        let port = if port == 80 { String::new() } else { format!(":{port}") };
        format!("http://{name}.{namespace}.svc{port}/v1")
    });
    let measured = seen.shown.and_then(|(hash, template)| {
        measured::follow(before.measured.as_ref(), hash, template, seen.pods)
    });
    LLMDeploymentStatus {
        observed_generation: generation,
        conditions: conditions(facts, &before.conditions, generation, seen.now),
        replicas: tally.existing,
        updated_replicas: tally.updated,
        ready_replicas: tally.ready,
        available_replicas: tally.available,
        ready: Some(format!("{}/{wanted}", tally.ready)),
        selector: Some(selector(&deployment.name_any())),
        model: seen.model.clone().or(before.model),
        resolved: seen.shown.map(|(hash, template)| resolved(deployment, hash, template)),
        estimate: seen.shown.map(|(hash, template)| {
            estimate(template, product(hash, measured.as_ref(), seen.pods))
        }),
        measured,
        gpus: tally.gpus,
        vram: (tally.gpus > 0).then(|| tally.vram.to_string()),
        placements: placements(seen.pods, &before.placements),
        queue: queue(seen, before.queue.as_ref()),
        cost: cost(seen.hourly.clone(), before.cost),
        usage: seen.usage.clone().or(before.usage),
        endpoint,
    }
}

fn resolved(deployment: &LLMDeployment, hash: &str, template: &Template) -> Resolved {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    Resolved {
        revision: format!("{}-{hash}", deployment.name_any()),
        engine: template.engine.type_,
        image: template.engine.image.clone(),
        vendor: template.vendor,
        gpus: number(template.gpus),
        tensor_parallelism: number(template.tensor),
        context_length: number(template.context_length),
        max_concurrency: number(template.max_concurrency),
        kv_cache_dtype: template.engine.kv_cache_dtype,
        startup_timeout_seconds: number(template.startup_timeout_seconds),
        resources: ResolvedResources {
            cpu: template.resources.cpu.to_string(),
            memory: mebibytes(template.resources.memory),
            shared_memory: mebibytes(template.resources.shared_memory),
            ephemeral_storage: mebibytes(template.resources.ephemeral_storage),
        },
    }
}

fn mebibytes(bytes: Bytes) -> String {
    format!("{}Mi", bytes.mib_ceil())
}

/// The product whose estimate is shown: that of the pod that status tells the measure of, else of the
/// first replica of that revision.
fn product<'a>(
    revision: &str,
    measured: Option<&MeasuredStatus>,
    pods: &'a [Arc<Replica>],
) -> Option<&'a str> {
    let order = |pod: &&Arc<Replica>| {
        let tells = measured.is_some_and(|measured| measured.pod == pod.key.name);
        (!tells, pod.replica, pod.created, pod.attempt)
    };
    let pod = pods.iter().filter(|pod| pod.revision == revision).min_by_key(order)?;
    Some(pod.claim.product.as_str())
}

fn estimate(template: &Template, product: Option<&str>) -> EstimateStatus {
    let bytes = |bytes: Bytes| i64::try_from(bytes.get()).unwrap_or(i64::MAX);
    let known = product.and_then(|product| template.measured.get_key_value(product));
    let parts = known.map_or(&template.estimate, |(_, estimate)| estimate);
    EstimateStatus {
        product: known.map(|(product, _)| product.clone()),
        weights: bytes(parts.weights),
        kv_cache: bytes(parts.kv_cache),
        activation: bytes(parts.activation),
        non_torch: bytes(parts.non_torch),
        graphs: bytes(parts.graphs),
        margin: bytes(parts.margin),
        total: bytes(parts.total),
        kv_bytes_per_token: bytes(parts.kv_bytes_per_token),
        basis: parts.basis.clone(),
        summary: format!(
            "{} on each GPU: weights {}, KV cache {}, overheads {}, margin {}",
            parts.total,
            parts.weights,
            parts.kv_cache,
            parts.activation + parts.non_torch + parts.graphs,
            parts.margin,
        ),
    }
}

/// `before` is remembered of what an engine runs on: it is read once for each start of it, maybe by
/// an operator before this one.
fn placements(pods: &[Arc<Replica>], before: &[ReplicaPlacement]) -> Vec<ReplicaPlacement> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut pods: Vec<_> =
        pods.iter().filter(|pod| !matches!(pod.progress, Progress::Ended { .. })).collect();
    pods.sort_by_key(|pod| (pod.replica, pod.created, pod.attempt));
    let placement = |pod: &Arc<Replica>| {
        let remembered = before.iter().find(|before| before.pod == pod.key.name);
        let remembered = remembered.and_then(|before| before.accelerator.clone());
        let accelerator = pod.learnt.accelerator.clone().or(remembered);
        let accelerator = accelerator.filter(|known| known.restarts == pod.restarts);
        let (phase, message) = match &pod.progress {
            _ if pod.deleting => (ReplicaPhase::Terminating, None),
            Progress::Unbound { message, .. } => (ReplicaPhase::Pending, message.clone()),
            Progress::Fetching { failed: None, .. } => {
                (ReplicaPhase::Loading, pod.learnt.download.clone())
            }
            Progress::Loading => (ReplicaPhase::Loading, None),
            Progress::Ready { .. } => {
                (ReplicaPhase::Ready, accelerator.as_ref().and_then(accelerator::complaint))
            }
            _ => (ReplicaPhase::Failing, Some(trouble(pod).1)),
        };
        ReplicaPlacement {
            replica: number(pod.replica),
            pod: pod.key.name.clone(),
            attempt: number(pod.attempt),
            revision: pod.revision.clone(),
            node: pod.node.to_string(),
            product: Some(pod.claim.product.clone()).filter(|product| !product.is_empty()),
            gpus: number(pod.claim.gpus),
            bytes_per_gpu: i64::try_from(pod.claim.bytes_per_gpu.get()).unwrap_or(i64::MAX),
            phase,
            message,
            accelerator,
        }
    };
    pods.into_iter().map(placement).take(MOST_PLACEMENTS).collect()
}

/// Exact for the first ten, then in tens, then in hundreds: a long queue that moves by one is not
/// written anew for everybody in it.
fn rounded(position: usize) -> i32 {
    let step = match position {
        0..=10 => 1,
        11..=99 => 10,
        _ => 100,
    };
    i32::try_from(position.div_ceil(step) * step).unwrap_or(i32::MAX)
}

fn queue(seen: &Seen<'_>, before: Option<&QueueStatus>) -> Option<QueueStatus> {
    let misfit = seen.misfits.first()?;
    Some(QueueStatus {
        position: rounded(seen.position? + 1),
        replicas: i32::try_from(seen.misfits.len()).unwrap_or(i32::MAX),
        since: before.map_or_else(|| Time(seen.now), |before| before.since.clone()),
        waiting_for: waiting_for(misfit),
        would_fit: misfit.would_fit.iter().map(Advice::entry).collect(),
    })
}

fn waiting_for(misfit: &Misfit) -> String {
    let request = &misfit.request;
    let gpus =
        if request.gpus == 1 { "1 GPU".to_owned() } else { format!("{} GPUs", request.gpus) };
    format!("{gpus} with {} each on one node", request.vram_per_gpu)
}

/// A cost that moved by less than a twentieth is left as it was.
fn cost(now: Option<(String, bool)>, before: Option<CostStatus>) -> Option<CostStatus> {
    let (hourly, complete) = now?;
    let amount =
        |text: &str| text.split_once(' ').and_then(|(number, _)| number.parse::<f64>().ok());
    if let Some(before) = before
        && before.complete == complete
        && let (Some(old), Some(new)) = (amount(&before.hourly), amount(&hourly))
        && (old - new).abs() < old / 20.0
    {
        return Some(before);
    }
    Some(CostStatus { hourly, complete })
}
