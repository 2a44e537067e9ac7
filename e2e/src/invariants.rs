//! What must hold after every trial, and some of it at every moment: counted from the pods and
//! nodes alone. Shares no code with the operator.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use berth_crds::{
    LLMDeployment,
    llm_deployment::ReplicaPhase,
    names::{LABEL_ATTEMPT, LABEL_DEPLOYMENT},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::{
    Cluster, Snapshot,
    llm::{claim, is_current},
    snapshot::{
        GPU_RESOURCES, bound_to, controller, gpus_of, has_ended, is_live, is_ready, is_terminating,
        node_of, revision, slot,
    },
    wait::{Look, patience, until},
};

/// How much must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// At every moment.
    Always,
    /// When nothing is going on any more.
    Settled,
}

/// Everything that must not be, in words; empty when all is well.
pub fn violations(snapshot: &Snapshot, strictness: Strictness) -> Vec<String> {
    let mut found = over_committed(snapshot);
    found.extend(snapshot.pods.iter().flat_map(|pod| wrong_claim(pod, &snapshot.nodes)));
    found.extend(duplicates(&snapshot.pods));
    if strictness == Strictness::Settled {
        found.extend(orphans(snapshot));
        for llm in &snapshot.llms {
            let name = llm.name_any();
            let problems = desired_is_actual(snapshot, llm)
                .into_iter()
                .chain(status_is_untrue(snapshot, llm))
                .map(|problem| format!("{name}: {problem}"));
            found.extend(problems);
        }
    }
    found
}

impl Cluster {
    /// Fails if something is wrong that must not be at any moment.
    pub async fn check_invariants(&self) -> Result<()> {
        let found = violations(&Snapshot::of(self).await?, Strictness::Always);
        ensure!(found.is_empty(), "invariants do not hold:\n{}", found.join("\n"));
        Ok(())
    }

    /// Waits until everything is as it should be when nothing is going on.
    pub async fn settled(&self) -> Result<Snapshot> {
        until("every invariant holds", patience(), async || {
            let snapshot = Snapshot::of(self).await?;
            let found = violations(&snapshot, Strictness::Settled);
            if found.is_empty() {
                return Ok(Look::Done(snapshot));
            }
            Ok(Look::NotYet(found.join("\n")))
        })
        .await
    }
}

/// Nodes with more GPUs held than there are. A pod holds its GPUs from when it is pinned or bound
/// until it has ended; a pod that waits for its own replica's older pod on the same node to go is
/// counted once with it.
fn over_committed(snapshot: &Snapshot) -> Vec<String> {
    let mut held: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| !has_ended(pod)) {
        let Some(node) = node_of(pod) else { continue };
        if bound_to(pod).is_none() && replaces_in_place(pod, node, &snapshot.pods) {
            continue;
        }
        for (resource, count) in gpus_of(pod) {
            *held.entry((node, resource)).or_default() += count;
        }
    }
    let mut found = Vec::new();
    for ((node, resource), held) in held {
        // A node that is gone has no GPUs to give twice.
        let Some(there) = snapshot.nodes.iter().find(|n| n.name_any() == node) else { continue };
        let there = allocatable(there, resource);
        if held > there {
            found.push(format!("node {node} is over-committed: {held} of {there} {resource}"));
        }
    }
    found
}

fn allocatable(node: &Node, resource: &str) -> i64 {
    let status = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    status.and_then(|all| all.get(resource)).and_then(|q| q.0.parse().ok()).unwrap_or(0)
}

fn replaces_in_place(pod: &Pod, node: &str, pods: &[Pod]) -> bool {
    let owner = controller(pod).map(|owner| owner.uid);
    owner.is_some()
        && pods.iter().any(|other| {
            other.uid() != pod.uid()
                && bound_to(other) == Some(node)
                && !has_ended(other)
                && controller(other).map(|owner| owner.uid) == owner
                && slot(other) == slot(pod)
        })
}

