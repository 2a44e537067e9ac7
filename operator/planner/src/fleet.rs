//! The ledger: every node, who holds what on it, and what is decided but not yet seen.
//!
//! One owner keeps it up to date from watch events. Every event may come twice, pods may come
//! before their nodes, and a node may vanish and return under the same name with other GPUs: after
//! the same last events the ledger is the same, in whatever order those of different objects came.
//! (Those of one pod come in order, as watches deliver them.)

mod cache;
mod check;
pub(crate) mod standing;
mod totals;

use std::collections::{BTreeMap, BTreeSet};

pub use check::{Shortage, Violation};
pub use totals::NodeTotals;

use crate::{
    Assumed, DeploymentId, Free, Node, NodeName, NodeState, Occupant, OccupantId, PodKey,
    cache::shelf::Shelf, occupant::Taken,
};

/// The ledger of nodes, pods and assumed claims.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    entries: BTreeMap<NodeName, Entry>,
    occupants: BTreeMap<OccupantId, Occupant>,
    by_pod: BTreeMap<PodKey, OccupantId>,
    assumed: BTreeMap<PodKey, Assumed>,
    keepers: BTreeMap<DeploymentId, cache::Keeper>,
    version: u64,
    freed: u64,
    standing: standing::Standing,
}

/// What goes by one node's name. The node itself may be missing, while pods still name it or files
/// lie in its cache.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    node: Option<Node>,
    taken: Taken,
    shelf: Shelf,
    occupants: BTreeSet<OccupantId>,
    assumed: BTreeSet<PodKey>,
}

/// Equal when they hold the same, however they came to it.
impl PartialEq for Fleet {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
            && self.occupants == other.occupants
            && self.by_pod == other.by_pod
            && self.assumed == other.assumed
            && self.keepers == other.keepers
    }
}

/// A pod of that name exists, so the API server would refuse to create another: the plan was made
/// from what is no longer so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pod named {pod} exists already (UID {by}); plan again from what is there now")]
pub struct NameTaken {
    /// The name.
    pub pod: PodKey,
    /// The pod that bears it.
    pub by: OccupantId,
}

impl Fleet {
    /// A fleet without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node appeared or changed.
    pub fn upsert_node(&mut self, node: Node) {
        let entry = self.entries.entry(node.name.clone()).or_default();
        if entry.node.as_ref() != Some(&node) {
            self.standing.touch(&node.name);
            entry.node = Some(node);
            self.version += 1;
            self.freed += 1;
        }
    }

    /// A node is gone. What pods hold on it is kept until they are gone too.
    pub fn remove_node(&mut self, name: &NodeName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.node.take().is_some() {
            self.version += 1;
            self.standing.touch(name);
        }
        self.drop_if_empty(name);
    }

    /// A pod that holds something was seen, or changed. Ends the assumption of its name; takes the
    /// place of another pod of its name, which must be gone.
    pub fn upsert_occupant(&mut self, occupant: Occupant) {
        let namesake = self.by_pod.get(&occupant.pod).filter(|id| **id != occupant.id).cloned();
        if namesake.is_none()
            && !self.assumed.contains_key(&occupant.pod)
            && self.occupants.get(&occupant.id) == Some(&occupant)
        {
            return;
        }
        if !self.assumed.contains_key(&occupant.pod) && !self.occupants.contains_key(&occupant.id) {
            self.standing.arrives(occupant.gpus, &occupant.resources);
        }
        let before = self.shelf(&occupant.node).cloned().unwrap_or_default();
        let mut ended = Vec::new();
        ended.extend(self.take_occupant(&occupant.id));
        ended.extend(namesake.and_then(|id| self.take_occupant(&id)));
        ended.extend(self.take_assumed(&occupant.pod));

        let held = occupant.taken();
        let entry = self.entries.entry(occupant.node.clone()).or_default();
        entry.taken.add(&held);
        entry.occupants.insert(occupant.id.clone());
        self.moved_in(&occupant.node, occupant.cache.as_ref(), occupant.deployment());
        self.by_pod.insert(occupant.pod.clone(), occupant.id.clone());
        self.settle(&ended, Some((&occupant.node, &held, &before)));
        self.occupants.insert(occupant.id.clone(), occupant);
    }

    /// A pod is gone, or finished.
    pub fn remove_occupant(&mut self, id: &OccupantId) {
        if let Some(ended) = self.take_occupant(id) {
            self.settle(&[ended], None);
        }
    }

    /// A placement was decided: from now on it counts like a pod. To be called *before* the pod is
    /// created; a second call under the same name replaces the first. On an error nothing changes,
    /// and the pod must not be created.
    pub fn assume(&mut self, assumed: Assumed) -> Result<(), NameTaken> {
        if let Some(by) = self.by_pod.get(&assumed.key) {
            return Err(NameTaken { pod: assumed.key, by: by.clone() });
        }
        if self.assumed.get(&assumed.key) == Some(&assumed) {
            return Ok(());
        }
        if !self.assumed.contains_key(&assumed.key) {
            self.standing.arrives(assumed.gpus, &assumed.resources);
        }
        let before = self.shelf(&assumed.node).cloned().unwrap_or_default();
        let ended = self.take_assumed(&assumed.key);
        let held = assumed.taken();
        let entry = self.entries.entry(assumed.node.clone()).or_default();
        entry.taken.add(&held);
        entry.assumed.insert(assumed.key.clone());
        self.moved_in(&assumed.node, assumed.cache.as_ref(), Some(&assumed.claim.deployment));
        self.settle(ended.as_slice(), Some((&assumed.node, &held, &before)));
        self.assumed.insert(assumed.key.clone(), assumed);
        Ok(())
    }

