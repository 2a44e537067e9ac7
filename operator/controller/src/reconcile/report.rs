//! What a deployment's status says. Pure: from what was seen and done to a status.
//!
//! Status follows what a person would care about: a cost that moved by less than a twentieth, or a
//! queue position far from the head, is not written again.

use std::sync::Arc;

use berth_crds::{
    LLMDeployment, LLMDeploymentStatus,
    llm_deployment::{
        CostStatus, EstimateStatus, ModelSummary, QueueStatus, ReplicaPhase, ReplicaPlacement,
        Resolved, ResolvedResources,
    },
};
use berth_planner::RefusalReason;
use berth_render::{Template, selector};
use berth_units::Bytes;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;

use super::{
    conditions::{self, Fact, conditions},
    placing::Misfit,
    problem::Problem,
};
use crate::world::pod::{Progress, Replica};

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
    /// Place in the queue, from 0.
    pub position: Option<usize>,
    /// Cost per hour for people, and whether every GPU has a price.
    pub hourly: Option<(String, bool)>,
    /// Now.
    pub now: Timestamp,
}

/// The status.
pub fn report(seen: &Seen<'_>) -> LLMDeploymentStatus {
    let deployment = seen.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.desired_replicas();
    let tally = Tally::of(seen, wanted);
    let generation = deployment.metadata.generation;
    let facts = facts(seen, &tally, &before);
    let endpoint = (!deployment.spec.suspend).then(|| {
        let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
        let port = deployment.spec.endpoint.port;
        let port = if port == 80 { String::new() } else { format!(":{port}") };
        format!("http://{name}.{namespace}.svc{port}/v1")
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
        estimate: seen.shown.map(|(_, template)| estimate(template)),
        gpus: tally.gpus,
        vram: (tally.gpus > 0).then(|| tally.vram.to_string()),
        placements: placements(seen.pods),
        queue: queue(seen, before.queue.as_ref()),
        cost: cost(seen.hourly.clone(), before.cost),
        endpoint,
    }
}

/// Whether two statuses say the same, so that nothing need be written.
pub fn same(a: &LLMDeploymentStatus, b: &LLMDeploymentStatus) -> bool {
    a == b
}

/// Replicas counted.
struct Tally {
    existing: i32,
    updated: i32,
    ready: i32,
    available: i32,
    gpus: i32,
    vram: Bytes,
    placed: u32,
    wanted: u32,
    failing: Vec<Arc<Replica>>,
}

impl Tally {
    fn of(seen: &Seen<'_>, wanted: u32) -> Self {
        let newest = seen.revision;
        let live: Vec<_> = seen.pods.iter().filter(|pod| pod.is_live()).collect();
        let is_newest = |pod: &&&Arc<Replica>| newest == Some(pod.revision.as_str());
        let slots = |pods: &mut dyn Iterator<Item = &&Arc<Replica>>| {
            let slots: std::collections::BTreeSet<u32> = pods.map(|pod| pod.replica).collect();
            i32::try_from(slots.len()).unwrap_or(i32::MAX)
        };
        let holding = seen.pods.iter().filter(|pod| {
            let waits_for_another = pod.replaces.is_some();
            match pod.progress {
                Progress::Ended { .. } => false,
                Progress::Unbound { .. } => !waits_for_another,
                _ => true,
            }
        });
        let gpus: u32 = holding.clone().map(|pod| pod.claim.gpus).sum();
        Self {
            existing: slots(&mut live.iter()),
            updated: slots(&mut live.iter().filter(is_newest)),
            ready: slots(&mut live.iter().filter(|pod| pod.is_ready())),
            available: slots(&mut live.iter().filter(is_newest).filter(|pod| pod.is_ready())),
            gpus: i32::try_from(gpus).unwrap_or(i32::MAX),
            vram: holding.map(|pod| pod.claim.bytes_per_gpu * u64::from(pod.claim.gpus)).sum(),
            placed: u32::try_from(slots(&mut live.iter())).unwrap_or(0).min(wanted),
            wanted,
            failing: live
                .iter()
                .filter(|pod| matches!(pod.progress, Progress::Failing { .. } | Progress::Unready))
                .map(|pod| Arc::clone(pod))
                .chain(
                    seen.pods
                        .iter()
                        .filter(|pod| matches!(pod.progress, Progress::Ended { .. }))
                        .filter(|ended| {
                            !live.iter().any(|pod| pod.replica == ended.replica && pod.is_ready())
                        })
                        .cloned(),
                )
                .collect(),
        }
    }

    fn is_complete(&self) -> bool {
        let wanted = i32::try_from(self.wanted).unwrap_or(i32::MAX);
        self.available == wanted && self.ready == wanted && self.existing == wanted
    }
}

fn facts(seen: &Seen<'_>, tally: &Tally, before: &LLMDeploymentStatus) -> Vec<Fact> {
    let deployment = seen.deployment;
    let outdated = tally.existing > tally.updated;
    let misfit = seen.misfits.first();
    let placed = tally.placed == tally.wanted && (seen.misfits.is_empty() || outdated);
    let (placed_reason, placed_message) = match (seen.problem, misfit) {
        (Some(problem), _) if !placed => (problem.reason().to_owned(), problem.to_string()),
        (_, Some(misfit)) if !placed => (misfit_reason(misfit).to_owned(), misfit_message(misfit)),
        _ if tally.placed < tally.wanted => {
            let missing = tally.wanted - tally.placed;
            (
                "Placing".to_owned(),
                format!("{missing} of {} replicas have no pod yet", tally.wanted),
            )
        }
        _ => {
            let text = format!("{} of {} replicas have a node", tally.placed, tally.wanted);
            ("AllReplicasPlaced".to_owned(), text)
        }
    };
    let never = misfit.is_some_and(|misfit| !misfit.ever);
    let failing = tally.failing.first().map(|pod| trouble(pod));
    let settled = seen.problem.is_none() && misfit.is_none();
    let complete = settled && tally.is_complete() && !outdated;

    let (ready_reason, ready_message) = if let Some(problem) = seen.problem {
        (problem.reason().to_owned(), problem.to_string())
    } else if deployment.spec.suspend && tally.existing == 0 {
        ("Suspended".to_owned(), "suspended by spec.suspend; no replica runs".to_owned())
    } else if complete && tally.wanted == 0 {
        ("ScaledToZero".to_owned(), "no replicas are wanted".to_owned())
    } else if complete {
        ("Ready".to_owned(), format!("{} of {} replicas answer", tally.ready, tally.wanted))
    } else if let Some(misfit) = misfit {
        if outdated {
            let message = misfit_message(misfit);
            let text = format!("the new revision waits, the old one serves: {message}");
            ("RolloutBlocked".to_owned(), text)
        } else {
            (placed_reason.clone(), placed_message.clone())
        }
    } else if let Some((reason, message)) = &failing {
        (reason.clone(), message.clone())
    } else if outdated {
        let text =
            format!("{} of {} replicas are of the newest revision", tally.updated, tally.wanted);
        ("RollingOut".to_owned(), text)
    } else if tally.existing > i32::try_from(tally.wanted).unwrap_or(i32::MAX) {
        (
            "ScalingDown".to_owned(),
            format!("{} replicas of {} wanted", tally.existing, tally.wanted),
        )
    } else if tally.placed < tally.wanted {
        (placed_reason.clone(), placed_message.clone())
    } else {
        let text = format!("{} of {} replicas answer; the others load", tally.ready, tally.wanted);
        ("Loading".to_owned(), text)
    };

    let mut facts = vec![
        Fact::new(conditions::READY, complete, ready_reason.clone(), ready_message.clone()),
        Fact::new(
            conditions::PROGRESSING,
            !complete && seen.problem.is_none() && !never,
            if complete { "Complete".to_owned() } else { ready_reason.clone() },
            if complete { "nothing is left to do".to_owned() } else { ready_message.clone() },
        ),
        Fact::new(conditions::PLACED, placed, placed_reason, placed_message),
    ];
    // Replicas that were only just asked for are no sign of trouble.
    let served = was_ready(before) && before.observed_generation == deployment.metadata.generation;
    facts.push(match failing {
        Some((reason, message)) => Fact::new(conditions::DEGRADED, true, reason, message),
        None if served && tally.ready < i32::try_from(tally.wanted).unwrap_or(0) && !outdated => {
            let text = format!("{} of {} replicas answer", tally.ready, tally.wanted);
            Fact::new(conditions::DEGRADED, true, "TooFewReplicas", text)
        }
        None => Fact::new(conditions::DEGRADED, false, "NoReplicaFails", "no replica fails"),
    });
    if seen.problem.is_some() || never {
        facts.push(Fact::new(conditions::STALLED, true, ready_reason, ready_message));
    } else if !complete {
        facts.push(Fact::new(conditions::RECONCILING, true, ready_reason, ready_message));
    }
    facts
}

/// Whether the deployment answered in full before, or was degraded since it did.
fn was_ready(before: &LLMDeploymentStatus) -> bool {
    before.conditions.iter().any(|condition| {
        condition.status == "True"
            && (condition.type_ == conditions::READY && condition.reason == "Ready"
                || condition.type_ == conditions::DEGRADED && condition.reason == "TooFewReplicas")
    })
}

/// Why a replica does not serve: reason and message.
fn trouble(pod: &Replica) -> (String, String) {
    let name = &pod.key.name;
    match &pod.progress {
        Progress::Failing { reason, message } => (reason.clone(), format!("pod {name}: {message}")),
        Progress::Ended { reason, message, .. } => {
            let reason = if is_word(reason) { reason.clone() } else { "PodFailed".to_owned() };
            (reason, format!("pod {name}: {message}"))
        }
        _ => {
            ("NotAnswering".to_owned(), format!("pod {name}: its engine does not answer any more"))
        }
    }
}

/// Reasons of conditions are CamelCase words.
fn is_word(reason: &str) -> bool {
    reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Why a pod finds no node, in one word.
pub fn misfit_reason(misfit: &Misfit) -> &'static str {
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
        return "InsufficientVRAM";
    }
    if any(|reason| {
        matches!(
            reason,
            RefusalReason::Cpu { .. }
                | RefusalReason::Memory { .. }
                | RefusalReason::EphemeralStorage { .. }
                | RefusalReason::Pods
        )
    }) {
        return "InsufficientResources";
    }
    let only_without =
        misfit.refusal.reasons.iter().all(|group| group.reason == RefusalReason::NoGpus);
    if only_without { "NoGPUNodes" } else { "NoMatchingNodes" }
}

