//! What is kept of a node: its labels, taints, state, GPUs and what it can allocate. Pure.

use std::collections::BTreeMap;

use berth_crds::{llm_deployment::Vendor, names};
use berth_planner::{Effect, Gpus, Node, NodeName, Resources, Taint};
use berth_render::vendor::{self, GpuResources};
use berth_units::{Bytes, MilliCpu};
use k8s_openapi::{api::core::v1, apimachinery::pkg::api::resource::Quantity};
use kube::ResourceExt;

use super::pod::amount;
use crate::reconcile::placing::planner_vendor;

/// Reads a node. GPUs that cannot be used whole (time-slicing, MIG, two vendors on one node) are
/// kept with the reason, so that it can be told. `cache` is the size of its cache where it does not
/// say otherwise; a size of its own only counts where nodes have caches at all.
pub fn node(node: &v1::Node, names: &GpuResources, cache: Bytes) -> Node {
    let spec = node.spec.as_ref();
    let status = node.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let empty = BTreeMap::new();
    let allocatable = status.and_then(|status| status.allocatable.as_ref()).unwrap_or(&empty);
    let number = |resource: &str| {
        allocatable.get(resource).map(|quantity| amount(resource, quantity)).unwrap_or_default()
    };
    Node {
        name: NodeName::from(node.name_any()),
        labels: node.labels().clone(),
        taints: spec
            .and_then(|spec| spec.taints.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|spec| taint(spec, names))
            .collect(),
        ready,
        cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        gpus: gpus(node.labels(), allocatable, names),
        allocatable: Resources {
            cpu: MilliCpu(number("cpu").get()),
            memory: number("memory"),
            ephemeral_storage: number("ephemeral-storage"),
            pods: u32::try_from(number("pods").get()).unwrap_or(u32::MAX),
        },
        cache: if cache == Bytes::ZERO { cache } else { cache_size(node).unwrap_or(cache) },
    }
}

/// The size that a node says its cache has. One that cannot be read counts as none: too little is
/// downloaded there, never too much.
fn cache_size(node: &v1::Node) -> Option<Bytes> {
    let text = node.annotations().get(names::ANNOTATION_CACHE_SIZE)?;
    Some(text.parse().unwrap_or(Bytes::ZERO))
}

/// By custom the taint of nodes with GPUs bears the name of their resource. Where a cluster has a
/// name of its own for that, its taint counts as the vendor's: rendered pods tolerate both.
fn taint(taint: &v1::Taint, names: &GpuResources) -> Option<Taint> {
    let by_custom = names.vendor(&taint.key).map(|vendor| vendor::profile(vendor).taint);
    Some(Taint {
        key: by_custom.unwrap_or(&taint.key).to_owned(),
        value: taint.value.clone().unwrap_or_default(),
        effect: match taint.effect.as_str() {
            "NoSchedule" => Effect::NoSchedule,
            "PreferNoSchedule" => Effect::PreferNoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => return None,
        },
    })
}

fn gpus(
    labels: &BTreeMap<String, String>,
    allocatable: &BTreeMap<String, Quantity>,
    names: &GpuResources,
) -> Option<Gpus> {
    let count = |resource: &str| {
        let number = allocatable.get(resource).map(|quantity| amount(resource, quantity));
        u32::try_from(number.unwrap_or_default().get()).unwrap_or(u32::MAX)
    };
    let of = |vendor| count(names.of(vendor));
    let mig = allocatable
        .keys()
        .any(|resource| resource.starts_with("nvidia.com/mig-") && count(resource) > 0);
    let (vendor, unusable) = match (of(Vendor::NVIDIA), of(Vendor::AMD)) {
        (0, 0) if !mig => return None,
        (0, _) if !mig => (Vendor::AMD, None),
        (_, 0) => (Vendor::NVIDIA, nvidia_unusable(labels, mig)),
        _ => (Vendor::NVIDIA, Some("has GPUs of two vendors".to_owned())),
    };
    let profile = vendor::profile(vendor);
    // Older releases of AMD's labeller put all of its labels under beta.amd.com.
    let label = |name: &str| labels.get(name).or_else(|| labels.get(&format!("beta.{name}")));
    Some(Gpus {
        vendor: planner_vendor(vendor),
        product: label(profile.label_product).cloned().unwrap_or_default(),
        count: of(vendor),
        vram: label(profile.label_memory).and_then(|label| vendor::memory(vendor, label)),
        unusable,
    })
}

