//! Events as they come in any order, and the plainest model of what is true after them.

use std::collections::{BTreeMap, BTreeSet};

use berth_planner::{
    Assumed, CacheKey, Cached, Claim, DeploymentId, Fleet, Node, Occupant, OccupantId, Owner,
    PodKey, Resources,
};
use berth_units::{Bytes, MilliCpu};
use proptest::{option, prelude::*, sample::Index};

use crate::fixtures::{claim, entry, key, name, node};

pub const NODES: u32 = 4;
pub const PODS: u32 = 6;
/// Few, so that they meet.
const DEPLOYMENTS: u32 = 2;
const ENTRIES: u32 = 4;

/// An entry of a cache that a pod uses, and its GiB.
type Uses = Option<(u32, u64)>;

#[derive(Clone, Debug)]
pub enum Event {
    Node { node: u32, gpus: u32, cordoned: bool, cache: u64 },
    NodeGone { node: u32 },
    Pod { pod: u32, life: u32, node: u32, gpus: u32, cpu: u64, of: Option<u32>, uses: Uses },
    PodGone { pod: u32, life: u32 },
    Assume { pod: u32, node: u32, gpus: u32, of: u32, uses: Uses },
    Confirm { pod: u32, life: u32, node: u32, gpus: u32, of: u32, uses: Uses },
    Release { pod: u32 },
    Cached { node: u32, lying: BTreeMap<CacheKey, Cached> },
    Kept { of: u32, keys: BTreeSet<CacheKey> },
}

pub fn any_entry() -> impl Strategy<Value = CacheKey> {
    (0..ENTRIES).prop_map(entry_name)
}

/// What lies in a cache. Times repeat, so that names have to decide.
pub fn any_lying() -> impl Strategy<Value = BTreeMap<CacheKey, Cached>> {
    let gib = prop_oneof![20 => 0..9_u64, 1 => Just(u64::MAX)];
    let cached =
        (gib, 0..3_i64, prop::bool::weighted(0.2)).prop_map(|(gib, last_used, leaving)| Cached {
            bytes: Bytes::gib(gib),
            last_used,
            leaving,
            complete: !leaving,
        });
    prop::collection::btree_map(any_entry(), cached, 0..5)
}

pub fn event() -> impl Strategy<Value = Event> {
    let cpu = prop_oneof![8 => 0..9000_u64, 1 => Just(u64::MAX)];
    let uses = || option::of((0..ENTRIES, 0..9_u64));
    prop_oneof![
        (0..NODES, 0..9_u32, any::<bool>(), 0..20_u64).prop_map(|(node, gpus, cordoned, cache)| {
            Event::Node { node, gpus, cordoned, cache }
        }),
        (0..NODES).prop_map(|node| Event::NodeGone { node }),
        (0..PODS, 0..2_u32, 0..NODES, 0..5_u32, cpu, option::of(0..DEPLOYMENTS), uses()).prop_map(
            |(pod, life, node, gpus, cpu, of, uses)| {
                Event::Pod { pod, life, node, gpus, cpu, of, uses }
            }
        ),
        (0..PODS, 0..2_u32).prop_map(|(pod, life)| Event::PodGone { pod, life }),
        (0..PODS, 0..NODES, 0..5_u32, 0..DEPLOYMENTS, uses())
            .prop_map(|(pod, node, gpus, of, uses)| Event::Assume { pod, node, gpus, of, uses }),
        (0..PODS, 0..2_u32, 0..NODES, 0..5_u32, 0..DEPLOYMENTS, uses()).prop_map(
            |(pod, life, node, gpus, of, uses)| Event::Confirm { pod, life, node, gpus, of, uses }
        ),
        (0..PODS).prop_map(|pod| Event::Release { pod }),
        (0..NODES, any_lying()).prop_map(|(node, lying)| Event::Cached { node, lying }),
        (0..DEPLOYMENTS, prop::collection::btree_set(any_entry(), 0..3))
            .prop_map(|(of, keys)| Event::Kept { of, keys }),
    ]
}

pub fn node_name(index: u32) -> String {
    format!("gpu-{index}")
}

fn entry_name(index: u32) -> CacheKey {
    entry(&format!("model-{index}"))
}

pub fn deployment(index: u32) -> DeploymentId {
    claim_of(index).deployment
}

fn claim_of(index: u32) -> Claim {
    claim(&format!("llm-{index}"))
}

fn pod_key(index: u32) -> PodKey {
    key(&format!("pod-{index}"))
}

fn id(pod: u32, life: u32) -> OccupantId {
    format!("pod-{pod}-life-{life}").into()
}

fn held(uses: Uses) -> Option<(CacheKey, Bytes)> {
    uses.map(|(index, gib)| (entry_name(index), Bytes::gib(gib)))
}

