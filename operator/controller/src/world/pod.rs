//! What is kept of a pod: only what placing, reconciling and reporting look at. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use berth_crds::{LLMDeployment, llm_deployment::AcceleratorStatus, names};
use berth_planner::{
    Claim, DeploymentId, NodeName, Occupant, OccupantId, Owner, PodKey, Resources,
};
use berth_render::{engine::log::Measured, vendor::GpuResources};
use berth_units::{Bytes, MilliCpu};
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::api::resource::Quantity,
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};

use super::{fetch, prefetch::prefetch};
use crate::cache::shelves::cache_key;

/// A pod of one of our deployments.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Namespace and name.
    pub key: PodKey,
    /// UID of the pod.
    pub uid: String,
    /// The deployment that owns it, by name and UID.
    pub deployment: DeploymentId,
    /// Hash of the revision that it was rendered from.
    pub revision: String,
    /// The replica that it is.
    pub replica: u32,
    /// The attempt at that replica that it is.
    pub attempt: u32,
    /// The node that it was placed on.
    pub node: NodeName,
    /// What it claims there.
    pub claim: berth_render::Claim,
    /// UID of the pod whose GPUs it waits for, where it takes over in place.
    pub replaces: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// How often its engine was started anew in the same pod.
    pub restarts: i32,
    /// Set once somebody deleted it.
    pub deleting: bool,
    /// When a deleted pod must be gone, in Unix seconds: the end of its grace.
    pub gone_by: Option<i64>,
    /// When it was created, in Unix seconds.
    pub created: i64,
    /// What is known of it beside what its pod says.
    pub learnt: Learnt,
}

/// What replicas say of themselves, where they were asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learnt {
    /// How far its download is, for people.
    pub download: Option<String>,
    /// What its engine really runs on.
    pub accelerator: Option<AcceleratorStatus>,
    /// What its engine takes there.
    pub measured: Option<Measured>,
}

/// What is wrong with a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In one word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// How far a pod is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Not bound to its node yet; what the scheduler says about it, if anything.
    Unbound {
        /// Since when, in Unix seconds.
        since: i64,
        /// The scheduler's message.
        message: Option<String>,
    },
    /// Bound; the init step brings the model.
    Fetching {
        /// How often it failed before.
        tries: i32,
        /// Why it failed the last time, until this time is known to go better.
        failed: Option<Trouble>,
    },
    /// Bound; the engine does not answer yet.
    Loading,
    /// The engine answers.
    Ready {
        /// Since when, in Unix seconds.
        since: i64,
    },
    /// Something is wrong with a container that is not about to pass by itself.
    Failing {
        /// In the words of the kubelet, such as `CrashLoopBackOff`.
        reason: String,
        /// What is wrong.
        message: String,
    },
    /// Bound and answered once; does not answer now.
    Unready,
    /// The pod ended and will not run again.
    Ended {
        /// In the words of the kubelet, such as `Evicted`.
        reason: String,
        /// What happened.
        message: String,
        /// When, in Unix seconds.
        at: i64,
    },
}

impl Replica {
    /// Whether it holds, or will hold, its GPUs and may come to serve.
    pub fn is_live(&self) -> bool {
        !self.deleting && !matches!(self.progress, Progress::Ended { .. })
    }

    /// Whether its engine runs and may have served since the last look: also while it drains.
    pub fn may_serve(&self) -> bool {
        matches!(self.progress, Progress::Ready { .. } | Progress::Unready)
    }

    /// Whether its engine answers.
    pub fn is_ready(&self) -> bool {
        self.is_live() && matches!(self.progress, Progress::Ready { .. })
    }
}

