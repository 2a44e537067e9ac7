//! What several tests are made from.

#![allow(dead_code, missing_docs, reason = "each test takes what it needs")]

use std::collections::BTreeMap;

use berth_crds::LLMDeployment;
use berth_operator::{
    reconcile::{intend::Need, resolve::Defaults},
    world::pod::{Learnt, Progress, Replica},
};
use berth_planner::{
    DeploymentId, Fleet, Gpus, Node, NodeName, Occupant, OccupantId, Owner, PodKey, Resources,
    Vendor,
};
use berth_render::{Site, vendor::GpuResources};
use berth_units::{Bytes, MilliCpu};
use serde_json::{Value, json};

pub fn defaults() -> Defaults {
    Defaults {
        catalogue: berth_vram::catalogue().clone(),
        images: BTreeMap::new(),
        runtime_classes: BTreeMap::new(),
    }
}

/// A cluster whose nodes keep no models.
pub fn site() -> Site {
    Site {
        gpu_resources: GpuResources::default(),
        fetch_image: "berth-fetch:test".to_owned(),
        hub: None,
        hub_ca: None,
        offline: false,
        cache: None,
    }
}

/// A deployment named `llm` in namespace `team` with that spec.
pub fn deployment(spec: impl Into<Value>) -> LLMDeployment {
    let spec: Value = spec.into();
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "llm", "namespace": "team", "uid": "owner", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

/// A node with GPUs of a product.
pub fn node(name: &str, product: &str, count: u32, vram: Bytes) -> Node {
    let vendor = if product.starts_with("AMD") { Vendor::Amd } else { Vendor::Nvidia };
    Node {
        name: NodeName::from(name),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        ready: true,
        cordoned: false,
        gpus: Some(Gpus {
            vendor,
            product: product.to_owned(),
            count,
            vram: Some(vram),
            unusable: None,
        }),
        allocatable: Resources {
            cpu: MilliCpu::cores(128),
            memory: Bytes::gib(2048),
            ephemeral_storage: Bytes::gib(8192),
            pods: 110,
        },
        cache: Bytes::ZERO,
    }
}

pub fn fleet(nodes: impl IntoIterator<Item = Node>) -> Fleet {
    let mut fleet = Fleet::new();
    nodes.into_iter().for_each(|node| fleet.upsert_node(node));
    fleet
}

/// Has somebody hold GPUs of a node.
pub fn occupy(fleet: &mut Fleet, node: &str, gpus: u32, owner: Owner) {
    let uid = format!("uid-{node}-{gpus}");
    fleet.upsert_occupant(Occupant {
        id: OccupantId::from(uid.as_str()),
        pod: PodKey::new("other", uid.as_str()),
        node: NodeName::from(node),
        gpus,
        resources: Resources::default(),
        cache: None,
        owner,
    });
}

/// A replica of [`deployment`] that answers: the first attempt, on one H100 of `gpu-1`.
pub fn replica(revision: &str, replica: u32) -> Replica {
    let name = format!("llm-{revision}-{replica}-0-0");
    Replica {
        key: PodKey::new("team", name.clone()),
        uid: name,
        deployment: DeploymentId::new("team", "llm", "owner"),
        revision: revision.to_owned(),
        replica,
        attempt: 0,
        node: NodeName::from("gpu-1"),
        claim: berth_render::Claim {
            gpus: 1,
            bytes_per_gpu: Bytes::gib(75),
            total_per_gpu: Bytes::ZERO,
            product: "H100".to_owned(),
            cache: None,
        },
        replaces: None,
        progress: Progress::Ready { since: 0 },
        address: None,
        restarts: 0,
        deleting: false,
        gone_by: None,
        created: 0,
        learnt: Learnt::default(),
    }
}

/// The first attempt at replica 0.
pub fn need() -> Need {
    Need {
        replica: 0,
        attempt: 0,
        revision: None,
        replaces: None,
        in_place: true,
        avoid: BTreeMap::new(),
    }
}
