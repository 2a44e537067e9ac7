//! The caches of all nodes as the operator sees them, and what comes next on each. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use berth_crds::names;
use berth_planner::{CacheKey, Cached, Fleet, NodeName, PodKey};
use berth_render::cache::{Folder, Work};
use berth_units::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::content::{Content, Model, Volume};

/// Folders and keepers of all nodes.
#[derive(Debug, Default)]
pub struct Shelves {
    volumes: HashMap<NodeName, BTreeMap<String, Volume>>,
    keepers: HashMap<NodeName, BTreeMap<PodKey, Keeper>>,
    /// Nodes where something happened since they were last looked at.
    changed: BTreeSet<NodeName>,
}

/// A pod that works on a node's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Namespace and name.
    pub key: PodKey,
    /// UID.
    pub uid: String,
    /// The node.
    pub node: NodeName,
    /// What it does.
    pub work: Work,
    /// Whether it ended: well, or not.
    pub ended: Option<bool>,
}

/// What a pod uses of its node's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Namespace and directory.
    pub model: (String, String),
    /// The most that it takes.
    pub bytes: Bytes,
    /// Whether its engine answers, so that all of the model is there.
    pub ready: bool,
}

/// What comes next on a node.
#[derive(Debug, Default, PartialEq)]
pub struct Next {
    /// Volumes with another content than is written on them.
    pub write: Vec<Volume>,
    /// Volumes that serve nobody and hold nothing.
    pub remove: Vec<Volume>,
    /// Keepers that ended.
    pub dismiss: Vec<Keeper>,
    /// What a keeper is to do; none does anything there now.
    pub work: Work,
}

/// Reads a keeper's pod.
pub fn keeper(pod: &Pod) -> Option<Keeper> {
    let label = |name: &str| pod.labels().get(name).map(String::as_str);
    let ours = label(names::LABEL_MANAGED_BY) == Some(names::MANAGER)
        && label(names::LABEL_COMPONENT) == Some(names::COMPONENT_CACHE);
    let node = pod.annotations().get(names::ANNOTATION_CACHE_NODE).filter(|_| ours)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    Some(Keeper {
        key: PodKey::new(pod.namespace()?, pod.name_any()),
        uid: pod.uid()?,
        node: NodeName::from(node.as_str()),
        work: Work::of(pod)?,
        ended: match phase {
            Some("Succeeded") => Some(true),
            Some("Failed") => Some(false),
            _ => None,
        },
    })
}

impl Shelves {
    /// Has a node looked at.
    pub fn look_at(&mut self, node: &NodeName) {
        self.changed.insert(node.clone());
    }

    /// Whether there are nodes to look at.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Nodes to look at, each once.
    pub fn take_changed(&mut self) -> BTreeSet<NodeName> {
        std::mem::take(&mut self.changed)
    }

    /// Takes in a volume.
    pub fn saw_volume(&mut self, volume: Volume) {
        self.changed.insert(volume.node.clone());
        self.volumes.entry(volume.node.clone()).or_default().insert(volume.name.clone(), volume);
    }

    /// Takes in that a volume is gone.
    pub fn lost_volume(&mut self, volume: &Volume) {
        if let Some(of_node) = self.volumes.get_mut(&volume.node) {
            of_node.remove(&volume.name);
            self.changed.insert(volume.node.clone());
        }
    }

    /// Forgets every volume that is not among those just listed.
    pub fn keep_volumes(&mut self, listed: &BTreeSet<String>) {
        for (node, volumes) in &mut self.volumes {
            let before = volumes.len();
            volumes.retain(|name, _| listed.contains(name));
            if volumes.len() != before {
                self.changed.insert(node.clone());
            }
        }
    }

    /// The volume of a folder.
    pub fn volume(&self, folder: &Folder) -> Option<&Volume> {
        self.volumes.get(&NodeName::from(folder.node.as_str()))?.get(&folder.name())
    }

    /// Takes in a keeper.
    pub fn saw_keeper(&mut self, keeper: Keeper) {
        self.changed.insert(keeper.node.clone());
        self.keepers.entry(keeper.node.clone()).or_default().insert(keeper.key.clone(), keeper);
    }

    /// Takes in that a keeper is gone.
    pub fn lost_keeper(&mut self, keeper: &Keeper) {
        let Some(of_node) = self.keepers.get_mut(&keeper.node) else { return };
        if of_node.get(&keeper.key).is_some_and(|known| known.uid == keeper.uid) {
            of_node.remove(&keeper.key);
            self.changed.insert(keeper.node.clone());
        }
    }

