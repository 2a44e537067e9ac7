//! Nodes, pods and requests to try things with.

use std::collections::BTreeMap;

use berth_planner::{
    Assumed, CacheKey, CacheNeed, Cached, Claim, DeploymentId, Fleet, Gpus, Node, NodeName,
    Occupant, Owner, PodKey, Request, Resources, Vendor,
};
use berth_units::{Bytes, MilliCpu};

pub const PRODUCT: &str = "Test-GPU";

/// A node with GPUs of `vram` GiB each, and plenty of all else.
pub fn node(name: &str, gpus: u32, vram: u64) -> Node {
    Node {
        name: name.into(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        ready: true,
        cordoned: false,
        gpus: Some(Gpus {
            vendor: Vendor::Nvidia,
            product: PRODUCT.to_owned(),
            count: gpus,
            vram: Some(Bytes::gib(vram)),
            unusable: None,
        }),
        allocatable: Resources {
            cpu: MilliCpu::cores(64),
            memory: Bytes::gib(512),
            ephemeral_storage: Bytes::gib(1000),
            pods: 110,
        },
        cache: Bytes::ZERO,
    }
}

pub fn fleet(nodes: impl IntoIterator<Item = Node>) -> Fleet {
    let mut fleet = Fleet::new();
    for node in nodes {
        fleet.upsert_node(node);
    }
    fleet
}

pub fn request(gpus: u32, vram: u64) -> Request {
    Request {
        gpus,
        vram_per_gpu: Bytes::gib(vram),
        resources: Resources::of_pod(MilliCpu::cores(4), Bytes::gib(16), Bytes::gib(10)),
        ..Request::default()
    }
}

pub fn claim(deployment: &str) -> Claim {
    Claim {
        deployment: DeploymentId::new("default", deployment, format!("uid-of-{deployment}")),
        replica: 0,
        revision: "r1".to_owned(),
        vram_per_gpu: Bytes::gib(1),
    }
}

pub fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

/// A pod of ours that holds only GPUs.
pub fn ours(name: &str, node: &str, gpus: u32) -> Occupant {
    Occupant { owner: Owner::Ours(claim(name)), ..foreign(name, node, gpus) }
}

/// A pod of somebody else that holds only GPUs.
pub fn foreign(name: &str, node: &str, gpus: u32) -> Occupant {
    Occupant {
        id: format!("uid-of-{name}").into(),
        pod: key(name),
        node: node.into(),
        gpus,
        resources: Resources::default(),
        cache: None,
        owner: Owner::Foreign,
    }
}

pub fn assumed(name: &str, node: &str, gpus: u32) -> Assumed {
    Assumed {
        key: key(name),
        node: node.into(),
        gpus,
        resources: Resources::default(),
        cache: None,
        claim: claim(name),
    }
}

pub fn name(name: &str) -> NodeName {
    name.into()
}

/// A node as above with a cache of `cache` GiB.
pub fn caching(name: &str, cache: u64) -> Node {
    Node { cache: Bytes::gib(cache), ..node(name, 8, 80) }
}

/// What lies in a cache: name, GiB, when it was last used.
pub fn lying<const N: usize>(entries: [(&str, u64, i64); N]) -> BTreeMap<CacheKey, Cached> {
    let cached = |gib, last_used| Cached {
        bytes: Bytes::gib(gib),
        last_used,
        complete: true,
        leaving: false,
    };
    entries.into_iter().map(|(key, gib, at)| (entry(key), cached(gib, at))).collect()
}

pub fn entry(name: &str) -> CacheKey {
    format!("default/{name}").into()
}

pub fn need(key: &str, gib: u64) -> CacheNeed {
    CacheNeed { key: entry(key), bytes: Bytes::gib(gib), offline: false }
}

/// A small request that needs a model of `gib` GiB in the cache.
pub fn cached_request(key: &str, gib: u64) -> Request {
    Request { cache: Some(need(key, gib)), ..request(1, 40) }
}

/// A pod of ours that uses an entry of the cache and nothing else.
pub fn using(pod: &str, node: &str, key: &str, gib: u64) -> Occupant {
    Occupant { cache: Some((entry(key), Bytes::gib(gib))), ..ours(pod, node, 0) }
}
