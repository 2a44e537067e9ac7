//! What differs from one GPU vendor to the next, as Kubernetes sees it, and the names that a cluster
//! gives the GPUs of each.

use std::{fmt, str::FromStr};

use berth_crds::llm_deployment::Vendor;
use berth_units::Bytes;

/// A vendor's names in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The extended resource that the device plugin offers unless it is told otherwise: what a
    /// cluster really calls it, [`GpuResources`] says.
    resource: &'static str,
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

/// The extended resources as which the device plugins of a cluster offer GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuResources {
    nvidia: ResourceName,
    amd: ResourceName,
}

/// The name of an extended resource: a domain and a name, such as `example.com/gpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceName(String);

/// A name that the API server would not take for an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no extended resource: it takes DOMAIN/NAME, such as example.com/gpu, outside of kubernetes.io"
)]
pub struct NoExtendedResource(String);

/// Two vendors' GPUs under one name: nobody could tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the GPUs of NVIDIA and of AMD cannot both be the resource {0}; name another for one of them"
)]
pub struct SharedResource(ResourceName);

impl Default for GpuResources {
    fn default() -> Self {
        let custom = |profile: &Profile| ResourceName(profile.resource.to_owned());
        Self { nvidia: custom(&NVIDIA), amd: custom(&AMD) }
    }
}

impl GpuResources {
    /// The names by custom, but for those given; of two for a vendor the later one.
    pub fn new(
        given: impl IntoIterator<Item = (Vendor, ResourceName)>,
    ) -> Result<Self, SharedResource> {
        let mut names = Self::default();
        for (vendor, name) in given {
            match vendor {
                Vendor::NVIDIA => names.nvidia = name,
                Vendor::AMD => names.amd = name,
            }
        }
        if names.nvidia == names.amd { Err(SharedResource(names.nvidia)) } else { Ok(names) }
    }

    /// The resource that a vendor's GPUs are.
    pub fn of(&self, vendor: Vendor) -> &str {
        match vendor {
            Vendor::NVIDIA => &self.nvidia.0,
            Vendor::AMD => &self.amd.0,
        }
    }

    /// The vendor whose GPUs are that resource.
    pub fn vendor(&self, resource: &str) -> Option<Vendor> {
        [Vendor::NVIDIA, Vendor::AMD].into_iter().find(|&vendor| self.of(vendor) == resource)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourceName {
    type Err = NoExtendedResource;

    /// As the API server decides it (`IsExtendedResourceName`): with `requests.` before it, the name
    /// that quotas have for it, it has to be a qualified name.
    fn from_str(text: &str) -> Result<Self, NoExtendedResource> {
        let is_valid = text.split_once('/').is_some_and(|(domain, name)| {
            let most = 253 - "requests.".len();
            let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let in_name = |b: u8| b.is_ascii_alphanumeric();
            domain.len() <= most
                && domain.split('.').all(|label| is_spelt(label, in_domain, b"-"))
                && !domain.starts_with("requests.")
                && !domain.ends_with("kubernetes.io")
                && name.len() <= 63
                && is_spelt(name, in_name, b"-_.")
        });
        if is_valid { Ok(Self(text.to_owned())) } else { Err(NoExtendedResource(text.to_owned())) }
    }
}

/// Whether a text has such characters, and others only between them.
fn is_spelt(text: &str, is_usual: impl Fn(u8) -> bool, between: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().into_iter().chain(bytes.last());
    !bytes.is_empty()
        && ends.copied().all(&is_usual)
        && bytes.iter().all(|&b| is_usual(b) || between.contains(&b))
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
    fn resources_are_named_by_custom_unless_told_otherwise() {
        let names = GpuResources::default();
        assert_eq!(names.of(Vendor::NVIDIA), "nvidia.com/gpu");
        assert_eq!(names.of(Vendor::AMD), "amd.com/gpu");
        let renamed = (Vendor::NVIDIA, "example.com/gpu".parse().unwrap());
        let names = GpuResources::new([renamed]).unwrap();
        assert_eq!(names.of(Vendor::NVIDIA), "example.com/gpu");
        assert_eq!(names.of(Vendor::AMD), "amd.com/gpu");
        assert_eq!(names.vendor("example.com/gpu"), Some(Vendor::NVIDIA));
        assert_eq!(names.vendor("nvidia.com/gpu"), None);
    }

    #[test]
    fn two_vendors_do_not_share_a_resource() {
        let renamed = (Vendor::NVIDIA, "amd.com/gpu".parse().unwrap());
        let error = GpuResources::new([renamed]).unwrap_err();
        assert!(error.to_string().contains("amd.com/gpu"), "{error}");
    }

    #[test]
    fn a_resource_has_a_name_that_the_api_server_takes() {
        let long = |domain: usize, name: usize| {
            let labels = ["d".repeat(60), "d".repeat(60), "d".repeat(60), "d".repeat(60)].join(".");
            format!("{}/{}", &labels[..domain], "n".repeat(name))
        };
        for good in ["example.com/gpu", "nvidia.com/gpu.shared", "a/A_b-9", &long(243, 63)] {
            assert_eq!(good.parse(), Ok(ResourceName(good.to_owned())), "{good}");
        }
        for wrong in [
            "",
            "gpu",
            "/gpu",
            "example.com/",
            "example.com/a/b",
            "Example.com/gpu",
            "example..com/gpu",
            "-example.com/gpu",
            "example.com/-gpu",
            "example.com/gpu ",
            "requests.example.com/gpu",
            "kubernetes.io/gpu",
            "node.kubernetes.io/gpu",
            &long(243, 64),
            &format!("{}.dd/gpu", &long(242, 1)[..242]),
        ] {
            assert_eq!(wrong.parse::<ResourceName>(), Err(NoExtendedResource(wrong.to_owned())));
        }
    }

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
