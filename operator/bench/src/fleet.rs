//! `berth-bench fleet`: planner and ledger under load, without a cluster.
//!
//! A fleet of the size asked for is filled with replicas through the very calls that the controller
//! makes: [`place`], then [`Fleet::assume`], then the pod is seen. Then it is kept near full: one
//! replica goes, one comes. A decision is place and assume; an event is a pod seen or gone.

use std::{collections::VecDeque, fs, time::Instant};

use berth_planner::{
    Assumed, Claim, DeploymentId, Fleet, Gpus, Node, Occupant, OccupantId, Owner, PodKey, Request,
    Resources, Vendor, place, policy::Draws,
};
use berth_units::{Bytes, MIB, MilliCpu};
use serde::Serialize;

use crate::placement::quantile;

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Decisions a second, the events that follow from them included.
    pub decisions_per_s: f64,
    /// The median time of a decision, in microseconds.
    pub p50_us: f64,
    /// The time that one decision of a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// The mean time of an event, in microseconds.
    pub event_us: f64,
    /// Memory that the fleet and the planner's index take, in MiB.
    pub fleet_mib: f64,
    /// The most memory that the process had, in MiB.
    pub peak_rss_mib: f64,
    /// Replicas that fitted nowhere; not among the decisions above.
    pub unplaced: u64,
    /// GPUs claimed in the end, in hundredths of all.
    pub claimed_pct: f64,
    /// What the ledger's own check finds wrong in the end.
    pub violations: usize,
}

/// The products, with usable VRAM: GiB, cores and GiB of memory for each GPU, and how many nodes of
/// ten have it.
const PRODUCTS: [(&str, u64, u64, u64, usize); 4] = [
    ("NVIDIA-H100-80GB-HBM3", 80, 16, 128, 4),
    ("NVIDIA-A100-SXM4-80GB", 80, 12, 120, 3),
    ("NVIDIA-L40S", 46, 12, 96, 2),
    ("NVIDIA-L4", 23, 8, 48, 1),
];
/// What replicas ask for: GPUs, GiB of each, cores and GiB of memory for each GPU, weight.
const ASKS: [(u32, u64, u64, u64, usize); 10] = [
    (1, 18, 4, 24, 10),
    (1, 18, 8, 32, 6),
    (1, 40, 6, 48, 8),
    (1, 70, 8, 64, 6),
    (2, 40, 6, 64, 5),
    (2, 70, 8, 64, 5),
    (4, 40, 6, 64, 4),
    (4, 70, 8, 80, 4),
    (8, 70, 10, 100, 3),
    (8, 70, 6, 64, 2),
];
/// Of the fleet's GPUs, how many are claimed before the measurement, in hundredths.
const FULL: u64 = 85;

/// Measures. Deployments are as many as given; their replicas fill the fleet.
pub fn measure(nodes: u32, gpus_per_node: u32, deployments: u32) -> Figures {
    let before = resident();
    let mut load = Load::new(nodes, gpus_per_node, deployments);
    let all = u64::from(nodes) * u64::from(gpus_per_node);
    let mut measured = Measured::default();
    // Filling counts as well: the decisions of a start from nothing.
    let mut misses = 0;
    while load.claimed * 100 < all * FULL && misses < 100 {
        misses = if load.arrive(&mut measured) { 0 } else { misses + 1 };
    }
    for _ in 0..nodes.max(1000) {
        load.leave(&mut measured);
        load.arrive(&mut measured);
    }
    let fleet_mib = resident().saturating_sub(before) as f64 / MIB as f64;
    measured.decisions.sort_unstable();
    let sum = measured.decisions.iter().sum::<u64>() + measured.event_ns;
    Figures {
        decisions_per_s: measured.decisions.len() as f64 / (sum.max(1) as f64 / 1e9),
        p50_us: quantile(&measured.decisions, 50),
        p99_us: quantile(&measured.decisions, 99),
        event_us: measured.event_ns as f64 / measured.events.max(1) as f64 / 1e3,
        fleet_mib,
        peak_rss_mib: status("VmHWM:") as f64 / MIB as f64,
        unplaced: measured.unplaced,
        claimed_pct: load.claimed as f64 / all.max(1) as f64 * 100.0,
        violations: load.fleet.check().len(),
    }
}

/// For people.
pub fn text(of: &Figures) -> String {
    format!(
        "{:.0} decisions a second ({:.1} µs at the median, {:.1} µs at the 99th percentile), \
         {:.2} µs an event\nthe fleet takes {:.1} MiB, the process took {:.1} MiB at most\n\
         {:.1} % of the GPUs are claimed; {} replicas fitted nowhere\n",
        of.decisions_per_s,
        of.p50_us,
        of.p99_us,
        of.event_us,
        of.fleet_mib,
        of.peak_rss_mib,
        of.claimed_pct,
        of.unplaced
    )
}

