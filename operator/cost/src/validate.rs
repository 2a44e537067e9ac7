//! From prices as written to a list that costs can be computed from: every problem at once, each
//! with the field's path and what to do.

use std::{collections::BTreeMap, fmt};

use rust_decimal::Decimal;

use crate::{
    money::{Currency, DecimalError, MoneyError},
    prices::{Basis, HardwarePrice, Per, Prices},
};

/// Longest life over which hardware may be written off, months.
const MAX_LIFE_MONTHS: u32 = 600;
/// Most power that one GPU or one host may draw, watts.
const MAX_WATTS: u32 = 1_000_000;
/// Every price is below this.
const MAX_PRICE: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0); // 10^12
/// Decimals that a price may have.
const MAX_PRICE_SCALE: u32 = 12;

/// Prices that have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceList(Prices);

impl PriceList {
    /// The prices.
    pub const fn prices(&self) -> &Prices {
        &self.0
    }

    /// The currency of every price.
    pub const fn currency(&self) -> Currency {
        self.0.currency
    }
}

impl Prices {
    /// Checks every price; all problems are reported, not only the first.
    pub fn validated(self) -> Result<PriceList, InvalidPrices> {
        let mut check = Check(Vec::new());
        if self.hardware.is_empty() {
            check.refuse("hardware".to_owned(), PriceProblem::NoPrices);
        }
        let mut names = BTreeMap::new();
        for (index, price) in self.hardware.iter().enumerate() {
            let path = format!("hardware[{index}]");
            check.hardware(&path, price);
            if let Some(first) = names.insert(price.name.as_str(), index) {
                let problem = PriceProblem::NameTaken { name: price.name.clone(), first };
                check.refuse(format!("{path}.name"), problem);
            }
        }
        if let Some(energy) = &self.energy {
            check.price("energy.perKwh".to_owned(), energy.per_kwh);
            if energy.pue < Decimal::ONE || energy.pue > Decimal::TEN {
                let problem = PriceProblem::Pue { value: energy.pue };
                check.refuse("energy.pue".to_owned(), problem);
            }
        }
        if check.0.is_empty() { Ok(PriceList(self)) } else { Err(InvalidPrices(check.0)) }
    }
}

struct Check(Vec<PriceError>);

impl Check {
    fn refuse(&mut self, path: String, problem: PriceProblem) {
        self.0.push(PriceError { path, problem });
    }

    fn hardware(&mut self, path: &str, price: &HardwarePrice) {
        if price.name.trim().is_empty() {
            self.refuse(format!("{path}.name"), PriceProblem::NoName);
        }
        if price.selector.products.is_empty() && price.selector.node_labels.is_empty() {
            self.refuse(format!("{path}.selector"), PriceProblem::SelectsEverything);
        }
        for (index, product) in price.selector.products.iter().enumerate() {
            if product.trim().is_empty() {
                let path = format!("{path}.selector.products[{index}]");
                self.refuse(path, PriceProblem::NoProduct);
            }
        }
        match &price.basis {
            Basis::Owned(owned) => {
                let path = format!("{path}.owned");
                let price_path = format!("{path}.purchasePrice");
                self.price_above_zero(price_path, owned.purchase_price, owned.per);
                self.price(format!("{path}.residualValue"), owned.residual_value);
                if owned.residual_value > owned.purchase_price
                    && owned.purchase_price > Decimal::ZERO
                {
                    let problem = PriceProblem::ResidualAbovePrice {
                        residual: owned.residual_value,
                        price: owned.purchase_price,
                    };
                    self.refuse(format!("{path}.residualValue"), problem);
                }
                if !(1..=MAX_LIFE_MONTHS).contains(&owned.life_months) {
                    let problem = PriceProblem::Life { months: owned.life_months };
                    self.refuse(format!("{path}.lifeMonths"), problem);
                }
                for (field, fraction) in [
                    ("costOfCapitalPerYear", owned.cost_of_capital_per_year),
                    ("maintenancePerYear", owned.maintenance_per_year),
                ] {
                    if let Some(fraction) = fraction {
                        self.fraction(format!("{path}.{field}"), fraction);
                    }
                }
            }
            Basis::Rented(rented) => {
                let price_path = format!("{path}.rented.perHour");
                self.price_above_zero(price_path, rented.per_hour, rented.per);
            }
        }
        for (field, watts) in
            [("gpuPowerWatts", price.gpu_power_watts), ("hostPowerWatts", price.host_power_watts)]
        {
            match watts {
                Some(0) if field == "gpuPowerWatts" => {
                    self.refuse(format!("{path}.{field}"), PriceProblem::NoPower);
                }
                Some(watts) if watts > MAX_WATTS => {
                    self.refuse(format!("{path}.{field}"), PriceProblem::Watts { watts });
                }
                _ => {}
            }
        }
        for (field, amount) in [
            ("facilityPerMonth", price.facility_per_month),
            ("staffPerMonth", price.staff_per_month),
            ("licencesPerYear", price.licences_per_year),
        ] {
            if let Some(amount) = amount {
                self.price(format!("{path}.{field}"), amount);
            }
        }
    }

