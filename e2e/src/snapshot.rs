//! All that a cluster holds of Berth's, at one moment, with the few readings of it that checks need.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_crds::{
    LLMDeployment,
    names::{LABEL_RANK, LABEL_REPLICA, LABEL_REVISION},
};
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{Node, Pod, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{Resource, ResourceExt as _, api::ListParams};

use crate::Cluster;

/// The extended resources that are GPUs.
pub const GPU_RESOURCES: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// A cluster at one moment, or nearly: the lists are read one after the other.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All pods.
    pub pods: Vec<Pod>,
    /// All `LLMDeployments`.
    pub llms: Vec<LLMDeployment>,
    /// Everything else that belongs to an `LLMDeployment`: kind and name, and its owner.
    pub owned: Vec<(String, OwnerReference)>,
}

impl Snapshot {
    /// Reads the cluster.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let all = ListParams::default();
        let nodes = cluster.all::<Node>().list(&all).await?.items;
        let llms = cluster.all::<LLMDeployment>().list(&all).await?.items;
        let pods = cluster.all::<Pod>().list(&all).await?.items;
        let mut owned = Vec::new();
        for object in cluster.all::<Service>().list(&all).await? {
            owned.extend(owner_of("Service", &object));
        }
        for object in cluster.all::<PodDisruptionBudget>().list(&all).await? {
            owned.extend(owner_of("PodDisruptionBudget", &object));
        }
        for object in cluster.all::<ControllerRevision>().list(&all).await? {
            owned.extend(owner_of("ControllerRevision", &object));
        }
        Ok(Self { nodes, pods, llms, owned })
    }

    /// The pods of a deployment, by the UID of their controller.
    pub fn pods_of(&self, llm: &LLMDeployment) -> Vec<&Pod> {
        let uid = llm.uid();
        let is_owner = |owner: OwnerReference| Some(owner.uid) == uid;
        self.pods.iter().filter(|pod| controller(*pod).is_some_and(is_owner)).collect()
    }
}

fn owner_of<K: Resource>(kind: &str, object: &K) -> Option<(String, OwnerReference)> {
    Some((format!("{kind} {}", object.name_any()), controller(object)?))
}

/// The `LLMDeployment` that controls an object.
pub fn controller<K: Resource>(object: &K) -> Option<OwnerReference> {
    let owners = object.owner_references();
    let is =
        |owner: &&OwnerReference| owner.kind == "LLMDeployment" && owner.controller == Some(true);
    owners.iter().find(is).cloned()
}

/// How many GPUs a pod requests, by resource.
pub fn gpus_of(pod: &Pod) -> BTreeMap<&'static str, i64> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut gpus = BTreeMap::new();
    for resources in containers.filter_map(|container| container.resources.as_ref()) {
        for name in GPU_RESOURCES {
            let amount = |list: &Option<BTreeMap<String, Quantity>>| {
                list.as_ref().and_then(|list| list.get(name)).and_then(|q| q.0.parse::<i64>().ok())
            };
            if let Some(count) = amount(&resources.requests).or(amount(&resources.limits)) {
                *gpus.entry(name).or_insert(0) += count;
            }
        }
    }
    gpus
}

/// The node that a pod is bound to.
pub fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// The node that a pod is bound to, or else the one that its affinity pins it to.
pub fn node_of(pod: &Pod) -> Option<&str> {
    bound_to(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let [term] = terms.node_selector_terms.as_slice() else { return None };
        let field = term.match_fields.as_ref()?.iter().find(|f| f.key == "metadata.name")?;
        match field.values.as_deref()? {
            [node] if field.operator == "In" => Some(node),
            _ => None,
        }
    })
}

/// Whether a pod has ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a pod runs or is about to: it has not ended and is not being deleted.
pub fn is_live(pod: &Pod) -> bool {
    !has_ended(pod) && !is_terminating(pod)
}

/// Whether a pod's condition Ready is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| {
        all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    ready && is_live(pod)
}

/// Which replica, and which rank of it, a pod is.
pub fn slot(pod: &Pod) -> Option<(i32, i32)> {
    let number = |label: &str| pod.labels().get(label)?.parse().ok();
    Some((number(LABEL_REPLICA)?, number(LABEL_RANK)?))
}

/// The revision that a pod was rendered from.
pub fn revision(pod: &Pod) -> &str {
    pod.labels().get(LABEL_REVISION).map_or("", String::as_str)
}
