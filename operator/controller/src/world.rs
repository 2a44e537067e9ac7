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
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use berth_crds::LLMDeployment;
use berth_planner::{
    DeploymentId, Fleet, NodeName, Occupant, OccupantId, PodKey,
    queue::{Queue, Waiting},
};
use berth_render::vendor::GpuResources;
use berth_units::Bytes;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

use crate::{
    cache::{
        content,
        shelves::{self, Shelves},
    },
    usage,
};
use pod::Replica;
use prefetch::{Prefetch, prefetch};

/// How long a node that refused a pod is left out for that deployment.
const AVOID: Duration = Duration::from_mins(5);
/// Pods that are gone are remembered, so that a late answer does not bring them back.
const REMEMBERED: usize = 4096;
/// Places in the queue that are shown exactly, or in tens.
const NEAR_THE_HEAD: usize = 100;
/// A pod that we just created may be missing from a list that began before it.
const JUST_WRITTEN: Duration = Duration::from_mins(1);

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

/// What is known now.
#[derive(Default)]
pub struct State {
    /// Nodes, what they hold, and what was decided but not seen yet.
    pub fleet: Fleet,
    queue: Queue,
    /// Grows when a place in the queue changes hands.
    moves: u64,
    /// What lies in the nodes' caches.
    pub shelves: Shelves,
    /// What deployments served.
    pub usage: usage::ledger::Ledger,
    /// What replicas say of themselves.
    learning: learning::Learning,
    replicas: BTreeMap<PodKey, Arc<Replica>>,
    by_deployment: HashMap<String, BTreeSet<PodKey>>,
    /// Pods that bring revisions onto nodes, by the UIDs of their deployments.
    prefetches: HashMap<String, BTreeMap<PodKey, Prefetch>>,
    /// Pods that take over in place, by the UID of the pod that they wait for.
    heirs: HashMap<String, Occupant>,
    /// UIDs that we asked to be deleted, until they are gone.
    deleting: HashSet<String>,
    gone: (HashSet<String>, VecDeque<String>),
    written: HashMap<String, Instant>,
    avoided: HashMap<String, BTreeMap<NodeName, (String, Instant)>>,
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
        let before = (state.fleet.freed(), state.moves);
        let result = change(&mut state);
        if state.shelves.has_changed() {
            self.cache.notify_one();
        }
        if state.queue.is_empty() {
            return result;
        }
        if state.fleet.freed() != before.0 {
            self.freed.notify_one();
        } else if state.moves != before.1 {
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
        let owner = self.update(|state| {
            state.written.remove(pod.uid().as_deref().unwrap_or_default());
            state.saw_pod(pod, &self.gpu_resources)
        });
        self.trigger(owner.as_ref());
    }

    /// Takes in a pod that we just created: a watch will tell of it, maybe later.
    pub fn wrote_pod(&self, pod: &Pod) {
        self.update(|state| {
            state.written.retain(|_, at| at.elapsed() < JUST_WRITTEN);
            state.written.extend(pod.uid().map(|uid| (uid, Instant::now())));
            state.saw_pod(pod, &self.gpu_resources)
        });
    }

    /// Takes in that a pod is gone.
    pub fn lost_pod(&self, pod: &Pod) {
        let Some(uid) = pod.uid() else { return };
        let owner = self.update(|state| {
            if let Some(keeper) = shelves::keeper(pod) {
                state.shelves.lost_keeper(&keeper);
            }
            if pod::replica(pod).is_some() {
                state.remember_gone(&uid);
            }
            if let Some(prefetch) = prefetch(pod) {
                state.lost_prefetch(&prefetch);
                return Some(prefetch.deployment);
            }
            state.lost_pod(&pod::key(pod), &uid).map(|replica| replica.deployment.clone())
        });
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
                state.queue.iter().map(|waiting| waiting.key.clone()).take(most).collect()
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

impl State {
    /// The replicas of a deployment, by its UID, in the order of their names.
    pub fn replicas_of(&self, uid: &str) -> Vec<Arc<Replica>> {
        let keys = self.by_deployment.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.replicas.get(key)).cloned().collect()
    }

    /// The replica of that name.
    pub fn replica(&self, key: &PodKey) -> Option<&Arc<Replica>> {
        self.replicas.get(key)
    }

    /// What replicas say of themselves.
    pub fn learning(&self) -> &learning::Learning {
        &self.learning
    }

    /// Takes in what the replicas of a deployment, by its UID, say of themselves; whether there is
    /// anything new to tell.
    pub fn learn(
        &mut self,
        uid: &str,
        learn: impl FnOnce(&mut learning::Learning) -> bool,
    ) -> bool {
        let news = learn(&mut self.learning);
        for key in self.by_deployment.get(uid).into_iter().flatten().filter(|_| news) {
            if let Some(replica) = self.replicas.get_mut(key) {
                self.learning.tell(Arc::make_mut(replica));
            }
        }
        news
    }

    /// Forgets what was learnt of deployments that are gone.
    pub fn keep_learning(&mut self, alive: impl Fn(&str) -> bool) {
        self.learning.keep(alive);
    }

    /// Every replica.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.values()
    }