    /// Forgets every keeper whose UID does not count as there.
    pub fn keep_keepers(&mut self, is_there: impl Fn(&str) -> bool) {
        for (node, keepers) in &mut self.keepers {
            let before = keepers.len();
            keepers.retain(|_, keeper| is_there(&keeper.uid));
            if keepers.len() != before {
                self.changed.insert(node.clone());
            }
        }
    }

    /// What comes next on a node. Tells the ledger what lies there, and has it choose what goes
    /// where that is more than the cache may hold. `users` are all pods there that use it.
    pub fn next(&self, node: &NodeName, users: &[User], fleet: &mut Fleet, now: i64) -> Next {
        let own =
            |volume: &&Volume| volume.name == Folder::of(node.as_str(), &volume.namespace).name();
        let known: Vec<&Volume> =
            self.volumes.get(node).into_iter().flat_map(BTreeMap::values).filter(own).collect();
        let mut volumes: Vec<Volume> = known.iter().map(|volume| (*volume).clone()).collect();
        let keepers = || self.keepers.get(node).into_iter().flat_map(BTreeMap::values);
        for keeper in keepers().filter(|keeper| keeper.ended == Some(true)) {
            for volume in &mut volumes {
                done(volume, &keeper.work);
            }
        }
        for volume in &mut volumes {
            used(volume, users, now);
        }
        fleet.set_cached(node, lying(&volumes));
        for key in fleet.evictions_due(node) {
            let model = volumes.iter_mut().find_map(|volume| {
                let directory = key.as_str().strip_prefix(&format!("{}/", volume.namespace))?;
                volume.content.models.get_mut(directory)
            });
            if let Some(model) = model.filter(|model| !model.in_use) {
                model.leaving = true;
            }
        }
        fleet.set_cached(node, lying(&volumes));
        let works = keepers().any(|keeper| keeper.ended.is_none());
        let empty = |volume: &Volume| volume.released && volume.content.models.is_empty();
        Next {
            work: if works { Work::default() } else { work(&volumes) },
            write: volumes
                .iter()
                .zip(known)
                .filter(|(next, known)| next.content != known.content && !empty(next))
                .map(|(next, _)| next.clone())
                .collect(),
            remove: volumes.iter().filter(|volume| empty(volume)).cloned().collect(),
            dismiss: keepers().filter(|keeper| keeper.ended.is_some()).cloned().collect(),
        }
    }
}

/// Notes what a keeper has done.
fn done(volume: &mut Volume, work: &Work) {
    let Volume { namespace, content, .. } = volume;
    content.prepared |= work.prepare.contains(namespace);
    content.models.retain(|directory, model| {
        !(model.leaving && work.evict.contains(&(namespace.clone(), directory.clone())))
    });
}

/// Notes what pods use, and since when nobody does.
fn used(volume: &mut Volume, users: &[User], now: i64) {
    let namespace = &volume.namespace;
    let here = || users.iter().filter(|user| user.model.0 == *namespace);
    for (directory, model) in &mut volume.content.models {
        if model.in_use && !here().any(|user| user.model.1 == *directory) {
            model.in_use = false;
            model.last_used = now;
        }
    }
    for user in here() {
        let model = volume.content.models.entry(user.model.1.clone()).or_default();
        model.bytes = model.bytes.max(user.bytes);
        model.in_use = true;
        model.complete |= user.ready;
    }
    if volume.released {
        // Whose namespace or claim is gone has no more use for it.
        volume.content.models.values_mut().for_each(|model| model.leaving |= !model.in_use);
    }
}

fn lying(volumes: &[Volume]) -> BTreeMap<CacheKey, Cached> {
    let models = volumes.iter().flat_map(|volume| {
        volume.content.models.iter().map(|(directory, model)| (&volume.namespace, directory, model))
    });
    models
        .map(|(namespace, directory, model)| {
            let &Model { bytes, last_used, complete, leaving, in_use: _ } = model;
            (cache_key(namespace, directory), Cached { bytes, last_used, complete, leaving })
        })
        .collect()
}

fn work(volumes: &[Volume]) -> Work {
    let leaving = |content: &Content| -> Vec<String> {
        let models = content.models.iter().filter(|(_, model)| model.leaving && !model.in_use);
        models.map(|(directory, _)| directory.clone()).collect()
    };
    Work {
        prepare: volumes
            .iter()
            .filter(|volume| !volume.content.prepared && !volume.released)
            .map(|volume| volume.namespace.clone())
            .collect(),
        evict: volumes
            .iter()
            .flat_map(|volume| {
                leaving(&volume.content)
                    .into_iter()
                    .map(|directory| (volume.namespace.clone(), directory))
            })
            .collect(),
    }
}

/// The name of a model in the ledger.
pub fn cache_key(namespace: &str, directory: &str) -> CacheKey {
    CacheKey::from(format!("{namespace}/{directory}"))
}