/// Reads what the ledger needs from a pod: `None` where it holds nothing (not placed, or ended).
pub fn occupant(pod: &Pod, names: &GpuResources) -> Option<Occupant> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let ours = replica(pod);
    let node = spec
        .node_name
        .clone()
        .filter(|node| !node.is_empty())
        .map(NodeName::from)
        .or_else(|| ours.as_ref().map(|ours| ours.node.clone()))?;
    let requests = requests(spec);
    let asked = |counts: &dyn Fn(&str) -> bool| -> u64 {
        requests.iter().filter(|(name, _)| counts(name)).map(|(_, amount)| amount.get()).sum()
    };
    let mut gpus = asked(&|name| names.vendor(name).is_some());
    if let Some(ours) = &ours {
        // One from before the resource got another name holds its GPUs all the same: they are the
        // extended resource that it asks for.
        gpus = gpus.max(asked(&|name| name.contains('/')).min(ours.claim.gpus.into()));
    }
    Some(Occupant {
        id: OccupantId::from(pod.uid()?),
        pod: key(pod),
        node,
        gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
        resources: Resources {
            cpu: MilliCpu(requests.get("cpu").copied().unwrap_or_default().get()),
            memory: requests.get("memory").copied().unwrap_or_default(),
            ephemeral_storage: requests.get("ephemeral-storage").copied().unwrap_or_default(),
            pods: 1,
        },
        cache: match &ours {
            Some(ours) => ours
                .claim
                .cache
                .as_ref()
                .map(|model| (cache_key(&ours.key.namespace, &model.directory), model.bytes)),
            None => prefetch(pod).and_then(|prefetch| prefetch.cache),
        },
        owner: ours.map_or(Owner::Foreign, |ours| {
            Owner::Ours(Claim {
                deployment: ours.deployment,
                replica: ours.replica,
                revision: ours.revision,
                vram_per_gpu: ours.claim.bytes_per_gpu,
            })
        }),
    })
}

/// Namespace and name of a pod.
pub fn key(pod: &Pod) -> PodKey {
    PodKey::new(pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The LLMDeployment that controls a pod.
pub(super) fn deployment(pod: &Pod) -> Option<DeploymentId> {
    let owner = pod.owner_references().iter().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == LLMDeployment::kind(&())
            && owner.api_version == LLMDeployment::api_version(&())
    })?;
    Some(DeploymentId::new(pod.namespace()?, owner.name.clone(), owner.uid.clone()))
}

/// Reads a pod of ours: one whose controller is an LLMDeployment, which bears the name that its
/// labels spell, and whose claim can be read. Anything else is a pod of somebody else.
pub fn replica(pod: &Pod) -> Option<Replica> {
    let deployment = deployment(pod)?;
    let number = |label: &str| pod.labels().get(label)?.parse::<u32>().ok();
    let revision = pod.labels().get(names::LABEL_REVISION)?.clone();
    let replica = number(names::LABEL_REPLICA)?;
    let rank = number(names::LABEL_RANK)?;
    let attempt = number(names::LABEL_ATTEMPT)?;
    let spelled = berth_render::pod_name(&deployment.name, &revision, replica, rank, attempt);
    if pod.name_any() != spelled {
        return None;
    }
    let claim = serde_json::from_str(pod.annotations().get(names::ANNOTATION_CLAIM)?).ok()?;
    Some(Replica {
        key: key(pod),
        uid: pod.uid()?,
        deployment,
        revision,
        replica,
        attempt,
        node: NodeName::from(pinned_node(pod)?),
        claim,
        replaces: pod.annotations().get(names::ANNOTATION_REPLACES).cloned(),
        progress: progress(pod),
        restarts: engine_restarts(pod),
        address: pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        gone_by: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()),
        created: pod.creation_timestamp().map_or(0, |time| time.0.as_second()),
        learnt: Learnt::default(),
    })
}

/// The node that a pod is bound to, or else pinned to.
pub(super) fn pinned_node(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) {
        return Some(node.clone());
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let field = term.match_fields.as_ref()?.iter().find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().cloned()
}

/// Requests of a pod by resource, as the scheduler counts them: the sum over containers, or the
/// largest init container where that is more. CPU in milli-cores, everything else in units.
fn requests(spec: &k8s_openapi::api::core::v1::PodSpec) -> BTreeMap<String, Bytes> {
    let mut sum: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut add = |requests: BTreeMap<String, Bytes>| {
        for (name, amount) in requests {
            *sum.entry(name).or_default() += amount;
        }
    };
    spec.containers.iter().map(container_requests).for_each(&mut add);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    // An init container that restarts always is a sidecar: it runs beside the others.
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    init.iter().filter(is_sidecar).map(container_requests).for_each(&mut add);
    for container in init.iter().filter(|container| !is_sidecar(container)) {
        for (name, amount) in container_requests(container) {
            let largest = sum.entry(name).or_default();
            *largest = (*largest).max(amount);
        }
    }
    if let Some(overhead) = &spec.overhead {
        for (name, quantity) in overhead {
            *sum.entry(name.clone()).or_default() += amount(name, quantity);
        }
    }
    sum
}

