//! Watches pods and nodes while a test goes on, and checks what must hold at every moment at every
//! event: what is right in the end may have been wrong in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use berth_crds::names::LABEL_DEPLOYMENT;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::task::JoinHandle;

use crate::{
    Cluster, Snapshot, Strictness,
    snapshot::{GPU_RESOURCES, gpus_of, has_ended, is_ready, node_of},
    violations,
};

/// A watch over a cluster.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Observed>>,
    task: JoinHandle<()>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Pod>,
    /// Whether both lists have been read.
    synced: [bool; 2],
    /// What must not have been, each once.
    pub violations: Vec<String>,
    /// The names of all pods that there ever were, by deployment.
    pub pods_seen: BTreeMap<String, Vec<String>>,
    /// The fewest ready pods that a deployment had after it once had some, by deployment.
    pub fewest_ready: BTreeMap<String, usize>,
    /// The most GPUs that pods held together.
    pub most_gpus: i64,
}

impl Observer {
    /// Starts to watch, and returns once it has seen all there is: what happens next is not missed.
    pub async fn start(cluster: &Cluster) -> Self {
        let seen = Arc::new(Mutex::new(Observed::default()));
        let pods = changes::<Pod>(cluster);
        let nodes = changes::<Node>(cluster);
        let into = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut pods = std::pin::pin!(pods);
            let mut nodes = std::pin::pin!(nodes);
            loop {
                tokio::select! {
                    Some(event) = pods.next() => {
                        if let Ok(event) = event { lock(&into).pod(event) }
                    }
                    Some(event) = nodes.next() => {
                        if let Ok(event) = event { lock(&into).node(event) }
                    }
                    else => return,
                }
            }
        });
        while lock(&seen).synced != [true; 2] && !task.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { seen, task }
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Observed {
        lock(&self.seen).clone()
    }

    /// Ends the watch; fails if something was seen that must never be.
    pub fn finish(self) -> Result<Observed> {
        ensure!(!self.task.is_finished(), "the watch ended before its time");
        let seen = self.so_far();
        let wrong = &seen.violations;
        ensure!(
            wrong.is_empty(),
            "seen on the way, though it must never be:\n{}",
            wrong.join("\n")
        );
        Ok(seen)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Observed>) -> std::sync::MutexGuard<'_, Observed> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node whose kubelet has just started says that it has no GPUs, until their device plugin has
/// come forward. What holds them holds them still.
fn keep_gpus(before: &Node, now: &mut Node) {
    let offered = |node: &Node| node.status.as_ref()?.allocatable.clone();
    let (Some(before), Some(mut offers)) = (offered(before), offered(now)) else { return };
    for resource in GPU_RESOURCES {
        let none = offers.get(resource).is_none_or(|quantity| quantity.0 == "0");
        if let Some(quantity) = before.get(resource).filter(|_| none) {
            offers.insert(resource.to_owned(), quantity.clone());
        }
    }
    if let Some(status) = &mut now.status {
        status.allocatable = Some(offers);
    }
}

fn changes<K>(
    cluster: &Cluster,
) -> impl futures::Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    watcher(cluster.all::<K>(), watcher::Config::default()).default_backoff().into_stream()
}

impl Observed {
    fn pod(&mut self, event: watcher::Event<Pod>) {
        let key = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        match event {
            watcher::Event::Init => self.synced[0] = false,
            watcher::Event::InitDone => self.synced[0] = true,
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                if let Some(deployment) = pod.labels().get(LABEL_DEPLOYMENT) {
                    let names = self.pods_seen.entry(deployment.clone()).or_default();
                    let name = pod.name_any();
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                self.pods.insert(key(&pod), pod);
            }
            watcher::Event::Delete(pod) => _ = self.pods.remove(&key(&pod)),
        }
        self.check();
    }

    fn node(&mut self, event: watcher::Event<Node>) {
        match event {
            watcher::Event::Init => self.synced[1] = false,
            watcher::Event::InitDone => self.synced[1] = true,
            watcher::Event::Apply(mut node) | watcher::Event::InitApply(mut node) => {
                if let Some(before) = self.nodes.get(&node.name_any()) {
                    keep_gpus(before, &mut node);
                }
                self.nodes.insert(node.name_any(), node);
            }
            watcher::Event::Delete(node) => _ = self.nodes.remove(&node.name_any()),
        }
        self.check();
    }

    fn check(&mut self) {
        if self.synced != [true; 2] {
            return;
        }
        let snapshot = Snapshot {
            nodes: self.nodes.values().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
            ..Snapshot::default()
        };
        for violation in violations(&snapshot, Strictness::Always) {
            if !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        }
        let held: i64 = snapshot
            .pods
            .iter()
            .filter(|pod| !has_ended(pod) && node_of(pod).is_some())
            .flat_map(|pod| gpus_of(pod).into_values())
            .sum();
        self.most_gpus = self.most_gpus.max(held);
        let mut ready: BTreeMap<String, usize> = BTreeMap::new();
        for pod in &snapshot.pods {
            if let Some(deployment) = pod.labels().get(LABEL_DEPLOYMENT) {
                *ready.entry(deployment.clone()).or_default() += usize::from(is_ready(pod));
            }
        }
        for deployment in self.pods_seen.keys() {
            let now = ready.get(deployment).copied().unwrap_or(0);
            match self.fewest_ready.get_mut(deployment) {
                Some(fewest) => *fewest = now.min(*fewest),
                None if now > 0 => _ = self.fewest_ready.insert(deployment.clone(), now),
                None => {}
            }
        }
    }
}

impl Observed {
    /// Forgets how few were ready so far: from now on counts.
    pub fn fewest_ready_of(&self, deployment: &str) -> usize {
        self.fewest_ready.get(deployment).copied().unwrap_or(0)
    }
}
