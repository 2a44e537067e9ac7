//! What deployments, foreign pods and idle GPUs cost.
//!
//! Counters, so that `increase()` over a span is the invoice for it; gauges for the rate now. Every
//! amount carries its currency. Money is decimal until it becomes a sample here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use berth_cost::{Component, Currency, Decimal, Deployment, FleetMeter, HourlyCost, Money};
use berth_crds::LLMDeployment;
use kube::ResourceExt;
use prometheus::{CounterVec, GaugeVec};

use super::registrar::Registrar;
use crate::prices::{Bills, PriceBook};

/// What everything costs and has cost since this operator began to lead.
pub struct Cost {
    meter: FleetMeter,
    last: Option<(Instant, Bills)>,
    deployment: Series,
    idle: Series,
    foreign: Series,
    bill: GaugeVec,
    unpriced: GaugeVec,
    usable: GaugeVec,
    per_million: GaugeVec,
}

/// A rate and the total that it adds up to.
struct Series {
    rate: GaugeVec,
    total: CounterVec,
}

impl Series {
    fn new(
        registrar: &mut Registrar,
        name: &str,
        of: &str,
        labels: &[&str],
        more: &[&str],
    ) -> prometheus::Result<Self> {
        let rate = registrar.gauges(
            &format!("{name}_cost_per_hour"),
            &format!("What {of} cost per hour now."),
            labels,
        )?;
        let total = registrar.sums(
            &format!("{name}_cost_total"),
            &format!("What {of} cost since this operator began to lead."),
            &[labels, more].concat(),
        )?;
        Ok(Self { rate, total })
    }

    fn reset(&self) {
        self.rate.reset();
        self.total.reset();
    }
}

impl Cost {
    /// Registers everything.
    pub fn new(registrar: &mut Registrar) -> prometheus::Result<Self> {
        let node = ["node", "product", "component", "currency"];
        Ok(Self {
            meter: FleetMeter::default(),
            last: None,
            deployment: Series::new(
                registrar,
                "berth_deployment",
                "the GPUs of a deployment",
                &["namespace", "deployment", "component", "currency"],
                &["state"],
            )?,
            idle: Series::new(registrar, "berth_idle", "GPUs that nobody claims", &node, &[])?,
            foreign: Series::new(
                registrar,
                "berth_foreign",
                "GPUs held by foreign pods",
                &node,
                &[],
            )?,
            bill: registrar.gauges(
                "berth_bill_per_hour",
                "What all priced nodes cost per hour: deployments, foreign pods and idle GPUs add \
                 up to it.",
                &["profile", "component", "currency"],
            )?,
            unpriced: registrar.gauges(
                "berth_unpriced_nodes",
                "GPU nodes that no CostProfile prices.",
                &[],
            )?,
            usable: registrar.gauges(
                "berth_cost_profile_usable",
                "1 where the prices of a CostProfile can be used.",
                &["profile"],
            )?,
            per_million: registrar.gauges(
                "berth_deployment_cost_per_million_tokens",
                "What the GPUs of a deployment cost for a million tokens (prompts and generated), \
                 since this operator began to lead; absent without tokens.",
                &["namespace", "deployment", "currency"],
            )?,
        })
    }

    /// Charges what held since the last time, and remembers what holds now.
    pub fn charge(&mut self, bills: Bills, now: Instant) {
        if let Some((since, held)) = self.last.replace((now, bills)) {
            let elapsed = now.saturating_duration_since(since);
            for bill in held.bills.values() {
                if let Err(error) = self.meter.charge(bill, elapsed) {
                    tracing::error!(%error, "an amount was too large to be charged");
                }
            }
        }
    }

