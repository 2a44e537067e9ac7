//! Cost over time: totals that only grow, from hourly costs and the time for which they held.
//!
//! The numbers behind the Prometheus counters. The caller has the clock: it charges the bill that
//! held during an interval with the length of that interval.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    allocate::{Deployment, Holder, State},
    bill::Bill,
    component::{Component, HourlyCost},
    money::{Currency, Money, MoneyError, from_units, to_units},
};

const NANOS_PER_HOUR: i128 = 3_600_000_000_000;

/// Totals of cost by key, component and currency; monotone for as long as a key is kept.
///
/// Exact: it sums amount per hour × nanoseconds in whole numbers and divides only when read, so
/// that ten thousand charges of a second are one charge of ten thousand seconds. A total shown is
/// cut, not rounded, to 12 decimals. A single total holds up to 4·10¹³ of its currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter<K> {
    /// In 10⁻¹² of the currency per hour, times nanoseconds.
    integrals: BTreeMap<K, BTreeMap<(Currency, Component), i128>>,
}

impl<K: Ord + Clone> Meter<K> {
    /// A meter at zero.
    pub const fn new() -> Self {
        Self { integrals: BTreeMap::new() }
    }

    /// Adds what `cost` comes to in `elapsed`. On an error nothing has been added.
    pub fn charge(
        &mut self,
        key: &K,
        cost: &HourlyCost,
        elapsed: Duration,
    ) -> Result<(), MoneyError> {
        let nanos = i128::try_from(elapsed.as_nanos()).map_err(|_| MoneyError::TooLarge)?;
        let before = self.integrals.get(key);
        let mut after = Vec::new();
        for (&component, &amount) in cost.per_hour() {
            let series = (cost.currency(), component);
            let so_far = before.and_then(|totals| totals.get(&series)).copied().unwrap_or_default();
            let integral = to_units(amount)
                .checked_mul(nanos)
                .and_then(|charge| so_far.checked_add(charge))
                .ok_or(MoneyError::TooLarge)?;
            from_units(integral / NANOS_PER_HOUR)?;
            after.push((series, integral));
        }
        match self.integrals.get_mut(key) {
            Some(totals) => totals.extend(after),
            None => _ = self.integrals.insert(key.clone(), after.into_iter().collect()),
        }
        Ok(())
    }

    /// Every total.
    pub fn totals(&self) -> impl Iterator<Item = (&K, Component, Money)> {
        self.integrals.iter().flat_map(|(key, totals)| {
            totals.iter().map(move |(&(currency, component), &integral)| {
                // `charge` has seen that it is in bounds.
                let amount = from_units(integral / NANOS_PER_HOUR).unwrap_or_default();
                (key, component, Money::from_bounded(amount, currency))
            })
        })
    }

    /// The total of one key and component in a currency; zero if it was never charged.
    pub fn total(&self, key: &K, component: Component, currency: Currency) -> Money {
        let integral =
            self.integrals.get(key).and_then(|totals| totals.get(&(currency, component)));
        let units = integral.copied().unwrap_or_default() / NANOS_PER_HOUR;
        Money::from_bounded(from_units(units).unwrap_or_default(), currency)
    }

    /// Drops every key that does not pass, such as those of a deployment that was deleted.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.integrals.retain(|key, _| keep(key));
    }
}

impl<K: Ord + Clone> Default for Meter<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The GPUs of one node, as the metrics of foreign and idle cost name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeGpus {
    /// Name of the node.
    pub node: String,
    /// Product of its GPUs.
    pub product: String,
}

/// Totals of the whole fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetMeter {
    /// What deployments paid, by what their replicas did.
    pub deployments: Meter<(Deployment, State)>,
    /// What GPUs cost that pods other than Berth's held.
    pub foreign: Meter<NodeGpus>,
    /// What GPUs cost that nobody held.
    pub idle: Meter<NodeGpus>,
}

impl FleetMeter {
    /// Charges a bill for as long as it held. An amount that its total cannot hold is left out;
    /// the rest is charged all the same, and the first error returned.
    pub fn charge(&mut self, bill: &Bill, elapsed: Duration) -> Result<(), MoneyError> {
        let mut outcome = Ok(());
        for node in &bill.nodes {
            let gpus = NodeGpus { node: node.node.clone(), product: node.product.clone() };
            for charge in &node.allocation.charges {
                let charged = match &charge.holder {
                    Holder::Replica { deployment, state } => {
                        let key = (deployment.clone(), *state);
                        self.deployments.charge(&key, &charge.cost, elapsed)
                    }
                    Holder::Foreign => self.foreign.charge(&gpus, &charge.cost, elapsed),
                };
                outcome = outcome.and(charged);
            }
            let charged = self.idle.charge(&gpus, &node.allocation.idle.cost, elapsed);
            outcome = outcome.and(charged);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use super::*;
    use crate::money::parse_decimal;

    fn cost(amount: &str, currency: Currency) -> HourlyCost {
        let amount = parse_decimal(amount).unwrap();
        HourlyCost::zero(currency).part(Map::from([(Component::Rent, amount)]))
    }

    fn eur() -> Currency {
        "EUR".parse().unwrap()
    }

    #[test]
    fn an_hour_costs_the_hourly_cost() {
        let mut meter = Meter::new();
        meter.charge(&"a", &cost("12.345", eur()), Duration::from_hours(1)).unwrap();
        assert_eq!(format!("{:.3}", meter.total(&"a", Component::Rent, eur())), "12.345 EUR");
        assert!(meter.total(&"a", Component::Energy, eur()).amount().is_zero());
        assert!(meter.total(&"b", Component::Rent, eur()).amount().is_zero());
    }

    #[test]
    fn many_small_charges_are_one_large_one() {
        let (mut small, mut large) = (Meter::new(), Meter::new());
        let rate = cost("0.000000000007", eur());
        for _ in 0..10_000 {
            small.charge(&"a", &rate, Duration::from_millis(1_500)).unwrap();
        }
        large.charge(&"a", &rate, Duration::from_mins(250)).unwrap();
        assert_eq!(small, large);
    }

    #[test]
    fn a_change_of_currency_starts_another_total() {
        let mut meter = Meter::new();
        let usd = "USD".parse().unwrap();
        meter.charge(&"a", &cost("1", eur()), Duration::from_hours(1)).unwrap();
        meter.charge(&"a", &cost("2", usd), Duration::from_hours(1)).unwrap();
        let totals: Vec<_> = meter.totals().map(|(_, _, money)| money.to_string()).collect();
        assert_eq!(totals, ["1.00 EUR", "2.00 USD"]);
    }

    #[test]
    fn a_charge_that_does_not_fit_changes_nothing() {
        let mut meter = Meter::new();
        let rate = cost("999999999999", eur());
        meter.charge(&"a", &rate, Duration::from_hours(1)).unwrap();
        let before = meter.clone();
        assert_eq!(meter.charge(&"a", &rate, Duration::MAX), Err(MoneyError::TooLarge));
        assert_eq!(meter.charge(&"b", &rate, Duration::MAX), Err(MoneyError::TooLarge));
        assert_eq!(meter, before);
    }

    #[test]
    fn what_is_deleted_is_dropped() {
        let mut meter = Meter::new();
        for key in ["a", "b"] {
            meter.charge(&key, &cost("1", eur()), Duration::from_secs(1)).unwrap();
        }
        meter.retain(|&key| key != "a");
        assert_eq!(meter.totals().map(|(key, ..)| *key).collect::<Vec<_>>(), ["b"]);
    }
}