/// A claim that does not agree with what the pod requests or what its node has.
fn wrong_claim(pod: &Pod, nodes: &[Node]) -> Vec<String> {
    let name = pod.name_any();
    if controller(pod).is_none() || has_ended(pod) {
        return Vec::new();
    }
    let claim = match claim(pod) {
        Ok(Some(claim)) => claim,
        Ok(None) => return vec![format!("pod {name} of an LLMDeployment carries no claim")],
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut found = Vec::new();
    let requested: i64 = gpus_of(pod).values().sum();
    if claim.gpus != requested {
        found.push(format!("pod {name} claims {} GPUs and requests {requested}", claim.gpus));
    }
    let Some(node) = node_of(pod) else {
        found.push(format!("pod {name} is pinned to no node"));
        return found;
    };
    let Some(node) = nodes.iter().find(|n| n.name_any() == node) else { return found };
    let labels = node.labels();
    let product = ["nvidia.com/gpu.product", "amd.com/gpu.product-name"];
    let product = product.iter().find_map(|key| labels.get(*key));
    if product != Some(&claim.product) {
        found.push(format!("pod {name} claims {} on a node with {product:?}", claim.product));
    }
    if let Some(vram) = vram_of(node)
        && (claim.bytes_per_gpu <= 0 || claim.bytes_per_gpu > vram)
    {
        let bytes = claim.bytes_per_gpu;
        found.push(format!("pod {name} claims {bytes} bytes of a GPU with {vram}"));
    }
    found
}

/// The memory of one GPU of a node, as its labels say.
fn vram_of(node: &Node) -> Option<i64> {
    let labels = node.labels();
    let mebibytes = labels.get("nvidia.com/gpu.memory").and_then(|text| text.parse::<i64>().ok());
    let gibibytes = labels.get("amd.com/gpu.vram").and_then(|text| text.strip_suffix('G'));
    mebibytes.map(|m| m << 20).or_else(|| Some(gibibytes?.parse::<i64>().ok()? << 30))
}

/// Replicas with two live pods of one revision.
fn duplicates(pods: &[Pod]) -> Vec<String> {
    let mut found = Vec::new();
    let mut slots = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_live(pod)) {
        let Some(owner) = controller(pod) else { continue };
        let name = pod.name_any();
        if slot(pod).is_none() {
            found.push(format!("pod {name} does not say which replica it is"));
        }
        let key = (owner.uid, slot(pod), revision(pod));
        if let Some(other) = slots.insert(key, name.clone()) {
            found.push(format!("pods {other} and {name} are the same replica"));
        }
    }
    found
}

/// Objects of `LLMDeployments` that are no more.
fn orphans(snapshot: &Snapshot) -> Vec<String> {
    let living: BTreeSet<_> = snapshot.llms.iter().filter_map(LLMDeployment::uid).collect();
    let mut found = Vec::new();
    for pod in &snapshot.pods {
        match controller(pod) {
            Some(owner) if !living.contains(&owner.uid) => {
                found.push(format!("pod {} is orphaned: {} is gone", pod.name_any(), owner.name));
            }
            None if pod.labels().contains_key(LABEL_DEPLOYMENT) => {
                found.push(format!("pod {} is labelled as ours and has no owner", pod.name_any()));
            }
            _ => {}
        }
    }
    for (object, owner) in &snapshot.owned {
        if !living.contains(&owner.uid) {
            found.push(format!("{object} is orphaned: {} is gone", owner.name));
        }
    }
    found
}

/// Where the pods of a deployment are not those that are wanted.
fn desired_is_actual(snapshot: &Snapshot, llm: &LLMDeployment) -> Vec<String> {
    let pods = snapshot.pods_of(llm);
    let live: Vec<&Pod> = pods.iter().copied().filter(|pod| is_live(pod)).collect();
    let status = llm.status.clone().unwrap_or_default();
    let waiting = status.queue.as_ref().map_or(0, |queue| queue.replicas);
    let refused = status.resolved.is_none();
    let desired = i32::try_from(llm.desired_replicas()).unwrap_or(i32::MAX);
    let mut found = Vec::new();
    if count(&live) + waiting != desired && !refused {
        let live = live.len();
        found.push(format!("{desired} replicas wanted, {live} pods live, {waiting} waiting"));
    }
    for pod in &pods {
        let name = pod.name_any();
        if has_ended(pod) && !is_terminating(pod) {
            found.push(format!("pod {name} has ended and is still there"));
        }
        if is_live(pod) && slot(pod).is_some_and(|(replica, _)| replica >= desired) {
            found.push(format!("pod {name} is of a replica that is not wanted"));
        }
        if let Some(resolved) = &status.resolved
            && is_live(pod)
            && !resolved.revision.ends_with(revision(pod))
        {
            let newest = &resolved.revision;
            found.push(format!("pod {name} is of revision {}, not {newest}", revision(pod)));
        }
    }
    found
}

