//! Decimal money with its currency, and the strict reading of decimals from text.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};

/// Decimals that an amount keeps. A rate per hour is off by at most 5·10⁻¹³, so that a month of it
/// is off by less than 10⁻⁹.
pub const SCALE: u32 = 12;

/// Every amount is below this, in any currency: at [`SCALE`] it still fits a [`Decimal`] without
/// losing a digit, so sums are exact.
const LIMIT: Decimal = Decimal::from_parts(1_874_919_424, 2_328_306, 0, false, 0); // 10^16

/// Digits before and after the decimal point that [`parse_decimal`] accepts.
const MAX_DIGITS: usize = 12;

/// A currency by its three-letter ISO 4217 code, such as `EUR`.
///
/// Only the form is checked: the list of currencies changes, and a price is worth what its owner
/// says it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The code, such as `EUR`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(MoneyError::Currency { code: excerpt(code) }),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(code: String) -> Result<Self, MoneyError> {
        code.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of money in one currency, below 10¹⁶ either way, kept to [`SCALE`] decimals.
///
/// Displays with two decimals and its currency, `12.34 EUR`; a precision in the format (`{:.4}`)
/// shows more. Serialises as `{"amount": "12.3456", "currency": "EUR"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Money {
    amount: Decimal,
    currency: Currency,
}

impl Money {
    /// So much of a currency, rounded to [`SCALE`] decimals.
    pub fn new(amount: Decimal, currency: Currency) -> Result<Self, MoneyError> {
        Ok(Self { amount: bounded(amount)?, currency })
    }

    /// Nothing, in a currency.
    pub const fn zero(currency: Currency) -> Self {
        Self { amount: Decimal::ZERO, currency }
    }

    /// From an amount that [`bounded`] has already seen.
    pub(crate) const fn from_bounded(amount: Decimal, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The amount, in units of the currency.
    pub const fn amount(self) -> Decimal {
        self.amount
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The exact sum; refused across currencies.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        same_currency(self.currency, other.currency)?;
        Ok(Self { amount: add(self.amount, other.amount)?, currency: self.currency })
    }

    /// The nearest binary number, for a Prometheus sample and for nothing else: never compute
    /// money with it.
    pub fn to_f64_sample(self) -> f64 {
        self.amount.to_f64().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2).min(SCALE as usize);
        let places = u32::try_from(decimals).unwrap_or(SCALE);
        let rounded =
            self.amount.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero);
        // A negative amount that rounds to nothing is shown as nothing.
        let rounded = if rounded.is_zero() { Decimal::ZERO } else { rounded };
        write!(f, "{rounded:.decimals$} {}", self.currency)
    }
}

/// Why an amount could not be made or added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// A currency that is not three capital letters.
    #[error("{code:?} is not a currency code; write three capital letters of ISO 4217, as in EUR")]
    Currency {
        /// What was written.
        code: String,
    },
    /// A sum over two currencies.
    #[error("{left} and {right} cannot be added; price everything in one currency")]
    MixedCurrencies {
        /// The currency of the sum so far.
        left: Currency,
        /// The other one.
        right: Currency,
    },
    /// An amount outside what can be kept exactly.
    #[error("the amount is 10^16 or more; check the prices' units and the currency")]
    TooLarge,
}

/// Why a text is not an acceptable decimal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecimalError {
    /// Something other than digits with at most one point.
    #[error(
        "{text:?} is not a plain decimal number; write digits with at most one point and no \
         exponent, unit or thousands separator, as in \"280000\" or \"0.10\""
    )]
    NotADecimal {
        /// What was written, cut to 40 characters.
        text: String,
    },
    /// 10¹² or more.
    #[error("{text:?} is not below 10^12; check the unit and the currency")]
    TooLarge {
        /// What was written, cut to 40 characters.
        text: String,
    },
    /// More than 12 decimals.
    #[error("{text:?} has more than 12 decimals; round it")]
    TooPrecise {
        /// What was written, cut to 40 characters.
        text: String,
    },
}

/// Reads a decimal as prices are written: digits with at most one point, below 10¹², at most 12
/// decimals. A leading minus is read, so that the refusal of a negative price can name its field.
pub fn parse_decimal(text: &str) -> Result<Decimal, DecimalError> {
    let not_a_decimal = || DecimalError::NotADecimal { text: excerpt(text) };
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(not_a_decimal()),
        None => (digits, ""),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(not_a_decimal());
    }
    if whole.trim_start_matches('0').len() > MAX_DIGITS {
        return Err(DecimalError::TooLarge { text: excerpt(text) });
    }
    if fraction.trim_end_matches('0').len() > MAX_DIGITS {
        return Err(DecimalError::TooPrecise { text: excerpt(text) });
    }
    // A thousand zeros in front or behind are still the same number.
    let sign = if digits.len() == text.len() { "" } else { "-" };
    let whole = whole.trim_start_matches('0');
    let plain = format!("{sign}0{whole}.{}0", fraction.trim_end_matches('0'));
    Decimal::from_str_exact(&plain).map(|d| d.normalize()).map_err(|_| not_a_decimal())
}

