//! Where a model's files are: from the uri of the spec to volumes, init steps, secrets, and the
//! path or name that the engine is given.
//!
//! One file per scheme. What a tenant names is fetched in the tenant's own pod with the tenant's
//! own secret; the operator opens none of it. Engines are given paths, never a name to fetch.

mod cache;
mod hub;
mod oci;
mod pvc;
mod s3;

use std::collections::BTreeMap;

use berth_crds::llm_deployment::Model;
use berth_units::{Bytes, MilliCpu};
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource,
    SecretKeySelector, Volume, VolumeMount,
};

pub use hub::{CONTAINER as FETCH_CONTAINER, PORT as FETCH_PORT};
pub use s3::IMAGE as S3_IMAGE;

use crate::{
    CachedModel, ModelSource, Replica, Site, Template, engine::TMP, pod, quantity, resources,
};

/// Where the model's files are in the container: whatever is large is in this one place.
pub const MODEL_PATH: &str = "/model";

const VOLUME: &str = "model";

/// The executable of `berth-fetch` in its image.
pub(crate) const FETCH: &str = "/berth-fetch";

/// A uri that says nothing about where a model is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The scheme is none that Berth knows.
    #[error(
        "model.uri {uri:?} has no scheme that Berth knows; \
         use hf://, oci://, s3://, pvc:// or cache://"
    )]
    Scheme {
        /// The uri.
        uri: String,
    },
    /// Something is missing or wrong after the scheme.
    #[error("model.uri {uri:?} must be {form}")]
    Form {
        /// The uri.
        uri: String,
        /// The form that the scheme takes.
        form: &'static str,
    },
    /// A path that climbs out of its root.
    #[error("model.{field} {value:?} must not contain '..'")]
    Climbs {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl ModelSource {
    /// The source that a spec names. The API server has checked the form already; this answers the
    /// same for specs that never met it.
    pub fn parse(model: &Model) -> Result<Self, ParseError> {
        let uri = model.uri.as_str();
        let (scheme, rest) =
            uri.split_once("://").ok_or_else(|| ParseError::Scheme { uri: uri.to_owned() })?;
        for (field, value) in [
            ("uri", Some(rest)),
            ("files", model.files.as_deref()),
            ("revision", model.revision.as_deref()),
        ] {
            if let Some(value) = value.filter(|v| v.split('/').any(|part| part == "..")) {
                return Err(ParseError::Climbs { field, value: value.to_owned() });
            }
        }
        let files = model.files.clone();
        let (source, form) = match scheme {
            "hf" => (hub::parse(rest, model.revision.as_deref(), files), "hf://ORG/NAME"),
            "oci" => (oci::parse(rest, files), "oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]"),
            "s3" => (s3::parse(rest, files), "s3://BUCKET/PREFIX"),
            "pvc" => (pvc::parse(rest, files), "pvc://CLAIM[/PATH]"),
            "cache" => (cache::parse(rest, files), "cache://NAME[/PATH]"),
            _ => return Err(ParseError::Scheme { uri: uri.to_owned() }),
        };
        source.ok_or_else(|| ParseError::Form { uri: uri.to_owned(), form })
    }

    /// The same at that commit, where it is on the hub and the commit is known.
    #[must_use]
    pub fn at(self, commit: Option<&str>) -> Self {
        match (self, commit) {
            (Self::Hub { repository, files, .. }, Some(commit)) => {
                Self::Hub { repository, revision: commit.to_owned(), files }
            }
            (other, _) => other,
        }
    }

    /// One file of many, by name or pattern, as the spec gives it.
    pub fn files(&self) -> Option<&str> {
        match self {
            Self::Hub { files, .. }
            | Self::Oci { files, .. }
            | Self::S3 { files, .. }
            | Self::Pvc { files, .. }
            | Self::Cache { files, .. } => files.as_deref(),
        }
    }

    /// Whether the files come over the network, to where Berth has to have room for them.
    pub fn is_downloaded(&self) -> bool {
        matches!(self, Self::Hub { .. } | Self::S3 { .. })
    }

    /// What it keeps in a node's cache, where the cluster has one.
    pub fn cached(&self, weights: Bytes) -> Option<CachedModel> {
        let Self::Hub { repository, revision, files } = self else { return None };
        let directory = hub::directory(repository, revision, files.as_deref());
        Some(CachedModel { directory, bytes: resources::download_size(weights) })
    }

    /// The label that a node needs to have the model, with its value.
    pub fn node_label(&self) -> Option<(String, String)> {
        match self {
            Self::Cache { name, .. } => Some(cache::label(name)),
            _ => None,
        }
    }

    /// What the engine is told.
    pub fn location(&self) -> Location {
        match self {
            Self::Hub { repository, revision, files } => {
                hub::location(repository, revision, files.as_deref())
            }
            // The prefix itself is cut off by the download.
            Self::S3 { prefix, files, .. } if is_gguf(prefix) && files.is_none() => {
                Location::within("", prefix.rsplit('/').next())
            }
            Self::S3 { files, .. } | Self::Oci { files, .. } => {
                Location::within("", files.as_deref())
            }
            Self::Pvc { path, files, .. } => Location::within(path, files.as_deref()),
            Self::Cache { name, path, files } => {
                Location::within(format!("{name}/{path}").trim_matches('/'), files.as_deref())
            }
        }
    }
}

/// The path that an engine is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The directory with the model, in the container.
    pub directory: String,
    /// One file in it, by name or pattern; may be in a folder of its own.
    pub file: Option<String>,
}

