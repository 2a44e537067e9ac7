//! Amounts of CPU.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// An amount of CPU in thousandths of a core. Serialises as a plain number. Saturates.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MilliCpu(pub u64);

impl MilliCpu {
    /// No CPU.
    pub const ZERO: Self = Self(0);

    /// So many whole cores.
    pub const fn cores(cores: u64) -> Self {
        Self(cores.saturating_mul(1000))
    }

    /// The number of thousandths of a core.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add for MilliCpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MilliCpu {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MilliCpu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for MilliCpu {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// As Kubernetes writes it: `8` for whole cores, `1500m` for parts of one.
impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

/// A text that is no Kubernetes quantity of CPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of CPU; write it like 8, 1.5 or 1500m")]
pub struct ParseCpuError(String);

/// Parses a Kubernetes quantity: `8`, `1.5`, `1500m`, `2k`. Rounded up to a thousandth of a core.
impl FromStr for MilliCpu {
    type Err = ParseCpuError;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite, not negative, below 2^53"
    )]
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseCpuError(text.to_owned());
        let trimmed = text.trim();
        let (number, factor) = match trimmed.strip_suffix('m') {
            Some(number) => (number, 1.0),
            None => match trimmed.strip_suffix('k') {
                Some(number) => (number, 1e6),
                None => (trimmed, 1e3),
            },
        };
        let value = number.parse::<f64>().map_err(|_| error())? * factor;
        // Quantities near a thousandth carry binary noise: 0.001 is 1, not 2, of them.
        let rounded = (value - 1e-6).ceil();
        if value.is_finite() && (0.0..2_f64.powi(53)).contains(&value) {
            Ok(Self(rounded.max(0.0) as u64))
        } else {
            Err(error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_quantities_parse_and_print() {
        for (text, milli, printed) in [
            ("8", 8000, "8"),
            ("1.5", 1500, "1500m"),
            ("1500m", 1500, "1500m"),
            ("0.001", 1, "1m"),
            ("2k", 2_000_000, "2000"),
        ] {
            let cpu: MilliCpu = text.parse().unwrap();
            assert_eq!(cpu, MilliCpu(milli), "{text}");
            assert_eq!(cpu.to_string(), printed);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text() {
        for text in ["", "m", "-1", "eight", "1e400", "NaN"] {
            let error = text.parse::<MilliCpu>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
