//! What the administrator says things cost: the data of a `CostProfile`, without Kubernetes.
//!
//! An optional price that is absent is unknown, not zero: its component is then reported as
//! unknown for owned hardware. Who means "costs nothing" writes 0.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::money::Currency;

/// Prices as they were written. [`Prices::validated`] turns them into a
/// [`PriceList`](crate::PriceList), the only thing that costs are computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// The currency of every amount below.
    pub currency: Currency,
    /// What nodes with GPUs cost.
    pub hardware: Vec<HardwarePrice>,
    /// What electricity costs; unknown if absent.
    pub energy: Option<EnergyPrice>,
}

/// What one kind of node costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwarePrice {
    /// A name, unique in the list, by which messages and reports refer to it.
    pub name: String,
    /// The nodes it is for.
    pub selector: HardwareSelector,
    /// Bought or rented.
    pub basis: Basis,
    /// Power of one GPU in watts, from its data sheet (TDP).
    pub gpu_power_watts: Option<u32>,
    /// Power of the rest of the node in watts.
    pub host_power_watts: Option<u32>,
    /// Hosting of one node a month: space, network, cooling that is not in the PUE.
    pub facility_per_month: Option<Decimal>,
    /// Work on one node a month.
    pub staff_per_month: Option<Decimal>,
    /// Licences and support subscriptions of one node a year; counted as maintenance.
    pub licences_per_year: Option<Decimal>,
}

/// Which nodes a price is for: those whose product is listed (any, if none is) and that carry all
/// the labels. It names at least one of the two: there is no price for everything.
///
/// Where several prices fit a node, the one with the most conditions (each label is one, products
/// together are one) applies, whatever their order; a tie leaves the node unpriced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareSelector {
    /// GPU products as the nodes' labels name them, upper and lower case alike.
    pub products: Vec<String>,
    /// Labels of the node.
    pub node_labels: BTreeMap<String, String>,
}

/// How the hardware is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Bought and written off.
    Owned(Owned),
    /// Rented by the hour.
    Rented(Rented),
}

/// What bought hardware costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Price of one node or one GPU, see `per`.
    pub purchase_price: Decimal,
    /// What price and residual value are for.
    pub per: Per,
    /// What one node or GPU is worth at the end of its life.
    pub residual_value: Decimal,
    /// Months over which it is written off, 1 to 600.
    pub life_months: u32,
    /// Cost of capital a year, a fraction (0.08 for 8 %) of the mean value over its life.
    pub cost_of_capital_per_year: Option<Decimal>,
    /// Maintenance a year, a fraction (0.10 for 10 %) of the purchase price.
    pub maintenance_per_year: Option<Decimal>,
}

/// What rented hardware costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rented {
    /// Rent of one node or one GPU, see `per`, for an hour.
    pub per_hour: Decimal,
    /// What the rent is for.
    pub per: Per,
}

/// What a price buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// The whole node.
    Node,
    /// One GPU with its part of the node.
    Gpu,
}

/// What electricity costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyPrice {
    /// Price of a kWh.
    pub per_kwh: Decimal,
    /// Power usage effectiveness of the site: all its power ÷ power of its machines, 1 to 10.
    pub pue: Decimal,
}