#[derive(Default)]
struct Measured {
    /// Nanoseconds.
    decisions: Vec<u64>,
    event_ns: u64,
    events: u64,
    unplaced: u64,
}

struct Load {
    fleet: Fleet,
    draws: Draws,
    deployments: u32,
    pods: u64,
    /// In the order of their coming, with their GPUs.
    running: VecDeque<(OccupantId, u32)>,
    claimed: u64,
}

impl Load {
    fn new(nodes: u32, gpus_per_node: u32, deployments: u32) -> Self {
        let mut fleet = Fleet::new();
        for number in 0..nodes {
            fleet.upsert_node(node(number, gpus_per_node));
        }
        let draws = Draws::new(42);
        let running = VecDeque::new();
        Self { fleet, draws, deployments: deployments.max(1), pods: 0, running, claimed: 0 }
    }

    /// One replica comes. Tells whether it was placed.
    fn arrive(&mut self, measured: &mut Measured) -> bool {
        let weights: usize = ASKS.iter().map(|ask| ask.4).sum();
        // A deployment's replicas all ask for the same.
        let deployment = self.draws.below(self.deployments as usize);
        let mut at = deployment % weights;
        let ask = ASKS.iter().find(|ask| {
            let here = at < ask.4;
            at = at.saturating_sub(ask.4);
            here
        });
        let (gpus, vram, cores, memory, _) = ask.copied().unwrap_or(ASKS[0]);
        let each = u64::from(gpus);
        let request = Request {
            gpus,
            vram_per_gpu: Bytes::gib(vram),
            resources: Resources::of_pod(
                MilliCpu::cores(cores * each),
                Bytes::gib(memory * each),
                Bytes::gib(20),
            ),
            ..Request::default()
        };
        let name = format!("llm-{deployment}-{}", self.pods);
        self.pods += 1;
        let start = Instant::now();
        let Ok(placement) = place(&self.fleet, &request) else {
            measured.unplaced += 1;
            return false;
        };
        let claim = Claim {
            deployment: DeploymentId::new("models", format!("llm-{deployment}"), "uid"),
            replica: 0,
            revision: "r1".to_owned(),
            vram_per_gpu: placement.vram_per_gpu,
        };
        let assumed = Assumed {
            key: PodKey::new("models", name.as_str()),
            node: placement.node,
            gpus,
            resources: request.resources,
            cache: None,
            claim,
        };
        let pod = Occupant {
            id: format!("uid-{name}").into(),
            pod: assumed.key.clone(),
            node: assumed.node.clone(),
            gpus,
            resources: assumed.resources,
            cache: None,
            owner: Owner::Ours(assumed.claim.clone()),
        };
        let free_name = self.fleet.assume(assumed).is_ok();
        measured.decisions.push(nanoseconds(start));
        let id = pod.id.clone();
        let start = Instant::now();
        self.fleet.upsert_occupant(pod);
        measured.event_ns += nanoseconds(start);
        measured.events += 1;
        self.running.push_back((id, gpus));
        self.claimed += each;
        free_name
    }

    /// One of those that run goes.
    fn leave(&mut self, measured: &mut Measured) {
        let which = self.draws.below(self.running.len().max(1));
        let Some((id, gpus)) = self.running.swap_remove_back(which) else { return };
        let start = Instant::now();
        self.fleet.remove_occupant(&id);
        measured.event_ns += nanoseconds(start);
        measured.events += 1;
        self.claimed -= u64::from(gpus);
    }
}

fn node(number: u32, gpus: u32) -> Node {
    let shares: usize = PRODUCTS.iter().map(|product| product.4).sum();
    let mut at = number as usize % shares;
    let product = PRODUCTS.iter().find(|product| {
        let here = at < product.4;
        at = at.saturating_sub(product.4);
        here
    });
    let (product, vram, cores, memory, _) = product.copied().unwrap_or(PRODUCTS[0]);
    let each = u64::from(gpus);
    let label = |name: &str, value: String| (name.to_owned(), value);
    Node {
        name: format!("gpu-{number:05}").into(),
        labels: [
            label("kubernetes.io/hostname", format!("gpu-{number:05}")),
            label("topology.kubernetes.io/zone", format!("zone-{}", number % 3)),
            label("nvidia.com/gpu.product", product.to_owned()),
        ]
        .into(),
        taints: Vec::new(),
        ready: true,
        cordoned: false,
        gpus: Some(Gpus {
            vendor: Vendor::Nvidia,
            product: product.to_owned(),
            count: gpus,
            vram: Some(Bytes::gib(vram)),
            unusable: None,
        }),
        allocatable: Resources {
            cpu: MilliCpu::cores(cores * each),
            memory: Bytes::gib(memory * each),
            ephemeral_storage: Bytes::gib(2000),
            pods: 110,
        },
        cache: Bytes::ZERO,
    }
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes that the process has in memory now.
fn resident() -> u64 {
    status("VmRSS:")
}

/// A line of `/proc/self/status`, in bytes; zero where there is no such file.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
