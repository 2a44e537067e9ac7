//! Placement against a slow oracle, and the rules that hold for every placement.

use std::collections::BTreeMap;

use berth_planner::{
    Effect, Fleet, Gpus, Node, NodeName, Occupant, Overlay, Request, Resources, Strategy as Best,
    Taint, Toleration, Vendor, could_ever, place, usable,
};
use berth_units::{Bytes, MilliCpu};
use proptest::{option, prelude::*, sample::Index};

use crate::fixtures::{assumed, fleet, foreign, name, node, ours};

fn any_node() -> impl Strategy<Value = Node> {
    (
        0..9_u32,
        option::weighted(0.9, prop_oneof![Just(24_u64), Just(48), Just(80)]),
        any::<bool>(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        option::weighted(0.2, any::<bool>()),
        1..20_u64,
    )
        .prop_map(|(gpus, vram, amd, ready, cordoned, taint, cores)| {
            let mut node = node("", gpus, vram.unwrap_or_default());
            let offered = node.gpus.as_mut().unwrap();
            offered.vram = vram.map(Bytes::gib);
            offered.vendor = if amd { Vendor::Amd } else { Vendor::Nvidia };
            offered.product = format!("{}-{vram:?}", offered.vendor);
            node.gpus = node.gpus.filter(|offered| offered.count > 0);
            node.labels.insert("zone".to_owned(), if amd { "a" } else { "b" }.to_owned());
            node.ready = ready;
            node.cordoned = cordoned;
            node.taints.extend(taint.map(|hard| Taint {
                key: "team".to_owned(),
                value: String::new(),
                effect: if hard { Effect::NoExecute } else { Effect::PreferNoSchedule },
            }));
            node.allocatable.cpu = MilliCpu::cores(cores);
            node
        })
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    let pods = prop::collection::vec((any::<Index>(), 0..5_u32, any::<bool>(), 0..4_u64), 0..12);
    (prop::collection::vec(any_node(), 1..10), pods).prop_map(|(mut nodes, pods)| {
        for (index, node) in nodes.iter_mut().enumerate() {
            node.name = NodeName::from(format!("gpu-{index}"));
        }
        let mut fleet = fleet(nodes.clone());
        for (index, (at, gpus, mine, cores)) in pods.into_iter().enumerate() {
            let on = at.get(&nodes).name.as_str();
            let pod = format!("pod-{index}");
            let pod = if mine { ours(&pod, on, gpus) } else { foreign(&pod, on, gpus) };
            let resources = Resources::of_pod(MilliCpu::cores(cores), Bytes::gib(1), Bytes::gib(1));
            fleet.upsert_occupant(Occupant { resources, ..pod });
        }
        fleet
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    (
        (0..6_u32, 1..80_u64, 0..12_u64),
        option::weighted(0.2, any::<bool>()),
        option::weighted(0.2, any::<bool>()),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.5),
        option::weighted(0.3, 0..10_u32),
        any::<bool>(),
        prop::collection::btree_map(0..10_u32, 0..3_u32, 0..6),
        option::weighted(0.3, 1..80_u64),
    )
        .prop_map(
            |(
                (gpus, vram, cores),
                amd,
                zone,
                product,
                tolerant,
                avoid,
                spread,
                siblings,
                measured,
            )| {
                Request {
                    gpus,
                    vram_per_gpu: if gpus == 0 { Bytes::ZERO } else { Bytes::gib(vram) },
                    vram_on: measured
                        .map(|gib| (format!("{}-{:?}", Vendor::Nvidia, Some(80)), Bytes::gib(gib)))
                        .into_iter()
                        .collect(),
                    resources: Resources::of_pod(
                        MilliCpu::cores(cores),
                        Bytes::gib(1),
                        Bytes::gib(1),
                    ),
                    cache: None,
                    vendor: amd.map(|amd| if amd { Vendor::Amd } else { Vendor::Nvidia }),
                    products: if product { vec!["nvidia-some(80)".to_owned()] } else { Vec::new() },
                    node_selector: zone
                        .map(|a| ("zone".to_owned(), if a { "a" } else { "b" }.to_owned()))
                        .into_iter()
                        .collect(),
                    tolerations: if tolerant {
                        vec![Toleration { key: "team".to_owned(), ..Toleration::default() }]
                    } else {
                        Vec::new()
                    },
                    avoid: avoid
                        .map(|index| (name(&format!("gpu-{index}")), "why".to_owned()))
                        .into_iter()
                        .collect(),
                    strategy: if spread { Best::Spread } else { Best::Pack },
                    siblings: siblings
                        .into_iter()
                        .map(|(index, count)| (name(&format!("gpu-{index}")), count))
                        .collect(),
                }
            },
        )
}

/// What is free on a node, summed from its pods.
fn left(fleet: &Fleet, node: &Node) -> (i64, i64) {
    let mut gpus = node.gpus.as_ref().map_or(0, |gpus| i64::from(gpus.count));
    let mut cpu = i64::try_from(node.allocatable.cpu.get()).unwrap();
    for pod in fleet.occupants().filter(|pod| pod.node == node.name) {
        gpus -= i64::from(pod.gpus);
        cpu -= i64::try_from(pod.resources.cpu.get()).unwrap();
    }
    (gpus.max(0), cpu.max(0))
}

/// What each GPU of a product must have usable.
fn needed(gpus: &Gpus, request: &Request) -> Bytes {
    let known = request.vram_on.iter().find(|(product, _)| **product == gpus.product);
    known.map_or(request.vram_per_gpu, |(_, bytes)| *bytes)
}

/// Whether the request fits on the node: every condition spelled out, in no clever order.
fn fits(fleet: &Fleet, node: &Node, request: &Request) -> bool {
    let (gpus_left, cpu_left) = left(fleet, node);
    let gpus_good = request.gpus == 0
        || node.gpus.as_ref().is_some_and(|gpus| {
            gpus.vram.is_some_and(|vram| usable(vram) >= needed(gpus, request))
                && (request.vendor.is_none() || request.vendor == Some(gpus.vendor))
                && (request.products.is_empty()
                    || request.products[0].to_lowercase() == gpus.product.to_lowercase())
        });
    node.ready
        && !node.cordoned
        && !request.avoid.contains_key(&node.name)
        && request.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && (node.taints.iter().all(|taint| taint.effect == Effect::PreferNoSchedule)
            || !request.tolerations.is_empty())
        && gpus_good
        && gpus_left >= i64::from(request.gpus)
        && cpu_left >= i64::try_from(request.resources.cpu.get()).unwrap()
}

/// What is to be least, for a node that fits.
fn cost(node: &Node, request: &Request) -> (u32, u64) {
    let siblings = match request.strategy {
        Best::Pack => 0,
        Best::Spread => request.siblings.get(&node.name).copied().unwrap_or_default(),
    };
    let waste = match &node.gpus {
        Some(gpus) if request.gpus > 0 => {
            usable(gpus.vram.unwrap()).get() - needed(gpus, request).get()
        }
        Some(gpus) => gpus.vram.map(usable).unwrap_or_default().get(),
        None => 0,
    };
    (siblings, waste)
}

/// Every node as good as new: nothing taken, nothing passing in the way.
fn pristine(fleet: &Fleet) -> Fleet {
    crate::fixtures::fleet(fleet.nodes().map(|node| Node {
        ready: true,
        cordoned: false,
        ..node.clone()
    }))
}

#[derive(Clone, Debug)]
enum Step {
    Decide(u32),
    Seen(Index),
    Failed(Index),
    Ended(Index),
    Foreign(Index, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..9_u32).prop_map(Step::Decide),
        2 => any::<Index>().prop_map(Step::Seen),
        1 => any::<Index>().prop_map(Step::Failed),
        1 => any::<Index>().prop_map(Step::Ended),
        1 => (any::<Index>(), 1..9_u32).prop_map(|(at, gpus)| Step::Foreign(at, gpus)),
    ]
}

proptest! {
    #[test]
    fn the_oracle_agrees(fleet in any_fleet(), request in any_request()) {
        let fitting: Vec<&Node> =
            fleet.nodes().filter(|node| fits(&fleet, node, &request)).collect();
        match place(&fleet, &request) {
            Ok(placed) => {
                let chosen = fleet.node(&placed.node).unwrap();
                prop_assert!(fits(&fleet, chosen, &request), "{placed:#?}");
                let least = fitting.iter().map(|node| cost(node, &request)).min();
                prop_assert_eq!(Some(cost(chosen, &request)), least);
                prop_assert!(could_ever(&fleet, &request).is_ok());
            }
            Err(refusal) => {
                prop_assert!(fitting.is_empty(), "{refusal} {fitting:#?}");
                let nodes: u32 = refusal.reasons.iter().map(|group| group.nodes).sum();
                prop_assert_eq!(nodes as usize, fleet.nodes().count());
                prop_assert!(refusal.to_string().len() <= 600);
            }
        }
    }

    #[test]
    fn could_ever_is_placement_on_an_empty_healthy_fleet(
        fleet in any_fleet(),
        request in any_request(),
    ) {
        let anywhere = Request { avoid: BTreeMap::new(), ..request.clone() };
        prop_assert_eq!(
            could_ever(&fleet, &request).is_ok(),
            place(&pristine(&fleet), &anywhere).is_ok()
        );
    }

    #[test]
    fn an_overlay_is_as_good_as_a_changed_copy(
        fleet in any_fleet(),
        request in any_request(),
        gone in any::<Index>(),
        at in any::<Index>(),
        gpus in 0..4_u32,
    ) {
        let mut overlay = Overlay::new(&fleet);
        let mut copy = fleet.clone();
        let pods: Vec<_> = fleet.occupants().collect();
        if !pods.is_empty() {
            let id = &gone.get(&pods).id;
            overlay.remove(id);
            copy.remove_occupant(id);
        }
        let nodes: Vec<_> = fleet.nodes().collect();
        let on = &at.get(&nodes).name;
        overlay.claim(on, gpus, &Resources::default());
        copy.assume(assumed("extra", on.as_str(), gpus)).unwrap();
        prop_assert_eq!(place(&overlay, &request), place(&copy, &request));
        prop_assert_eq!(overlay.free(on), copy.free(on));
    }

    #[test]
    fn nothing_is_ever_over_committed(
        sizes in prop::collection::vec(1..9_u32, 1..5),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut fleet = fleet(
            sizes.iter().enumerate().map(|(index, gpus)| node(&format!("gpu-{index}"), *gpus, 80)),
        );
        for (number, step) in steps.into_iter().enumerate() {
            let pod = format!("pod-{number}");
            let pending: Vec<_> = fleet.assumed().cloned().collect();
            let running: Vec<_> = fleet.occupants().map(|pod| pod.id.clone()).collect();
            match step {
                Step::Decide(gpus) => {
                    if let Ok(placed) = place(&fleet, &crate::fixtures::request(gpus, 40)) {
                        fleet.assume(assumed(&pod, placed.node.as_str(), gpus)).unwrap();
                    }
                }
                Step::Seen(which) if !pending.is_empty() => {
                    let seen = which.get(&pending);
                    let pod = ours(&seen.key.name, seen.node.as_str(), seen.gpus);
                    fleet.upsert_occupant(pod);
                }
                Step::Failed(which) if !pending.is_empty() => {
                    fleet.release(&which.get(&pending).key);
                }
                Step::Ended(which) if !running.is_empty() => {
                    fleet.remove_occupant(which.get(&running));
                }
                // kube-scheduler binds only what fits.
                Step::Foreign(at, gpus) => {
                    let on = format!("gpu-{}", at.index(sizes.len()));
                    if fleet.free(&name(&on)).gpus >= gpus {
                        fleet.upsert_occupant(foreign(&pod, &on, gpus));
                    }
                }
                _ => {}
            }
            prop_assert_eq!(fleet.check(), []);
            // A copy works everything out anew.
            let request = crate::fixtures::request(2, 40);
            prop_assert_eq!(place(&fleet, &request), place(&fleet.clone(), &request));
        }
    }
}
