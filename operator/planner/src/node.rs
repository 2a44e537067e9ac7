//! What a node offers.

use std::{collections::BTreeMap, fmt};

use berth_units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

use crate::{NodeName, Taint};

/// Hundredths of a GPU's memory that no claim may use: engines size themselves to 0.95 of the total
/// (the CUDA context, the driver and fragmentation take the rest).
const RESERVED_PERCENT: u64 = 5;

/// Of one GPU with `vram` in total: what claims may use, total − reserved.
pub fn usable(vram: Bytes) -> Bytes {
    vram - (vram / 100 * RESERVED_PERCENT
        + (Bytes(vram.get() % 100) * RESERVED_PERCENT).div_ceil(100))
}

/// A node as its watch shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its labels; only those that requests may select by are needed.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether its Ready condition is true.
    pub ready: bool,
    /// Whether it is cordoned (`spec.unschedulable`).
    pub cordoned: bool,
    /// Its GPUs, if it has any.
    pub gpus: Option<Gpus>,
    /// What pods may request in all.
    pub allocatable: Resources,
    /// The size of its cache for model files, in bytes; zero if it has none.
    pub cache: Bytes,
}

/// The GPUs of a node: all of one product, because the kubelet picks which one a pod gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gpus {
    /// Who makes them.
    pub vendor: Vendor,
    /// The product as the vendor's labeller names it, such as `NVIDIA-H100-80GB-HBM3`.
    pub product: String,
    /// How many whole GPUs are allocatable.
    pub count: u32,
    /// The memory of one of them; absent where the label is missing or wrong.
    pub vram: Option<Bytes>,
    /// Why nothing can be placed on them, such as mixed products, time-slicing or MIG `single`.
    pub unusable: Option<String>,
}

/// Who makes a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        })
    }
}

/// What is counted beside GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory of the host.
    pub memory: Bytes,
    /// Ephemeral storage.
    pub ephemeral_storage: Bytes,
    /// Pods. What a pod takes counts as at least one.
    pub pods: u32,
}

impl Resources {
    /// What one pod requests.
    pub const fn of_pod(cpu: MilliCpu, memory: Bytes, ephemeral_storage: Bytes) -> Self {
        Self { cpu, memory, ephemeral_storage, pods: 1 }
    }
}

/// What is free on a node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Free {
    /// Whole GPUs that nobody holds.
    pub gpus: u32,
    /// All else.
    pub resources: Resources,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundredths_are_reserved_rounded_up() {
        assert_eq!(usable(Bytes(1000)), Bytes(950));
        assert_eq!(usable(Bytes(1001)), Bytes(950));
        assert_eq!(usable(Bytes(1019)), Bytes(968));
        assert_eq!(usable(Bytes::ZERO), Bytes::ZERO);
        assert_eq!(usable(Bytes(1)), Bytes::ZERO);
        assert_eq!(usable(Bytes(u64::MAX)).get(), u64::MAX / 100 * 95 + 14);
        assert_eq!(usable(Bytes::mib(81_559)).to_string(), "75.7 GiB");
    }
}
