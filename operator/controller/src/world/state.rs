//! What is known of the cluster now: the ledger, who waits, and our own pods, brought up to date by
//! watch events and by the answers to our own writes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_planner::{
    DeploymentId, Fleet, NodeName, Occupant, OccupantId, PodKey,
    queue::{Queue, Waiting},
};
use berth_render::vendor::GpuResources;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{
    learning::Learning,
    pod::{self, Replica},
    prefetch::{Prefetch, prefetch},
};
use crate::{
    cache::shelves::{self, Shelves},
    reconcile::advice::Advised,
    usage,
};

/// How long a node that refused a pod is left out for that deployment.
const AVOID: Duration = Duration::from_mins(5);
/// Pods that are gone are remembered, so that a late answer does not bring them back.
const REMEMBERED: usize = 4096;
/// A pod that we just created may be missing from a list that began before it.
const JUST_WRITTEN: Duration = Duration::from_mins(1);

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
    learning: Learning,
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
    /// What was advised on misfits, by the UIDs of the deployments.
    advised: HashMap<String, Advised>,
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
    pub fn learning(&self) -> &Learning {
        &self.learning
    }

    /// Takes in what the replicas of a deployment, by its UID, say of themselves; whether there is
    /// anything new to tell.
    pub fn learn(&mut self, uid: &str, learn: impl FnOnce(&mut Learning) -> bool) -> bool {
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

    /// Takes in a pod that a watch told of; the deployment that it is of, if it is ours.
    pub(super) fn saw_pod(&mut self, pod: &Pod, names: &GpuResources) -> Option<DeploymentId> {
        self.written.remove(pod.uid().as_deref().unwrap_or_default());
        self.take_in(pod, names)
    }

    /// Takes in a pod that we just created.
    pub(super) fn wrote_pod(&mut self, pod: &Pod, names: &GpuResources) {
        self.written.retain(|_, at| at.elapsed() < JUST_WRITTEN);
        self.written.extend(pod.uid().map(|uid| (uid, Instant::now())));
        self.take_in(pod, names);
    }

    /// Takes in that a pod is gone; the deployment that it was of, if it was ours.
    pub(super) fn lost_pod(&mut self, pod: &Pod) -> Option<DeploymentId> {
        let uid = pod.uid()?;
        if let Some(keeper) = shelves::keeper(pod) {
            self.shelves.lost_keeper(&keeper);
        }
        if pod::replica(pod).is_some() {
            self.remember_gone(&uid);
        }
        if let Some(prefetch) = prefetch(pod) {
            self.lost_prefetch(&prefetch);
            return Some(prefetch.deployment);
        }
        self.lost_replica(&pod::key(pod), &uid).map(|replica| replica.deployment.clone())
    }

    fn take_in(&mut self, pod: &Pod, names: &GpuResources) -> Option<DeploymentId> {
        let uid = pod.uid()?;
        if self.gone.0.contains(&uid) {
            return None;
        }
        let key = pod::key(pod);
        if let Some(namesake) = self.replicas.get(&key).filter(|known| known.uid != uid).cloned() {
            self.lost_replica(&key, &namesake.uid);
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

    fn lost_replica(&mut self, key: &PodKey, uid: &str) -> Option<Arc<Replica>> {
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
    pub(super) fn keep_pods(&mut self, listed: &HashSet<String>) -> Vec<Arc<Replica>> {
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
        lost.into_iter().filter_map(|(key, uid)| self.lost_replica(&key, &uid)).collect()
    }

    /// Forgets every node that is not among those just listed.
    pub(super) fn keep_nodes(&mut self, listed: &BTreeSet<NodeName>) {
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

    /// How often a place in the queue changed hands.
    pub(super) fn moves(&self) -> u64 {
        self.moves
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

    /// What was last advised to a deployment.
    pub fn advised(&self, deployment: &str) -> Option<&Advised> {
        self.advised.get(deployment)
    }

    /// Remembers what was advised to a deployment, or that nothing had to be.
    pub fn set_advised(&mut self, deployment: &str, advised: Option<Advised>) {
        match advised {
            Some(advised) => self.advised.insert(deployment.to_owned(), advised),
            None => self.advised.remove(deployment),
        };
    }

    /// Forgets a deployment that is gone. Its pods go by their own events.
    pub fn forget(&mut self, namespace: &str, name: &str) {
        let waiting = self.queue.iter().map(|waiting| &waiting.key);
        let gone: BTreeSet<_> = waiting
            .chain(self.fleet.keepers())
            .filter(|key| key.namespace == namespace && key.name == name)
            .cloned()
            .collect();
        for key in gone {
            self.stop_waiting(&key);
            self.avoided.remove(&key.uid);
            self.advised.remove(&key.uid);
            self.fleet.set_kept(&key, BTreeSet::new());
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
