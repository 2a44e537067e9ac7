//! What engines told that they take, noted on the ControllerRevision that they are of, and looked up
//! for the next revision. Pure.
//!
//! A note holds for another revision where all that memory depends on is the same but context and
//! concurrency, and on the same product only. It is looked up in its own namespace: what an engine
//! says in its log is its tenant's word.

use std::collections::BTreeMap;

use berth_crds::names;
use berth_render::{Estimate, Resources, Template, revision};
use berth_units::{Bytes, MilliCpu};
use berth_vram::{Told, Trust};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::moved;
use crate::{accelerator, world::pod::Replica};

/// By the products of GPUs, as nodes' labels name them.
pub type Notes = BTreeMap<String, Note>;

/// What the engine of a pod told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// The pod.
    pub pod: String,
    /// Whether all of the model was on GPUs.
    pub on_gpus: bool,
    /// Weights.
    pub weights: Bytes,
    /// The KV cache as it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<Bytes>,
    /// Tokens that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<u64>,
    /// Buffers of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Bytes>,
}

impl Note {
    fn of(pod: &Replica) -> Option<Self> {
        let measured = pod.learnt.measured?;
        Some(Self {
            pod: pod.key.name.clone(),
            on_gpus: pod.learnt.accelerator.as_ref().is_some_and(accelerator::is_on),
            weights: measured.weights?,
            kv_cache: measured.kv_cache,
            kv_tokens: measured.kv_tokens,
            compute: measured.compute,
        })
    }

    fn parts(&self) -> [Option<i64>; 4] {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| number(bytes.get()));
        [
            bytes(Some(self.weights)),
            bytes(self.kv_cache),
            self.kv_tokens.map(number),
            bytes(self.compute),
        ]
    }
}

/// The notes of an object; none where there are none, or none that can be read.
pub fn of(object: &ControllerRevision) -> Notes {
    let noted = object.annotations().get(names::ANNOTATION_MEASURED);
    noted.and_then(|noted| serde_json::from_str(noted).ok()).unwrap_or_default()
}

/// The notes of a revision after a look at its pods. As for status, engines on other nodes may take
/// a little more or less: only the same pod changes what it told, or another once that is gone; and
/// what fell back to the CPU takes nothing back.
pub fn next(before: &Notes, revision: &str, pods: &[std::sync::Arc<Replica>]) -> Notes {
    let mut notes = before.clone();
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.revision == revision).collect();
    pods.sort_by_key(|pod| (pod.replica, pod.created, pod.attempt));
    for pod in pods.iter().filter(|pod| pod.is_ready() && !pod.claim.product.is_empty()) {
        let Some(now) = Note::of(pod) else { continue };
        let is_news = notes.get(&pod.claim.product).is_none_or(|known| {
            let gone = || !pods.iter().any(|pod| pod.key.name == known.pod);
            match (known.on_gpus, now.on_gpus) {
                (false, true) => true,
                (true, false) => false,
                _ => (now.pod == known.pod || gone()) && moved(&known.parts(), &now.parts()),
            }
        });
        if is_news {
            notes.insert(pod.claim.product.clone(), now);
        }
    }
    notes
}

/// What an earlier revision's engine told, for one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The product.
    pub product: String,
    /// The pod that told it.
    pub pod: String,
    /// Hash of the revision.
    pub revision: String,
    /// Whether it ran on GPUs.
    pub on_gpus: bool,
    /// The revision's context.
    pub context_length: u32,
    /// The revision's concurrency.
    pub max_concurrency: u32,
    /// What was told.
    pub told: Told,
}

/// A template less what memory does not depend on, and less context and concurrency, which the
/// estimate knows how to change. Written so that a field that comes later counts.
pub fn subject(template: &Template) -> Template {
    let nothing = Estimate {
        weights: Bytes::ZERO,
        kv_cache: Bytes::ZERO,
        activation: Bytes::ZERO,
        non_torch: Bytes::ZERO,
        graphs: Bytes::ZERO,
        margin: Bytes::ZERO,
        total: Bytes::ZERO,
        kv_bytes_per_token: Bytes::ZERO,
        basis: String::new(),
    };
    let mut subject = Template {
        source_secret: None,
        served_name: String::new(),
        products: Vec::new(),
        context_length: 0,
        max_concurrency: 0,
        weight_bytes: Bytes::ZERO,
        estimate: nothing,
        measured: BTreeMap::new(),
        resources: Resources {
            cpu: MilliCpu(0),
            memory: Bytes::ZERO,
            shared_memory: Bytes::ZERO,
            ephemeral_storage: Bytes::ZERO,
        },
        startup_timeout_seconds: 0,
        shutdown_grace_seconds: 0,
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        priority_class: String::new(),
        image_pull_secrets: Vec::new(),
        pod_labels: BTreeMap::new(),
        pod_annotations: BTreeMap::new(),
        ..template.clone()
    };
    // It follows from the image, and older revisions do not state it.
    subject.engine.version = None;
    subject.engine.image_pull_policy = berth_crds::llm_deployment::PullPolicy::IfNotPresent;
    subject
}

/// What revisions with notes are looked up by: the hash of their subject.
pub fn tag(object: &ControllerRevision) -> Option<String> {
    object.annotations().get(names::ANNOTATION_MEASURED)?;
    Some(revision::hash(&subject(&revision::parse(object).ok()?)))
}

/// What was told of a subject, of each product once: what replaces an estimate before what only
/// raises it, then the newest.
pub fn earlier<'a>(
    objects: impl IntoIterator<Item = &'a ControllerRevision>,
    asked: &Template,
) -> Vec<Earlier> {
    let mut best: BTreeMap<String, (_, Earlier)> = BTreeMap::new();
    for object in objects {
        let Ok(template) = revision::parse(object) else { continue };
        if subject(&template) != *asked {
            continue;
        }
        let age = (object.creation_timestamp().map(|time| time.0), object.name_any());
        for (product, note) in of(object) {
            let sure = note.on_gpus && template.source.is_fixed();
            let trust = if sure { Trust::Replaces } else { Trust::Raises };
            let rank = (trust, age.clone());
            if best.get(&product).is_some_and(|(known, _)| *known > rank) {
                continue;
            }
            let told = Told {
                trust,
                weights: note.weights,
                kv_cache: note.kv_cache.zip(note.kv_tokens),
                activation: note.compute,
            };
            let found = Earlier {
                product: product.clone(),
                pod: note.pod,
                revision: object.labels().get(names::LABEL_REVISION).cloned().unwrap_or_default(),
                on_gpus: note.on_gpus,
                context_length: template.context_length,
                max_concurrency: template.max_concurrency,
                told,
            };
            best.insert(product, (rank, found));
        }
    }
    best.into_values().map(|(_, earlier)| earlier).collect()
}

impl Earlier {
    /// What an estimate with it rests on, for people.
    pub fn basis(&self) -> String {
        let Self { product, pod, revision, told, on_gpus, .. } = self;
        let of = format!("pod {pod} of revision {revision}");
        match (told.trust, on_gpus) {
            (Trust::Replaces, _) => format!("measured on {product} by {of}"),
            (Trust::Raises, false) => {
                format!("no less than {of} told on {product}, which served from the CPU")
            }
            (Trust::Raises, true) => {
                format!("no less than {of} told on {product}, as its files may have changed since")
            }
        }
    }
}
