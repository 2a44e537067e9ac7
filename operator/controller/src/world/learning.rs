//! What replicas say of themselves beside what their pods say: how far their downloads are, and what
//! their engines run on and take there. Pure.
//!
//! Live values are for metrics. People are told at most once a minute and deployment, and only of
//! what they would care about, as what they are told is written to status.

use std::collections::{BTreeMap, HashMap};

use berth_crds::llm_deployment::AcceleratorStatus;
use berth_render::engine::log::Measured;

use super::pod::{Progress, Replica};
use crate::usage::download::Download;

/// Seconds between two words about the downloads of a deployment.
const QUIET: i64 = 60;
/// How often a log is tried to be read that cannot be.
const MOST_FAILURES: u32 = 3;

/// What replicas say of themselves.
#[derive(Debug, Default)]
pub struct Learning {
    /// By the UIDs of the pods.
    downloads: HashMap<String, Followed>,
    /// When people were told of a deployment's downloads, by its UID, in Unix seconds.
    told: HashMap<String, i64>,
    /// What was read of the last start of each engine, by the UID of the pod.
    starts: HashMap<String, Start>,
}

/// What was read of a start of an engine.
#[derive(Clone, Debug)]
struct Start {
    /// How often it was started anew before.
    restarts: i32,
    /// How often its log could not be read.
    failures: u32,
    /// Nothing, where it does not tell.
    accelerator: Option<AcceleratorStatus>,
    /// Likewise, or where status has it already.
    measured: Option<Measured>,
}

/// A download that is followed.
#[derive(Clone, Copy, Debug)]
struct Followed {
    /// How often it failed before.
    tries: i32,
    latest: Download,
    told: Option<Download>,
}

impl Learning {
    /// Takes in one round of looks at a deployment's downloads, by the UIDs of the pods, each with
    /// how often it failed before; `now` is in Unix seconds. Whether there is anything new to tell.
    pub fn downloads(
        &mut self,
        deployment: &str,
        looks: &BTreeMap<String, (i32, Download)>,
        now: i64,
    ) -> bool {
        let mut news = false;
        for (pod, &(tries, latest)) in looks {
            let known = self.downloads.get(pod).filter(|known| known.tries == tries);
            let begun = known.is_some_and(|known| known.latest.has_begun());
            let latest = known.map_or(latest, |known| latest.after(&known.latest));
            news |= latest.has_begun() && !begun;
            let told = known.and_then(|known| known.told);
            self.downloads.insert(pod.clone(), Followed { tries, latest, told });
        }
        if self.told.get(deployment).is_some_and(|told| now - told < QUIET) {
            return news;
        }
        let cares = |followed: &Followed| match &followed.told {
            Some(told) => followed.latest.differs(told),
            None => followed.latest.has_begun(),
        };
        let followed = |pod: &String| self.downloads.get(pod);
        if !looks.keys().filter_map(followed).any(cares) {
            return news;
        }
        for pod in looks.keys() {
            if let Some(followed) = self.downloads.get_mut(pod) {
                followed.told = Some(followed.latest).filter(Download::has_begun);
            }
        }
        self.told.insert(deployment.to_owned(), now);
        true
    }

    /// Whether the log of a replica's engine is to be read: it answers, and this start of it was not
    /// read yet, nor tried in vain too often.
    pub fn wants_log(&self, replica: &Replica) -> bool {
        let known = self.starts.get(&replica.uid);
        replica.is_ready()
            && known.is_none_or(|start| {
                start.restarts != replica.restarts || (1..MOST_FAILURES).contains(&start.failures)
            })
    }

    /// Takes in what an engine says of its start; always news.
    pub fn started(
        &mut self,
        pod: &str,
        restarts: i32,
        accelerator: Option<AcceleratorStatus>,
        measured: Option<Measured>,
    ) -> bool {
        let start = Start { restarts, failures: 0, accelerator, measured };
        self.starts.insert(pod.to_owned(), start);
        true
    }

    /// Takes in that the log of an engine could not be read; never news.
    pub fn log_failed(&mut self, pod: &str, restarts: i32) -> bool {
        let known = self.starts.get(pod).filter(|start| start.restarts == restarts);
        let failures = known.map_or(0, |start| start.failures) + 1;
        let start = Start { restarts, failures, accelerator: None, measured: None };
        self.starts.insert(pod.to_owned(), start);
        false
    }

    /// How far a pod's download was at the last look.
    pub fn download(&self, pod: &str) -> Option<Download> {
        self.downloads.get(pod).map(|followed| followed.latest)
    }

    /// Forgets a pod that is gone.
    pub fn forget(&mut self, pod: &str) {
        self.downloads.remove(pod);
        self.starts.remove(pod);
    }

    /// Forgets deployments that are gone.
    pub fn keep(&mut self, alive: impl Fn(&str) -> bool) {
        self.told.retain(|uid, _| alive(uid));
    }

    /// Adds to a replica what is known of it.
    pub fn tell(&mut self, replica: &mut Replica) {
        let start = self.starts.get(&replica.uid);
        let start = start.filter(|start| start.restarts == replica.restarts);
        replica.learnt.accelerator = start.and_then(|start| start.accelerator.clone());
        replica.learnt.measured = start.and_then(|start| start.measured);
        let Progress::Fetching { tries, failed } = &mut replica.progress else {
            self.downloads.remove(&replica.uid);
            replica.learnt.download = None;
            return;
        };
        let known = self.downloads.get(&replica.uid).filter(|known| known.tries == *tries);
        if known.is_some_and(|known| known.latest.has_begun()) {
            *failed = None;
        }
        replica.learnt.download =
            known.and_then(|known| known.told.as_ref()).map(Download::message);
    }
}

