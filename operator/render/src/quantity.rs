//! Amounts as Kubernetes writes them.

use berth_units::{Bytes, MilliCpu};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// `48Gi`, `512Mi`, or plain bytes: the largest unit that loses nothing, as the API server itself
/// would print it.
pub(crate) fn bytes(amount: Bytes) -> Quantity {
    let value = amount.get();
    for (unit, suffix) in [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if value != 0 && value.is_multiple_of(unit) {
            return Quantity(format!("{}{suffix}", value / unit));
        }
    }
    Quantity(value.to_string())
}

/// `6` or `1500m`.
pub(crate) fn cpu(amount: MilliCpu) -> Quantity {
    Quantity(amount.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_whole_unit_is_taken() {
        for (amount, text) in [
            (Bytes::gib(48), "48Gi"),
            (Bytes::gib(2048), "2Ti"),
            (Bytes::mib(512), "512Mi"),
            (Bytes(1025), "1025"),
            (Bytes::ZERO, "0"),
        ] {
            assert_eq!(bytes(amount).0, text);
        }
    }
}
