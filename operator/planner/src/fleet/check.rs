//! The invariants of the ledger, counted again from the single pods.
//!
//! Shares no sums with the ledger: what the ledger keeps up to date event by event is compared here
//! with what a fresh count gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use berth_units::{Bytes, MilliCpu};

use super::Fleet;
use crate::{CacheKey, DeploymentId, NodeName, Owner, PodKey, usable};

/// Something that must not be. Each is either a fault of ours, or the cluster changed under running
/// pods (a node returned with fewer GPUs, say).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// More is held on a node than it has.
    OverCommitted {
        /// The node.
        node: NodeName,
        /// What is short, with both figures.
        shortage: Shortage,
    },
    /// A claim holds more bytes on each GPU than the node's GPUs can give.
    ClaimTooLarge {
        /// The node.
        node: NodeName,
        /// The pod that carries the claim.
        pod: PodKey,
        /// The bytes claimed on each GPU.
        claimed: Bytes,
        /// The bytes that a GPU of the node can give.
        usable: Bytes,
    },
    /// A pod counts twice: as seen and as assumed, or under two UIDs.
    CountedTwice {
        /// The pod.
        pod: PodKey,
    },
    /// The ledger's sums for a node are not the sums of its pods.
    Miscounted {
        /// The node.
        node: NodeName,
    },
}

/// What is short on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// GPUs: held, and there.
    Gpus(u64, u32),
    /// CPU: held, and there.
    Cpu(MilliCpu, MilliCpu),
    /// Memory: held, and there.
    Memory(Bytes, Bytes),
    /// Ephemeral storage: held, and there.
    EphemeralStorage(Bytes, Bytes),
    /// Pods: held, and there.
    Pods(u64, u32),
    /// The cache for model files: protected, and its size.
    Cache(Bytes, Bytes),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpus(held, there) => write!(f, "{held} of {there} GPUs"),
            Self::Cpu(held, there) => write!(f, "{held} of {there} CPU"),
            Self::Memory(held, there) => write!(f, "{held} of {there} memory"),
            Self::EphemeralStorage(held, there) => {
                write!(f, "{held} of {there} ephemeral storage")
            }
            Self::Pods(held, there) => write!(f, "{held} of {there} pods"),
            Self::Cache(held, there) => write!(f, "{held} of {there} model cache"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverCommitted { node, shortage } => {
                write!(f, "node {node} is over-committed: {shortage} are held")
            }
            Self::ClaimTooLarge { node, pod, claimed, usable } => write!(
                f,
                "pod {pod} claims {claimed} on each GPU of node {node}, which has {usable}"
            ),
            Self::CountedTwice { pod } => write!(f, "pod {pod} is counted twice"),
            Self::Miscounted { node } => {
                write!(f, "the sums kept for node {node} are not those of its pods")
            }
        }
    }
}

/// A fresh count of what is held on one node. Amounts saturate.
#[derive(Default)]
struct Count<'a> {
    gpus: [u64; 2],
    cpu: MilliCpu,
    memory: Bytes,
    storage: Bytes,
    pods: u64,
    holders: usize,
    /// Entries of the cache that are used, with the most bytes said of each.
    used: BTreeMap<&'a CacheKey, Bytes>,
    deployments: BTreeSet<&'a DeploymentId>,
}

