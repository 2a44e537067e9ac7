//! Fleets for tests: which simulated nodes a cluster has.
//!
//! Node names are trees, never the products that they hold: a label that is swapped for a name
//! somewhere shows.

use serde_json::{Value, json};

/// The nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Fleet(Value);

impl Fleet {
    /// A fleet of these groups.
    pub fn of<const N: usize>(groups: [Nodes; N]) -> Self {
        Self(json!({"nodes": Vec::from(groups.map(|group| group.0))}))
    }

    /// One node without GPUs, for tests that place nothing.
    pub fn without_gpus() -> Self {
        Self::of([Nodes::new("birch", 1)])
    }

    /// The file that `berth-cluster` reads: JSON, which is YAML.
    pub fn to_yaml(&self) -> String {
        self.0.to_string()
    }
}

/// A number of alike nodes: `elm` gives `elm-000`, `elm-001` and so on.
#[derive(Clone, Debug)]
pub struct Nodes(Value);

impl Nodes {
    /// Nodes without GPUs, and with more of all else than tests use.
    pub fn new(name: &str, count: u32) -> Self {
        Self(json!({
            "name": name,
            "count": count,
            "cpu": 256,
            "memory": "4Ti",
            "ephemeralStorage": "64Ti",
        }))
    }

    /// GPUs of any kind.
    #[must_use]
    pub fn gpus(mut self, vendor: &str, product: &str, count: u32, memory: &str) -> Self {
        self.0["gpu"] =
            json!({"vendor": vendor, "product": product, "count": count, "memory": memory});
        self
    }

    /// `NVIDIA` H200: 140.4 GiB each.
    #[must_use]
    pub fn h200(self, count: u32) -> Self {
        self.gpus("nvidia", "NVIDIA-H200", count, "143771Mi")
    }

    /// `NVIDIA` H100: 79.6 GiB each.
    #[must_use]
    pub fn h100(self, count: u32) -> Self {
        self.gpus("nvidia", "NVIDIA-H100-80GB-HBM3", count, "81559Mi")
    }

    /// `NVIDIA` L40S: 45.0 GiB each.
    #[must_use]
    pub fn l40s(self, count: u32) -> Self {
        self.gpus("nvidia", "NVIDIA-L40S", count, "46068Mi")
    }

    /// `NVIDIA` RTX 4090: 24.0 GiB each.
    #[must_use]
    pub fn rtx4090(self, count: u32) -> Self {
        self.gpus("nvidia", "NVIDIA-GeForce-RTX-4090", count, "24564Mi")
    }

    /// AMD MI300X: 192 GiB each.
    #[must_use]
    pub fn mi300x(self, count: u32) -> Self {
        self.gpus("amd", "AMD_Instinct_MI300X_OAM", count, "196592Mi")
    }

    /// One label more.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0["labels"][key] = value.into();
        self
    }

    /// One taint.
    #[must_use]
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        self.0["taints"] = json!([{"key": key, "value": value, "effect": effect}]);
        self
    }

    /// Another amount of a resource: `cpu`, `memory` or `ephemeralStorage`.
    #[must_use]
    pub fn with(mut self, resource: &str, amount: &str) -> Self {
        self.0[resource] = amount.into();
        self
    }
}
