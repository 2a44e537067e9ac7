//! What a replica needs from the one node that it runs on.

use std::collections::BTreeMap;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{CacheNeed, NodeName, Resources, Toleration, Vendor};

/// What a replica needs from one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whole GPUs. With none it may go to any node, and GPUs are not looked at.
    pub gpus: u32,
    /// The usable bytes needed on each GPU.
    pub vram_per_gpu: Bytes,
    /// The same on products that it is known better of, as the labels name them.
    #[serde(default)]
    pub vram_on: BTreeMap<String, Bytes>,
    /// What else its pod requests.
    pub resources: Resources,
    /// What it needs of the node's cache; with nothing, caches are not looked at.
    pub cache: Option<CacheNeed>,
    /// Whose GPUs; any when absent.
    pub vendor: Option<Vendor>,
    /// Which products, as the labels name them, in either case; any when empty.
    pub products: Vec<String>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates.
    pub tolerations: Vec<Toleration>,
    /// Nodes to keep away from for now, with the reason, such as "the kubelet refused it".
    pub avoid: BTreeMap<NodeName, String>,
    /// Which of the nodes that fit is best.
    pub strategy: Strategy,
    /// Replicas of the same deployment, by node; for [`Strategy::Spread`].
    pub siblings: BTreeMap<NodeName, u32>,
}

impl Request {
    /// The usable bytes needed on each GPU of that product.
    pub fn vram_needed_on(&self, product: &str) -> Bytes {
        self.vram_on.get(product).copied().unwrap_or(self.vram_per_gpu)
    }
}

/// Which of the nodes that fit is best.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Strategy {
    /// The least wasted VRAM, then where the least GPU is expected to be left over
    /// ([`crate::policy::Named::Berth`]). Siblings do not matter: preferring their node would put
    /// small models on large GPUs for no gain.
    #[default]
    Pack,
    /// The fewest replicas of the same deployment on one node, then as above.
    Spread,
}
