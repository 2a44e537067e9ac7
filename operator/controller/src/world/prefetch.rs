//! Pods that bring a revision's image and model onto a node, as far as deciding looks at them. Pure.

use berth_crds::names;
use berth_planner::{CacheKey, DeploymentId, NodeName, PodKey};
use berth_render::prefetch::CONTAINER;
use berth_units::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pod::{self, Progress};
use crate::cache::shelves::cache_key;

/// A pod that brings a revision onto a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefetch {
    /// Namespace and name.
    pub key: PodKey,
    /// UID of the pod.
    pub uid: String,
    /// The deployment that owns it.
    pub deployment: DeploymentId,
    /// Hash of the revision.
    pub revision: String,
    /// The node.
    pub node: NodeName,
    /// What it brings into the node's cache.
    pub cache: Option<(CacheKey, Bytes)>,
    /// How far it is.
    pub state: Bringing,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Bringing {
    /// Not bound to the node yet, since then, in Unix seconds.
    Unbound(i64),
    /// On its way.
    UnderWay,
    /// All is there.
    Done,
    /// It cannot come.
    Failing {
        /// In the words of the kubelet, such as `ImagePullBackOff`.
        reason: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads such a pod of ours.
pub fn prefetch(pod: &Pod) -> Option<Prefetch> {
    let deployment = pod::deployment(pod)?;
    let revision = pod.labels().get(names::LABEL_PREFETCH)?.clone();
    let claim: Option<berth_render::Claim> = pod
        .annotations()
        .get(names::ANNOTATION_CLAIM)
        .and_then(|text| serde_json::from_str(text).ok());
    Some(Prefetch {
        key: pod::key(pod),
        uid: pod.uid()?,
        node: NodeName::from(pod::pinned_node(pod)?),
        cache: claim
            .and_then(|claim| claim.cache)
            .map(|model| (cache_key(&deployment.namespace, &model.directory), model.bytes)),
        deployment,
        revision,
        state: state(pod),
    })
}

/// The image is there once the container that only pulls it has one, whatever became of that
/// container then; and it pulls only when the model is there.
fn state(pod: &Pod) -> Bringing {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let pulled = statuses.filter(|status| status.name == CONTAINER).any(|status| {
        let began = |state: &k8s_openapi::api::core::v1::ContainerState| {
            state.running.is_some() || state.terminated.is_some()
        };
        !status.image_id.is_empty() || status.state.as_ref().is_some_and(began)
    });
    match pod::progress(pod) {
        _ if pulled => Bringing::Done,
        Progress::Unbound { since, .. } => Bringing::Unbound(since),
        Progress::Failing { reason, message } | Progress::Ended { reason, message, .. } => {
            Bringing::Failing { reason, message }
        }
        _ => Bringing::UnderWay,
    }
}
