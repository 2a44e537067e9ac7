//! The pod that prepares folders of a node's cache and makes room in it.
//!
//! The one exception to `restricted`: it runs as root, with the capabilities CHOWN and FOWNER and no
//! other, in Berth's own namespace, and sees nothing of the node but the administrator's folder.

use std::collections::{BTreeMap, BTreeSet};

use berth_crds::names;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext,
        PodSpec, SecurityContext, Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Serialize};

use super::{Folder, volume::labels};
use crate::{
    CacheSite, Site,
    pod::{container_security, guaranteed, pin, pull_secrets, runtime_default},
    short_hash::short_hash,
    source::FETCH,
};

/// Where the folders of all namespaces are in its container.
const ROOT: &str = "/cache";

/// What is to be done on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Namespaces whose folders are to be there, with the right owner and mode.
    pub prepare: BTreeSet<String>,
    /// Models to remove: namespace and directory.
    pub evict: BTreeSet<(String, String)>,
}

impl Work {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.evict.is_empty()
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("work has only text")
    }

    /// What a keeper's pod was made for.
    pub fn of(pod: &Pod) -> Option<Self> {
        let annotations = pod.metadata.annotations.as_ref()?;
        serde_json::from_str(annotations.get(names::ANNOTATION_CACHE_WORK)?).ok()
    }
}

/// The pod that does it. Its name follows from the node and the work, so the same work is never
/// done twice at once.
pub fn keeper(node: &str, work: &Work, site: &Site, cache: &CacheSite) -> Pod {
    let folder = Folder::all(node, cache);
    let mut args: Vec<String> = ["keep", "--root", ROOT, "--group"].map(ToOwned::to_owned).into();
    args.push(cache.group.to_string());
    for (namespace, directory) in &work.evict {
        args.extend(["--evict".to_owned(), format!("{namespace}/{directory}")]);
    }
    for namespace in &work.prepare {
        args.extend(["--prepare".to_owned(), namespace.clone()]);
    }
    let name = format!("{}-{}", folder.name(), short_hash(&args.join("\n"), 8));
    let amounts = BTreeMap::from([
        ("cpu".to_owned(), Quantity("100m".to_owned())),
        ("memory".to_owned(), Quantity("64Mi".to_owned())),
    ]);
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(cache.namespace.clone()),
            labels: Some(labels()),
            annotations: Some(BTreeMap::from([
                (names::ANNOTATION_CACHE_NODE.to_owned(), node.to_owned()),
                (names::ANNOTATION_CACHE_WORK.to_owned(), work.to_json()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            affinity: Some(pin(node)),
            // Wherever replicas may go, their cache is kept.
            tolerations: Some(vec![Toleration {
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            }]),
            image_pull_secrets: pull_secrets(&cache.pull_secrets),
            restart_policy: Some("OnFailure".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_user: Some(0),
                run_as_group: Some(0),
                // It may enter what others of the group made, with no capability for that.
                supplemental_groups: Some(vec![cache.group]),
                seccomp_profile: Some(runtime_default()),
                ..PodSecurityContext::default()
            }),
            containers: vec![Container {
                name: "keeper".to_owned(),
                image: Some(site.fetch_image.clone()),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                command: Some(vec![FETCH.to_owned()]),
                args: Some(args),
                resources: Some(guaranteed(amounts)),
                security_context: Some(SecurityContext {
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".to_owned()]),
                        add: Some(vec!["CHOWN".to_owned(), "FOWNER".to_owned()]),
                    }),
                    ..container_security()
                }),
                volume_mounts: Some(vec![VolumeMount {
                    name: "cache".to_owned(),
                    mount_path: ROOT.to_owned(),
                    ..VolumeMount::default()
                }]),
                ..Container::default()
            }],
            volumes: Some(vec![Volume {
                name: "cache".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: folder.name(),
                    read_only: None,
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}
