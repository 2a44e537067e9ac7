//! The ledger against a model that counts everything anew.

use std::collections::{BTreeMap, BTreeSet};

use berth_planner::{
    Assumed, Fleet, Node, Occupant, OccupantId, Owner, PodKey, Resources, Violation,
};
use berth_units::{Bytes, MilliCpu};
use proptest::{prelude::*, sample::Index};

use crate::fixtures::{claim, key, name, node, request};

const NODES: u32 = 4;
const PODS: u32 = 6;

#[derive(Clone, Debug)]
enum Event {
    Node { node: u32, gpus: u32, cordoned: bool },
    NodeGone { node: u32 },
    Pod { pod: u32, life: u32, node: u32, gpus: u32, cpu: u64, ours: bool },
    PodGone { pod: u32, life: u32 },
    Assume { pod: u32, node: u32, gpus: u32 },
    Confirm { pod: u32, life: u32, node: u32, gpus: u32 },
    Release { pod: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    let cpu = prop_oneof![8 => 0..9000_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        (0..NODES, 0..9_u32, any::<bool>()).prop_map(|(node, gpus, cordoned)| Event::Node {
            node,
            gpus,
            cordoned
        }),
        (0..NODES).prop_map(|node| Event::NodeGone { node }),
        (0..PODS, 0..2_u32, 0..NODES, 0..5_u32, cpu, any::<bool>()).prop_map(
            |(pod, life, node, gpus, cpu, ours)| Event::Pod { pod, life, node, gpus, cpu, ours }
        ),
        (0..PODS, 0..2_u32).prop_map(|(pod, life)| Event::PodGone { pod, life }),
        (0..PODS, 0..NODES, 0..5_u32).prop_map(|(pod, node, gpus)| Event::Assume {
            pod,
            node,
            gpus
        }),
        (0..PODS, 0..2_u32, 0..NODES, 0..5_u32)
            .prop_map(|(pod, life, node, gpus)| Event::Confirm { pod, life, node, gpus }),
        (0..PODS).prop_map(|pod| Event::Release { pod }),
    ]
}

fn node_name(index: u32) -> String {
    format!("gpu-{index}")
}

fn pod_key(index: u32) -> PodKey {
    key(&format!("pod-{index}"))
}

fn id(pod: u32, life: u32) -> OccupantId {
    format!("pod-{pod}-life-{life}").into()
}

fn occupant(pod: u32, life: u32, node: u32, gpus: u32, cpu: u64, ours: bool) -> Occupant {
    Occupant {
        id: id(pod, life),
        pod: pod_key(pod),
        node: node_name(node).as_str().into(),
        gpus,
        resources: Resources::of_pod(MilliCpu(cpu), Bytes::gib(1), Bytes::ZERO),
        cache: None,
        owner: if ours { Owner::Ours(claim("model")) } else { Owner::Foreign },
    }
}

fn assumed(pod: u32, node: u32, gpus: u32) -> Assumed {
    Assumed {
        key: pod_key(pod),
        node: node_name(node).as_str().into(),
        gpus,
        resources: Resources::of_pod(MilliCpu(500), Bytes::gib(1), Bytes::ZERO),
        cache: None,
        claim: claim("model"),
    }
}

/// What must be true, kept in the plainest way.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u32, Node>,
    pods: BTreeMap<u32, Occupant>,
    assumed: BTreeMap<u32, Assumed>,
}

