//! What everything costs, from the operator's metrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use berth_e2e::Metrics;

use crate::paint::{columns, dim};

/// Prints the cost per hour of each deployment, of what nobody uses, and of it all.
pub fn show(metrics: &Metrics) -> Result<()> {
    let bill = "berth_bill_per_hour";
    let first = metrics.all(bill, &[]).next().context("nothing is priced")?;
    let currency = first.label("currency").unwrap_or_default();
    let deployments = by(metrics, "berth_deployment_cost_per_hour", "deployment");
    let idle = by(metrics, "berth_idle_cost_per_hour", "product");
    let foreign = metrics.sum_or_zero("berth_foreign_cost_per_hour", &[]);
    let total = metrics.sum(bill, &[])?;

    let amount = |of: f64| format!("{of:.2}");
    let mut rows = Vec::new();
    for (name, cost) in &deployments {
        rows.push(vec![name.clone(), amount(*cost), currency.to_owned()]);
    }
    for (product, cost) in idle.iter().filter(|(_, cost)| **cost >= 0.005) {
        rows.push(vec![format!("idle: {product}"), amount(*cost), currency.to_owned()]);
    }
    if foreign > 0.0 {
        rows.push(vec!["pods of others".to_owned(), amount(foreign), currency.to_owned()]);
    }
    rows.push(vec!["all GPU nodes".to_owned(), amount(total), currency.to_owned()]);
    print!("{}", columns(&rows, &[false, true]));

    let parts = deployments.values().chain(idle.values()).sum::<f64>() + foreign;
    ensure!((parts - total).abs() < 0.01, "the parts make {parts}, the bill is {total}");
    let components = by(metrics, bill, "component");
    let components = components.iter().map(|(name, cost)| format!("{name} {cost:.2}"));
    println!("{}", dim(&format!("of it {}", components.collect::<Vec<_>>().join(", "))));
    Ok(())
}

/// The sums of a metric by one of its labels.
fn by(metrics: &Metrics, name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for sample in metrics.all(name, &[]) {
        let key = sample.label(label).unwrap_or_default().to_owned();
        *sums.entry(key).or_insert(0.0) += sample.value;
    }
    sums
}
