//! What a cost is made of, and a cost per hour made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use rust_decimal::Decimal;
use serde::Serialize;

use crate::money::{Currency, Money, MoneyError, add, bounded, same_currency};

/// What a cost is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// Purchase price less residual value, spread evenly over the hardware's life.
    Amortisation,
    /// Cost of the capital that is bound in the hardware.
    Capital,
    /// The rate of hardware that is rented, instead of amortisation, capital and maintenance.
    Rent,
    /// Repair, support and licences.
    Maintenance,
    /// Electricity, with what the site adds to it.
    Energy,
    /// Hosting.
    Facility,
    /// People.
    Staff,
}

impl Component {
    /// Every component, in the order in which reports list them.
    pub const ALL: [Self; 7] = [
        Self::Amortisation,
        Self::Capital,
        Self::Rent,
        Self::Maintenance,
        Self::Energy,
        Self::Facility,
        Self::Staff,
    ];

    /// The value of the metric label `component`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amortisation => "amortisation",
            Self::Capital => "capital",
            Self::Rent => "rent",
            Self::Maintenance => "maintenance",
            Self::Energy => "energy",
            Self::Facility => "facility",
            Self::Staff => "staff",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where the joules behind an energy cost come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum EnergySource {
    /// Estimated: rated power of the GPUs; the host's is not known and left out.
    GpuRating,
    /// Estimated: rated power of the GPUs and of the host.
    NodeRating,
}

impl EnergySource {
    /// Whether it is an estimate, not a measurement.
    pub const fn is_estimate(self) -> bool {
        match self {
            Self::GpuRating | Self::NodeRating => true,
        }
    }

    /// The value of the metric label `source`.
    pub const fn as_str(self) -> &'static str {
        if self.is_estimate() { "estimated" } else { "measured" }
    }
}

/// A cost per hour by component, in one currency. Never negative; the total is below 10¹⁶.
///
/// A component that is absent does not apply; one that applies but has no price, or not every
/// price, is in [`unknown`](Self::unknown), and the total is then a lower bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HourlyCost {
    currency: Currency,
    per_hour: BTreeMap<Component, Decimal>,
    unknown: BTreeSet<Component>,
    energy_sources: BTreeSet<EnergySource>,
}

impl HourlyCost {
    /// No cost.
    pub const fn zero(currency: Currency) -> Self {
        Self {
            currency,
            per_hour: BTreeMap::new(),
            unknown: BTreeSet::new(),
            energy_sources: BTreeSet::new(),
        }
    }

    /// The currency of every component.
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// The cost of one component for an hour, where it applies and is known.
    pub fn component(&self, component: Component) -> Option<Money> {
        self.per_hour.get(&component).map(|&amount| Money::from_bounded(amount, self.currency))
    }

    /// Every known component with its cost for an hour.
    pub fn components(&self) -> impl Iterator<Item = (Component, Money)> {
        self.per_hour
            .iter()
            .map(|(&component, &amount)| (component, Money::from_bounded(amount, self.currency)))
    }

    /// The sum of the known components for an hour.
    pub fn total(&self) -> Money {
        Money::from_bounded(self.per_hour.values().sum(), self.currency)
    }

    /// Components that apply but whose prices are not all known; the total leaves those out.
    pub fn unknown(&self) -> impl Iterator<Item = Component> {
        self.unknown.iter().copied()
    }

    /// Whether no component is unknown.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Where the energy in it comes from; empty without energy, several for a sum.
    pub fn energy_sources(&self) -> impl Iterator<Item = EnergySource> {
        self.energy_sources.iter().copied()
    }

    /// The exact sum; refused across currencies.
    pub fn checked_add(&self, other: &Self) -> Result<Self, MoneyError> {
        same_currency(self.currency, other.currency)?;
        let mut sum = self.clone();
        for (&component, &amount) in &other.per_hour {
            let entry = sum.per_hour.entry(component).or_default();
            *entry = add(*entry, amount)?;
        }
        sum.unknown.extend(&other.unknown);
        sum.energy_sources.extend(&other.energy_sources);
        sum.bounded()
    }

    /// The same currency, unknowns and sources with other amounts, each at most this one's.
    pub(crate) fn part(&self, per_hour: BTreeMap<Component, Decimal>) -> Self {
        Self { per_hour, ..self.clone() }
    }

    /// Every known component as it is kept.
    pub(crate) const fn per_hour(&self) -> &BTreeMap<Component, Decimal> {
        &self.per_hour
    }

    pub(crate) fn bounded(self) -> Result<Self, MoneyError> {
        self.per_hour.values().try_fold(Decimal::ZERO, |sum, &amount| add(sum, amount))?;
        Ok(self)
    }

    pub(crate) fn put(
        &mut self,
        component: Component,
        amount: Option<Decimal>,
    ) -> Result<(), MoneyError> {
        let amount = bounded(amount.ok_or(MoneyError::TooLarge)?)?;
        self.per_hour.insert(component, amount);
        Ok(())
    }

    pub(crate) fn mark_unknown(&mut self, component: Component) {
        self.unknown.insert(component);
    }

    pub(crate) fn energy_from(&mut self, source: EnergySource) {
        self.energy_sources.insert(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_serialised_names() {
        for component in Component::ALL {
            let json = serde_json::to_string(&component).unwrap();
            assert_eq!(json, format!("\"{component}\""));
        }
    }
}