/// Rounds to [`SCALE`] decimals and checks the bound.
pub(crate) fn bounded(amount: Decimal) -> Result<Decimal, MoneyError> {
    let rounded = amount.round_dp(SCALE).normalize();
    if rounded.abs() < LIMIT { Ok(rounded) } else { Err(MoneyError::TooLarge) }
}

/// The exact sum of two bounded amounts.
pub(crate) fn add(left: Decimal, right: Decimal) -> Result<Decimal, MoneyError> {
    bounded(left.checked_add(right).ok_or(MoneyError::TooLarge)?)
}

pub(crate) fn same_currency(left: Currency, right: Currency) -> Result<(), MoneyError> {
    if left == right { Ok(()) } else { Err(MoneyError::MixedCurrencies { left, right }) }
}

/// A bounded amount as a whole number of 10⁻¹² units.
pub(crate) fn to_units(amount: Decimal) -> i128 {
    let mut scaled = amount;
    scaled.rescale(SCALE);
    scaled.mantissa()
}

/// The amount of so many 10⁻¹² units.
pub(crate) fn from_units(units: i128) -> Result<Decimal, MoneyError> {
    bounded(Decimal::try_from_i128_with_scale(units, SCALE).map_err(|_| MoneyError::TooLarge)?)
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(amount: &str) -> Money {
        Money::new(parse_decimal(amount).unwrap(), "EUR".parse().unwrap()).unwrap()
    }

    #[test]
    fn currencies_are_three_capital_letters() {
        assert_eq!("EUR".parse::<Currency>().unwrap().to_string(), "EUR");
        for bad in ["", "eur", "EURO", "E1R", "€", "US$", "EU "] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }

    #[test]
    fn money_shows_two_decimals_unless_asked_for_more() {
        assert_eq!(eur("12.345").to_string(), "12.35 EUR");
        assert_eq!(format!("{:.4}", eur("0.0012")), "0.0012 EUR");
        assert_eq!(eur("12").to_string(), "12.00 EUR");
        assert_eq!(eur("-0.001").to_string(), "0.00 EUR");
        assert_eq!(format!("{:.0}", eur("2.5")), "3 EUR");
    }

    #[test]
    fn currencies_do_not_mix() {
        let usd = Money::zero("USD".parse().unwrap());
        assert!(matches!(eur("1").checked_add(usd), Err(MoneyError::MixedCurrencies { .. })));
        assert_eq!(eur("1.10").checked_add(eur("2.205")).unwrap(), eur("3.305"));
    }

    #[test]
    fn plain_decimals_are_read() {
        for (text, value) in [
            ("280000", "280000"),
            ("0.10", "0.1"),
            ("-3.5", "-3.5"),
            ("000123.4500", "123.45"),
            ("999999999999.999999999999", "999999999999.999999999999"),
        ] {
            assert_eq!(parse_decimal(text).unwrap(), value.parse().unwrap(), "{text}");
        }
        let zeros = format!("{}1.5{}", "0".repeat(1000), "0".repeat(1000));
        assert_eq!(parse_decimal(&zeros).unwrap(), "1.5".parse().unwrap());
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in
            ["", "-", ".", "1.", ".5", "+1", "1e9", "NaN", "inf", "1_000", "1,5", " 1", "0x1", "١"]
        {
            let error = parse_decimal(bad).unwrap_err();
            assert!(matches!(error, DecimalError::NotADecimal { .. }), "{bad}: {error}");
        }
        assert!(matches!(parse_decimal("1000000000000"), Err(DecimalError::TooLarge { .. })));
        assert!(matches!(parse_decimal("0.0000000000001"), Err(DecimalError::TooPrecise { .. })));
        let long = parse_decimal(&"9".repeat(100_000)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn amounts_are_bounded() {
        let currency = "EUR".parse().unwrap();
        let most: Decimal = "9999999999999999.999999999999".parse().unwrap();
        let most = Money::new(most, currency).unwrap();
        assert_eq!(from_units(to_units(most.amount())).unwrap(), most.amount());
        assert_eq!(most.checked_add(eur("0.000000000001")), Err(MoneyError::TooLarge));
        assert_eq!(Money::new(Decimal::MAX, currency), Err(MoneyError::TooLarge));
        assert_eq!(LIMIT, "10000000000000000".parse().unwrap());
    }

    #[test]
    fn money_serialises_as_text_not_as_a_binary_number() {
        let json = serde_json::to_string(&eur("0.1")).unwrap();
        assert_eq!(json, r#"{"amount":"0.1","currency":"EUR"}"#);
        assert!(serde_json::from_str::<Currency>(r#""euro""#).is_err());
    }
}
