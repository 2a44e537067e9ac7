//! What the ledger knows of the nodes' caches.

use std::collections::{BTreeMap, BTreeSet};

use berth_units::Bytes;

use super::{Entry, Fleet};
use crate::{CacheKey, CacheNeed, CacheUse, Cached, DeploymentId, NodeName, cache::shelf::Shelf};

/// What a deployment keeps, and where it has pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Keeper {
    kept: BTreeSet<CacheKey>,
    /// How many of its pods are on each node, seen or assumed.
    pods: BTreeMap<NodeName, u32>,
}

impl Fleet {
    /// What lies in a node's cache now, and nothing else. Kept while the node is missing; an empty
    /// map forgets it.
    pub fn set_cached(&mut self, name: &NodeName, cached: BTreeMap<CacheKey, Cached>) {
        let known = self.entries.get(name).map(|entry| entry.shelf.lying());
        if known.map_or(cached.is_empty(), |known| *known == cached) {
            return;
        }
        let entry = self.entries.entry(name.clone()).or_default();
        let before = entry.shelf.clone();
        entry.shelf.set_lying(cached);
        self.version += 1;
        self.standing.touch(name);
        if entry.eased_since(&before) {
            self.freed += 1;
        }
        self.drop_if_empty(name);
    }

    /// Deployments that keep something in caches, or have pods that use them.
    pub fn keepers(&self) -> impl Iterator<Item = &DeploymentId> {
        self.keepers.keys()
    }

    /// The entries that a deployment may need to roll back, and no others: they are protected on
    /// every node where they lie and it has a pod. An empty set when it is gone.
    pub fn set_kept(&mut self, deployment: &DeploymentId, kept: BTreeSet<CacheKey>) {
        if *self.kept(deployment) == kept {
            return;
        }
        let keeper = self.keepers.entry(deployment.clone()).or_default();
        let mut eased = false;
        for name in keeper.pods.keys() {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            let before = entry.shelf.clone();
            entry.shelf.remove_kept(&keeper.kept);
            entry.shelf.add_kept(&kept);
            eased |= entry.eased_since(&before);
        }
        keeper.kept = kept;
        if keeper.kept.is_empty() && keeper.pods.is_empty() {
            self.keepers.remove(deployment);
        }
        self.version += 1;
        if eased {
            self.freed += 1;
        }
    }

    /// What a deployment keeps.
    pub fn kept(&self, deployment: &DeploymentId) -> &BTreeSet<CacheKey> {
        static NOTHING: BTreeSet<CacheKey> = BTreeSet::new();
        self.keepers.get(deployment).map_or(&NOTHING, |keeper| &keeper.kept)
    }

    /// What lies in a node's cache.
    pub fn cached(&self, name: &NodeName) -> &BTreeMap<CacheKey, Cached> {
        static NOTHING: BTreeMap<CacheKey, Cached> = BTreeMap::new();
        self.entries.get(name).map_or(&NOTHING, |entry| entry.shelf.lying())
    }

    /// Whether an entry must not be evicted from a node.
    pub fn protects(&self, name: &NodeName, key: &CacheKey) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.shelf.protects(key))
    }

    /// A node's cache in figures.
    pub fn cache_use(&self, name: &NodeName) -> CacheUse {
        self.entries
            .get(name)
            .map(|entry| entry.shelf.in_figures(entry.cache_size()))
            .unwrap_or_default()
    }

    /// The entries that have to go from a node before `need` has room there: the least recently
    /// used of those that are not protected (of equals, in order of the keys), and none that could
    /// as well stay. What is leaving already counts as gone. Nothing where there is room, where the
    /// entry lies in full, or where the need does not fit whatever goes.
    ///
    /// To be asked before the placement is assumed, and marked as leaving along with that;
    /// afterwards [`Self::evictions_due`] tells.
    pub fn evictions(&self, name: &NodeName, need: &CacheNeed) -> Vec<CacheKey> {
        self.entries
            .get(name)
            .map(|entry| entry.shelf.evictions(need, entry.cache_size()))
            .unwrap_or_default()
    }

    /// The entries that have to go from a node before all that stays has room there: in the same
    /// order and no more than needed. Where what is not protected is not enough, what is only kept
    /// for a rollback follows: pods that are there need theirs more. Nothing as long as what is leaving suffices, nor on a node
    /// without a cache.
    ///
    /// So evictions that were decided but never told to anybody are found again, and those that a
    /// smaller cache calls for.
    pub fn evictions_due(&self, name: &NodeName) -> Vec<CacheKey> {
        let has_cache = |entry: &&Entry| entry.cache_size() > Bytes::ZERO;
        let entry = self.entries.get(name).filter(has_cache);
        entry.map(|entry| entry.shelf.evictions_due(entry.cache_size())).unwrap_or_default()
    }

    /// What is known of a node's cache.
    pub(crate) fn shelf(&self, name: &NodeName) -> Option<&Shelf> {
        self.entries.get(name).map(|entry| &entry.shelf)
    }

    /// How many pods a deployment has on a node, seen or assumed.
    pub(crate) fn pods_of(&self, deployment: &DeploymentId, name: &NodeName) -> u32 {
        let keeper = self.keepers.get(deployment);
        keeper.and_then(|keeper| keeper.pods.get(name)).copied().unwrap_or_default()
    }

    /// A pod came to a node that has an entry in the ledger.
    pub(super) fn moved_in(
        &mut self,
        name: &NodeName,
        uses: Option<&(CacheKey, Bytes)>,
        deployment: Option<&DeploymentId>,
    ) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some((key, bytes)) = uses {
            entry.shelf.add_user(key, *bytes);
        }
        let Some(deployment) = deployment else { return };
        let keeper = self.keepers.entry(deployment.clone()).or_default();
        let pods = keeper.pods.entry(name.clone()).or_default();
        *pods += 1;
        if *pods == 1 && !keeper.kept.is_empty() {
            entry.shelf.add_kept(&keeper.kept);
        }
    }

    /// A pod left a node to which it came before.
    pub(super) fn moved_out(
        &mut self,
        name: &NodeName,
        uses: Option<&(CacheKey, Bytes)>,
        deployment: Option<&DeploymentId>,
    ) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some((key, bytes)) = uses {
            entry.shelf.remove_user(key, *bytes);
        }
        let Some(deployment) = deployment else { return };
        let Some(keeper) = self.keepers.get_mut(deployment) else { return };
        let Some(pods) = keeper.pods.get_mut(name) else { return };
        *pods -= 1;
        if *pods > 0 {
            return;
        }
        keeper.pods.remove(name);
        if !keeper.kept.is_empty() {
            entry.shelf.remove_kept(&keeper.kept);
        } else if keeper.pods.is_empty() {
            self.keepers.remove(deployment);
        }
    }
}

impl Entry {
    /// Whether something that did not fit for the cache may fit now. Nothing fits where there is
    /// no node.
    pub(super) fn eased_since(&self, before: &Shelf) -> bool {
        self.node.as_ref().is_some_and(|node| self.shelf.eased(before, node.cache))
    }

    fn cache_size(&self) -> Bytes {
        self.node.as_ref().map(|node| node.cache).unwrap_or_default()
    }
}