fn container_requests(container: &Container) -> BTreeMap<String, Bytes> {
    let resources = container.resources.as_ref();
    let mut requests = BTreeMap::new();
    // A limit without a request is a request.
    for list in [
        resources.and_then(|resources| resources.limits.as_ref()),
        resources.and_then(|resources| resources.requests.as_ref()),
    ] {
        for (name, quantity) in list.into_iter().flatten() {
            requests.insert(name.clone(), amount(name, quantity));
        }
    }
    requests
}

/// An amount of a resource; what cannot be read counts as nothing.
pub fn amount(resource: &str, quantity: &Quantity) -> Bytes {
    if resource == "cpu" {
        return Bytes(quantity.0.parse::<MilliCpu>().unwrap_or_default().get());
    }
    quantity.0.parse().unwrap_or_default()
}

pub(super) fn progress(pod: &Pod) -> Progress {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let created = pod.creation_timestamp().map_or(0, |time| time.0.as_second());
    if let Some("Failed" | "Succeeded") = status.phase.as_deref() {
        return ended(status, created);
    }
    let condition =
        |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    if !bound {
        let message = condition("PodScheduled")
            .filter(|condition| condition.status == "False")
            .and_then(|condition| condition.message.clone());
        return Progress::Unbound { since: created, message };
    }
    if let Some(ready) = condition("Ready").filter(|condition| condition.status == "True") {
        let since = ready.last_transition_time.as_ref().map_or(created, |t| t.0.as_second());
        return Progress::Ready { since };
    }
    if let Some(fetching) = fetch::progress(status) {
        return fetching;
    }
    let init = || status.init_container_statuses.iter().flatten();
    let mut all = init().chain(status.container_statuses.iter().flatten());
    let failed = init().find_map(ended_badly).or_else(|| all.find_map(failing));
    if let Some(Trouble { reason, message }) = failed {
        return Progress::Failing { reason, message };
    }
    let answered = status.container_statuses.iter().flatten().any(|container| {
        container.started == Some(true) && container.restart_count == 0 && was_ready(pod)
    });
    if answered { Progress::Unready } else { Progress::Loading }
}

fn engine_restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).max().unwrap_or(0)
}

/// Whether the pod turned from ready to not ready at least once: its Ready condition changed
/// after all its containers had been initialised and started.
fn was_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let changed = |type_: &str| -> Option<Timestamp> {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == type_)?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let started = status.container_statuses.iter().flatten().filter_map(|container| {
        container.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
    });
    match (changed("Ready"), started.max()) {
        (Some(ready), Some(started)) => ready > started,
        _ => false,
    }
}

fn ended(status: &PodStatus, created: i64) -> Progress {
    let terminated = status.container_statuses.iter().flatten().find_map(|container| {
        let terminated = container.state.as_ref()?.terminated.as_ref()?;
        (terminated.exit_code != 0).then_some((container, terminated))
    });
    let reason = status
        .reason
        .clone()
        .or_else(|| terminated.and_then(|(_, terminated)| terminated.reason.clone()))
        .unwrap_or_else(|| status.phase.clone().unwrap_or_default());
    let message = status
        .message
        .clone()
        .or_else(|| {
            let (container, terminated) = terminated?;
            Some(format!("container {} ended with code {}", container.name, terminated.exit_code))
        })
        .unwrap_or_else(|| "the pod ended".to_owned());
    let at = terminated
        .and_then(|(_, terminated)| terminated.finished_at.as_ref())
        .map_or(created, |time| time.0.as_second());
    Progress::Ended { reason, message, at }
}

/// What is wrong with an init container that ended with an error, and is about to be started again.
fn ended_badly(container: &ContainerStatus) -> Option<Trouble> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    (ended.exit_code != 0).then(|| Trouble {
        reason: ended.reason.clone().unwrap_or_else(|| "Error".to_owned()),
        message: format!("container {} ended with code {}", container.name, ended.exit_code),
    })
}

/// What is wrong with a container that waits for something that is not about to come.
fn failing(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let message = match (&waiting.message, last) {
        (_, Some(last)) => format!(
            "container {} ended with code {}{} and was restarted {} times",
            container.name,
            last.exit_code,
            last.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default(),
            container.restart_count,
        ),
        (Some(message), None) => format!("container {}: {message}", container.name),
        (None, None) => format!("container {} waits", container.name),
    };
    Some(Trouble { reason, message })
}