#[cfg(test)]
mod tests {
    use berth_planner::{DeploymentId, NodeName, PodKey};
    use berth_units::Bytes;

    use super::{super::pod::Learnt, *};

    fn at(gib: u64) -> Download {
        Download {
            bytes: Bytes::gib(gib),
            expected: Bytes::gib(100),
            per_second: Bytes::gib(1),
            ..Download::default()
        }
    }

    fn looks(looks: &[(&str, Download)]) -> BTreeMap<String, (i32, Download)> {
        looks.iter().map(|(pod, download)| ((*pod).to_owned(), (0, *download))).collect()
    }

    fn told(learning: &Learning, pod: &str) -> Option<u64> {
        Some(learning.downloads.get(pod)?.told?.bytes.get() >> 30)
    }

    #[test]
    fn people_are_told_once_a_minute_and_not_of_trifles() {
        let mut learning = Learning::default();
        assert!(!learning.downloads("d", &looks(&[("a", Download::default())]), 0), "nothing yet");
        assert!(learning.downloads("d", &looks(&[("a", at(1))]), 5));
        assert!(!learning.downloads("d", &looks(&[("a", at(50))]), 64), "too soon");
        assert_eq!(learning.download("a"), Some(at(50)), "for metrics at once");
        assert!(learning.downloads("d", &looks(&[("a", at(51))]), 65));
        assert!(!learning.downloads("d", &looks(&[("a", at(55))]), 200), "too little");
        assert!(learning.downloads("d", &looks(&[("a", at(56))]), 400));
        assert_eq!(told(&learning, "a"), Some(56));
    }

    #[test]
    fn the_replicas_of_a_deployment_are_told_of_together() {
        let mut learning = Learning::default();
        assert!(learning.downloads("d", &looks(&[("a", at(1)), ("b", at(2))]), 0));
        assert!(!learning.downloads("d", &looks(&[("a", at(9)), ("b", at(3))]), 30));
        assert!(learning.downloads("d", &looks(&[("a", at(9)), ("b", at(4))]), 60));
        assert_eq!((told(&learning, "a"), told(&learning, "b")), (Some(9), Some(4)));
        assert!(learning.downloads("e", &looks(&[("c", at(1))]), 61), "another deployment");
    }

    #[test]
    fn another_try_begins_anew() {
        let mut learning = Learning::default();
        learning.downloads("d", &looks(&[("a", at(1))]), 0);
        let again = |download| BTreeMap::from([("a".to_owned(), (1, download))]);
        assert!(!learning.downloads("d", &again(Download::default()), 10));
        assert_eq!(told(&learning, "a"), None);
        assert!(learning.downloads("d", &again(at(1)), 20), "it goes better, which is news");
    }

    #[test]
    fn the_log_of_each_start_of_an_engine_is_read_once_and_tried_three_times() {
        let mut learning = Learning::default();
        let mut replica = replica(Progress::Loading);
        assert!(!learning.wants_log(&replica), "it does not answer yet");
        replica.progress = Progress::Ready { since: 0 };
        for _ in 0..3 {
            assert!(learning.wants_log(&replica));
            learning.log_failed("a", 0);
        }
        assert!(!learning.wants_log(&replica), "tried in vain too often");
        replica.restarts = 1;
        assert!(learning.wants_log(&replica), "another start");
        learning.log_failed("a", 1);
        assert!(learning.wants_log(&replica));
        let on_cpu = AcceleratorStatus {
            device: "CPU".to_owned(),
            layers: None,
            of_layers: None,
            restarts: 1,
        };
        let measured = Measured { weights: Some(Bytes::gib(1)), ..Measured::default() };
        learning.started("a", 1, Some(on_cpu.clone()), Some(measured));
        assert!(!learning.wants_log(&replica));
        learning.tell(&mut replica);
        assert_eq!(replica.learnt.accelerator, Some(on_cpu));
        assert_eq!(replica.learnt.measured, Some(measured));
        replica.restarts = 2;
        learning.tell(&mut replica);
        assert_eq!(replica.learnt, Learnt::default(), "of the start before");
        learning.started("a", 2, None, None);
        assert!(!learning.wants_log(&replica), "it does not tell, and will not");
    }

    fn replica(progress: Progress) -> Replica {
        Replica {
            key: PodKey::new("team", "llm-abc-0-0-0"),
            uid: "a".to_owned(),
            deployment: DeploymentId::new("team", "llm", "d"),
            revision: "abc".to_owned(),
            replica: 0,
            attempt: 0,
            node: NodeName::from("gpu-1"),
            claim: berth_render::Claim {
                gpus: 1,
                bytes_per_gpu: Bytes::gib(75),
                total_per_gpu: Bytes::ZERO,
                product: String::new(),
                cache: None,
            },
            replaces: None,
            progress,
            address: None,
            restarts: 0,
            deleting: false,
            gone_by: None,
            created: 0,
            learnt: Learnt::default(),
        }
    }
}