    /// Takes in a pod; the deployment that it is of, if it is ours.
    fn saw_pod(&mut self, pod: &Pod, names: &GpuResources) -> Option<DeploymentId> {
        let uid = pod.uid()?;
        if self.gone.0.contains(&uid) {
            return None;
        }
        let key = pod::key(pod);
        if let Some(namesake) = self.replicas.get(&key).filter(|known| known.uid != uid).cloned() {
            self.lost_pod(&key, &namesake.uid);
        }
        if let Some(keeper) = shelves::keeper(pod) {
            self.shelves.saw_keeper(keeper);
        }
        match pod::occupant(pod, names) {
            Some(occupant) => {
                if occupant.cache.is_some() {
                    self.shelves.look_at(&occupant.node);
                }
                self.saw_occupant(occupant, pod);
            }
            None => self.lost_occupant(&uid),
        }
        if let Some(prefetch) = prefetch(pod) {
            let id = prefetch.deployment.clone();
            let of = self.prefetches.entry(id.uid.clone()).or_default();
            of.insert(prefetch.key.clone(), prefetch);
            return Some(id);
        }
        let mut replica = pod::replica(pod)?;
        replica.deleting |= self.deleting.contains(&uid);
        let id = replica.deployment.clone();
        self.learning.tell(&mut replica);
        let replica = Arc::new(replica);
        let of = self.by_deployment.entry(replica.deployment.uid.clone()).or_default();
        of.insert(key.clone());
        self.replicas.insert(key, replica);
        Some(id)
    }