/// Where status does not say what is.
fn status_is_untrue(snapshot: &Snapshot, llm: &LLMDeployment) -> Vec<String> {
    let Some(status) = &llm.status else { return vec!["no status".to_owned()] };
    let pods = snapshot.pods_of(llm);
    let live: Vec<&Pod> = pods.iter().copied().filter(|pod| is_live(pod)).collect();
    let ready: Vec<&Pod> = pods.iter().copied().filter(|pod| is_ready(pod)).collect();
    let holding: Vec<&Pod> = pods.iter().copied().filter(|pod| !has_ended(pod)).collect();
    let mut found = Vec::new();
    if !is_current(llm) {
        found.push("status is about an older spec".to_owned());
    }
    for condition in &status.conditions {
        if condition.observed_generation != llm.metadata.generation {
            found.push(format!("condition {} is about an older spec", condition.type_));
        }
    }
    let claimed: i64 = holding.iter().filter_map(|pod| claim(pod).ok()?).map(|c| c.gpus).sum();
    for (field, said, is) in [
        ("replicas", status.replicas, count(&live)),
        ("readyReplicas", status.ready_replicas, count(&ready)),
        ("gpus", status.gpus, i32::try_from(claimed).unwrap_or(i32::MAX)),
    ] {
        if said != is {
            found.push(format!("status.{field} is {said}; counted from the pods it is {is}"));
        }
    }
    found.extend(wrong_placements(status, &holding));
    if let Some(selector) = &status.selector {
        let selects = |pod: &&&Pod| {
            selector.split(',').all(|part| {
                part.split_once('=')
                    .is_some_and(|(k, v)| pod.labels().get(k).is_some_and(|label| label == v))
            })
        };
        let selected = snapshot.pods.iter().filter(|pod| selects(&pod)).count();
        let leaders = pods.iter().filter(|pod| slot(pod).is_some_and(|(_, rank)| rank == 0));
        if selected != leaders.count() {
            found.push(format!("status.selector {selector} selects {selected} pods"));
        }
    }
    found
}

/// `status.placements` against the pods that hold something.
fn wrong_placements(status: &berth_crds::LLMDeploymentStatus, holding: &[&Pod]) -> Vec<String> {
    let said: BTreeSet<String> = status
        .placements
        .iter()
        .map(|p| {
            let ready = p.phase == ReplicaPhase::Ready;
            let going = p.phase == ReplicaPhase::Terminating;
            format!(
                "{} replica {} attempt {} on {}: {} GPUs × {}, ready {ready}, going {going}",
                p.pod, p.replica, p.attempt, p.node, p.gpus, p.bytes_per_gpu
            )
        })
        .collect();
    let is: BTreeSet<String> = holding
        .iter()
        .map(|pod| {
            let claim = claim(pod).ok().flatten();
            let (gpus, bytes) = claim.map_or((0, 0), |c| (c.gpus, c.bytes_per_gpu));
            let replica = slot(pod).map_or(-1, |(replica, _)| replica);
            let attempt = pod.labels().get(LABEL_ATTEMPT).map_or("?", String::as_str);
            format!(
                "{} replica {replica} attempt {attempt} on {}: {gpus} GPUs × {bytes}, ready {}, going {}",
                pod.name_any(),
                node_of(pod).unwrap_or("?"),
                is_ready(pod),
                is_terminating(pod),
            )
        })
        .collect();
    let missing = is.difference(&said).map(|p| format!("status.placements lacks: {p}"));
    let untrue = said.difference(&is).map(|p| format!("status.placements has, untruly: {p}"));
    missing.chain(untrue).collect()
}

fn count(pods: &[&Pod]) -> i32 {
    i32::try_from(pods.len()).unwrap_or(i32::MAX)
}

/// Every GPU resource that exists in a list of nodes, for totals.
pub fn gpus_there(nodes: &[Node]) -> i64 {
    let each = nodes.iter().flat_map(|n| GPU_RESOURCES.map(|resource| allocatable(n, resource)));
    each.sum()
}
