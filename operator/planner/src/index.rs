//! Nodes by what is free on them, so that equal ones are answered once.
//!
//! Pure. Nodes of one kind whose rooms look the same to the policy lie in one bucket. For each
//! demand that comes again and again there is a ranking of the buckets by cost, made once and then
//! only told of buckets that were empty and are no longer; a decision is the head of that ranking.
//! So its time depends on how many different rooms there are and how often that changes, not on how
//! many nodes there are.
//!
//! The answer is that of a full scan: the least cost, then what the policy says of ties, then the
//! first name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use berth_units::{Bytes, MilliCpu};

use crate::{
    policy::{Alike, Cost, Policy, Step},
    room::{Demand, Kind, Room},
};

/// Rankings that are kept, one for each demand and kind; beyond, those least recently used go.
const RANKINGS: usize = 128;

/// A kind of node in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId(u32);

type BucketId = u32;

/// The nodes, named by `N`.
pub struct Index<N> {
    policy: Box<dyn Policy>,
    kinds: Vec<Kind>,
    kind_ids: HashMap<(Kind, u32), KindId>,
    nodes: BTreeMap<N, Lying>,
    buckets: Vec<Bucket<N>>,
    bucket_ids: HashMap<(KindId, Room), BucketId>,
    /// Buckets that were empty and are no longer, by kind, in the order in which that happened.
    filled: Vec<Vec<BucketId>>,
    rankings: HashMap<Demand, Ranking>,
    /// Grows with every decision, to tell which rankings were used last.
    clock: u64,
}

/// Where a node is.
struct Lying {
    bucket: BucketId,
    cpu: MilliCpu,
    memory: Bytes,
}

/// Nodes that look equal.
struct Bucket<N> {
    kind: KindId,
    room: Room,
    members: BTreeSet<(MilliCpu, Bytes, N)>,
}

/// The buckets for one demand.
#[derive(Default)]
struct Ranking {
    used: u64,
    kinds: Vec<KindRanking>,
}

/// The buckets of one kind for one demand. Some may be empty meanwhile.
#[derive(Default)]
struct KindRanking {
    order: BTreeSet<(Cost, BucketId)>,
    listed: Listed,
    /// How much of [`Index::filled`] is in it.
    caught_up: usize,
}

/// A set of small numbers.
#[derive(Default)]
struct Listed(Vec<u64>);

impl Listed {
    /// Tells whether it was not there.
    fn insert(&mut self, id: BucketId) -> bool {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn remove(&mut self, id: BucketId) {
        if let Some(word) = self.0.get_mut(id as usize / 64) {
            *word &= !(1 << (id % 64));
        }
    }
}

/// The best node. In the order of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found<N> {
    /// What the step costs.
    pub cost: Cost,
    /// CPU and memory free on the node, if the policy goes by it.
    pub tie: (MilliCpu, Bytes),
    /// The node.
    pub node: N,
}

