//! GPUs by the names that people give them.

use anyhow::{Context, bail};
use berth_planner::usable;
use berth_units::Bytes;
use berth_vram::advise::{Gpu, PricePerHour, Product, product, products};
use serde::Serialize;

/// A product, as answers show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuView {
    /// Its short name.
    pub name: String,
    /// What nodes are labelled with.
    pub label: String,
    /// Memory, as the driver reports it.
    pub vram_bytes: Bytes,
    /// What a claim may use of it.
    pub usable_bytes: Bytes,
}

impl From<&Product> for GpuView {
    fn from(product: &Product) -> Self {
        Self {
            name: product.name.clone(),
            label: product.labels.first().cloned().unwrap_or_default(),
            vram_bytes: product.vram(),
            usable_bytes: usable(product.vram()),
        }
    }
}

/// The product of that name.
pub fn find(name: &str) -> anyhow::Result<&'static Product> {
    let Some(product) = product(name) else {
        let known: Vec<&str> = products().iter().map(|product| product.name.as_str()).collect();
        bail!(
            "no GPU {name:?} is known; use one of {}, or its label on nodes \
             (nvidia.com/gpu.product, amd.com/gpu.product-name)",
            known.join(", ")
        );
    };
    Ok(product)
}

/// A product as the advisor takes it: usable is what the planner lets a claim use.
pub fn offered(product: &'static Product, price: Option<PricePerHour>) -> Gpu<'static> {
    Gpu { product, usable: usable(product.vram()), price }
}

/// The products of these names, or all; each with its price.
pub fn choose(names: &[String], prices: &[String]) -> anyhow::Result<Vec<Gpu<'static>>> {
    let mut costs: Vec<(&Product, PricePerHour)> = Vec::new();
    for text in prices {
        let (name, price) = text
            .split_once('=')
            .with_context(|| format!("--price {text}: write PRODUCT=PRICE, as in L40S=0.90"))?;
        let price = price.parse().with_context(|| format!("--price {text}"))?;
        costs.push((find(name)?, price));
    }
    let mut chosen: Vec<&'static Product> = Vec::new();
    for name in names {
        let product = find(name)?;
        if !chosen.contains(&product) {
            chosen.push(product);
        }
    }
    if names.is_empty() {
        chosen.extend(products());
    }
    if let Some((product, _)) = costs.iter().find(|(priced, _)| !chosen.contains(priced)) {
        bail!("--price is given for {product}, but not --gpu; add --gpu {product}");
    }
    let price = |product: &Product| {
        costs.iter().rev().find(|(priced, _)| *priced == product).map(|&(_, price)| price)
    };
    Ok(chosen.into_iter().map(|product| offered(product, price(product))).collect())
}
