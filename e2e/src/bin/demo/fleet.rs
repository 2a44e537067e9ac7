//! The fleet by node, from the operator's metrics.

use std::collections::BTreeSet;

use anyhow::Result;
use berth_e2e::Metrics;

use crate::paint::{columns, green};

/// Characters of a bar.
const WIDTH: usize = 32;

/// Prints a line for each node: who holds its VRAM.
pub fn show(metrics: &Metrics) -> Result<()> {
    let nodes: BTreeSet<(&str, &str)> = metrics
        .all("berth_fleet_vram_bytes", &[])
        .filter_map(|sample| Some((sample.label("node")?, sample.label("product")?)))
        .collect();
    let mut rows = Vec::new();
    for (node, product) in nodes {
        let of = [("node", node), ("product", product)];
        let state = |metric: &str, state: &str| {
            metrics.sum_or_zero(metric, &[of[0], of[1], ("state", state)])
        };
        let vram = |name: &str| state("berth_fleet_vram_bytes", name);
        let gpus = |name: &str| state("berth_fleet_gpus", name);
        let total = metrics.sum("berth_fleet_vram_bytes", &of)?;
        let count = metrics.sum("berth_fleet_gpus", &of)?;
        rows.push(vec![
            node.to_owned(),
            format!("{count:.0} × {product}"),
            bar(vram("claimed"), vram("foreign"), vram("reserved") + vram("unusable"), total),
            format!("{:.0}/{count:.0} GPUs", gpus("claimed")),
            format!("{} of {} GiB claimed", gib(vram("claimed")), gib(total)),
            format!("{} free", gib(vram("free"))),
        ]);
    }
    // The bar is painted last: colours have no width.
    let plain = columns(&rows, &[false, false, false, true, true, true]);
    for line in plain.lines() {
        println!("{}", line.replace('#', &green("#")));
    }
    Ok(())
}

fn gib(bytes: f64) -> String {
    format!("{:.0}", bytes / f64::from(1 << 30))
}

/// `[####····--]`
fn bar(claimed: f64, foreign: f64, reserved: f64, total: f64) -> String {
    let cells = |bytes: f64| {
        let share = if total > 0.0 { (bytes / total).clamp(0.0, 1.0) } else { 0.0 };
        let wanted = share * WIDTH as f64;
        (0..WIDTH).take_while(|&cell| cell as f64 + 0.5 <= wanted).count()
    };
    let (claimed, foreign, reserved) = (cells(claimed), cells(foreign), cells(reserved));
    let free = WIDTH.saturating_sub(claimed + foreign + reserved);
    let repeat = |character: &str, count: usize| character.repeat(count);
    format!(
        "[{}{}{}{}]",
        repeat("#", claimed),
        repeat("x", foreign),
        repeat("·", free),
        repeat("-", reserved)
    )
}
