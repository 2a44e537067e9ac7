//! The ledger's index: where nodes stand by what is free on them.
//!
//! A memory of what follows from the ledger, brought up to date when a decision asks: a change of
//! the ledger only notes which node it touched. So a copy of a fleet starts without one and makes
//! its own, and two fleets are equal whatever they have worked out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use berth_units::Bytes;

use super::Fleet;
use crate::{
    CacheKey, Node, NodeName, Request, Resources,
    index::{Index, KindId},
    node::usable,
    policy::Named,
    room::{Ask, Demand, Kind, Room},
};

/// The index, or none yet.
#[derive(Default)]
pub(crate) struct Standing(Mutex<Option<Known>>);

/// What is known.
pub(crate) struct Known {
    pub(crate) index: Index<NodeName>,
    classes: Classes,
    /// Nodes with something of an entry in their cache, or with a pod that brings it.
    holders: BTreeMap<CacheKey, BTreeSet<NodeName>>,
    held: HashMap<NodeName, Vec<CacheKey>>,
    touched: BTreeSet<NodeName>,
    arrived: Vec<Demand>,
}

/// Nodes that no request can tell apart but by name, labels and what is taken.
#[derive(Default)]
struct Classes {
    ids: HashMap<Node, KindId>,
    alike: Vec<(KindId, Node)>,
}

impl Clone for Standing {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

impl Standing {
    /// Something changed on a node.
    pub(super) fn touch(&mut self, node: &NodeName) {
        if let Some(known) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            known.touched.insert(node.clone());
        }
    }

    /// A pod that was not counted before is.
    pub(super) fn arrives(&mut self, gpus: u32, resources: &Resources) {
        if let Some(known) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            known.arrived.push(demand_of(gpus, resources));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// Works with the index, up to date.
    pub(crate) fn with_known<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut guard = self.standing.lock();
        let known = guard.get_or_insert_with(|| Known::of(self));
        known.refresh(self);
        work(known)
    }
}

impl Known {
    fn of(fleet: &Fleet) -> Self {
        let seen = fleet.occupants.values().map(|pod| demand_of(pod.gpus, &pod.resources));
        let assumed = fleet.assumed.values().map(|pod| demand_of(pod.gpus, &pod.resources));
        Self {
            index: Index::new(Named::Berth.policy(0)),
            classes: Classes::default(),
            holders: BTreeMap::new(),
            held: HashMap::new(),
            touched: fleet.entries.keys().cloned().collect(),
            arrived: seen.chain(assumed).collect(),
        }
    }

    fn refresh(&mut self, fleet: &Fleet) {
        while let Some(name) = self.touched.pop_first() {
            let entry = fleet.entries.get(&name);
            let keys = entry.map(|entry| entry.shelf.keys().cloned().collect()).unwrap_or_default();
            self.hold(&name, keys);
            let Some((entry, node)) = entry.and_then(|entry| Some((entry, entry.node.as_ref()?)))
            else {
                self.index.remove(&name);
                continue;
            };
            let kind = self.classes.of(node, &mut self.index);
            self.index.put(&name, kind, &room(node, &entry.taken));
        }
        for demand in self.arrived.drain(..) {
            self.index.arrives(&demand);
        }
    }

    fn hold(&mut self, name: &NodeName, keys: Vec<CacheKey>) {
        let before = self.held.get(name).map_or(&[][..], Vec::as_slice);
        if *before == keys {
            return;
        }
        for key in before {
            if let Some(nodes) = self.holders.get_mut(key) {
                nodes.remove(name);
                if nodes.is_empty() {
                    self.holders.remove(key);
                }
            }
        }
        for key in &keys {
            self.holders.entry(key.clone()).or_default().insert(name.clone());
        }
        if keys.is_empty() {
            self.held.remove(name);
        } else {
            self.held.insert(name.clone(), keys);
        }
    }

    /// Nodes with something of an entry.
    pub(crate) fn holders(&self, key: &CacheKey) -> impl Iterator<Item = &NodeName> {
        self.holders.get(key).into_iter().flatten()
    }

    /// The kinds of nodes, each with a node that stands for them: without name and labels.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (KindId, &Node)> {
        self.classes.alike.iter().map(|(kind, node)| (*kind, node))
    }

    /// What a request would cost on one node, as it is there.
    pub(crate) fn cost(&mut self, node: &Node, room: &Room, demand: &Demand) -> Option<i64> {
        let kind = self.classes.of(node, &mut self.index);
        self.index.cost(kind, room, demand).map(|cost| cost.0)
    }
}

impl Classes {
    fn of(&mut self, node: &Node, index: &mut Index<NodeName>) -> KindId {
        let alike = Node { name: "".into(), labels: BTreeMap::new(), ..node.clone() };
        if let Some(kind) = self.ids.get(&alike) {
            return *kind;
        }
        let class = u32::try_from(self.alike.len()).unwrap_or(u32::MAX);
        let id = index.kind(&kind(node), class);
        self.ids.insert(alike.clone(), id);
        self.alike.push((id, alike));
        id
    }
}

fn kind(node: &Node) -> Kind {
    let gpus = node.gpus.as_ref();
    let vram = gpus.and_then(|gpus| gpus.vram).map(usable).unwrap_or_default();
    Kind {
        product: gpus.map(|gpus| gpus.product.to_lowercase()).unwrap_or_default(),
        gpus: gpus.map_or(0, |gpus| gpus.count),
        vram,
        cpu: node.allocatable.cpu,
        memory: node.allocatable.memory,
    }
}

/// What is free on a node, for the index.
pub(crate) fn room(node: &Node, taken: &crate::occupant::Taken) -> Room {
    let free = taken.free(node);
    Room {
        cpu: free.resources.cpu,
        memory: free.resources.memory,
        whole: free.gpus,
        ..Room::default()
    }
}

/// What a request asks, for the index.
pub(crate) fn demand(request: &Request) -> Demand {
    let mut products: Vec<String> = request.products.iter().map(|p| p.to_lowercase()).collect();
    products.sort();
    products.dedup();
    // The least that any product needs: the exact figure is judged node by node.
    let vram = request.vram_on.values().copied().chain([request.vram_per_gpu]).min();
    Demand { products, ..asked(request.gpus, vram.unwrap_or_default(), &request.resources) }
}

/// What a pod asked, as far as the ledger tells.
fn demand_of(gpus: u32, resources: &Resources) -> Demand {
    asked(gpus, Bytes::ZERO, resources)
}

fn asked(gpus: u32, vram: Bytes, resources: &Resources) -> Demand {
    let ask = if gpus == 0 { Ask::Nothing } else { Ask::Whole { count: gpus, vram } };
    Demand { cpu: resources.cpu, memory: resources.memory, ask, products: Vec::new() }
}
