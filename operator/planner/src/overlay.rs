//! What-if: the fleet with some claims more and some pods less, without copying it.

use std::collections::{BTreeMap, BTreeSet};

use berth_units::Bytes;

use crate::{
    CacheKey, CacheNeed, DeploymentId, Fleet, Free, Node, NodeName, OccupantId, Placement, PodKey,
    Request, Resources, cache::shelf::Shelf, occupant::Taken,
};

/// What placement looks at: nodes, and what is taken on them.
pub trait View {
    /// Every node, in natural order of the names.
    fn states(&self) -> impl Iterator<Item = NodeState<'_>>;

    /// One of them.
    fn state(&self, name: &NodeName) -> Option<NodeState<'_>>;

    /// The ledger below.
    fn ledger(&self) -> &Fleet;

    /// The nodes that may differ from the ledger.
    fn changed(&self) -> impl Iterator<Item = &NodeName>;
}

/// A node, and what is taken on it.
#[derive(Clone, Copy, Debug)]
pub struct NodeState<'a> {
    /// The node.
    pub node: &'a Node,
    /// What is taken on it.
    pub taken: Taken,
    /// Its cache.
    pub(crate) shelf: &'a Shelf,
}

impl NodeState<'_> {
    /// What is free on it.
    pub fn free(&self) -> Free {
        self.taken.free(self.node)
    }
}

impl View for Fleet {
    fn states(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.states()
    }

    fn state(&self, name: &NodeName) -> Option<NodeState<'_>> {
        self.state(name)
    }

    fn ledger(&self) -> &Fleet {
        self
    }

    fn changed(&self) -> impl Iterator<Item = &NodeName> {
        std::iter::empty()
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
    /// The node's cache, once it differs.
    shelf: Option<Box<Shelf>>,
    /// Pods of deployments, come less gone.
    pods: BTreeMap<DeploymentId, i64>,
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

    /// As if a replica of ours used that entry of the cache of `node` too: what has to go for it
    /// leaves.
    pub fn claim_cache(&mut self, node: &NodeName, need: &CacheNeed) {
        let size = self.fleet.node(node).map(|node| node.cache).unwrap_or_default();
        self.shelf_mut(node).carry_out(need, size);
    }

    /// As if `placement` of `request` were carried out, evictions included.
    pub fn carry_out(&mut self, placement: &Placement, request: &Request) {
        self.claim(&placement.node, placement.gpus, &request.resources);
        if let Some(need) = &request.cache {
            self.claim_cache(&placement.node, need);
        }
    }

    /// As if `deployment` had one pod more on `node`: what it keeps is protected there. To be called
    /// beside [`Self::carry_out`], which does not know whose replica it places.
    pub fn keep_for(&mut self, node: &NodeName, deployment: &DeploymentId) {
        self.count(node, deployment, 1);
    }

    /// As if that pod were gone. Tells whether there is such a pod; a second time changes nothing.
    pub fn remove(&mut self, id: &OccupantId) -> bool {
        let Some(occupant) = self.fleet.occupant(id) else { return false };
        if self.without.insert(id.clone()) {
            let uses = occupant.cache.as_ref();
            self.take_out(&occupant.node, &occupant.taken(), uses, occupant.deployment());
        }
        true
    }

    /// As if that pod were about to make way for another on its node: gone, but for what it uses and
    /// keeps of the cache, as the other's model comes while it still runs. Tells whether there is
    /// such a pod; a second time changes nothing.
    pub fn vacate(&mut self, id: &OccupantId) -> bool {
        let Some(occupant) = self.fleet.occupant(id) else { return false };
        if self.without.insert(id.clone()) {
            self.take_out(&occupant.node, &occupant.taken(), None, None);
        }
        true
    }

    /// As if that claim had not been assumed. Tells whether it is; a second time changes nothing.
    pub fn remove_assumed(&mut self, key: &PodKey) -> bool {
        let Some(assumed) = self.fleet.assumption(key) else { return false };
        if self.without_assumed.insert(key.clone()) {
            let (uses, deployment) = (assumed.cache.as_ref(), Some(&assumed.claim.deployment));
            self.take_out(&assumed.node, &assumed.taken(), uses, deployment);
        }
        true
    }

    /// What is free on a node, as [`Fleet::free`].
    pub fn free(&self, name: &NodeName) -> Free {
        self.fleet.node(name).map_or_else(Free::default, |node| {
            changed(self.nodes.get(name), self.fleet.taken(name)).free(node)
        })
    }

    /// What has to go from a node's cache for `need`, as [`Fleet::evictions`]: to be asked before
    /// [`Self::carry_out`], which counts it as leaving.
    pub fn evictions(&self, name: &NodeName, need: &CacheNeed) -> Vec<CacheKey> {
        let difference = self.nodes.get(name).and_then(|difference| difference.shelf.as_deref());
        let size = self.fleet.node(name).map(|node| node.cache).unwrap_or_default();
        let cache = difference.or(self.fleet.shelf(name));
        cache.map(|shelf| shelf.evictions(need, size)).unwrap_or_default()
    }

    fn take_out(
        &mut self,
        node: &NodeName,
        held: &Taken,
        uses: Option<&(CacheKey, Bytes)>,
        deployment: Option<&DeploymentId>,
    ) {
        self.nodes.entry(node.clone()).or_default().less.add(held);
        if let Some((key, bytes)) = uses {
            self.shelf_mut(node).remove_user(key, *bytes);
        }
        if let Some(deployment) = deployment {
            self.count(node, deployment, -1);
        }
    }

    /// Counts a pod more or less of a deployment: with the first comes, with the last goes what it
    /// keeps.
    fn count(&mut self, node: &NodeName, deployment: &DeploymentId, more: i64) {
        let fleet = self.fleet;
        let kept = fleet.kept(deployment);
        if kept.is_empty() {
            return;
        }
        let pods = &mut self.nodes.entry(node.clone()).or_default().pods;
        let change = pods.entry(deployment.clone()).or_default();
        let before = i64::from(fleet.pods_of(deployment, node)) + *change;
        *change += more;
        if before == 0 {
            self.shelf_mut(node).add_kept(kept);
        } else if before + more == 0 {
            self.shelf_mut(node).remove_kept(kept);
        }
    }

    fn shelf_mut(&mut self, node: &NodeName) -> &mut Shelf {
        let fleet = self.fleet;
        let difference = self.nodes.entry(node.clone()).or_default();
        difference
            .shelf
            .get_or_insert_with(|| Box::new(fleet.shelf(node).cloned().unwrap_or_default()))
    }
}

impl View for Overlay<'_> {
    fn states(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.fleet.states().map(|state| self.over(state))
    }

    fn state(&self, name: &NodeName) -> Option<NodeState<'_>> {
        self.fleet.state(name).map(|state| self.over(state))
    }

    fn ledger(&self) -> &Fleet {
        self.fleet
    }

    fn changed(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }
}

impl Overlay<'_> {
    fn over<'b>(&'b self, NodeState { node, taken, shelf }: NodeState<'b>) -> NodeState<'b> {
        let difference = self.nodes.get(&node.name);
        NodeState {
            node,
            taken: changed(difference, taken),
            shelf: difference.and_then(|change| change.shelf.as_deref()).unwrap_or(shelf),
        }
    }
}

fn changed(difference: Option<&Difference>, mut taken: Taken) -> Taken {
    if let Some(Difference { more, less, .. }) = difference {
        taken.add(more);
        taken.sub(less);
    }
    taken
}
