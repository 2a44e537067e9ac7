//! Prometheus metrics. Base units, no pod, UUID or user in a label.
//!
//! Operator health is counted as it happens; the fleet, the deployments and what they cost are
//! read from the world when somebody scrapes, so that idling costs nothing.

mod cost;
mod deployments;
mod fleet;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use crate::{prices::PriceBook, world::World};
use berth_crds::LLMDeployment;

/// Every metric.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    plan_seconds: Histogram,
    queued: IntGauge,
    leader: IntGauge,
    calls: Calls,
    watches: Watches,
    fleet: fleet::Fleet,
    deployments: deployments::Deployments,
    cost: Mutex<cost::Cost>,
}

/// Writes to the API server, counted.
#[derive(Clone)]
pub struct Calls(IntCounterVec);

impl Calls {
    /// Counts a write.
    pub fn count(&self, verb: &str, kind: &str, outcome: &str) {
        self.0.with_label_values(&[verb, kind, outcome]).inc();
    }
}

/// Watches: when each last heard something, and how often it failed.
#[derive(Clone)]
pub struct Watches {
    last: GaugeVec,
    errors: IntCounterVec,
}

impl Watches {
    /// An event came.
    pub fn event(&self, kind: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.with_label_values(&[kind]).set(now.as_secs_f64());
    }

    /// The watch failed and starts anew.
    pub fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconciles = counters(
            &registry,
            "berth_reconcile_total",
            "Reconciles of LLMDeployments, by how they ended.",
            &["outcome"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new(
                "berth_reconcile_duration_seconds",
                "Time that a reconcile took, writes included.",
            )
            .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            &["outcome"],
        )?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let plan_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "berth_plan_duration_seconds",
                "Time that deciding took under the ledger's lock.",
            )
            .buckets(vec![0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.25]),
        )?;
        registry.register(Box::new(plan_seconds.clone()))?;
        let queued =
            IntGauge::new("berth_waiting_deployments", "LLMDeployments that wait for GPUs.")?;
        registry.register(Box::new(queued.clone()))?;
        let leader = IntGauge::new("berth_leader", "1 while this operator holds the lease.")?;
        registry.register(Box::new(leader.clone()))?;
        let up_since = Gauge::new(
            "process_start_time_seconds",
            "Start of the process in seconds since the Unix epoch.",
        )?;
        registry.register(Box::new(up_since.clone()))?;
        up_since
            .set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let calls = counters(
            &registry,
            "berth_api_writes_total",
            "Writes to the API server, by what came of them.",
            &["verb", "kind", "outcome"],
        )?;
        let last = gauges(
            &registry,
            "berth_watch_last_event_timestamp_seconds",
            "When a watch last heard something.",
            &["kind"],
        )?;
        let errors = counters(
            &registry,
            "berth_watch_errors_total",
            "Watches that failed and started anew.",
            &["kind"],
        )?;
        Ok(Self {
            fleet: fleet::Fleet::new(&registry)?,
            deployments: deployments::Deployments::new(&registry)?,
            cost: Mutex::new(cost::Cost::new(&registry)?),
            registry,
            reconciles,
            reconcile_seconds,
            plan_seconds,
            queued,
            leader,
            calls: Calls(calls),
            watches: Watches { last, errors },
        })
    }

    /// Where writes are counted.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Where watches tell of themselves.
    pub fn watches(&self) -> Watches {
        self.watches.clone()
    }

    /// A reconcile ended.
    pub fn reconciled(&self, outcome: &str, took: Duration) {
        self.reconciles.with_label_values(&[outcome]).inc();
        self.reconcile_seconds.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    /// A plan was made.
    pub fn planned(&self, took: Duration) {
        self.plan_seconds.observe(took.as_secs_f64());
    }

    /// Whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Charges what everything cost since the last time.
    pub fn charge(&self, world: &World, book: &PriceBook, now: Instant) {
        let bills = book.bills(&world.lock());
        self.cost.lock().unwrap_or_else(PoisonError::into_inner).charge(bills, now);
    }

    /// Brings every figure that is read from the world up to date.
    pub fn refresh(
        &self,
        world: &World,
        book: &PriceBook,
        deployments: &[std::sync::Arc<LLMDeployment>],
    ) {
        let state = world.lock();
        self.queued.set(i64::try_from(state.queue.len()).unwrap_or(i64::MAX));
        self.fleet.refresh(&state.fleet);
        self.deployments.refresh(&state, deployments);
        let bills = book.bills(&state);
        drop(state);
        self.cost.lock().unwrap_or_else(PoisonError::into_inner).refresh(&bills, book, deployments);
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<GaugeVec> {
    let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}