fn apply(event: &Event, fleet: &mut Fleet, model: &mut Model) {
    match *event {
        Event::Node { node: index, gpus, cordoned } => {
            let node = Node { cordoned, ..node(&node_name(index), gpus, 80) };
            fleet.upsert_node(node.clone());
            model.nodes.insert(index, node);
        }
        Event::NodeGone { node } => {
            fleet.remove_node(&name(&node_name(node)));
            model.nodes.remove(&node);
        }
        Event::Pod { pod, life, node, gpus, cpu, ours } => {
            let occupant = occupant(pod, life, node, gpus, cpu, ours);
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
        Event::Assume { pod, node, gpus } => {
            let assumed = assumed(pod, node, gpus);
            let accepted = fleet.assume(assumed.clone()).is_ok();
            assert_eq!(accepted, !model.pods.contains_key(&pod));
            if accepted {
                model.assumed.insert(pod, assumed);
            }
        }
        Event::Confirm { pod, life, node, gpus } => {
            let occupant = occupant(pod, life, node, gpus, 500, true);
            fleet.confirm(&pod_key(pod), occupant.clone());
            model.assumed.remove(&pod);
            model.pods.insert(pod, occupant);
        }
        Event::Release { pod } => {
            fleet.release(&pod_key(pod));
            model.assumed.remove(&pod);
        }
    }
}

fn agree(fleet: &Fleet, model: &Model) {
    for index in 0..NODES {
        let on = name(&node_name(index));
        let pods = model.pods.values().filter(|pod| pod.node == on);
        let assumed = model.assumed.values().filter(|pod| pod.node == on);
        let held: Vec<(u32, Resources)> = pods
            .clone()
            .map(|pod| (pod.gpus, pod.resources))
            .chain(assumed.map(|pod| (pod.gpus, pod.resources)))
            .collect();
        let free = fleet.free(&on);
        let there = model.nodes.get(&index);
        let gpus = there.map_or(0, |node| node.gpus.as_ref().unwrap().count);
        assert_eq!(free.gpus, gpus.saturating_sub(held.iter().map(|(gpus, _)| gpus).sum()));
        let cpu = there.map_or(0, |node| node.allocatable.cpu.get());
        let cpu_held = held.iter().fold(0_u64, |sum, (_, more)| sum.saturating_add(more.cpu.get()));
        assert_eq!(free.resources.cpu.get(), cpu.saturating_sub(cpu_held));
        let pods: BTreeSet<_> = pods.map(|pod| &pod.id).collect();
        assert_eq!(fleet.occupants_of(&on).map(|pod| &pod.id).collect::<BTreeSet<_>>(), pods);
    }
    for violation in fleet.check() {
        assert!(matches!(violation, Violation::OverCommitted { .. }), "{violation}");
    }
}

type Step<'a> = Box<dyn Fn(&mut Fleet) + 'a>;

fn rebuilt(model: &Model, order: &[Index]) -> Fleet {
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
    let mut fleet = Fleet::new();
    for index in order {
        if !steps.is_empty() {
            steps.swap_remove(index.index(steps.len()))(&mut fleet);
        }
    }
    fleet
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_fresh_count_and_with_its_rebuild(
        events in prop::collection::vec(event(), 0..60),
        order in prop::collection::vec(any::<Index>(), 20),
    ) {
        let (mut fleet, mut model) = (Fleet::new(), Model::default());
        for event in &events {
            apply(event, &mut fleet, &mut model);
            agree(&fleet, &model);
            // Everything may come twice.
            let once = fleet.clone();
            apply(event, &mut fleet, &mut model);
            prop_assert_eq!(&fleet, &once);
            prop_assert_eq!(fleet.freed(), once.freed());
        }
        prop_assert_eq!(rebuilt(&model, &order), fleet);
    }

    #[test]
    fn what_was_refused_stays_refused_until_something_is_freed(
        events in prop::collection::vec(event(), 1..60),
        gpus in 1..6_u32,
    ) {
        let (mut fleet, mut model) = (Fleet::new(), Model::default());
        let request = request(gpus, 40);
        let mut refused_at = None;
        for event in &events {
            apply(event, &mut fleet, &mut model);
            match berth_planner::place(&fleet, &request) {
                Ok(_) => {
                    prop_assert_ne!(refused_at, Some(fleet.freed()));
                    refused_at = None;
                }
                Err(_) => refused_at = Some(fleet.freed()),
            }
        }
    }
}