fn nvidia_unusable(labels: &BTreeMap<String, String>, mig: bool) -> Option<String> {
    let get = |name: &str| labels.get(name).map(String::as_str);
    if mig
        || matches!(get("nvidia.com/mig.strategy"), Some("single" | "mixed"))
            && get("nvidia.com/gpu.product").is_some_and(|product| product.contains("MIG"))
    {
        return Some("is split into MIG slices".to_owned());
    }
    match get("nvidia.com/gpu.sharing-strategy") {
        Some("time-slicing") => return Some("shares its GPUs by time-slicing".to_owned()),
        Some("mps") => return Some("shares its GPUs by MPS".to_owned()),
        _ => {}
    }
    let replicas = get("nvidia.com/gpu.replicas").and_then(|text| text.parse::<u32>().ok());
    replicas.filter(|&replicas| replicas > 1).map(|_| "offers each GPU more than once".to_owned())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};

    use super::*;

    fn by_custom(
        labels: &BTreeMap<String, String>,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Option<Gpus> {
        gpus(labels, allocatable, &GpuResources::default())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn resources(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned())))
            .collect()
    }

    #[test]
    fn nvidia_labels_are_in_mib_and_amd_labels_in_gib() {
        let nvidia = by_custom(
            &labels(&[
                ("nvidia.com/gpu.product", "NVIDIA-L40S"),
                ("nvidia.com/gpu.memory", "46068"),
                ("nvidia.com/gpu.replicas", "1"),
                ("nvidia.com/gpu.sharing-strategy", "none"),
            ]),
            &resources(&[("nvidia.com/gpu", "4")]),
        )
        .unwrap();
        assert_eq!((nvidia.count, nvidia.vram), (4, Some(Bytes::mib(46_068))));
        assert_eq!(nvidia.unusable, None);

        let amd = by_custom(
            &labels(&[("amd.com/gpu.vram", "192G"), ("amd.com/gpu.product-name", "MI300X")]),
            &resources(&[("amd.com/gpu", "8")]),
        )
        .unwrap();
        assert_eq!((amd.count, amd.vram), (8, Some(Bytes::gib(192))));
    }

    #[test]
    fn a_wrong_memory_label_is_unknown_never_zero() {
        for memory in ["", "0", "-5", "many", "46068Mi", "99999999999999999999"] {
            let gpus = by_custom(
                &labels(&[("nvidia.com/gpu.memory", memory)]),
                &resources(&[("nvidia.com/gpu", "1")]),
            );
            assert_eq!(gpus.unwrap().vram, None, "{memory:?}");
        }
    }

    #[test]
    fn gpus_that_are_not_whole_are_refused_with_the_reason() {
        for (labels_, resources_, reason) in [
            (
                vec![("nvidia.com/gpu.sharing-strategy", "time-slicing")],
                vec![("nvidia.com/gpu", "8")],
                "time-slicing",
            ),
            (
                vec![("nvidia.com/gpu.replicas", "4")],
                vec![("nvidia.com/gpu", "8")],
                "more than once",
            ),
            (
                vec![
                    ("nvidia.com/mig.strategy", "single"),
                    ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"),
                ],
                vec![("nvidia.com/gpu", "7")],
                "MIG",
            ),
            (vec![], vec![("nvidia.com/mig-1g.10gb", "7")], "MIG"),
            (vec![], vec![("nvidia.com/gpu", "1"), ("amd.com/gpu", "1")], "two vendors"),
        ] {
            let gpus = by_custom(&labels(&labels_), &resources(&resources_)).unwrap();
            assert!(gpus.unusable.as_deref().unwrap_or("").contains(reason), "{reason}: {gpus:?}");
        }
    }

    #[test]
    fn gpus_are_counted_under_the_name_that_the_cluster_gives_them() {
        let given = (Vendor::NVIDIA, "example.com/gpu".parse().unwrap());
        let names = GpuResources::new([given]).unwrap();
        let taint = |key: &str| v1::Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..v1::Taint::default()
        };
        let renamed = v1::Node {
            metadata: kube::api::ObjectMeta {
                name: Some("gpu-1".to_owned()),
                // Labels keep their names: they are those of GPU Feature Discovery.
                labels: Some(labels(&[
                    ("nvidia.com/gpu.product", "NVIDIA-L40S"),
                    ("nvidia.com/gpu.memory", "46068"),
                ])),
                ..kube::api::ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: Some(vec![taint("example.com/gpu"), taint("dedicated")]),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                allocatable: Some(resources(&[("example.com/gpu", "4"), ("nvidia.com/gpu", "0")])),
                ..NodeStatus::default()
            }),
        };
        let seen = node(&renamed, &names, Bytes::ZERO);
        let gpus = seen.gpus.unwrap();
        assert_eq!((gpus.vendor, gpus.count), (berth_planner::Vendor::Nvidia, 4));
        assert_eq!((&*gpus.product, gpus.vram), ("NVIDIA-L40S", Some(Bytes::mib(46_068))));
        let keys: Vec<_> = seen.taints.iter().map(|taint| &*taint.key).collect();
        assert_eq!(keys, ["nvidia.com/gpu", "dedicated"], "by custom, and everybody else's");
        assert_eq!(node(&renamed, &GpuResources::default(), Bytes::ZERO).gpus, None);
    }
}