impl Location {
    fn within(path: &str, files: Option<&str>) -> Self {
        let (path, file) = match files {
            Some(_) => (path, files),
            None if is_gguf(path) => match path.rsplit_once('/') {
                Some((folder, name)) => (folder, Some(name)),
                None => ("", Some(path)),
            },
            None => (path, None),
        };
        let directory =
            if path.is_empty() { MODEL_PATH.to_owned() } else { format!("{MODEL_PATH}/{path}") };
        Self { directory, file: file.map(ToOwned::to_owned) }
    }
}

/// What a source adds to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mounted {
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Where they are in the engine's container.
    pub mounts: Vec<VolumeMount>,
    /// Steps before the engine starts.
    pub init: Vec<Container>,
    /// Group that may read the files.
    pub group: Option<i64>,
}

/// What the template's source adds to a pod.
pub fn mounted(template: &Template, replica: &Replica, site: &Site) -> Mounted {
    match &template.source {
        ModelSource::Hub { repository, revision, files } => {
            hub::mounted(repository, revision, files.as_deref(), template, replica, site)
        }
        ModelSource::Cache { .. } => cache::mounted(replica, site),
        ModelSource::Oci { reference, .. } => oci::mounted(reference, template),
        ModelSource::S3 { bucket, prefix, files } => {
            s3::mounted(bucket, prefix, files.as_deref(), template)
        }
        ModelSource::Pvc { claim, .. } => pvc::mounted(claim),
    }
}

