//! The world as the operator sees it: the fleet and its ledger, the queue, and our own replicas.
//!
//! One owner, one lock: watch events and the answers to our own writes go in, plans read from it.
//! Nothing under the lock waits or talks to the API server.

pub mod by_owner;
pub mod fetch;
pub mod learning;
pub mod node;
pub mod pod;
pub mod prefetch;
pub mod state;
pub mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_crds::LLMDeployment;
use berth_planner::{DeploymentId, NodeName};
use berth_render::vendor::GpuResources;
use berth_units::Bytes;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use kube::{
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

use crate::cache::content;
use state::State;

/// Places in the queue that are shown exactly, or in tens.
const NEAR_THE_HEAD: usize = 100;

/// A deployment as a watch delivers it. One that this version cannot read (a newer definition, a
/// newer operator's field) is an error of its own, not the end of the watch.
pub type Guarded = DeserializeGuard<LLMDeployment>;

/// The world, shared.
pub struct World {
    state: Mutex<State>,
    triggers: UnboundedSender<ObjectRef<Guarded>>,
    freed: Notify,
    reordered: Notify,
    cache: Notify,
    /// The size of the cache of a node that does not say otherwise.
    cache_size: Bytes,
    /// The resources that GPUs are.
    gpu_resources: GpuResources,
}

impl World {
    /// An empty world. `triggers` takes every deployment that something happened to.
    pub fn new(triggers: UnboundedSender<ObjectRef<Guarded>>) -> Self {
        Self {
            state: Mutex::default(),
            triggers,
            freed: Notify::new(),
            reordered: Notify::new(),
            cache: Notify::new(),
            cache_size: Bytes::ZERO,
            gpu_resources: GpuResources::default(),
        }
    }

    /// The same with caches of that size on all nodes that do not say otherwise.
    #[must_use]
    pub fn with_caches(self, size: Bytes) -> Self {
        Self { cache_size: size, ..self }
    }

    /// The same where the device plugins offer GPUs as those resources.
    #[must_use]
    pub fn with_gpu_resources(self, gpu_resources: GpuResources) -> Self {
        Self { gpu_resources, ..self }
    }

    /// Locks it. Hold it for as short as possible, and never over an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes waiting deployments where that may have freed something or
    /// moved them in the queue.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = (state.fleet.freed(), state.moves());
        let result = change(&mut state);
        if state.shelves.has_changed() {
            self.cache.notify_one();
        }
        if state.queue().is_empty() {
            return result;
        }
        if state.fleet.freed() != before.0 {
            self.freed.notify_one();
        } else if state.moves() != before.1 {
            self.reordered.notify_one();
        }
        result
    }

    /// Takes in a node.
    pub fn saw_node(&self, node: &Node) {
        let node = node::node(node, &self.gpu_resources, self.cache_size);
        self.update(|state| state.fleet.upsert_node(node));
    }

    /// Takes in a volume of a node's cache.
    pub fn saw_volume(&self, volume: &PersistentVolume) {
        if let Some(volume) = content::volume(volume) {
            self.update(|state| state.shelves.saw_volume(volume));
        }
    }

    /// Takes in a pod that a watch told of.
    pub fn saw_pod(&self, pod: &Pod) {
        let owner = self.update(|state| state.saw_pod(pod, &self.gpu_resources));
        self.trigger(owner.as_ref());
    }

    /// Takes in a pod that we just created: a watch will tell of it, maybe later.
    pub fn wrote_pod(&self, pod: &Pod) {
        self.update(|state| state.wrote_pod(pod, &self.gpu_resources));
    }

    /// Takes in that a pod is gone.
    pub fn lost_pod(&self, pod: &Pod) {
        let owner = self.update(|state| state.lost_pod(pod));
        self.trigger(owner.as_ref());
    }

    /// Waits until something happened to the cache of a node.
    pub async fn cache_changed(&self) {
        self.cache.notified().await;
    }

    /// Has the cache of a node looked at.
    pub fn look_at_cache(&self, node: &NodeName) {
        self.update(|state| state.shelves.look_at(node));
    }

    /// Has a deployment looked at.
    pub fn look_at(&self, namespace: &str, name: &str) {
        // The receiver ends only when the process does.
        let _ = self.triggers.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    fn trigger(&self, deployment: Option<&DeploymentId>) {
        if let Some(deployment) = deployment {
            self.look_at(&deployment.namespace, &deployment.name);
        }
    }

    /// For ever: has waiting deployments looked at when something was freed, the first in the
    /// queue first, at most twice a second. When only their order changed, those near the head are:
    /// positions further back are not exact.
    pub async fn wake_waiting(&self) {
        loop {
            let most = tokio::select! {
                () = self.freed.notified() => usize::MAX,
                () = self.reordered.notified() => NEAR_THE_HEAD,
            };
            let waiting: Vec<_> = {
                let state = self.lock();
                state.queue().iter().map(|waiting| waiting.key.clone()).take(most).collect()
            };
            for key in waiting {
                self.look_at(&key.namespace, &key.name);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The objects of a store that could be read.
pub fn readable<K>(store: &Store<DeserializeGuard<K>>) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().filter_map(|object| object.0.clone().ok()).map(Arc::new).collect()
}