/// What must be true, kept in the plainest way.
#[derive(Default)]
pub struct Model {
    pub nodes: BTreeMap<u32, Node>,
    pub pods: BTreeMap<u32, Occupant>,
    pub assumed: BTreeMap<u32, Assumed>,
    pub cached: BTreeMap<u32, BTreeMap<CacheKey, Cached>>,
    pub kept: BTreeMap<u32, BTreeSet<CacheKey>>,
}

pub fn apply(event: &Event, fleet: &mut Fleet, model: &mut Model) {
    match event.clone() {
        Event::Node { node: index, gpus, cordoned, cache } => {
            let node =
                Node { cordoned, cache: Bytes::gib(cache), ..node(&node_name(index), gpus, 80) };
            fleet.upsert_node(node.clone());
            model.nodes.insert(index, node);
        }
        Event::NodeGone { node } => {
            fleet.remove_node(&name(&node_name(node)));
            model.nodes.remove(&node);
        }
        Event::Pod { pod, life, node, gpus, cpu, of, uses } => {
            let occupant = Occupant {
                id: id(pod, life),
                pod: pod_key(pod),
                node: name(&node_name(node)),
                gpus,
                resources: Resources::of_pod(MilliCpu(cpu), Bytes::gib(1), Bytes::ZERO),
                cache: held(uses),
                owner: of.map_or(Owner::Foreign, |of| Owner::Ours(claim_of(of))),
            };
            fleet.upsert_occupant(occupant.clone());
            model.assumed.remove(&pod);
            model.pods.insert(pod, occupant);
        }
        Event::PodGone { pod, life } => {
            fleet.remove_occupant(&id(pod, life));
            if model.pods.get(&pod).is_some_and(|occupant| occupant.id == id(pod, life)) {
                model.pods.remove(&pod);
            }
        }
        Event::Assume { pod, node, gpus, of, uses } => {
            let assumed = Assumed {
                key: pod_key(pod),
                node: name(&node_name(node)),
                gpus,
                resources: Resources::of_pod(MilliCpu(500), Bytes::gib(1), Bytes::ZERO),
                cache: held(uses),
                claim: claim_of(of),
            };
            let accepted = fleet.assume(assumed.clone()).is_ok();
            assert_eq!(accepted, !model.pods.contains_key(&pod));
            if accepted {
                model.assumed.insert(pod, assumed);
            }
        }
        Event::Confirm { pod, life, node, gpus, of, uses } => {
            let occupant = Occupant {
                id: id(pod, life),
                pod: pod_key(pod),
                node: name(&node_name(node)),
                gpus,
                resources: Resources::of_pod(MilliCpu(500), Bytes::gib(1), Bytes::ZERO),
                cache: held(uses),
                owner: Owner::Ours(claim_of(of)),
            };
            fleet.confirm(&pod_key(pod), occupant.clone());
            model.assumed.remove(&pod);
            model.pods.insert(pod, occupant);
        }
        Event::Release { pod } => {
            fleet.release(&pod_key(pod));
            model.assumed.remove(&pod);
        }
        Event::Cached { node, lying } => {
            fleet.set_cached(&name(&node_name(node)), lying.clone());
            model.cached.insert(node, lying);
        }
        Event::Kept { of, keys } => {
            fleet.set_kept(&deployment(of), keys.clone());
            model.kept.insert(of, keys);
        }
    }
}

/// The fleet after those events, and what is true.
pub fn after(events: &[Event]) -> (Fleet, Model) {
    let (mut fleet, mut model) = (Fleet::new(), Model::default());
    for event in events {
        apply(event, &mut fleet, &mut model);
    }
    (fleet, model)
}

type Step<'a> = Box<dyn Fn(&mut Fleet) + 'a>;

/// Another fleet told what is true now, in the order given.
pub fn rebuilt(model: &Model, order: &[Index]) -> Fleet {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for node in model.nodes.values() {
        steps.push(Box::new(|fleet| fleet.upsert_node(node.clone())));
    }
    for pod in model.pods.values() {
        steps.push(Box::new(|fleet| fleet.upsert_occupant(pod.clone())));
    }
    for assumed in model.assumed.values() {
        steps.push(Box::new(|fleet| fleet.assume(assumed.clone()).unwrap()));
    }
    for (node, lying) in &model.cached {
        steps.push(Box::new(|fleet| fleet.set_cached(&name(&node_name(*node)), lying.clone())));
    }
    for (of, keys) in &model.kept {
        steps.push(Box::new(|fleet| fleet.set_kept(&deployment(*of), keys.clone())));
    }
    let mut fleet = Fleet::new();
    for index in order {
        if !steps.is_empty() {
            steps.swap_remove(index.index(steps.len()))(&mut fleet);
        }
    }
    assert!(steps.is_empty(), "the order is too short");
    fleet
}