    fn price_above_zero(&mut self, path: String, value: Decimal, per: Per) {
        if value.is_zero() {
            self.refuse(path, PriceProblem::Zero { per });
        } else {
            self.price(path, value);
        }
    }

    fn price(&mut self, path: String, value: Decimal) {
        // Minus zero is zero.
        if value < Decimal::ZERO {
            self.refuse(path, PriceProblem::Negative { value });
        } else if value >= MAX_PRICE {
            self.refuse(path, PriceProblem::TooLarge { value });
        } else if value.normalize().scale() > MAX_PRICE_SCALE {
            self.refuse(path, PriceProblem::TooPrecise { value });
        }
    }

    fn fraction(&mut self, path: String, value: Decimal) {
        if value > Decimal::ONE {
            let fraction = value.checked_div(Decimal::ONE_HUNDRED).map(|f| f.normalize());
            self.refuse(path, PriceProblem::Percent { value, fraction: fraction.unwrap_or(value) });
        } else {
            self.price(path, value);
        }
    }
}

/// Everything that is wrong with the prices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidPrices(Vec<PriceError>);

impl InvalidPrices {
    /// The problems, in the order of the fields.
    pub fn errors(&self) -> &[PriceError] {
        &self.0
    }
}

impl From<Vec<PriceError>> for InvalidPrices {
    fn from(errors: Vec<PriceError>) -> Self {
        Self(errors)
    }
}

impl fmt::Display for InvalidPrices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong with the prices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct PriceError {
    /// The field, such as `hardware[0].owned.lifeMonths`.
    pub path: String,
    /// What is wrong with it and what to do.
    pub problem: PriceProblem,
}

