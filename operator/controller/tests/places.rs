//! Where the first pod of a revision goes, and what is said when it goes nowhere.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use berth_crds::llm_deployment::Placement;
use berth_operator::{
    reconcile::{
        placing::{Misfit, Placed, Terms, place_first},
        reason::Reason,
        report::{misfit_message, misfit_reason},
        resolve::resolve,
    },
    world::pod::Replica,
};
use berth_planner::{Claim, DeploymentId, Fleet, NodeName, Overlay, Owner, PodKey};
use berth_units::Bytes;
use common::{defaults, deployment, fleet, need, node, occupy, replica, site};
use serde_json::{Value, json};

const H100: Bytes = Bytes::mib(81_559);

fn place(fleet: &Fleet, spec: Value) -> Result<Placed, Box<Misfit>> {
    let wish = resolve(&deployment(spec), &defaults(), None).unwrap();
    let site = site();
    let terms = Terms::new("team", &site, &Placement::default(), BTreeMap::new());
    place_first(&Overlay::new(fleet), &wish, &need(), &terms)
}

#[test]
fn the_fewest_gpus_and_then_the_best_fit() {
    let fleet = fleet([
        node("big", "NVIDIA-H200", 8, Bytes::mib(143_771)),
        node("mid", "NVIDIA-H100-80GB-HBM3", 8, H100),
        node("small", "NVIDIA-GeForce-RTX-4090", 2, Bytes::mib(24_564)),
    ]);
    let placed = place(&fleet, json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}})).unwrap();
    assert_eq!(placed.placement.node, NodeName::from("small"));
    assert_eq!(placed.template.context_length, 32768);

    let seventy = json!({"model": {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct"}});
    let placed = place(&fleet, seventy).unwrap();
    assert_eq!(placed.placement.node, NodeName::from("big"));
    assert_eq!(placed.template.gpus, 2);
}

#[test]
fn more_gpus_that_are_free_are_better_than_waiting() {
    let mut fleet = fleet([
        node("big", "NVIDIA-H200", 2, Bytes::mib(143_771)),
        node("mid", "NVIDIA-H100-80GB-HBM3", 8, H100),
    ]);
    occupy(&mut fleet, "big", 2, Owner::Foreign);
    let seventy = json!({"model": {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct"}});
    let placed = place(&fleet, seventy).unwrap();
    assert_eq!((placed.placement.node.as_str(), placed.template.gpus), ("mid", 4));
}

#[test]
fn the_context_gives_way_only_where_no_node_could_ever_hold_it() {
    // 14 GiB of weights on one 24 GiB GPU: 32768 tokens with four sequences are too much.
    let spec = json!({
        "model": {"uri": "hf://mistralai/Mistral-7B-Instruct-v0.3"},
        "engine": {"maxConcurrency": 4},
        "gpu": {"count": 1},
    });
    let small = [node("small", "NVIDIA-GeForce-RTX-4090", 1, Bytes::mib(24_564))];
    let placed = place(&fleet(small.clone()), spec.clone()).unwrap();
    assert!(placed.template.context_length < 32768, "{}", placed.template.context_length);

    // With a large GPU in the cluster, though taken, it waits for the full context.
    let mut mixed =
        fleet(small.into_iter().chain([node("big", "NVIDIA-H200", 1, Bytes::mib(143_771))]));
    occupy(&mut mixed, "big", 1, Owner::Foreign);
    let misfit = place(&mixed, spec).unwrap_err();
    assert!(misfit.ever);
    assert_eq!(misfit_reason(&misfit), Reason::InsufficientVRAM);
}

#[test]
fn the_nearest_miss_is_named() {
    let mut fleet = fleet([
        node("gpu-1", "NVIDIA-H100-80GB-HBM3", 8, H100),
        node("gpu-2", "NVIDIA-H100-80GB-HBM3", 8, H100),
    ]);
    occupy(&mut fleet, "gpu-1", 6, Owner::Foreign);
    occupy(&mut fleet, "gpu-2", 5, Owner::Foreign);
    let spec = json!({
        "model": {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct"}, "gpu": {"count": 4},
    });
    let misfit = place(&fleet, spec).unwrap_err();
    let message = misfit_message(&misfit);
    assert!(message.contains("needs 4 GPUs with"), "{message}");
    assert!(message.contains("best is gpu-2 with 3"), "{message}");
}

#[test]
fn without_a_gpu_that_could_hold_it_the_largest_is_named() {
    let fleet = fleet([node("gpu-1", "NVIDIA-H100-80GB-HBM3", 8, H100)]);
    let spec = json!({"model": {"uri": "hf://meta-llama/Llama-3.1-405B-Instruct"}});
    let misfit = place(&fleet, spec).unwrap_err();
    assert!(!misfit.ever);
    assert_eq!(misfit_reason(&misfit), Reason::InsufficientVRAM);
    let message = misfit_message(&misfit);
    assert!(message.contains("needs 8 GPUs"), "{message}");
    assert!(message.contains("75.7 GiB usable"), "{message}");

    let none = common::fleet([]);
    let misfit =
        place(&none, json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}})).unwrap_err();
    assert_eq!(misfit_reason(&misfit), Reason::NoGPUNodes);
}

#[test]
fn on_a_full_fleet_a_new_revision_takes_the_place_of_the_old_one() {
    let mut fleet = fleet([node("gpu-1", "NVIDIA-H100-80GB-HBM3", 1, H100)]);
    let id = DeploymentId::new("team", "llm", "owner");
    let claim = Claim {
        deployment: id.clone(),
        replica: 0,
        revision: "old".to_owned(),
        vram_per_gpu: H100,
    };
    occupy(&mut fleet, "gpu-1", 1, Owner::Ours(claim));
    let name = "uid-gpu-1-1".to_owned();
    let old = Replica {
        key: PodKey::new("other", name.clone()),
        uid: name,
        deployment: id,
        ..replica("old", 0)
    };
    let spec = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    let wish = resolve(&deployment(spec), &defaults(), None).unwrap();
    let mut need = need();
    need.replaces = Some(Arc::new(old));
    let site = site();
    let terms = Terms::new("team", &site, &Placement::default(), BTreeMap::new());
    let placed = place_first(&Overlay::new(&fleet), &wish, &need, &terms).unwrap();
    assert!(placed.in_place);
    assert_eq!(placed.placement.node, NodeName::from("gpu-1"));
}
