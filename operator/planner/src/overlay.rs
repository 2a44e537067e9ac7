//! What-if: the fleet with some claims more and some pods less, without copying it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Fleet, Free, Node, NodeName, OccupantId, Placement, PodKey, Request, Resources, occupant::Taken,
};

/// What placement looks at: nodes, and what is taken on them.
pub trait View {
    /// Every node, in natural order of the names.
    fn states(&self) -> impl Iterator<Item = NodeState<'_>>;
}

/// A node, and what is taken on it.
#[derive(Clone, Copy, Debug)]
pub struct NodeState<'a> {
    /// The node.
    pub node: &'a Node,
    /// What is taken on it.
    pub taken: Taken,
}

impl NodeState<'_> {
    /// What is free on it.
    pub fn free(&self) -> Free {
        self.taken.free(self.node)
    }
}

impl View for Fleet {
    fn states(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.states().map(|(node, taken)| NodeState { node, taken: *taken })
    }
}

/// A fleet with some claims more and some pods less. Costs as much as it differs.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    fleet: &'a Fleet,
    nodes: BTreeMap<NodeName, Difference>,
    without: BTreeSet<OccupantId>,
    without_assumed: BTreeSet<PodKey>,
}

#[derive(Clone, Debug, Default)]
struct Difference {
    more: Taken,
    less: Taken,
}

impl<'a> Overlay<'a> {
    /// The fleet as it is.
    pub fn new(fleet: &'a Fleet) -> Self {
        Self {
            fleet,
            nodes: BTreeMap::new(),
            without: BTreeSet::new(),
            without_assumed: BTreeSet::new(),
        }
    }

    /// The fleet below.
    pub fn fleet(&self) -> &'a Fleet {
        self.fleet
    }

    /// As if a replica of ours held this on `node` too.
    pub fn claim(&mut self, node: &NodeName, gpus: u32, resources: &Resources) {
        self.nodes.entry(node.clone()).or_default().more.add(&Taken::of(true, gpus, resources));
    }

    /// As if `placement` of `request` were carried out.
    pub fn carry_out(&mut self, placement: &Placement, request: &Request) {
        self.claim(&placement.node, placement.gpus, &request.resources);
    }

    /// As if that pod were gone. Tells whether there is such a pod; a second time changes nothing.
    pub fn remove(&mut self, id: &OccupantId) -> bool {
        let Some(occupant) = self.fleet.occupant(id) else { return false };
        if self.without.insert(id.clone()) {
            self.nodes.entry(occupant.node.clone()).or_default().less.add(&occupant.taken());
        }
        true
    }

    /// As if that claim had not been assumed. Tells whether it is; a second time changes nothing.
    pub fn remove_assumed(&mut self, key: &PodKey) -> bool {
        let Some(assumed) = self.fleet.assumption(key) else { return false };
        if self.without_assumed.insert(key.clone()) {
            self.nodes.entry(assumed.node.clone()).or_default().less.add(&assumed.taken());
        }
        true
    }

    /// What is free on a node, as [`Fleet::free`].
    pub fn free(&self, name: &NodeName) -> Free {
        self.fleet.node(name).map_or_else(Free::default, |node| {
            self.changed(node, self.fleet.taken(name)).free(node)
        })
    }

    fn changed(&self, node: &Node, mut taken: Taken) -> Taken {
        if let Some(Difference { more, less }) = self.nodes.get(&node.name) {
            taken.add(more);
            taken.sub(less);
        }
        taken
    }
}

impl View for Overlay<'_> {
    fn states(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.fleet
            .states()
            .map(|(node, taken)| NodeState { node, taken: self.changed(node, *taken) })
    }
}
