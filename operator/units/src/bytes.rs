//! Amounts of memory.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, Sub, SubAssign},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// An amount of memory in bytes. Serialises as a plain number of bytes.
///
/// Sums and differences saturate: an amount of memory is never negative, and never wraps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No memory.
    pub const ZERO: Self = Self(0);

    /// So many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(MIB))
    }

    /// So many GiB.
    pub const fn gib(gib: u64) -> Self {
        Self(gib.saturating_mul(GIB))
    }

    /// A fractional number of GiB, rounded up to a byte; negative and NaN become zero.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped at zero, saturates"
    )]
    pub fn from_gib_f64(gib: f64) -> Self {
        Self((gib.max(0.0) * GIB as f64).ceil() as u64)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// In GiB, for people and for ratios.
    pub fn as_gib_f64(self) -> f64 {
        self.0 as f64 / GIB as f64
    }

    /// Whole MiB, rounded up.
    pub const fn mib_ceil(self) -> u64 {
        self.0.div_ceil(MIB)
    }

    /// This amount times `factor`, rounded up; negative factors give zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped at zero, saturates"
    )]
    pub fn scale(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor.max(0.0)).ceil() as u64)
    }

    /// The difference, or zero where `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount shared by `parts`, rounded up. Zero parts count as one.
    #[must_use]
    pub const fn div_ceil(self, parts: u64) -> Self {
        Self(self.0.div_ceil(if parts == 0 { 1 } else { parts }))
    }

    /// Rounded up to a multiple of `unit`.
    #[must_use]
    pub const fn round_up_to(self, unit: Self) -> Self {
        if unit.0 == 0 { self } else { Self(self.0.div_ceil(unit.0).saturating_mul(unit.0)) }
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Mul<u64> for Bytes {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Div<u64> for Bytes {
    type Output = Self;
    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts.max(1))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// For people: `38.2 GiB`, `512 MiB`, `17 B`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= GIB {
            write!(f, "{:.1} GiB", self.as_gib_f64())
        } else if self.0 >= MIB {
            write!(f, "{} MiB", self.mib_ceil())
        } else {
            write!(f, "{} B", self.0)
        }
    }
}

/// A text that is no Kubernetes quantity of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of memory; write it like 80Gi, 512Mi or 1000000")]
pub struct ParseBytesError(String);

/// Parses a Kubernetes quantity: `80Gi`, `512Mi`, `1.5Ti`, `128974848`, `129M`, `129e6`,
/// `128974848000m`. Fractions of a byte are rounded up, as Kubernetes does.
impl FromStr for Bytes {
    type Err = ParseBytesError;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite, not negative, below 2^64"
    )]
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'))
            .unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(digits);
        let factor: f64 = match suffix {
            "" => 1.0,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "P" => 1e15,
            "E" => 1e18,
            "Ki" => 1024.0,
            "Mi" => MIB as f64,
            "Gi" => GIB as f64,
            "Ti" => (1_u64 << 40) as f64,
            "Pi" => (1_u64 << 50) as f64,
            "Ei" => (1_u64 << 60) as f64,
            exponent => {
                let power = exponent.strip_prefix(['e', 'E']).ok_or_else(error)?;
                10_f64.powi(power.parse::<i32>().map_err(|_| error())?)
            }
        };
        // Whole numbers without a fraction stay exact beyond 2^53.
        if let (Ok(whole), true) = (number.parse::<u64>(), factor >= 1.0 && factor < 2_f64.powi(63))
        {
            return whole.checked_mul(factor as u64).map(Self).ok_or_else(error);
        }
        let value = number.parse::<f64>().map_err(|_| error())? * factor;
        if value.is_finite() && (0.0..2_f64.powi(64)).contains(&value) {
            Ok(Self(value.ceil() as u64))
        } else {
            Err(error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_quantities_parse() {
        for (text, bytes) in [
            ("80Gi", 80 * GIB),
            ("1.5Gi", 3 * GIB / 2),
            ("512Mi", 512 * MIB),
            ("128974848", 128_974_848),
            ("129M", 129_000_000),
            ("129e6", 129_000_000),
            ("128974848000m", 128_974_848),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text() {
        for text in ["", "Gi", "-1", "80GB", "1e999", "99999999999Ei", "NaN", "inf"] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn people_read_gib() {
        assert_eq!(Bytes::from_gib_f64(38.2).to_string(), "38.2 GiB");
        assert_eq!(Bytes::mib(512).to_string(), "512 MiB");
        assert_eq!(Bytes(17).to_string(), "17 B");
    }

    #[test]
    fn amounts_saturate() {
        assert_eq!(Bytes(1) - Bytes(2), Bytes::ZERO);
        assert_eq!(Bytes(u64::MAX) + Bytes(1), Bytes(u64::MAX));
        assert_eq!(Bytes(7).div_ceil(2), Bytes(4));
        assert_eq!(Bytes::mib(5).round_up_to(Bytes::mib(4)), Bytes::mib(8));
    }
}
