//! What a GPU costs an hour.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// Millionths of a unit of whatever currency, an hour. Serialises as a decimal string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PricePerHour(pub u64);

const MICROS: u64 = 1_000_000;

impl PricePerHour {
    /// So many times this price.
    #[must_use]
    pub const fn times(self, count: u32) -> Self {
        Self(self.0.saturating_mul(count as u64))
    }
}

/// `2.50`, with as many places as it has and two at least.
impl fmt::Display for PricePerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = format!("{:06}", self.0 % MICROS);
        let shown = places.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / MICROS, &places[..shown])
    }
}

impl Serialize for PricePerHour {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no price an hour such as 2.50: digits, and at most six after the point")]
pub struct ParsePriceError(String);

impl FromStr for PricePerHour {
    type Err = ParsePriceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePriceError(text.to_owned());
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(places) || places.len() > 6 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let micros: u64 = format!("{places:0<6}").parse().map_err(|_| wrong())?;
        whole
            .checked_mul(MICROS)
            .and_then(|all| all.checked_add(micros))
            .map(Self)
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_read_as_they_are_written() {
        for (text, shown) in [("2", "2.00"), ("2.5", "2.50"), ("0.123456", "0.123456")] {
            assert_eq!(text.parse::<PricePerHour>().unwrap().to_string(), shown);
        }
        for text in ["", ".", "-1", "1.", "1e3", "1.0000001", "99999999999999999999"] {
            assert!(text.parse::<PricePerHour>().is_err(), "{text}");
        }
    }
}