    /// Brings the samples up to date. Deployments that are gone drop out.
    pub fn refresh(
        &mut self,
        bills: &Bills,
        book: &PriceBook,
        deployments: &[Arc<LLMDeployment>],
        tokens: &BTreeMap<Deployment, u64>,
    ) {
        for series in [&self.deployment, &self.idle, &self.foreign] {
            series.reset();
        }
        for gauge in [&self.bill, &self.unpriced, &self.usable, &self.per_million] {
            gauge.reset();
        }
        let alive: BTreeSet<Deployment> = deployments
            .iter()
            .map(|object| {
                Deployment::new(object.namespace().unwrap_or_default(), object.name_any())
            })
            .collect();
        self.meter.deployments.retain(|(deployment, _)| alive.contains(deployment));
        self.rates(bills);
        self.totals();
        for (of, &tokens) in tokens {
            for money in self.spent(of) {
                if let Some(amount) = per_million(money, tokens) {
                    let currency: Currency = money.currency();
                    let labels = [of.namespace.as_str(), of.name.as_str(), currency.as_str()];
                    self.per_million.with_label_values(&labels).set(amount.to_f64_sample());
                }
            }
        }
        self.unpriced.with_label_values::<&str>(&[]).set(bills.unpriced_nodes.len() as f64);
        for (profile, checked) in book.profiles() {
            let usable = if checked.is_ok() { 1.0 } else { 0.0 };
            self.usable.with_label_values(&[profile]).set(usable);
        }
    }

    /// What a deployment cost so far, an amount for each currency.
    fn spent(&self, of: &Deployment) -> Vec<Money> {
        let mut spent: Vec<Money> = Vec::new();
        for ((deployment, _), _, money) in self.meter.deployments.totals() {
            if deployment != of {
                continue;
            }
            match spent.iter_mut().find(|sum| sum.currency() == money.currency()) {
                Some(sum) => *sum = sum.checked_add(money).unwrap_or(*sum),
                None => spent.push(money),
            }
        }
        spent
    }

    /// What a deployment cost so far for a million of `tokens`, for people.
    pub fn per_million_tokens(&self, namespace: &str, name: &str, tokens: u64) -> Option<String> {
        let spent = self.spent(&Deployment::new(namespace, name));
        let amounts = spent.into_iter().filter_map(|money| per_million(money, tokens));
        let texts: Vec<_> = amounts.map(|amount| format!("{amount:.2}")).collect();
        (!texts.is_empty()).then(|| texts.join(" + "))
    }

    fn rates(&self, bills: &Bills) {
        for (profile, bill) in &bills.bills {
            let currency = bill.currency();
            each(&bill.total, |component, amount| {
                self.bill
                    .with_label_values(&[profile, component.as_str(), currency.as_str()])
                    .set(amount);
            });
            for (of, cost) in &bill.deployments {
                each(&cost.cost, |component, amount| {
                    let labels = [&of.namespace, &of.name, component.as_str(), currency.as_str()];
                    self.deployment.rate.with_label_values(&labels).add(amount);
                });
            }
            for node in &bill.nodes {
                let idle = &node.allocation.idle.cost;
                let foreign = node
                    .allocation
                    .charges
                    .iter()
                    .filter(|charge| charge.holder == berth_cost::Holder::Foreign);
                let set = |series: &Series, cost: &HourlyCost| {
                    each(cost, |component, amount| {
                        let labels =
                            [&node.node, &node.product, component.as_str(), currency.as_str()];
                        series.rate.with_label_values(&labels).add(amount);
                    });
                };
                set(&self.idle, idle);
                foreign.for_each(|charge| set(&self.foreign, &charge.cost));
            }
        }
    }

    fn totals(&self) {
        for ((of, state), component, money) in self.meter.deployments.totals() {
            let currency: Currency = money.currency();
            let labels = [
                of.namespace.as_str(),
                of.name.as_str(),
                component.as_str(),
                currency.as_str(),
                state.as_str(),
            ];
            self.deployment.total.with_label_values(&labels).inc_by(money.to_f64_sample());
        }
        for (meter, series) in
            [(&self.meter.idle, &self.idle), (&self.meter.foreign, &self.foreign)]
        {
            for (gpus, component, money) in meter.totals() {
                let currency: Currency = money.currency();
                let labels = [
                    gpus.node.as_str(),
                    gpus.product.as_str(),
                    component.as_str(),
                    currency.as_str(),
                ];
                series.total.with_label_values(&labels).inc_by(money.to_f64_sample());
            }
        }
    }
}

/// An amount for a million of `tokens`; nothing is known without tokens.
fn per_million(money: Money, tokens: u64) -> Option<Money> {
    let amount = money.amount().checked_mul(Decimal::from(1_000_000))?;
    let amount = amount.checked_div(Decimal::from(tokens))?;
    Money::new(amount.round_dp(6), money.currency()).ok()
}

fn each(cost: &HourlyCost, mut with: impl FnMut(Component, f64)) {
    for (component, money) in cost.components() {
        with(component, money.to_f64_sample());
    }
}
