//! The pod that brings a revision's image and model onto a node before a replica there makes way
//! for it: so that the replica goes on while they come, and stays if they cannot.

use std::collections::BTreeMap;

use berth_crds::names;
use berth_units::Bytes;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    Claim, Replica, Site, Template,
    engine::{self, TMP},
    pod::{self, empty_dir, pin, pod_security, pull_policy, tolerations},
    short_hash::short_hash,
    source::{self, Mounted},
};

/// Name of its container that pulls the engine's image.
pub const CONTAINER: &str = "pull";

/// Whether a node that runs `old` has to be given something before it can run `new`.
pub fn is_needed(old: &Template, new: &Template, site: &Site) -> bool {
    let cached = site.cache.is_some() && new.source.cached(new.weight_bytes).is_some();
    old.engine.image != new.engine.image || cached && old.source != new.source
}

/// The pod. It holds no GPU. Its container runs something of the image that ends at once: what
/// counts is that the image is there.
pub fn prefetch(template: &Template, replica: &Replica, site: &Site) -> Pod {
    let engine = engine::of(template.engine.type_);
    let mounted = source::mounted(template, replica, site);
    // Only what stays on the node is worth bringing.
    let Mounted { mut volumes, mut init, group, .. } =
        if replica.claim.cache.is_some() { mounted } else { Mounted::default() };
    let amounts = BTreeMap::from([
        ("cpu".to_owned(), Quantity("250m".to_owned())),
        ("memory".to_owned(), Quantity("512Mi".to_owned())),
    ]);
    let resources = pod::guaranteed(amounts);
    for container in &mut init {
        container.resources = Some(resources.clone());
    }
    if !init.is_empty() {
        volumes.push(empty_dir(&TMP.volume, TMP.size, None));
    }
    let Replica { deployment, revision, node, .. } = replica;
    let name = format!("{}-{revision}-prefetch-{}", deployment.name, short_hash(node, 5));
    let mut metadata = deployment.metadata(name);
    if let Some(cache) = &replica.claim.cache {
        // What it brings takes room of the cache from now on, and no GPU.
        let claim = Claim {
            gpus: 0,
            bytes_per_gpu: Bytes::ZERO,
            total_per_gpu: Bytes::ZERO,
            product: String::new(),
            cache: Some(cache.clone()),
        };
        metadata
            .annotations
            .get_or_insert_default()
            .insert(names::ANNOTATION_CLAIM.to_owned(), claim.to_json());
    }
    metadata
        .labels
        .get_or_insert_default()
        .insert(names::LABEL_PREFETCH.to_owned(), revision.clone());
    Pod {
        metadata,
        spec: Some(PodSpec {
            affinity: Some(pin(node)),
            tolerations: Some(tolerations(template, site)),
            priority_class_name: Some(template.priority_class.clone()),
            image_pull_secrets: pod::pull_secrets(&template.image_pull_secrets),
            restart_policy: Some("OnFailure".to_owned()),
            enable_service_links: Some(false),
            automount_service_account_token: Some(false),
            security_context: Some(pod_security(template, engine, group)),
            init_containers: (!init.is_empty()).then_some(init),
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                image: Some(template.engine.image.clone()),
                image_pull_policy: Some(pull_policy(template.engine.image_pull_policy).to_owned()),
                command: Some(engine.no_work().iter().map(|&part| part.to_owned()).collect()),
                resources: Some(resources),
                security_context: Some(pod::container_security()),
                ..Container::default()
            }],
            volumes: (!volumes.is_empty()).then_some(volumes),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}
