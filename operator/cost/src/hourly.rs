//! Which price is for a node, and what the node costs by it in an hour.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::{
    component::{Component, EnergySource, HourlyCost},
    money::{Currency, MoneyError},
    prices::{Basis, EnergyPrice, HardwarePrice, HardwareSelector, Per},
    validate::PriceList,
};

/// Hours in a month of accounting.
pub const HOURS_PER_MONTH: Decimal = whole(730);
/// Hours in a year of accounting.
pub const HOURS_PER_YEAR: Decimal = whole(8760);

const WATTS_PER_KW: Decimal = whole(1000);

const fn whole(number: u32) -> Decimal {
    Decimal::from_parts(number, 0, 0, false, 0)
}

/// A node with GPUs, as far as its price depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Name of the node.
    pub node: String,
    /// Product of its GPUs, as its label names it.
    pub product: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// GPUs built into it, the unhealthy ones too: they cost the same.
    pub gpus: u32,
}

/// Why a node has no cost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Unpriced {
    /// No price is for this node.
    #[error("node {node}: no price is for GPU product {product:?} and this node's labels; add one")]
    NoPrice {
        /// Name of the node.
        node: String,
        /// Product of its GPUs.
        product: String,
    },
    /// More than one price is for this node.
    #[error(
        "node {node} (GPU product {product:?}): the prices {} fit it equally well; narrow the \
         selector of all but one", prices.join(", ")
    )]
    Ambiguous {
        /// Name of the node.
        node: String,
        /// Product of its GPUs.
        product: String,
        /// Names of the prices.
        prices: Vec<String>,
    },
    /// The cost is beyond what can be kept exactly.
    #[error(
        "node {node} (GPU product {product:?}): its cost by price {price} is 10^16 an hour or \
         more; check the price's unit"
    )]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Product of its GPUs.
        product: String,
        /// Name of the price.
        price: String,
    },
}

impl Unpriced {
    /// Name of the node.
    pub fn node(&self) -> &str {
        match self {
            Self::NoPrice { node, .. }
            | Self::Ambiguous { node, .. }
            | Self::TooLarge { node, .. } => node,
        }
    }

    /// Product of the node's GPUs.
    pub fn product(&self) -> &str {
        match self {
            Self::NoPrice { product, .. }
            | Self::Ambiguous { product, .. }
            | Self::TooLarge { product, .. } => product,
        }
    }
}

impl HardwareSelector {
    /// How many conditions the node meets; none unless it meets all.
    fn conditions_met(&self, asset: &Asset) -> Option<usize> {
        let product = self.products.is_empty()
            || self.products.iter().any(|product| product.eq_ignore_ascii_case(&asset.product));
        let labels =
            self.node_labels.iter().all(|(key, value)| asset.labels.get(key) == Some(value));
        let conditions = usize::from(!self.products.is_empty()) + self.node_labels.len();
        (product && labels).then_some(conditions)
    }
}

impl PriceList {
    /// The price that is for this node: of those that fit it, the one with the most conditions.
    pub fn price_for(&self, asset: &Asset) -> Result<&HardwarePrice, Unpriced> {
        let fitting = || {
            self.prices().hardware.iter().filter_map(|price| {
                price.selector.conditions_met(asset).map(|conditions| (conditions, price))
            })
        };
        let most = fitting().map(|(conditions, _)| conditions).max();
        let best: Vec<&HardwarePrice> = fitting()
            .filter(|&(conditions, _)| Some(conditions) == most)
            .map(|(_, price)| price)
            .collect();
        match best[..] {
            [] => {
                Err(Unpriced::NoPrice { node: asset.node.clone(), product: asset.product.clone() })
            }
            [price] => Ok(price),
            _ => Err(Unpriced::Ambiguous {
                node: asset.node.clone(),
                product: asset.product.clone(),
                prices: best.iter().map(|price| price.name.clone()).collect(),
            }),
        }
    }
}

/// What a whole node costs in an hour, by component.
///
/// Owned: `(P − R)/(730·lifeMonths) + c·(P + R)/(2·8760) + m·P/8760 + (facility + staff)/730 +
/// licences/8760`, with P the price, R the residual value, c the cost of capital and m the
/// maintenance a year. Rented: the rate. Energy: `PUE · watts/1000 · tariff`, from rated power.
pub fn hourly(prices: &PriceList, asset: &Asset) -> Result<HourlyCost, Unpriced> {
    let price = prices.price_for(asset)?;
    by_price(prices.currency(), price, prices.prices().energy.as_ref(), asset.gpus).map_err(|_| {
        Unpriced::TooLarge {
            node: asset.node.clone(),
            product: asset.product.clone(),
            price: price.name.clone(),
        }
    })
}

