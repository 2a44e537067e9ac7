//! What differs from one GPU vendor to the next, as Kubernetes sees it.

use berth_crds::llm_deployment::Vendor;

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
    /// What a plain number in that label counts. A quantity (`192G`) counts bytes.
    pub memory_unit: u64,
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
    memory_unit: 1 << 20,
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
    memory_unit: 1,
    groups: &[44],
};

/// The names of a vendor.
pub const fn profile(vendor: Vendor) -> &'static Profile {
    match vendor {
        Vendor::NVIDIA => &NVIDIA,
        Vendor::AMD => &AMD,
    }
}
