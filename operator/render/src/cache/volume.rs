//! A folder of a node's cache as a volume, and the claim on it.

use std::collections::BTreeMap;

use berth_crds::names;
use berth_units::Bytes;
use k8s_openapi::{
    api::core::v1::{
        HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeSpec, VolumeNodeAffinity, VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{CacheSite, quantity, short_hash::short_hash};

/// The class of all volumes of the cache. The operator may create volumes of no other.
pub const STORAGE_CLASS: &str = "berth-cache";

/// A folder of one node's cache, for the pods of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder {
    /// The node.
    pub node: String,
    /// The namespace of the pods that mount it.
    pub namespace: String,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// What the namespace's replicas downloaded.
    Own,
    /// What the administrator put there.
    Shared,
    /// The folders of all namespaces, for keepers.
    All,
}

impl Folder {
    /// What the namespace's replicas downloaded.
    pub fn of(node: &str, namespace: &str) -> Self {
        Self { node: node.to_owned(), namespace: namespace.to_owned(), part: Part::Own }
    }

    /// What the administrator put there.
    pub fn shared(node: &str, namespace: &str) -> Self {
        Self { part: Part::Shared, ..Self::of(node, namespace) }
    }

    /// The folders of all namespaces, for keepers in Berth's namespace.
    pub fn all(node: &str, site: &CacheSite) -> Self {
        Self { part: Part::All, ..Self::of(node, &site.namespace) }
    }

    /// Name of the volume and of the claim.
    pub fn name(&self) -> String {
        let Self { node, namespace, part } = self;
        let name = short_hash(&format!("{node}\n{namespace}"), 13);
        match part {
            Part::Own => format!("berth-cache-{name}"),
            Part::Shared => format!("berth-shared-{name}"),
            Part::All => format!("berth-keeper-{name}"),
        }
    }

    /// Whether it is one that models are downloaded into.
    pub fn is_own(&self) -> bool {
        self.part == Part::Own
    }

    fn path(&self, site: &CacheSite) -> String {
        match self.part {
            Part::Own => format!("{}/namespaces/{}", site.path, self.namespace),
            Part::Shared => format!("{}/shared", site.path),
            Part::All => format!("{}/namespaces", site.path),
        }
    }
}

/// The volume of a folder. `hostname` is the node's label `kubernetes.io/hostname`, which need not
/// be its name; `capacity` what the node's cache may hold in all, for people: nothing enforces it but
/// Berth's own plan.
pub fn volume(
    folder: &Folder,
    site: &CacheSite,
    hostname: &str,
    capacity: Bytes,
) -> PersistentVolume {
    let name = folder.name();
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels()),
            annotations: Some(BTreeMap::from(
                [
                    (names::ANNOTATION_CACHE_NODE, &folder.node),
                    (names::ANNOTATION_CACHE_NAMESPACE, &folder.namespace),
                ]
                .map(|(key, value)| (key.to_owned(), value.clone())),
            )),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteMany".to_owned()]),
            capacity: Some(storage(quantity::bytes(capacity))),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(folder.namespace.clone()),
                name: Some(name),
                ..ObjectReference::default()
            }),
            host_path: Some(HostPathVolumeSource {
                path: folder.path(site),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            // By label: a volume's affinity by field is accepted and then ignored.
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_expressions: Some(vec![NodeSelectorRequirement {
                            key: "kubernetes.io/hostname".to_owned(),
                            operator: "In".to_owned(),
                            values: Some(vec![hostname.to_owned()]),
                        }]),
                        ..NodeSelectorTerm::default()
                    }],
                }),
            }),
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: Some(STORAGE_CLASS.to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// The claim on a folder's volume. It asks for next to nothing, so that it fits any quota on
/// storage: how much models take is planned by Berth.
pub fn claim(folder: &Folder) -> PersistentVolumeClaim {
    let name = folder.name();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(folder.namespace.clone()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteMany".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(storage(Quantity("1Mi".to_owned()))),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: Some(STORAGE_CLASS.to_owned()),
            volume_name: Some(name),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn storage(amount: Quantity) -> BTreeMap<String, Quantity> {
    BTreeMap::from([("storage".to_owned(), amount)])
}

/// The labels of everything that belongs to the caches.
pub(super) fn labels() -> BTreeMap<String, String> {
    [(names::LABEL_MANAGED_BY, names::MANAGER), (names::LABEL_COMPONENT, names::COMPONENT_CACHE)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
