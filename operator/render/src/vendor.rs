//! What differs from one GPU vendor to the next, as Kubernetes sees it.

use berth_crds::llm_deployment::Vendor;
use berth_units::Bytes;

/// A vendor's names in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The extended resource that the device plugin offers.
    pub resource: &'static str,
    /// Key of the taint that nodes with such GPUs carry by custom.
    pub taint: &'static str,
    /// Node label with the product's name.
    pub label_product: &'static str,
    /// Node label with the memory of one GPU.
    pub label_memory: &'static str,
    /// Groups that a process needs to open the GPU's devices.
    pub groups: &'static [i64],
}

/// GPU Feature Discovery labels, and `nvidia-device-plugin`'s resource. The device nodes are open
/// to every user.
const NVIDIA: Profile = Profile {
    resource: "nvidia.com/gpu",
    taint: "nvidia.com/gpu",
    label_product: "nvidia.com/gpu.product",
    label_memory: "nvidia.com/gpu.memory",
    groups: &[],
};

/// The labels of AMD's node labeller, and the resource of its device plugin.
///
/// `/dev/kfd` and `/dev/dri/renderD*` belong to the node's groups `video` (44 on Debian and its
/// children) and `render`, whose number differs from node to node. Where the node's udev rules do
/// not open them to everybody (`ROCm`'s installation guide gives the rule), containerd's
/// `device_ownership_from_security_context` hands them to the pod's own user.
const AMD: Profile = Profile {
    resource: "amd.com/gpu",
    taint: "amd.com/gpu",
    label_product: "amd.com/gpu.product-name",
    label_memory: "amd.com/gpu.vram",
    groups: &[44],
};

/// The names of a vendor.
pub const fn profile(vendor: Vendor) -> &'static Profile {
    match vendor {
        Vendor::NVIDIA => &NVIDIA,
        Vendor::AMD => &AMD,
    }
}

/// The memory of one GPU as the label [`Profile::label_memory`] tells it. `None` where it is no
/// amount of memory: unknown, never a guess.
pub fn memory(vendor: Vendor, label: &str) -> Option<Bytes> {
    let bytes = match vendor {
        // Plain MiB.
        Vendor::NVIDIA => Bytes::mib(digits(label)?),
        // The labeller divides by 1024 and rounds down: its G is a GiB (an MI300X says 191G).
        Vendor::AMD => match label.split_at_checked(label.len().checked_sub(1)?)? {
            (amount, "G") => Bytes::gib(digits(amount)?),
            (amount, "M") => Bytes::mib(digits(amount)?),
            _ => return None,
        },
    };
    (bytes > Bytes::ZERO).then_some(bytes)
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_labels() {
        for (vendor, label, bytes) in [
            (Vendor::NVIDIA, "81559", Some(Bytes::mib(81_559))),
            (Vendor::AMD, "191G", Some(Bytes::gib(191))),
            (Vendor::AMD, "512M", Some(Bytes::mib(512))),
            (Vendor::NVIDIA, "80G", None),
            (Vendor::NVIDIA, "0", None),
            (Vendor::NVIDIA, "-1", None),
            (Vendor::NVIDIA, "", None),
            (Vendor::AMD, "", None),
            (Vendor::AMD, "G", None),
            (Vendor::AMD, "\u{20ac}", None),
        ] {
            assert_eq!(memory(vendor, label), bytes, "{label:?}");
        }
    }
}