/// The only error is [`MoneyError::TooLarge`].
fn by_price(
    currency: Currency,
    price: &HardwarePrice,
    energy: Option<&EnergyPrice>,
    gpus: u32,
) -> Result<HourlyCost, MoneyError> {
    let mut cost = HourlyCost::zero(currency);
    let units = |per| match per {
        Per::Node => Decimal::ONE,
        Per::Gpu => Decimal::from(gpus),
    };
    let owned = match &price.basis {
        Basis::Owned(owned) => {
            let purchase = owned.purchase_price.checked_mul(units(owned.per));
            let residual = owned.residual_value.checked_mul(units(owned.per));
            let (Some(purchase), Some(residual)) = (purchase, residual) else {
                return Err(MoneyError::TooLarge);
            };
            let life_hours = HOURS_PER_MONTH.checked_mul(owned.life_months.into());
            cost.put(
                Component::Amortisation,
                life_hours.and_then(|hours| purchase.checked_sub(residual)?.checked_div(hours)),
            )?;
            match owned.cost_of_capital_per_year {
                Some(fraction) => cost.put(
                    Component::Capital,
                    purchase
                        .checked_add(residual)
                        .and_then(|value| value.checked_mul(fraction))
                        .and_then(|year| year.checked_div(Decimal::TWO * HOURS_PER_YEAR)),
                )?,
                None => cost.mark_unknown(Component::Capital),
            }
            Some((purchase, owned.maintenance_per_year))
        }
        Basis::Rented(rented) => {
            cost.put(Component::Rent, rented.per_hour.checked_mul(units(rented.per)))?;
            None
        }
    };

    // For what is rented, a price that is absent is in the rent.
    let is_owned = owned.is_some();
    let maintenance = match owned {
        Some((purchase, fraction)) => fraction.map(|fraction| purchase.checked_mul(fraction)),
        None => None,
    };
    match (maintenance, price.licences_per_year) {
        (None, None) if is_owned => cost.mark_unknown(Component::Maintenance),
        (None, None) => {}
        (maintenance, licences) => {
            // Licences without a maintenance rate: what is known is charged, the rest is said.
            if maintenance.is_none() && is_owned {
                cost.mark_unknown(Component::Maintenance);
            }
            let a_year = maintenance
                .unwrap_or(Some(Decimal::ZERO))
                .and_then(|sum| sum.checked_add(licences.unwrap_or_default()));
            let an_hour = a_year.and_then(|amount| amount.checked_div(HOURS_PER_YEAR));
            cost.put(Component::Maintenance, an_hour)?;
        }
    }
    for (component, a_month) in
        [(Component::Facility, price.facility_per_month), (Component::Staff, price.staff_per_month)]
    {
        match a_month {
            Some(amount) => cost.put(component, amount.checked_div(HOURS_PER_MONTH))?,
            None if is_owned => cost.mark_unknown(component),
            None => {}
        }
    }
    match (price.gpu_power_watts, energy) {
        (Some(gpu_watts), Some(energy)) => {
            cost.put(Component::Energy, energy_per_hour(energy, price, gpu_watts, gpus))?;
            cost.energy_from(match price.host_power_watts {
                Some(_) => EnergySource::NodeRating,
                None => EnergySource::GpuRating,
            });
        }
        // Power that is stated is paid for apart from the rent.
        (Some(_), None) => cost.mark_unknown(Component::Energy),
        (None, _) if is_owned => cost.mark_unknown(Component::Energy),
        (None, _) => {}
    }
    cost.bounded()
}

