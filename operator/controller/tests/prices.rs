//! What a deployment costs, from its own nodes: the same as in the bill of everything.

mod common;

use std::sync::Arc;

use berth_crds::CostProfile;
use berth_operator::{prices::PriceBook, world::World};
use berth_planner::DeploymentId;
use berth_units::Bytes;
use common::node;
use futures::channel::mpsc;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Products of the nodes, by the node's number: two currencies, and one that nobody prices.
const PRODUCTS: [&str; 4] = ["H100", "H100", "L40S", "A2"];

fn profile(name: &str, currency: &str, product: &str, per_hour: &str) -> Arc<CostProfile> {
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "CostProfile", "metadata": {"name": name},
        "spec": {"currency": currency, "hardware": [
            {"name": "node", "products": [product], "rented": {"perHour": per_hour}},
        ]},
    });
    Arc::new(serde_json::from_value(profile).unwrap())
}

fn book() -> PriceBook {
    PriceBook::new([profile("a", "EUR", "H100", "10"), profile("b", "USD", "L40S", "7.001")])
}

fn world() -> World {
    let (triggers, _) = mpsc::unbounded();
    let world = World::new(triggers);
    for (number, product) in PRODUCTS.iter().enumerate() {
        let node = node(&format!("gpu-{number}"), product, 8, Bytes::gib(40));
        world.lock().fleet.upsert_node(node);
    }
    world
}

/// A deployment, by its number.
fn id(number: usize) -> DeploymentId {
    DeploymentId::new("team", format!("llm-{number}"), format!("owner-{number}"))
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Unbound,
    Loading,
    Ready,
    Deleting,
    Ended,
}

#[derive(Clone, Debug)]
struct Held {
    /// Nobody's: a pod of somebody else.
    by: Option<usize>,
    node: usize,
    gpus: u32,
    phase: Phase,
}

fn pod(number: usize, held: &Held) -> Pod {
    let node = format!("gpu-{}", held.node);
    let mut metadata = json!({
        "name": format!("pod-{number}"), "namespace": "team", "uid": format!("uid-{number}"),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    if let Some(by) = held.by {
        let id = id(by);
        let claim = json!({"gpus": held.gpus, "bytesPerGpu": 1, "product": PRODUCTS[held.node]});
        let attempt = u32::try_from(number).unwrap();
        metadata["name"] = json!(berth_render::pod_name(&id.name, "abc", 0, 0, attempt));
        metadata["annotations"] = json!({"berth.dev/claim": claim.to_string()});
        metadata["labels"] = json!({
            "berth.dev/revision": "abc", "berth.dev/replica": "0", "berth.dev/rank": "0",
            "berth.dev/attempt": number.to_string(),
        });
        metadata["ownerReferences"] = json!([{
            "apiVersion": "berth.dev/v1alpha1", "kind": "LLMDeployment", "name": id.name,
            "uid": id.uid, "controller": true,
        }]);
    }
    if matches!(held.phase, Phase::Deleting) {
        metadata["deletionTimestamp"] = json!("2026-01-01T01:00:00Z");
    }
    let gpus = json!({"nvidia.com/gpu": held.gpus.to_string()});
    let mut spec = json!({
        "containers": [{"name": "engine", "resources": {"limits": gpus}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node]},
            ]}],
        }}},
    });
    if !matches!(held.phase, Phase::Unbound) {
        spec["nodeName"] = json!(node);
    }
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status: Value = match held.phase {
        Phase::Unbound | Phase::Loading => json!({"phase": "Pending"}),
        Phase::Ready | Phase::Deleting => json!({"phase": "Running", "conditions": ready}),
        Phase::Ended => json!({"phase": "Failed"}),
    };
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

fn filled(pods: &[Held]) -> World {
    let world = world();
    for (number, held) in pods.iter().enumerate() {
        world.saw_pod(&pod(number, held));
    }
    world
}

#[test]
fn a_deployment_costs_its_part_of_its_nodes() {
    let held = |by, node, gpus, phase| Held { by, node, gpus, phase };
    let world = filled(&[
        held(Some(0), 0, 4, Phase::Ready),
        held(Some(0), 2, 2, Phase::Loading),
        held(Some(1), 0, 2, Phase::Ready),
        held(Some(1), 3, 1, Phase::Ready),
        held(Some(2), 1, 8, Phase::Unbound),
        held(None, 0, 2, Phase::Ready),
    ]);
    let state = world.lock();
    let hourly = |number| book().hourly(&state, &id(number));
    assert_eq!(hourly(0), Some(("5.00 EUR + 1.75 USD".to_owned(), true)));
    assert_eq!(hourly(1), Some(("2.50 EUR".to_owned(), false)), "a GPU of it has no price");
    assert_eq!(hourly(2), None, "charged from the moment its pod is bound");
    assert_eq!(hourly(3), None, "nobody");
}

proptest! {
    #[test]
    fn its_own_nodes_say_what_the_whole_bill_says(pods in prop::collection::vec(
        (prop::option::weighted(0.8, 0..4_usize), 0..PRODUCTS.len(), 1..5_u32, prop_oneof![
            Just(Phase::Unbound), Just(Phase::Loading), Just(Phase::Ready), Just(Phase::Deleting),
            Just(Phase::Ended),
        ]).prop_map(|(by, node, gpus, phase)| Held { by, node, gpus, phase }),
        0..16,
    )) {
        let world = filled(&pods);
        let state = world.lock();
        let bills = book().bills(&state);
        for number in 0..4 {
            let id = id(number);
            let pods = state.replicas_of(&id.uid);
            let gpus = pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.claim.gpus).sum();
            let whole = bills.hourly(&id.namespace, &id.name, gpus);
            prop_assert_eq!(book().hourly(&state, &id), whole);
        }
    }
}