impl<N: Ord + Clone> Index<N> {
    /// Without nodes.
    pub fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy,
            kinds: Vec::new(),
            kind_ids: HashMap::new(),
            nodes: BTreeMap::new(),
            buckets: Vec::new(),
            bucket_ids: HashMap::new(),
            filled: Vec::new(),
            rankings: HashMap::new(),
            clock: 0,
        }
    }

    /// The number of a kind. Nodes of one kind that a request may tell apart by something else (a
    /// label, say) are of several classes.
    pub fn kind(&mut self, kind: &Kind, class: u32) -> KindId {
        let next = KindId(u32::try_from(self.kinds.len()).unwrap_or(u32::MAX));
        let id = *self.kind_ids.entry((kind.clone(), class)).or_insert(next);
        if id == next {
            self.kinds.push(kind.clone());
            self.filled.push(Vec::new());
        }
        id
    }

    /// The kinds there were, with their numbers.
    pub fn kinds(&self) -> impl Iterator<Item = (KindId, &Kind)> {
        (0..).map(KindId).zip(&self.kinds)
    }

    /// A node is there, with that room.
    pub fn put(&mut self, node: &N, kind: KindId, room: &Room) {
        let look = self.policy.look(&self.kinds[kind.0 as usize], room);
        let bucket = self.bucket(kind, look);
        let lying = Lying { bucket, cpu: room.cpu, memory: room.memory };
        if let Some(before) = self.nodes.get_mut(node) {
            let before = mem::replace(before, lying);
            let place = (before.cpu, before.memory, node.clone());
            self.buckets[before.bucket as usize].members.remove(&place);
        } else {
            self.nodes.insert(node.clone(), lying);
        }
        let members = &mut self.buckets[bucket as usize].members;
        if members.is_empty() {
            self.filled[kind.0 as usize].push(bucket);
        }
        members.insert((room.cpu, room.memory, node.clone()));
    }

    /// A node is gone.
    pub fn remove(&mut self, node: &N) {
        if let Some(Lying { bucket, cpu, memory }) = self.nodes.remove(node) {
            self.buckets[bucket as usize].members.remove(&(cpu, memory, node.clone()));
        }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A demand arrives: policies learn from it.
    pub fn arrives(&mut self, demand: &Demand) {
        if self.policy.arrives(demand) {
            let Self { policy, kinds, buckets, .. } = self;
            let filled = buckets.iter().filter(|bucket| !bucket.members.is_empty());
            policy.learn(&mut filled.map(|bucket| Alike {
                kind: &kinds[bucket.kind.0 as usize],
                number: bucket.kind.0,
                room: &bucket.room,
                nodes: bucket.members.len(),
            }));
            self.rankings.clear();
            self.sweep();
        }
    }

    /// Forgets buckets that are empty. No ranking may know them.
    fn sweep(&mut self) {
        self.bucket_ids.clear();
        self.filled.iter_mut().for_each(Vec::clear);
        let buckets = mem::take(&mut self.buckets);
        for bucket in buckets.into_iter().filter(|bucket| !bucket.members.is_empty()) {
            let id = BucketId::try_from(self.buckets.len()).unwrap_or(BucketId::MAX);
            for (.., node) in &bucket.members {
                if let Some(lying) = self.nodes.get_mut(node) {
                    lying.bucket = id;
                }
            }
            self.bucket_ids.insert((bucket.kind, bucket.room.clone()), id);
            self.filled[bucket.kind.0 as usize].push(id);
            self.buckets.push(bucket);
        }
    }

    /// What a step on one node costs, if its room lets it; for nodes that are not as the index has
    /// them.
    pub fn cost(&mut self, kind: KindId, room: &Room, demand: &Demand) -> Option<Cost> {
        let look = self.policy.look(&self.kinds[kind.0 as usize], room);
        step(self.policy.as_mut(), (kind, &self.kinds[kind.0 as usize]), &look, demand, 1)
    }

    /// The best node for a demand of those kinds, if `fits` lets it.
    pub fn best(
        &mut self,
        demand: &Demand,
        kinds: impl IntoIterator<Item = KindId>,
        fits: impl Fn(&N) -> bool,
    ) -> Option<Found<N>> {
        self.clock += 1;
        let mut ranking = self.rankings.remove(demand).unwrap_or_default();
        self.forget();
        ranking.used = self.clock;
        ranking.kinds.resize_with(self.kinds.len(), KindRanking::default);
        let mut best: Option<Found<N>> = None;
        for kind in kinds {
            if !self.kinds[kind.0 as usize].serves(demand) {
                continue;
            }
            let ranking = &mut ranking.kinds[kind.0 as usize];
            self.catch_up(ranking, kind, demand);
            best = self.head(ranking, &fits, best);
        }
        self.rankings.insert(demand.clone(), ranking);
        best
    }

    /// The best node for a demand, of whatever kind.
    pub fn best_of_all(&mut self, demand: &Demand, fits: impl Fn(&N) -> bool) -> Option<Found<N>> {
        let kinds = (0..).map(KindId).take(self.kinds.len());
        self.best(demand, kinds, fits)
    }

    /// What is left of a room once it has taken a demand, from the GPU that the policy likes best.
    pub fn take(&mut self, kind: KindId, room: &Room, demand: &Demand) -> Option<Room> {
        let (number, kind) = (kind.0, &self.kinds[kind.0 as usize]);
        let before = self.policy.look(kind, room);
        let afters = room.afters(kind, demand).into_iter();
        afters.min_by_key(|after| {
            let step = Step { kind, number, before: &before, after, demand, equals: 1 };
            self.policy.cost(step)
        })
    }

    fn bucket(&mut self, kind: KindId, room: Room) -> BucketId {
        let next = BucketId::try_from(self.buckets.len()).unwrap_or(BucketId::MAX);
        match self.bucket_ids.entry((kind, room)) {
            std::collections::hash_map::Entry::Occupied(entry) => *entry.get(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let room = entry.key().1.clone();
                entry.insert(next);
                self.buckets.push(Bucket { kind, room, members: BTreeSet::new() });
                next
            }
        }
    }

    /// Takes in the buckets that were filled since it last did.
    fn catch_up(&mut self, ranking: &mut KindRanking, kind: KindId, demand: &Demand) {
        let filled = &self.filled[kind.0 as usize];
        for &id in &filled[ranking.caught_up..] {
            let bucket = &self.buckets[id as usize];
            if bucket.members.is_empty() || !ranking.listed.insert(id) {
                continue;
            }
            let equals = bucket.members.len();
            let of = (kind, &self.kinds[kind.0 as usize]);
            let cost = step(self.policy.as_mut(), of, &bucket.room, demand, equals);
            if let Some(cost) = cost {
                ranking.order.insert((cost, id));
            } else if self.policy.most(of.1, &bucket.room).fits(of.1, demand) {
                // Some of these nodes may have a little more than it looks: tried last.
                ranking.order.insert((Cost(i64::MAX), id));
            }
        }
        ranking.caught_up = filled.len();
    }

    /// The best of one ranking and what was best before. Buckets found empty leave the ranking.
    fn head(
        &self,
        ranking: &mut KindRanking,
        fits: &impl Fn(&N) -> bool,
        mut best: Option<Found<N>>,
    ) -> Option<Found<N>> {
        let (mut empty, fullest_first) = (Vec::new(), self.policy.fullest_first());
        for &(cost, id) in &ranking.order {
            if best.as_ref().is_some_and(|best| cost > best.cost) {
                break;
            }
            let members = &self.buckets[id as usize].members;
            if members.is_empty() {
                empty.push((cost, id));
                continue;
            }
            let Some((cpu, memory, node)) = members.iter().find(|(.., node)| fits(node)) else {
                continue;
            };
            let tie = if fullest_first { (*cpu, *memory) } else { Default::default() };
            if best.as_ref().is_none_or(|b| (cost, tie, node) < (b.cost, b.tie, &b.node)) {
                best = Some(Found { cost, tie, node: node.clone() });
            }
        }
        for entry in empty {
            ranking.order.remove(&entry);
            ranking.listed.remove(entry.1);
        }
        best
    }

    /// Makes room for one more ranking.
    fn forget(&mut self) {
        if self.rankings.len() >= RANKINGS
            && let Some(oldest) =
                self.rankings.iter().min_by_key(|(_, ranking)| ranking.used).map(|(d, _)| d.clone())
        {
            self.rankings.remove(&oldest);
        }
    }
}

/// The least cost of a step, over the GPUs that can be taken from.
fn step(
    policy: &mut dyn Policy,
    (number, kind): (KindId, &Kind),
    room: &Room,
    demand: &Demand,
    equals: usize,
) -> Option<Cost> {
    let afters = room.afters(kind, demand);
    let costs = afters.into_iter().map(|after| {
        policy.cost(Step { kind, number: number.0, before: room, after: &after, demand, equals })
    });
    costs.min()
}
