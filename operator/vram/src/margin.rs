//! The safety margin: how far above the estimate a GPU must have room.
//!
//! An estimate that is too low is an engine that dies after minutes of loading; one that is too
//! high is an idle GPU. So the margin is explicit, shown, never hidden in another part, and a
//! quantile: with [`Risk`] `r`, the memory turns out to be more than estimate and margin in a
//! share `r` of cases like those that the constants were fitted to.
//!
//! Errors are taken as Laplace's distribution with the mean size that `berth-bench fit` finds when
//! each model is left out of the fit in turn: it has the tails that the residuals have, and its
//! quantile is the size times `ln(1 / 2r)`. Where there is no complete log of the kind (a [`Gap`]),
//! the size of errors of that kind comes on top, and that of the weights.

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Basis, Breakdown, engine::Constant, engine::Constants};

/// How often the memory may turn out to be more than the estimate with its margin, in per mille.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Risk(u16);

impl Risk {
    /// One case in twenty. A vLLM that needs a little more than its claim still starts, with as much less
    /// of a KV cache.
    pub const DEFAULT: Self = Self(50);

    /// So many cases in a thousand: from 1 to 500, where there is no margin left.
    pub const fn per_mille(cases: u16) -> Self {
        match cases {
            0 => Self(1),
            1..=500 => Self(cases),
            _ => Self(500),
        }
    }

    /// The quantile of errors of mean size 1.
    fn quantile(self) -> f64 {
        (500.0 / f64::from(self.0.clamp(1, 500))).ln()
    }
}

/// The number of cases in a thousand.
impl std::fmt::Display for Risk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for Risk {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The margin on what `parts` has. The KV cache needs none: it is a formula.
pub(crate) fn margin(constants: &Constants, parts: &Breakdown, basis: &Basis, risk: Risk) -> Bytes {
    size(constants, parts, basis).scale(risk.quantile())
}

/// The margin where an engine told its weights, and maybe a step's buffers. What is told has no error
/// that matters beside the rest: it is the same at every start. Left is what no log tells, the driver's
/// context and graphs: all of the fitted overheads' error, or only the gap's once a step is told.
pub(crate) fn margin_of_told(
    constants: &Constants,
    basis: &Basis,
    step_is_told: bool,
    risk: Risk,
) -> Bytes {
    let all = size(constants, &Breakdown::default(), basis);
    let fitted = Bytes(1).scale(constants.mib(Constant::ErrorFitted));
    let left = if step_is_told && !basis.is_fitted() { all - fitted } else { all };
    left.scale(risk.quantile())
}

/// The size of errors: that of the fitted overheads, the worst of the gaps', and that of weights.
fn size(constants: &Constants, parts: &Breakdown, basis: &Basis) -> Bytes {
    let mib = |constant| Bytes(1).scale(constants.mib(constant));
    let gap = match basis {
        Basis::Fitted => Bytes::ZERO,
        Basis::Extrapolated { gaps } => {
            gaps.iter().map(|gap| mib(gap.error())).max().unwrap_or_default()
        }
    };
    let weights = parts.weights.scale(constants.get(Constant::ErrorWeights));
    mib(Constant::ErrorFitted) + gap + weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Version, engine::Gap};

    #[test]
    fn less_risk_takes_more_and_half_takes_nothing() {
        let parts = Breakdown { weights: Bytes::gib(15), ..Breakdown::default() };
        let margin =
            |risk| margin(&Constants::FITTED, &parts, &Basis::Fitted, Risk::per_mille(risk));
        assert!(margin(1) > margin(10) && margin(10) > margin(100));
        assert_eq!(margin(500), Bytes::ZERO);
        assert_eq!(margin(0), margin(1));
        assert_eq!(margin(u16::MAX), Bytes::ZERO);
    }

    #[test]
    fn gaps_widen_it_by_the_worst_of_them() {
        let parts = Breakdown { weights: Bytes::gib(15), ..Breakdown::default() };
        let with = |gaps: &[Gap]| {
            let basis = if gaps.is_empty() {
                Basis::Fitted
            } else {
                Basis::Extrapolated { gaps: gaps.to_vec() }
            };
            margin(&Constants::FITTED, &parts, &basis, Risk::DEFAULT)
        };
        let newer = Gap::Newer(Version::new(0, 33));
        assert!(with(&[newer]) > with(&[]));
        assert!(with(&[Gap::Amd]) > with(&[newer]));
        assert_eq!(with(&[Gap::Amd, newer]), with(&[Gap::Amd]));
    }
}