/// Why a pod finds no node, for people: the nearest miss, what would fit, and all nodes in groups.
pub fn misfit_message(misfit: &Misfit) -> String {
    let nearest = misfit.refusal.nearest.as_ref().map(ToString::to_string);
    let advice = misfit.would_fit.map(|n| format!("would fit with contextLength ≤ {n}"));
    let parts: Vec<String> = [nearest, advice].into_iter().flatten().collect();
    if parts.is_empty() {
        return format!("no node can take a replica: {}", misfit.refusal);
    }
    let how = if misfit.ever { "" } else { "no node of this cluster could hold a replica: " };
    format!("{how}{} ({})", parts.join("; "), misfit.refusal)
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

fn estimate(template: &Template) -> EstimateStatus {
    let bytes = |bytes: Bytes| i64::try_from(bytes.get()).unwrap_or(i64::MAX);
    let parts = &template.estimate;
    EstimateStatus {
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

fn placements(pods: &[Arc<Replica>]) -> Vec<ReplicaPlacement> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut pods: Vec<_> =
        pods.iter().filter(|pod| !matches!(pod.progress, Progress::Ended { .. })).collect();
    pods.sort_by_key(|pod| (pod.replica, pod.created, pod.attempt));
    let placement = |pod: &Arc<Replica>| {
        let (phase, message) = match &pod.progress {
            _ if pod.deleting => (ReplicaPhase::Terminating, None),
            Progress::Unbound { message, .. } => (ReplicaPhase::Pending, message.clone()),
            Progress::Loading => (ReplicaPhase::Loading, None),
            Progress::Ready { .. } => (ReplicaPhase::Ready, None),
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
