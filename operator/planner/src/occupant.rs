//! Who holds what on a node.

use berth_units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

use crate::{CacheKey, DeploymentId, Free, Node, NodeName, OccupantId, PodKey, Resources};

/// A pod that holds part of a node: from when it is bound or pinned to it until it is gone or
/// finished, Terminating included. What a pod requests counts, whatever it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    /// Its UID.
    pub id: OccupantId,
    /// Its namespace and name.
    pub pod: PodKey,
    /// Where it is.
    pub node: NodeName,
    /// The whole GPUs that it requests.
    pub gpus: u32,
    /// What else it requests.
    pub resources: Resources,
    /// The entry of the node's cache that it uses, and how many bytes that has when complete.
    pub cache: Option<(CacheKey, Bytes)>,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Somebody else's.
    Foreign,
    /// A replica of ours.
    Ours(Claim),
}

/// What a replica holds, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Which of its replicas.
    pub replica: u32,
    /// The revision that it runs.
    pub revision: String,
    /// The bytes claimed on each GPU.
    pub vram_per_gpu: Bytes,
}

/// A placement that is decided, but whose pod has not been seen yet. Counts like a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assumed {
    /// The pod that is about to be created.
    pub key: PodKey,
    /// Where it will be.
    pub node: NodeName,
    /// The whole GPUs that it will request.
    pub gpus: u32,
    /// What else it will request.
    pub resources: Resources,
    /// The entry of the node's cache that it will use, and how many bytes that has when complete.
    pub cache: Option<(CacheKey, Bytes)>,
    /// The claim that it will carry.
    pub claim: Claim,
}

/// What is taken on a node in all. Sums are exact, however absurd what single pods request: they
/// are wide enough to add and subtract in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub(crate) ours: u64,
    pub(crate) foreign: u64,
    pub(crate) cpu: u128,
    pub(crate) memory: u128,
    pub(crate) ephemeral_storage: u128,
    pub(crate) pods: u64,
}

impl Taken {
    /// What one pod takes.
    pub(crate) fn of(ours: bool, gpus: u32, resources: &Resources) -> Self {
        let gpus = u64::from(gpus);
        Self {
            ours: if ours { gpus } else { 0 },
            foreign: if ours { 0 } else { gpus },
            cpu: resources.cpu.get().into(),
            memory: resources.memory.get().into(),
            ephemeral_storage: resources.ephemeral_storage.get().into(),
            pods: resources.pods.max(1).into(),
        }
    }

    /// GPUs taken by replicas of ours, seen or assumed.
    pub fn gpus_ours(&self) -> u32 {
        u32::try_from(self.ours).unwrap_or(u32::MAX)
    }

    /// GPUs taken by pods of others.
    pub fn gpus_foreign(&self) -> u32 {
        u32::try_from(self.foreign).unwrap_or(u32::MAX)
    }

    /// What is left of `node`. Nothing, not less, where more is taken than there is.
    pub fn free(&self, node: &Node) -> Free {
        let left = |all: u64, taken: u128| {
            u64::try_from(u128::from(all).saturating_sub(taken)).unwrap_or(u64::MAX)
        };
        let left_u32 = |all: u32, taken: u64| {
            u32::try_from(u64::from(all).saturating_sub(taken)).unwrap_or(u32::MAX)
        };
        let Resources { cpu, memory, ephemeral_storage, pods } = node.allocatable;
        let count = node.gpus.as_ref().map_or(0, |gpus| gpus.count);
        Free {
            gpus: left_u32(count, self.ours + self.foreign),
            resources: Resources {
                cpu: MilliCpu(left(cpu.get(), self.cpu)),
                memory: Bytes(left(memory.get(), self.memory)),
                ephemeral_storage: Bytes(left(ephemeral_storage.get(), self.ephemeral_storage)),
                pods: left_u32(pods, self.pods),
            },
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.ours += more.ours;
        self.foreign += more.foreign;
        self.cpu += more.cpu;
        self.memory += more.memory;
        self.ephemeral_storage += more.ephemeral_storage;
        self.pods += more.pods;
    }

    /// Takes away what was added before.
    pub(crate) fn sub(&mut self, less: &Self) {
        self.ours -= less.ours;
        self.foreign -= less.foreign;
        self.cpu -= less.cpu;
        self.memory -= less.memory;
        self.ephemeral_storage -= less.ephemeral_storage;
        self.pods -= less.pods;
    }

    /// Whether it is more than `other` in anything that a request could use.
    pub(crate) fn exceeds(&self, other: &Self) -> bool {
        self.ours + self.foreign > other.ours + other.foreign
            || self.cpu > other.cpu
            || self.memory > other.memory
            || self.ephemeral_storage > other.ephemeral_storage
            || self.pods > other.pods
    }
}

impl Occupant {
    pub(crate) fn taken(&self) -> Taken {
        Taken::of(matches!(self.owner, Owner::Ours(_)), self.gpus, &self.resources)
    }

    /// The deployment that it is a replica of.
    pub(crate) fn deployment(&self) -> Option<&DeploymentId> {
        match &self.owner {
            Owner::Ours(claim) => Some(&claim.deployment),
            Owner::Foreign => None,
        }
    }
}

impl Assumed {
    pub(crate) fn taken(&self) -> Taken {
        Taken::of(true, self.gpus, &self.resources)
    }
}