/// Whether a path or pattern names GGUF files.
pub(crate) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a name is a pattern.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// The volume that a download lands in.
fn download(template: &Template) -> Volume {
    Volume {
        name: VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(quantity::bytes(download_limit(template))),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A claim of the pod's namespace, as the model's volume.
fn claimed(claim: String) -> Volume {
    Volume {
        name: VOLUME.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim,
            // Only mounts are read-only: with `readOnly` here too, volumes that are already
            // attached for writing on the node (by whoever fills them) could not be mounted
            // beside it.
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// All of the pod's disk but the room for everything else: more disk in the spec is more room for
/// the download.
fn download_limit(template: &Template) -> Bytes {
    let rest = template.resources.ephemeral_storage - resources::room(&template.engine);
    rest.max(resources::download_size(template.weight_bytes))
}

/// What the steps that download have in common, each with so much memory at most. Limits are like
/// the engine's, or the pod would not be Guaranteed; never more than the engine's, or the pod would
/// ask for more than the plan knows.
fn step(template: &Template, memory: Bytes) -> Container {
    let amounts = BTreeMap::from([
        ("cpu".to_owned(), quantity::cpu(template.resources.cpu.min(MilliCpu::cores(2)))),
        ("memory".to_owned(), quantity::bytes(template.resources.memory.min(memory))),
    ]);
    Container {
        resources: Some(pod::guaranteed(amounts)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![mount(false), TMP.mount()]),
        ..Container::default()
    }
}

fn mount(read_only: bool) -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: MODEL_PATH.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn secret(name: &str, secret: &str, key: &str, optional: bool) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                optional: optional.then_some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(uri: &str, files: Option<&str>) -> Model {
        Model {
            uri: uri.to_owned(),
            revision: None,
            files: files.map(ToOwned::to_owned),
            served_name: None,
            secret_ref: None,
            facts: None,
            trust_remote_code: false,
        }
    }

    fn path(uri: &str, files: Option<&str>) -> (String, Option<String>) {
        let Location { directory, file } =
            ModelSource::parse(&model(uri, files)).unwrap().location();
        (directory, file)
    }

    #[test]
    fn the_engine_is_told_where_the_files_are() {
        for (uri, files, directory, file) in [
            ("pvc://models", None, "/model", None),
            ("pvc://models/", None, "/model", None),
            ("pvc://models/a/b/", None, "/model/a/b", None),
            ("pvc://models/a/b.gguf", None, "/model/a", Some("b.gguf")),
            ("pvc://models/b.GGUF", None, "/model", Some("b.GGUF")),
            ("pvc://models/a", Some("b.gguf"), "/model/a", Some("b.gguf")),
            ("s3://bucket/a/b/", None, "/model", None),
            ("s3://bucket/a/b.gguf", None, "/model", Some("b.gguf")),
            ("s3://bucket/a", Some("c/b.gguf"), "/model", Some("c/b.gguf")),
            ("oci://registry.example.com:5000/a/b:v1", None, "/model", None),
            ("oci://registry.example.com/a", Some("b.gguf"), "/model", Some("b.gguf")),
            ("cache://a", None, "/model/a", None),
            ("cache://a/b.gguf", None, "/model/a", Some("b.gguf")),
            ("cache://a/b", Some("c.gguf"), "/model/a/b", Some("c.gguf")),
        ] {
            let expected = (directory.to_owned(), file.map(ToOwned::to_owned));
            assert_eq!(path(uri, files), expected, "{uri} {files:?}");
        }
    }

    #[test]
    fn a_repository_has_a_revision() {
        let mut spec = model("hf://org/name", None);
        let revision = |spec: &Model| match ModelSource::parse(spec).unwrap() {
            ModelSource::Hub { revision, .. } => revision,
            other => panic!("{other:?}"),
        };
        assert_eq!(revision(&spec), "main");
        spec.revision = Some("v2".to_owned());
        assert_eq!(revision(&spec), "v2");
    }

    #[test]
    fn what_names_no_model_is_refused_with_the_form() {
        for (uri, part) in [
            ("org/name", "hf://"),
            ("http://example.com/model", "hf://"),
            ("hf://name", "hf://ORG/NAME"),
            ("hf://org/name/file", "hf://ORG/NAME"),
            ("oci://registry", "oci://REGISTRY/REPOSITORY"),
            ("s3://bucket", "s3://BUCKET/PREFIX"),
            ("s3://bucket//", "s3://BUCKET/PREFIX"),
            ("pvc:///path", "pvc://CLAIM"),
            ("cache:///path", "cache://NAME"),
            ("pvc://models/../other", "'..'"),
        ] {
            let error = ModelSource::parse(&model(uri, None)).unwrap_err().to_string();
            assert!(error.contains(uri.rsplit("://").next().unwrap()), "{error}");
            assert!(error.contains(part), "{error}");
        }
        let error = ModelSource::parse(&model("hf://org/name", Some("../x.gguf"))).unwrap_err();
        assert!(error.to_string().contains("model.files"), "{error}");
    }
}
