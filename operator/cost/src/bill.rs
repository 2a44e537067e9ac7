//! What the whole fleet costs in an hour, and who pays for it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    allocate::{Allocation, Deployment, Holder, Share, allocate},
    component::HourlyCost,
    hourly::{Asset, Unpriced, hourly},
    money::{Currency, MoneyError},
    validate::PriceList,
};

/// A node and who holds its GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetUse {
    /// The node. Each node is in a bill once.
    pub asset: Asset,
    /// Who holds how many of its GPUs.
    pub shares: Vec<Share>,
}

/// The fleet's cost for an hour, node by node, with what each deployment pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bill {
    /// The sum over all priced nodes.
    pub total: HourlyCost,
    /// What each deployment pays.
    pub deployments: BTreeMap<Deployment, DeploymentCost>,
    /// What GPUs cost that pods other than Berth's hold.
    pub foreign: HourlyCost,
    /// What GPUs cost that nobody holds.
    pub idle: HourlyCost,
    /// Every priced node, in the order given.
    pub nodes: Vec<NodeBill>,
    /// Every node without a price, in the order given. It is in none of the sums.
    pub unpriced: Vec<Unpriced>,
}

/// One priced node's cost and its division.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeBill {
    /// Name of the node.
    pub node: String,
    /// Product of its GPUs.
    pub product: String,
    /// What it costs in an hour.
    pub hourly: HourlyCost,
    /// Who pays for it.
    pub allocation: Allocation,
}

/// What one deployment costs in an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentCost {
    /// The cost of its GPUs on priced nodes.
    pub cost: HourlyCost,
    /// GPUs it holds on priced nodes.
    pub priced_gpus: u64,
    /// GPUs it holds on nodes without a price.
    pub unpriced_gpus: u64,
}

impl DeploymentCost {
    /// The cost, unless some of its GPUs have no price: then it is unknown, not less.
    pub fn known(&self) -> Option<&HourlyCost> {
        (self.unpriced_gpus == 0).then_some(&self.cost)
    }

    const fn nothing(currency: Currency) -> Self {
        Self { cost: HourlyCost::zero(currency), priced_gpus: 0, unpriced_gpus: 0 }
    }
}

/// Makes the bill of all nodes for an hour.
///
/// `total` = Σ `deployments` + `foreign` + `idle`, exactly and component by component. The only
/// error is a sum that cannot be kept exactly ([`MoneyError::TooLarge`]).
pub fn bill<'a>(
    prices: &PriceList,
    fleet: impl IntoIterator<Item = &'a AssetUse>,
) -> Result<Bill, MoneyError> {
    let currency = prices.currency();
    let mut bill = Bill {
        total: HourlyCost::zero(currency),
        deployments: BTreeMap::new(),
        foreign: HourlyCost::zero(currency),
        idle: HourlyCost::zero(currency),
        nodes: Vec::new(),
        unpriced: Vec::new(),
    };
    for AssetUse { asset, shares } in fleet {
        match hourly(prices, asset) {
            Ok(hourly) => bill.add(asset, hourly, shares)?,
            Err(unpriced) => {
                bill.unpriced.push(unpriced);
                bill.count_unpriced(shares, currency);
            }
        }
    }
    Ok(bill)
}

impl Bill {
    /// The currency of every amount.
    pub const fn currency(&self) -> Currency {
        self.total.currency()
    }

    fn add(
        &mut self,
        asset: &Asset,
        hourly: HourlyCost,
        shares: &[Share],
    ) -> Result<(), MoneyError> {
        let allocation = allocate(&hourly, shares, asset.gpus);
        for charge in &allocation.charges {
            match &charge.holder {
                Holder::Replica { deployment, .. } => {
                    let paid = self
                        .deployments
                        .entry(deployment.clone())
                        .or_insert_with(|| DeploymentCost::nothing(hourly.currency()));
                    paid.cost = paid.cost.checked_add(&charge.cost)?;
                    paid.priced_gpus = paid.priced_gpus.saturating_add(charge.gpus);
                }
                Holder::Foreign => self.foreign = self.foreign.checked_add(&charge.cost)?,
            }
        }
        self.idle = self.idle.checked_add(&allocation.idle.cost)?;
        self.total = self.total.checked_add(&hourly)?;
        let (node, product) = (asset.node.clone(), asset.product.clone());
        self.nodes.push(NodeBill { node, product, hourly, allocation });
        Ok(())
    }

    fn count_unpriced(&mut self, shares: &[Share], currency: Currency) {
        for share in shares.iter().filter(|share| share.gpus > 0) {
            if let Holder::Replica { deployment, .. } = &share.holder {
                let paid = self
                    .deployments
                    .entry(deployment.clone())
                    .or_insert_with(|| DeploymentCost::nothing(currency));
                paid.unpriced_gpus = paid.unpriced_gpus.saturating_add(share.gpus.into());
            }
        }
    }
}