    /// The pod was seen (by a read, say): the assumption ends, `occupant` counts instead.
    pub fn confirm(&mut self, key: &PodKey, occupant: Occupant) {
        self.upsert_occupant(occupant);
        self.release(key);
    }

    /// There is no such pod, and there will be none: the API server refused it for good, or a read
    /// newer than the write shows that it is absent. Time alone never ends an assumption.
    pub fn release(&mut self, key: &PodKey) {
        if let Some(ended) = self.take_assumed(key) {
            self.settle(&[ended], None);
        }
    }

    /// Every node there is, in natural order of the names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.entries.values().filter_map(|entry| entry.node.as_ref())
    }

    /// The node of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.entries.get(name)?.node.as_ref()
    }

    /// What is free on a node, whether or not anything may be placed there. Nothing, where there
    /// is no such node.
    pub fn free(&self, name: &NodeName) -> Free {
        self.entries
            .get(name)
            .and_then(|entry| Some(entry.taken.free(entry.node.as_ref()?)))
            .unwrap_or_default()
    }

    /// What is taken on a node, seen and assumed.
    pub fn taken(&self, name: &NodeName) -> Taken {
        self.entries.get(name).map(|entry| entry.taken).unwrap_or_default()
    }

    /// The pod of that UID.
    pub fn occupant(&self, id: &OccupantId) -> Option<&Occupant> {
        self.occupants.get(id)
    }

    /// Every pod, by UID.
    pub fn occupants(&self) -> impl Iterator<Item = &Occupant> {
        self.occupants.values()
    }

    /// The pods on a node, by UID.
    pub fn occupants_of(&self, name: &NodeName) -> impl Iterator<Item = &Occupant> {
        let ids = self.entries.get(name).map(|entry| &entry.occupants);
        ids.into_iter().flatten().filter_map(|id| self.occupants.get(id))
    }

    /// The claims that are still only assumed, by name.
    pub fn assumed(&self) -> impl Iterator<Item = &Assumed> {
        self.assumed.values()
    }

    /// The claims on a node that are still only assumed, by name.
    pub fn assumed_of(&self, name: &NodeName) -> impl Iterator<Item = &Assumed> {
        let keys = self.entries.get(name).map(|entry| &entry.assumed);
        keys.into_iter().flatten().filter_map(|key| self.assumed.get(key))
    }

    /// The assumed claim of that pod.
    pub fn assumption(&self, key: &PodKey) -> Option<&Assumed> {
        self.assumed.get(key)
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Grows whenever something that did not fit could fit now. While it stands still, whoever
    /// waits need not be tried again.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Nodes with what is taken on them, in natural order of the names.
    pub(crate) fn states(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.entries.values().filter_map(|Entry { node, taken, shelf, .. }| {
            Some(NodeState { node: node.as_ref()?, taken: *taken, shelf })
        })
    }

    /// A node with what is taken on it.
    pub(crate) fn state(&self, name: &NodeName) -> Option<NodeState<'_>> {
        let Entry { node, taken, shelf, .. } = self.entries.get(name)?;
        Some(NodeState { node: node.as_ref()?, taken: *taken, shelf })
    }

    fn take_occupant(&mut self, id: &OccupantId) -> Option<(NodeName, Taken)> {
        let occupant = self.occupants.remove(id)?;
        let held = occupant.taken();
        if self.by_pod.get(&occupant.pod) == Some(id) {
            self.by_pod.remove(&occupant.pod);
        }
        if let Some(entry) = self.entries.get_mut(&occupant.node) {
            entry.taken.sub(&held);
            entry.occupants.remove(id);
        }
        self.moved_out(&occupant.node, occupant.cache.as_ref(), occupant.deployment());
        Some((occupant.node, held))
    }

    fn take_assumed(&mut self, key: &PodKey) -> Option<(NodeName, Taken)> {
        let assumed = self.assumed.remove(key)?;
        let held = assumed.taken();
        if let Some(entry) = self.entries.get_mut(&assumed.node) {
            entry.taken.sub(&held);
            entry.assumed.remove(key);
        }
        self.moved_out(&assumed.node, assumed.cache.as_ref(), Some(&assumed.claim.deployment));
        Some((assumed.node, held))
    }

    /// Counts a change in which some holdings ended and one, perhaps, began: where, with what, and
    /// what that node's cache was before.
    fn settle(&mut self, ended: &[(NodeName, Taken)], begun: Option<(&NodeName, &Taken, &Shelf)>) {
        self.version += 1;
        for name in ended.iter().map(|(name, _)| name).chain(begun.map(|(name, ..)| name)) {
            self.standing.touch(name);
        }
        let mut same_node = Taken::default();
        let mut elsewhere = false;
        for (node, held) in ended {
            match begun {
                Some((name, ..)) if name == node => same_node.add(held),
                _ => elsewhere = true,
            }
            self.drop_if_empty(node);
        }
        let eased = |(name, held, before): (&NodeName, &Taken, &Shelf)| {
            same_node.exceeds(held)
                || self.entries.get(name).is_some_and(|entry| entry.eased_since(before))
        };
        if elsewhere || begun.is_some_and(eased) {
            self.freed += 1;
        }
    }

    fn drop_if_empty(&mut self, name: &NodeName) {
        if self.entries.get(name).is_some_and(|entry| {
            entry.node.is_none()
                && entry.occupants.is_empty()
                && entry.assumed.is_empty()
                && entry.shelf.is_empty()
        }) {
            self.entries.remove(name);
        }
    }
}
