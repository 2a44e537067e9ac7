//! Replicas counted. Pure.

use std::{collections::BTreeSet, sync::Arc};

use berth_units::Bytes;

use crate::world::pod::{Progress, Replica};

/// Replicas counted.
pub struct Tally {
    /// Replicas with a pod, of any revision.
    pub existing: i32,
    /// Replicas with a pod of the newest revision.
    pub updated: i32,
    /// Replicas that answer.
    pub ready: i32,
    /// Replicas of the newest revision that answer.
    pub available: i32,
    /// GPUs that their pods hold.
    pub gpus: i32,
    /// VRAM that their pods claim.
    pub vram: Bytes,
    /// Replicas with a node, of those wanted.
    pub placed: u32,
    /// Replicas wanted.
    pub wanted: u32,
    /// Replicas that download their model, where none is further than that.
    pub downloading: i32,
    /// Pods that fail or ended without a successor that answers.
    pub failing: Vec<Arc<Replica>>,
}

impl Tally {
    /// Counts the pods of a deployment that asks for `wanted` replicas of revision `newest`.
    pub fn of(all: &[Arc<Replica>], newest: Option<&str>, wanted: u32) -> Self {
        let live: Vec<_> = all.iter().filter(|pod| pod.is_live()).collect();
        let is_newest = |pod: &&&Arc<Replica>| newest == Some(pod.revision.as_str());
        let slots = |pods: &mut dyn Iterator<Item = &&Arc<Replica>>| {
            let slots: BTreeSet<u32> = pods.map(|pod| pod.replica).collect();
            i32::try_from(slots.len()).unwrap_or(i32::MAX)
        };
        let holding = all.iter().filter(|pod| {
            let waits_for_another = pod.replaces.is_some();
            match pod.progress {
                Progress::Ended { .. } => false,
                Progress::Unbound { .. } => !waits_for_another,
                _ => true,
            }
        });
        let fetches = |pod: &&&Arc<Replica>| matches!(pod.progress, Progress::Fetching { .. });
        let is_further = |pod: &&Arc<Replica>| {
            matches!(pod.progress, Progress::Loading | Progress::Ready { .. } | Progress::Unready)
        };
        let downloading = slots(&mut live.iter().filter(fetches));
        let gpus: u32 = holding.clone().map(|pod| pod.claim.gpus).sum();
        Self {
            existing: slots(&mut live.iter()),
            updated: slots(&mut live.iter().filter(is_newest)),
            ready: slots(&mut live.iter().filter(|pod| pod.is_ready())),
            available: slots(&mut live.iter().filter(is_newest).filter(|pod| pod.is_ready())),
            gpus: i32::try_from(gpus).unwrap_or(i32::MAX),
            vram: holding.map(|pod| pod.claim.bytes_per_gpu * u64::from(pod.claim.gpus)).sum(),
            placed: u32::try_from(slots(&mut live.iter())).unwrap_or(0).min(wanted),
            wanted,
            downloading: if live.iter().copied().any(|pod| is_further(&pod)) {
                0
            } else {
                downloading
            },
            failing: live
                .iter()
                .filter(|pod| {
                    matches!(
                        pod.progress,
                        Progress::Failing { .. }
                            | Progress::Fetching { failed: Some(_), .. }
                            | Progress::Unready
                    )
                })
                .map(|pod| Arc::clone(pod))
                .chain(
                    all.iter()
                        .filter(|pod| matches!(pod.progress, Progress::Ended { .. }))
                        .filter(|ended| {
                            !live.iter().any(|pod| pod.replica == ended.replica && pod.is_ready())
                        })
                        .cloned(),
                )
                .collect(),
        }
    }

    /// Whether all that is wanted is there, of the newest revision, and answers.
    pub fn is_complete(&self) -> bool {
        let wanted = i32::try_from(self.wanted).unwrap_or(i32::MAX);
        self.available == wanted && self.ready == wanted && self.existing == wanted
    }
}