/// What can be wrong with a price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PriceProblem {
    /// No hardware is listed.
    #[error("there are no prices; add at least one entry with a selector and owned or rented")]
    NoPrices,
    /// An entry without a name.
    #[error("is empty; name the entry, as in h100-owned")]
    NoName,
    /// Two entries with one name.
    #[error("{name:?} is also the name of hardware[{first}]; give each entry its own")]
    NameTaken {
        /// The name.
        name: String,
        /// Index of the other entry.
        first: usize,
    },
    /// A selector without conditions.
    #[error("would price every node; name GPU products or node labels")]
    SelectsEverything,
    /// An empty product.
    #[error("is empty; write the product as the node's label has it")]
    NoProduct,
    /// A text that is no acceptable decimal, found by whoever reads the prices from text.
    #[error(transparent)]
    Decimal(#[from] DecimalError),
    /// A text that is no currency, found likewise.
    #[error(transparent)]
    Currency(#[from] MoneyError),
    /// A negative amount.
    #[error("{value} is negative; write an amount of 0 or more")]
    Negative {
        /// What was written.
        value: Decimal,
    },
    /// Hardware for nothing.
    #[error(
        "is 0; leave the entry out if the price of a {} is unknown, or set residualValue to the \
         purchase price if it is written off", per_name(*per)
    )]
    Zero {
        /// What the price is for.
        per: Per,
    },
    /// An amount beyond any sense.
    #[error("{value} is not below 10^12; check the unit and the currency")]
    TooLarge {
        /// What was written.
        value: Decimal,
    },
    /// An amount with too many decimals.
    #[error("{value} has more than 12 decimals; round it")]
    TooPrecise {
        /// What was written.
        value: Decimal,
    },
    /// Hardware that gains value.
    #[error("{residual} is more than the purchase price {price}; it is what is left at the end")]
    ResidualAbovePrice {
        /// The residual value.
        residual: Decimal,
        /// The purchase price.
        price: Decimal,
    },
    /// A life of no length, or without end.
    #[error("{months} is not within 1 to 600 months; 36 and 48 are usual for GPUs")]
    Life {
        /// What was written.
        months: u32,
    },
    /// A PUE that no site has.
    #[error(
        "{value} is not within 1 to 10; it is all power of the site over power of the machines, \
         1.2 to 1.6 at most sites"
    )]
    Pue {
        /// What was written.
        value: Decimal,
    },
    /// A fraction that was probably meant as percent.
    #[error("{value} is above 1; it is a fraction, write {fraction} for {value} %")]
    Percent {
        /// What was written.
        value: Decimal,
        /// What was probably meant.
        fraction: Decimal,
    },
    /// A GPU that draws no power.
    #[error("is 0; leave it out if it is unknown")]
    NoPower,
    /// Power beyond any sense.
    #[error("{watts} is above 1000000; it is in watts")]
    Watts {
        /// What was written.
        watts: u32,
    },
}