impl Fleet {
    /// Every invariant that does not hold, in a fixed order; empty when all is well.
    pub fn check(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut counts: BTreeMap<&NodeName, Count<'_>> = BTreeMap::new();
        let mut names: BTreeMap<&PodKey, u32> = BTreeMap::new();
        let seen = self.occupants.values().map(|pod| {
            let claim = match &pod.owner {
                Owner::Ours(claim) => Some(claim),
                Owner::Foreign => None,
            };
            (&pod.pod, &pod.node, pod.gpus, &pod.resources, claim, &pod.cache)
        });
        let assumed = self.assumed.values().map(|pod| {
            (&pod.key, &pod.node, pod.gpus, &pod.resources, Some(&pod.claim), &pod.cache)
        });
        for (pod, node, gpus, resources, claim, cache) in seen.chain(assumed) {
            *names.entry(pod).or_default() += 1;
            let count = counts.entry(node).or_default();
            count.gpus[usize::from(claim.is_none())] += u64::from(gpus);
            count.cpu += resources.cpu;
            count.memory += resources.memory;
            count.storage += resources.ephemeral_storage;
            count.pods += u64::from(resources.pods.max(1));
            count.holders += 1;
            count.deployments.extend(claim.map(|claim| &claim.deployment));
            if let Some((key, bytes)) = cache {
                let most = count.used.entry(key).or_default();
                *most = (*most).max(*bytes);
            }
            if let (Some(claim), Some(there)) = (claim, self.node(node))
                && let Some(vram) = there.gpus.as_ref().and_then(|gpus| gpus.vram)
                && claim.vram_per_gpu > usable(vram)
            {
                violations.push(Violation::ClaimTooLarge {
                    node: node.clone(),
                    pod: pod.clone(),
                    claimed: claim.vram_per_gpu,
                    usable: usable(vram),
                });
            }
        }
        violations.extend(
            names
                .into_iter()
                .filter(|(_, times)| *times > 1)
                .map(|(pod, _)| Violation::CountedTwice { pod: pod.clone() }),
        );
        for name in self.entries.keys() {
            counts.entry(name).or_default();
        }
        for (name, count) in &counts {
            self.check_node(name, count, &mut violations);
        }
        violations
    }

    fn check_node(&self, name: &NodeName, count: &Count<'_>, violations: &mut Vec<Violation>) {
        let known = self.entries.get(name);
        let protected = self.protected(name, count);
        let agrees = known.is_some_and(|entry| {
            let taken = &entry.taken;
            [taken.ours, taken.foreign] == count.gpus
                && u64::try_from(taken.cpu).unwrap_or(u64::MAX) == count.cpu.get()
                && u64::try_from(taken.memory).unwrap_or(u64::MAX) == count.memory.get()
                && u64::try_from(taken.ephemeral_storage).unwrap_or(u64::MAX) == count.storage.get()
                && taken.pods == count.pods
                && entry.occupants.len() + entry.assumed.len() == count.holders
                && self.cache_use(name).protected == protected
        });
        if !agrees {
            violations.push(Violation::Miscounted { node: name.clone() });
        }
        let Some(node) = known.and_then(|entry| entry.node.as_ref()) else { return };
        let there = &node.allocatable;
        let gpus_there = node.gpus.as_ref().map_or(0, |gpus| gpus.count);
        let gpus_held = count.gpus[0] + count.gpus[1];
        let shortages = [
            (gpus_held > gpus_there.into()).then_some(Shortage::Gpus(gpus_held, gpus_there)),
            (count.cpu > there.cpu).then_some(Shortage::Cpu(count.cpu, there.cpu)),
            (count.memory > there.memory).then_some(Shortage::Memory(count.memory, there.memory)),
            (count.storage > there.ephemeral_storage)
                .then_some(Shortage::EphemeralStorage(count.storage, there.ephemeral_storage)),
            (count.pods > there.pods.into()).then_some(Shortage::Pods(count.pods, there.pods)),
            (protected > node.cache).then_some(Shortage::Cache(protected, node.cache)),
        ];
        violations.extend(
            shortages
                .into_iter()
                .flatten()
                .map(|shortage| Violation::OverCommitted { node: name.clone(), shortage }),
        );
    }

    /// The bytes of a node's cache that must not be evicted.
    fn protected(&self, name: &NodeName, count: &Count<'_>) -> Bytes {
        let lying = self.cached(name);
        let used = count
            .used
            .iter()
            .map(|(key, bytes)| lying.get(*key).map_or(*bytes, |cached| cached.bytes.max(*bytes)));
        let keeps = |key| count.deployments.iter().any(|of| self.kept(of).contains(key));
        let kept = lying
            .iter()
            .filter(|(key, cached)| !count.used.contains_key(key) && !cached.leaving && keeps(key))
            .map(|(_, cached)| cached.bytes);
        used.chain(kept).sum()
    }
}