    /// Pods that bring revisions of a deployment, by its UID, onto nodes.
    pub fn prefetches_of(&self, uid: &str) -> impl Iterator<Item = &Prefetch> {
        self.prefetches.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// Forgets one of them.
    pub fn lost_prefetch(&mut self, prefetch: &Prefetch) {
        self.lost_occupant(&prefetch.uid);
        let Some(of) = self.prefetches.get_mut(&prefetch.deployment.uid) else { return };
        if of.get(&prefetch.key).is_some_and(|known| known.uid == prefetch.uid) {
            of.remove(&prefetch.key);
        }
        if of.is_empty() {
            self.prefetches.remove(&prefetch.deployment.uid);
        }
    }

    /// A pod that takes over in place needs its node's GPUs only once the other is gone: until
    /// then the pair is counted once.
    fn saw_occupant(&mut self, occupant: Occupant, pod: &Pod) {
        let replaces = pod.annotations().get(berth_crds::names::ANNOTATION_REPLACES);
        if let Some(replaces) = replaces.filter(|_| pod::replica(pod).is_some()) {
            self.heirs.insert(replaces.clone(), occupant);
            self.settle(replaces.clone());
        } else {
            let id = occupant.id.as_str().to_owned();
            self.fleet.upsert_occupant(occupant);
            self.settle(id);
        }
    }

    /// Counts the heir of a pod: in full when that pod is gone, else what it takes beyond it.
    fn settle(&mut self, replaced: String) {
        let Some(heir) = self.heirs.get(&replaced) else { return };
        let held = self.fleet.occupant(&OccupantId::from(replaced)).filter(|o| o.node == heir.node);
        let heir = held.map_or_else(|| heir.clone(), |held| beyond(heir, held));
        self.fleet.upsert_occupant(heir);
    }

    fn lost_occupant(&mut self, uid: &str) {
        let id = OccupantId::from(uid);
        if let Some(occupant) = self.fleet.occupant(&id).filter(|held| held.cache.is_some()) {
            self.shelves.look_at(&occupant.node);
        }
        self.heirs.retain(|_, heir| heir.id != id);
        if let Some(heir) = self.heirs.remove(uid) {
            self.fleet.upsert_occupant(heir);
        }
        self.fleet.remove_occupant(&id);
    }

    fn lost_pod(&mut self, key: &PodKey, uid: &str) -> Option<Arc<Replica>> {
        self.lost_occupant(uid);
        self.deleting.remove(uid);
        self.learning.forget(uid);
        let replica = self.replicas.get(key).filter(|known| known.uid == uid).cloned()?;
        self.replicas.remove(key);
        if let Some(of) = self.by_deployment.get_mut(&replica.deployment.uid) {
            of.remove(key);
            if of.is_empty() {
                self.by_deployment.remove(&replica.deployment.uid);
            }
        }
        Some(replica)
    }

    fn remember_gone(&mut self, uid: &str) {
        let (uids, order) = &mut self.gone;
        if uids.insert(uid.to_owned()) {
            order.push_back(uid.to_owned());
        }
        if order.len() > REMEMBERED {
            order.pop_front().map(|oldest| uids.remove(&oldest));
        }
    }

    /// Forgets every pod that is neither among those just listed nor just written.
    fn keep_pods(&mut self, listed: &HashSet<String>) -> Vec<Arc<Replica>> {
        self.written.retain(|_, at| at.elapsed() < JUST_WRITTEN);
        let listed = |uid: &str| listed.contains(uid) || self.written.contains_key(uid);
        self.shelves.keep_keepers(listed);
        let brought = self.prefetches.values().flat_map(BTreeMap::values);
        let brought: Vec<_> = brought.filter(|one| !listed(&one.uid)).cloned().collect();
        let lost: Vec<_> = self
            .fleet
            .occupants()
            .filter(|occupant| !listed(occupant.id.as_str()))
            .map(|occupant| (occupant.pod.clone(), occupant.id.as_str().to_owned()))
            .chain(
                self.replicas
                    .values()
                    .filter(|replica| !listed(&replica.uid))
                    .map(|replica| (replica.key.clone(), replica.uid.clone())),
            )
            .collect();
        for prefetch in &brought {
            self.lost_prefetch(prefetch);
        }
        lost.into_iter().filter_map(|(key, uid)| self.lost_pod(&key, &uid)).collect()
    }

    /// Forgets every node that is not among those just listed.
    fn keep_nodes(&mut self, listed: &BTreeSet<NodeName>) {
        let lost: Vec<_> = self
            .fleet
            .nodes()
            .map(|node| node.name.clone())
            .filter(|name| !listed.contains(name))
            .collect();
        for name in lost {
            self.fleet.remove_node(&name);
        }
    }

    /// Deployments that wait for GPUs.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// A deployment waits.
    pub fn wait(&mut self, waiting: Waiting) {
        let key = waiting.key.clone();
        let before = self.queue.position(&key);
        self.queue.upsert(waiting);
        let last = self.queue.len() - 1;
        let after = self.queue.position(&key);
        if before != after && (before.is_some() || after != Some(last)) {
            self.moves += 1;
        }
    }

    /// A deployment does not wait any more.
    pub fn stop_waiting(&mut self, key: &DeploymentId) {
        if self.queue.remove(key).is_some() {
            self.moves += 1;
        }
    }

    /// Remembers that we asked for a pod to be deleted.
    pub fn deleting(&mut self, replica: &Replica) {
        self.deleting.insert(replica.uid.clone());
        if let Some(known) = self.replicas.get_mut(&replica.key) {
            Arc::make_mut(known).deleting = true;
        }
    }

    /// Leaves a node out for a deployment for a while.
    pub fn avoid(&mut self, deployment: &str, node: NodeName, why: String) {
        let until = Instant::now() + AVOID;
        self.avoided.entry(deployment.to_owned()).or_default().insert(node, (why, until));
    }

    /// Nodes to leave out for a deployment, each with the reason.
    pub fn avoided(&mut self, deployment: &str) -> BTreeMap<NodeName, String> {
        let now = Instant::now();
        let Some(nodes) = self.avoided.get_mut(deployment) else { return BTreeMap::new() };
        nodes.retain(|_, (_, until)| *until > now);
        let left = nodes.iter().map(|(node, (why, _))| (node.clone(), why.clone())).collect();
        if nodes.is_empty() {
            self.avoided.remove(deployment);
        }
        left
    }

    /// Forgets a deployment that is gone. Its pods go by their own events.
    pub fn forget(&mut self, namespace: &str, name: &str) {
        let gone: Vec<_> = self
            .queue
            .iter()
            .map(|waiting| waiting.key.clone())
            .filter(|key| key.namespace == namespace && key.name == name)
            .collect();
        for key in gone {
            self.stop_waiting(&key);
            self.avoided.remove(&key.uid);
        }
    }
}

/// What an heir takes beyond the pod that it waits for.
pub fn beyond(heir: &Occupant, held: &Occupant) -> Occupant {
    let (new, old) = (&heir.resources, &held.resources);
    Occupant {
        gpus: heir.gpus.saturating_sub(held.gpus),
        resources: berth_planner::Resources {
            cpu: new.cpu - old.cpu,
            memory: new.memory - old.memory,
            ephemeral_storage: new.ephemeral_storage - old.ephemeral_storage,
            pods: new.pods,
        },
        ..heir.clone()
    }
}
