//! The safety margin: how far above the estimate a GPU must have room.

use berth_units::Bytes;

use crate::Basis;

/// The margin on an estimate of `total` bytes.
pub(crate) fn margin(total: Bytes, basis: &Basis) -> Bytes {
    match basis {
        Basis::Fitted => Bytes::mib(768),
        Basis::Extrapolated { .. } => Bytes::mib(768) + total.scale(0.02),
    }
}