const fn per_name(per: Per) -> &'static str {
    match per {
        Per::Node => "node",
        Per::Gpu => "GPU",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        money::parse_decimal,
        prices::{EnergyPrice, HardwareSelector, Owned, Rented},
    };

    fn d(text: &str) -> Decimal {
        parse_decimal(text).unwrap()
    }

    fn owned() -> Owned {
        Owned {
            purchase_price: d("280000"),
            per: Per::Node,
            residual_value: d("28000"),
            life_months: 36,
            cost_of_capital_per_year: Some(d("0.08")),
            maintenance_per_year: Some(d("0.10")),
        }
    }

    fn entry(name: &str, basis: Basis) -> HardwarePrice {
        HardwarePrice {
            name: name.to_owned(),
            selector: HardwareSelector {
                products: vec!["H100".to_owned()],
                node_labels: BTreeMap::new(),
            },
            basis,
            gpu_power_watts: Some(700),
            host_power_watts: Some(2000),
            facility_per_month: Some(d("1000")),
            staff_per_month: Some(d("500")),
            licences_per_year: Some(d("100")),
        }
    }

    fn prices() -> Prices {
        Prices {
            currency: "EUR".parse().unwrap(),
            hardware: vec![
                entry("bought", Basis::Owned(owned())),
                entry("rented", Basis::Rented(Rented { per_hour: d("20"), per: Per::Node })),
            ],
            energy: Some(EnergyPrice { per_kwh: d("0.25"), pue: d("1.3") }),
        }
    }

    /// The one message that this edit of good prices gives.
    fn refusal(edit: impl FnOnce(&mut Prices)) -> String {
        let mut prices = prices();
        edit(&mut prices);
        let error = prices.validated().unwrap_err();
        assert_eq!(error.errors().len(), 1, "{error}");
        error.to_string()
    }

    fn with_owned(edit: impl FnOnce(&mut Owned)) -> String {
        refusal(|prices| {
            let mut owned = owned();
            edit(&mut owned);
            prices.hardware[0].basis = Basis::Owned(owned);
        })
    }

    #[test]
    fn good_prices_pass() {
        assert_eq!(prices().validated().unwrap().prices(), &prices());
        assert_eq!(MAX_PRICE, "1000000000000".parse().unwrap());
    }

    #[test]
    fn each_problem_names_its_field_and_what_to_do() {
        let no_prices = refusal(|prices| prices.hardware.clear());
        assert_eq!(
            no_prices,
            "hardware: there are no prices; add at least one entry with a selector and owned or \
             rented"
        );
        assert_eq!(
            with_owned(|owned| owned.maintenance_per_year = Some(d("12.5"))),
            "hardware[0].owned.maintenancePerYear: 12.5 is above 1; it is a fraction, write 0.125 \
             for 12.5 %"
        );
        assert_eq!(
            with_owned(|owned| owned.cost_of_capital_per_year = Some(d("8"))),
            "hardware[0].owned.costOfCapitalPerYear: 8 is above 1; it is a fraction, write 0.08 \
             for 8 %"
        );
        assert_eq!(
            with_owned(|owned| owned.residual_value = d("280000.01")),
            "hardware[0].owned.residualValue: 280000.01 is more than the purchase price 280000; \
             it is what is left at the end"
        );
        assert_eq!(
            with_owned(|owned| owned.life_months = 0),
            "hardware[0].owned.lifeMonths: 0 is not within 1 to 600 months; 36 and 48 are usual \
             for GPUs"
        );
        assert_eq!(
            refusal(|prices| prices.energy.as_mut().unwrap().pue = d("0.99")),
            "energy.pue: 0.99 is not within 1 to 10; it is all power of the site over power of \
             the machines, 1.2 to 1.6 at most sites"
        );
        assert_eq!(
            refusal(|prices| prices.hardware[1].staff_per_month = Some(d("-1"))),
            "hardware[1].staffPerMonth: -1 is negative; write an amount of 0 or more"
        );
        assert_eq!(
            refusal(|prices| prices.hardware[0].selector.products.clear()),
            "hardware[0].selector: would price every node; name GPU products or node labels"
        );
        assert_eq!(
            refusal(|prices| prices.hardware[1].name = "bought".to_owned()),
            "hardware[1].name: \"bought\" is also the name of hardware[0]; give each entry its own"
        );
        assert_eq!(
            refusal(|prices| prices.hardware[1].basis =
                Basis::Rented(Rented { per_hour: Decimal::ZERO, per: Per::Gpu })),
            "hardware[1].rented.perHour: is 0; leave the entry out if the price of a GPU is \
             unknown, or set residualValue to the purchase price if it is written off"
        );
    }

    #[test]
    fn bounds_hold_for_every_kind_of_number() {
        for edit in [
            (|p| p.energy.as_mut().unwrap().per_kwh = Decimal::MAX) as fn(&mut Prices),
            |p| p.energy.as_mut().unwrap().per_kwh = Decimal::MIN,
            |p| p.energy.as_mut().unwrap().per_kwh = Decimal::new(1, 28),
            |p| p.energy.as_mut().unwrap().pue = Decimal::MAX,
            |p| p.hardware[0].facility_per_month = Some(MAX_PRICE),
            |p| p.hardware[0].licences_per_year = Some(Decimal::NEGATIVE_ONE),
            |p| p.hardware[0].gpu_power_watts = Some(u32::MAX),
            |p| p.hardware[0].gpu_power_watts = Some(0),
            |p| p.hardware[0].host_power_watts = Some(1_000_001),
            |p| p.hardware[0].name = " ".to_owned(),
            |p| p.hardware[0].selector.products.push(String::new()),
        ] {
            refusal(edit);
        }
        with_owned(|owned| owned.life_months = u32::MAX);
        with_owned(|owned| owned.maintenance_per_year = Some(Decimal::NEGATIVE_ONE));
        with_owned(|owned| owned.maintenance_per_year = Some(Decimal::MAX));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut prices = prices();
        prices.hardware[0].basis = Basis::Owned(Owned { life_months: 0, ..owned() });
        prices.hardware[1].staff_per_month = Some(Decimal::NEGATIVE_ONE);
        prices.energy.as_mut().unwrap().pue = Decimal::ZERO;
        let error = prices.validated().unwrap_err();
        let paths: Vec<_> = error.errors().iter().map(|error| error.path.as_str()).collect();
        let expected = ["hardware[0].owned.lifeMonths", "hardware[1].staffPerMonth", "energy.pue"];
        assert_eq!(paths, expected);
    }
}
