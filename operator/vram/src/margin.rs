//! The safety margin: how far above the estimate a GPU must have room.
//!
//! An estimate that is too low is an engine that dies after minutes of loading; one that is too
//! high is an idle GPU. So the margin is explicit, shown, and learnt from the residuals: on the 41
//! complete logs of vLLM 0.19 on H100 that can be compared (21 checkpoints, in sample), estimate
//! minus truth is 0.03 GiB on average and 0.12 GiB in size; the 95 % quantile of the shortfalls is
//! 0.25 GiB, the largest 0.37. `tests/cases.rs` recomputes these figures. Older versions are not
//! covered: vLLM 0.11 took up to 3.8 GiB more of activation.

use berth_units::Bytes;

use crate::Basis;

/// Three times the 95 % quantile of the shortfalls: the model that is asked for is not in the
/// sample.
const FITTED: Bytes = Bytes::mib(768);

/// What is added to that, as a share of weights and overheads, where there is little or no data.
/// The logs of mixtures of experts on H200 scatter by about as much.
const EXTRAPOLATED_SHARE: f64 = 0.02;

/// The margin on weights and overheads of `fixed` bytes. The KV cache needs none: it is a formula.
pub(crate) fn margin(fixed: Bytes, basis: &Basis) -> Bytes {
    match basis {
        Basis::Fitted => FITTED,
        Basis::Extrapolated { .. } => FITTED + fixed.scale(EXTRAPOLATED_SHARE),
    }
}
