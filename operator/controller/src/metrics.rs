//! Prometheus metrics. Base units, no pod, UUID or user in a label.
//!
//! Operator health is counted as it happens; the fleet, the deployments and what they cost are
//! read from the world when somebody scrapes, so that idling costs nothing.

mod cost;
mod deployments;
mod fleet;
mod registrar;
mod replicas;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    TextEncoder,
};

use crate::{prices::PriceBook, world::World};
use berth_cost::Deployment;
use berth_crds::LLMDeployment;
use kube::ResourceExt;
pub use registrar::Described;
use registrar::Registrar;

/// Every metric.
pub struct Metrics {
    registrar: Registrar,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    plan_seconds: Histogram,
    queued: IntGauge,
    leader: IntGauge,
    calls: Calls,
    watches: Watches,
    looks_failed: IntCounterVec,
    fleet: fleet::Fleet,
    deployments: deployments::Deployments,
    replicas: replicas::Replicas,
    cost: Mutex<cost::Cost>,
}

/// Requests to the API server, counted.
#[derive(Clone)]
pub struct Calls(IntCounterVec);

impl Calls {
    /// Counts a request.
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
        self.last.with_label_values(&[kind]).set(seconds_since_epoch());
    }

    /// The watch failed and starts anew.
    pub fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> prometheus::Result<Self> {
        let mut registrar = Registrar::default();
        let up_since = registrar.add(
            "gauge",
            Gauge::new(
                "process_start_time_seconds",
                "Start of the process in seconds since the Unix epoch.",
            )?,
        )?;
        up_since.set(seconds_since_epoch());
        let reconcile_seconds = HistogramOpts::new(
            "berth_reconcile_duration_seconds",
            "Time that a reconcile took, writes included.",
        )
        .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]);
        let plan_seconds = HistogramOpts::new(
            "berth_plan_duration_seconds",
            "Time that deciding took under the ledger's lock.",
        )
        .buckets(vec![0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.25]);
        Ok(Self {
            leader: registrar.add(
                "gauge",
                IntGauge::new("berth_leader", "1 while this operator holds the lease.")?,
            )?,
            reconciles: registrar.counters(
                "berth_reconcile_total",
                "Reconciles of LLMDeployments, by how they ended.",
                &["outcome"],
            )?,
            reconcile_seconds: registrar
                .add("histogram", HistogramVec::new(reconcile_seconds, &["outcome"])?)?,
            plan_seconds: registrar.add("histogram", Histogram::with_opts(plan_seconds)?)?,
            queued: registrar.add(
                "gauge",
                IntGauge::new("berth_waiting_deployments", "LLMDeployments that wait for GPUs.")?,
            )?,
            calls: Calls(registrar.counters(
                "berth_api_requests_total",
                "Requests to the API server, but for watches and the lease, by what came of them.",
                &["verb", "kind", "outcome"],
            )?),
            watches: Watches {
                last: registrar.gauges(
                    "berth_watch_last_event_timestamp_seconds",
                    "When a watch last heard something, in seconds since the Unix epoch.",
                    &["kind"],
                )?,
                errors: registrar.counters(
                    "berth_watch_errors_total",
                    "Watches that failed and started anew.",
                    &["kind"],
                )?,
            },
            looks_failed: registrar.counters(
                "berth_engine_scrape_errors_total",
                "Looks at a replica's metrics (its engine's, or its download's) that came to nothing, by \
                 reason.",
                &["reason"],
            )?,
            fleet: fleet::Fleet::new(&mut registrar)?,
            deployments: deployments::Deployments::new(&mut registrar)?,
            replicas: replicas::Replicas::new(&mut registrar)?,
            cost: Mutex::new(cost::Cost::new(&mut registrar)?),
            registrar,
        })
    }

    /// Every metric that there is, for the reference.
    pub fn described(&self) -> &[Described] {
        &self.registrar.described
    }

    /// Where requests are counted.
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

    /// What the GPUs of a deployment cost so far for a million of the tokens served meanwhile.
    pub fn cost_per_million_tokens(
        &self,
        namespace: &str,
        name: &str,
        tokens: u64,
    ) -> Option<String> {
        let cost = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
        cost.per_million_tokens(namespace, name, tokens)
    }

    /// A look at an engine came to nothing.
    pub fn look_failed(&self, reason: &str) {
        self.looks_failed.with_label_values(&[reason]).inc();
    }

    /// Brings every figure that is read from the world up to date.
    pub fn refresh(
        &self,
        world: &World,
        book: &PriceBook,
        deployments: &[std::sync::Arc<LLMDeployment>],
    ) {
        let state = world.lock();
        self.queued.set(i64::try_from(state.queue().len()).unwrap_or(i64::MAX));
        self.fleet.refresh(&state.fleet);
        self.deployments.refresh(&state, deployments);
        self.replicas.refresh(&state);
        let bills = book.bills(&state);
        let tokens = deployments
            .iter()
            .filter_map(|deployment| {
                let of = Deployment::new(deployment.namespace()?, deployment.name_any());
                Some((of, state.usage.get(&deployment.uid()?)?.priced_tokens()))
            })
            .collect();
        drop(state);
        self.cost.lock().unwrap_or_else(PoisonError::into_inner).refresh(
            &bills,
            book,
            deployments,
            &tokens,
        );
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registrar.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