fn energy_per_hour(
    energy: &EnergyPrice,
    price: &HardwarePrice,
    gpu_watts: u32,
    gpus: u32,
) -> Option<Decimal> {
    let watts = u64::from(gpu_watts) * u64::from(gpus)
        + u64::from(price.host_power_watts.unwrap_or_default());
    let kw = Decimal::from(watts).checked_div(WATTS_PER_KW)?;
    kw.checked_mul(energy.pue)?.checked_mul(energy.per_kwh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        money::parse_decimal,
        prices::{Owned, Prices, Rented},
    };

    fn d(text: &str) -> Decimal {
        parse_decimal(text).unwrap()
    }

    fn selector(products: &[&str], labels: &[(&str, &str)]) -> HardwareSelector {
        HardwareSelector {
            products: products.iter().map(ToString::to_string).collect(),
            node_labels: labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    /// Eight H100 for 280,000 with 10 % maintenance a year, nothing else priced.
    fn bought(life_months: u32) -> HardwarePrice {
        HardwarePrice {
            name: "bought".to_owned(),
            selector: selector(&["Product-A"], &[]),
            basis: Basis::Owned(Owned {
                purchase_price: d("280000"),
                per: Per::Node,
                residual_value: Decimal::ZERO,
                life_months,
                cost_of_capital_per_year: None,
                maintenance_per_year: Some(d("0.10")),
            }),
            gpu_power_watts: None,
            host_power_watts: None,
            facility_per_month: None,
            staff_per_month: None,
            licences_per_year: None,
        }
    }

    fn rented(per: Per, per_hour: &str) -> HardwarePrice {
        let basis = Basis::Rented(Rented { per_hour: d(per_hour), per });
        HardwarePrice { name: "rented".to_owned(), basis, ..bought(36) }
    }

    fn list(hardware: Vec<HardwarePrice>, energy: Option<EnergyPrice>) -> PriceList {
        Prices { currency: "USD".parse().unwrap(), hardware, energy }.validated().unwrap()
    }

    fn node(gpus: u32) -> Asset {
        Asset {
            node: "node-1".to_owned(),
            product: "Product-A".to_owned(),
            labels: BTreeMap::from([("pool".to_owned(), "blue".to_owned())]),
            gpus,
        }
    }

    fn shown(cost: &HourlyCost) -> Vec<String> {
        cost.components().map(|(component, money)| format!("{component} {money:.6}")).collect()
    }

    #[test]
    fn eight_h100_over_three_years_cost_13_85_usd_an_hour_before_energy() {
        let cost = hourly(&list(vec![bought(36)], None), &node(8)).unwrap();
        assert_eq!(cost.total().to_string(), "13.85 USD");
        assert_eq!(shown(&cost), ["amortisation 10.654490 USD", "maintenance 3.196347 USD"]);
    }

    #[test]
    fn eight_h100_over_four_years_cost_11_19_usd_an_hour_before_energy() {
        let cost = hourly(&list(vec![bought(48)], None), &node(8)).unwrap();
        assert_eq!(cost.total().to_string(), "11.19 USD");
    }

    #[test]
    fn every_term_of_the_formula_is_there() {
        let mut price = bought(36);
        if let Basis::Owned(owned) = &mut price.basis {
            owned.residual_value = d("28000");
            owned.cost_of_capital_per_year = Some(d("0.08"));
        }
        price.gpu_power_watts = Some(700);
        price.host_power_watts = Some(2400);
        price.facility_per_month = Some(d("1460"));
        price.staff_per_month = Some(d("730"));
        price.licences_per_year = Some(d("36000"));
        let energy = EnergyPrice { per_kwh: d("0.12"), pue: d("1.5") };
        let cost = hourly(&list(vec![price], Some(energy)), &node(8)).unwrap();
        assert_eq!(
            shown(&cost),
            [
                "amortisation 9.589041 USD", // (280000 − 28000) / 26280
                "capital 1.406393 USD",      // 0.08 · 308000 / 17520
                "maintenance 7.305936 USD",  // (28000 + 36000) / 8760
                "energy 1.440000 USD",       // 1.5 · (8·700 + 2400)/1000 · 0.12
                "facility 2.000000 USD",
                "staff 1.000000 USD",
            ]
        );
        assert!(cost.is_complete());
        let sources: Vec<_> = cost.energy_sources().collect();
        assert_eq!(sources, [EnergySource::NodeRating]);
        assert_eq!(sources[0].as_str(), "estimated");
    }

    #[test]
    fn what_an_owner_does_not_state_is_unknown_not_zero() {
        use Component::{Capital, Energy, Facility, Staff};
        let cost = hourly(&list(vec![bought(36)], None), &node(8)).unwrap();
        let unknown: Vec<_> = cost.unknown().collect();
        assert_eq!(unknown, [Capital, Energy, Facility, Staff]);
        assert_eq!(cost.component(Energy), None);

        let mut price = bought(36);
        price.gpu_power_watts = Some(700);
        price.staff_per_month = Some(Decimal::ZERO);
        let energy = Some(EnergyPrice { per_kwh: d("0.12"), pue: Decimal::ONE });
        let cost = hourly(&list(vec![price.clone()], energy), &node(1)).unwrap();
        assert_eq!(cost.component(Staff).unwrap().to_string(), "0.00 USD");
        assert_eq!(format!("{:.3}", cost.component(Energy).unwrap()), "0.084 USD");
        assert_eq!(cost.energy_sources().collect::<Vec<_>>(), [EnergySource::GpuRating]);

        let cost = hourly(&list(vec![price], None), &node(1)).unwrap();
        assert!(cost.unknown().any(|component| component == Energy), "no tariff");
    }

    #[test]
    fn licences_do_not_hide_that_maintenance_is_unknown() {
        let mut price = bought(36);
        if let Basis::Owned(owned) = &mut price.basis {
            owned.maintenance_per_year = None;
        }
        price.licences_per_year = Some(d("8760"));
        let cost = hourly(&list(vec![price], None), &node(8)).unwrap();
        assert_eq!(cost.component(Component::Maintenance).unwrap().to_string(), "1.00 USD");
        assert!(cost.unknown().any(|component| component == Component::Maintenance));
    }

    #[test]
    fn rent_covers_what_is_not_stated_apart() {
        let cost = hourly(&list(vec![rented(Per::Node, "20")], None), &node(8)).unwrap();
        assert_eq!(shown(&cost), ["rent 20.000000 USD"]);
        assert!(cost.is_complete());

        let mut colocated = rented(Per::Gpu, "2.5");
        colocated.gpu_power_watts = Some(1000);
        colocated.staff_per_month = Some(d("730"));
        let cost = hourly(&list(vec![colocated.clone()], None), &node(8)).unwrap();
        assert_eq!(shown(&cost), ["rent 20.000000 USD", "staff 1.000000 USD"]);
        assert_eq!(cost.unknown().collect::<Vec<_>>(), [Component::Energy]);
    }

    #[test]
    fn a_price_per_gpu_grows_with_the_gpus() {
        let mut price = bought(36);
        if let Basis::Owned(owned) = &mut price.basis {
            owned.per = Per::Gpu;
            owned.purchase_price = d("35000");
        }
        let eight = hourly(&list(vec![price.clone()], None), &node(8)).unwrap();
        assert_eq!(eight, hourly(&list(vec![bought(36)], None), &node(8)).unwrap());
        assert!(hourly(&list(vec![price], None), &node(0)).unwrap().total().amount().is_zero());
    }

    #[test]
    fn a_node_that_no_price_fits_is_unpriced() {
        let prices = list(vec![bought(36)], None);
        let other = Asset { product: "Product-B".to_owned(), ..node(8) };
        let unpriced = hourly(&prices, &other).unwrap_err();
        assert_eq!((unpriced.node(), unpriced.product()), ("node-1", "Product-B"));
        assert_eq!(
            unpriced.to_string(),
            "node node-1: no price is for GPU product \"Product-B\" and this node's labels; add one"
        );
        let same = Asset { product: "product-a".to_owned(), ..node(8) };
        assert!(hourly(&prices, &same).is_ok(), "case makes no difference");
    }

    #[test]
    fn the_price_with_more_conditions_applies_whatever_the_order() {
        let special = HardwarePrice {
            selector: selector(&["Product-A"], &[("pool", "blue")]),
            ..rented(Per::Node, "20")
        };
        let label_missing = HardwarePrice {
            name: "green".to_owned(),
            selector: selector(&["Product-A"], &[("pool", "blue"), ("rack", "7")]),
            ..rented(Per::Node, "30")
        };
        let mut hardware = vec![bought(36), special, label_missing];
        for _ in 0..2 {
            assert_eq!(list(hardware.clone(), None).price_for(&node(8)).unwrap().name, "rented");
            hardware.reverse();
        }
    }

    #[test]
    fn two_prices_that_fit_equally_well_are_ambiguous() {
        let by_label = HardwarePrice {
            selector: selector(&[], &[("pool", "blue")]),
            ..rented(Per::Node, "20")
        };
        let unpriced = hourly(&list(vec![bought(36), by_label], None), &node(8)).unwrap_err();
        assert_eq!(
            unpriced.to_string(),
            "node node-1 (GPU product \"Product-A\"): the prices bought, rented fit it equally \
             well; narrow the selector of all but one"
        );
    }

    #[test]
    fn what_is_too_large_is_said_without_a_panic() {
        let most = rented(Per::Gpu, "999999999999.999999999999");
        let unpriced = hourly(&list(vec![most], None), &node(u32::MAX)).unwrap_err();
        assert!(matches!(unpriced, Unpriced::TooLarge { .. }));
    }

    #[test]
    fn sums_keep_what_is_unknown() {
        let bought = hourly(&list(vec![bought(36)], None), &node(8)).unwrap();
        let rent = hourly(&list(vec![rented(Per::Node, "20")], None), &node(8)).unwrap();
        let sum = rent.checked_add(&bought).unwrap();
        assert_eq!(sum.total().to_string(), "33.85 USD");
        assert!(!sum.is_complete());
        let euros = HourlyCost::zero("EUR".parse().unwrap());
        assert!(sum.checked_add(&euros).is_err());
    }
}
