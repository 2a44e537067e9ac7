//! An artifact's manifest: which of its layers are files of a model. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::reference::is_digest;
use crate::{model::Item, name::FileName};

/// What a registry is asked for.
pub(super) const FORMATS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// Where a layer says which file it is: `ModelPack` (newer and older), and ORAS.
const NAMES: [&str; 3] =
    ["org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title"];

const LICENCE: &str = "org.opencontainers.image.licenses";

/// A manifest, or a list of them.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    manifests: Vec<Layer>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
}

/// A layer that is one file, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub item: Item,
    pub digest: String,
}

impl Manifest {
    /// Of a list, the manifest of an artifact for Linux or for anywhere.
    pub(super) fn first(&self) -> Option<&str> {
        let fits = |layer: &&Layer| {
            is_digest(&layer.digest)
                && layer.platform.as_ref().is_none_or(|p| matches!(&*p.os, "" | "linux"))
        };
        self.manifests.iter().find(fits).map(|layer| &*layer.digest)
    }

    pub(super) fn licence(&self) -> Option<String> {
        let text = self.annotations.as_ref()?.get(LICENCE)?;
        let short: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        Some(short).filter(|text| !text.is_empty())
    }

    /// The files that can be read in part.
    pub(super) fn blobs(&self) -> Vec<Blob> {
        let models = self.layers.iter().filter(|layer| layer.is_gguf()).count();
        let (mut number, mut blobs) = (0, Vec::new());
        for layer in self.layers.iter().filter(|layer| !layer.is_packed()) {
            let name = match layer.name() {
                Some(name) => name,
                // Docker's and Ollama's layers are known by their type alone.
                None if layer.is_gguf() => {
                    number += 1;
                    format!("model-{number:05}-of-{models:05}.gguf")
                }
                None => continue,
            };
            if is_digest(&layer.digest) && FileName::try_from(name.clone()).is_ok() {
                let item = Item { name, size: Some(layer.size) };
                blobs.push(Blob { item, digest: layer.digest.clone() });
            }
        }
        blobs
    }

    /// How many layers would have to be unpacked.
    pub(super) fn packed(&self) -> usize {
        self.layers.iter().filter(|layer| layer.is_packed()).count()
    }
}

impl Layer {
    fn name(&self) -> Option<String> {
        let annotations = self.annotations.as_ref()?;
        let name = NAMES.iter().find_map(|name| annotations.get(*name))?;
        Some(name.strip_prefix("./").unwrap_or(name).to_owned())
    }

    fn is_gguf(&self) -> bool {
        let kind = &*self.media_type;
        kind == "application/vnd.ollama.image.model" || kind.contains(".gguf")
    }

    fn is_packed(&self) -> bool {
        let kind = &*self.media_type;
        [".tar", "+gzip", "+zstd", ".archive"].iter().any(|end| kind.ends_with(end))
            || kind.contains("rootfs")
            || kind.contains("image.layer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(layers: &[(&str, &str)]) -> Vec<String> {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let layer = |(kind, annotations): &(&str, &str)| {
            format!(
                r#"{{"mediaType":"{kind}","digest":"{digest}","size":7,"annotations":{annotations}}}"#
            )
        };
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let text = format!(r#"{{"layers":[{}]}}"#, layers.join(","));
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        manifest.blobs().into_iter().map(|blob| blob.item.name).collect()
    }

    #[test]
    fn layers_are_files_by_annotation_or_by_type() {
        let found = names(&[
            (
                "application/vnd.cncf.model.weight.v1.raw",
                r#"{"org.cncf.model.filepath":"a/x.gguf"}"#,
            ),
            ("application/octet-stream", r#"{"org.opencontainers.image.title":"./config.json"}"#),
            ("application/vnd.docker.ai.gguf.v3", "null"),
            ("application/vnd.ollama.image.model", "{}"),
            ("application/vnd.ollama.image.license", "null"),
            ("application/vnd.cncf.model.weight.v1.tar", r#"{"org.cncf.model.filepath":"y"}"#),
            ("application/octet-stream", r#"{"org.opencontainers.image.title":"../evil"}"#),
            ("application/vnd.oci.image.layer.v1.tar+gzip", "null"),
        ]);
        let models = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];
        assert_eq!(found, ["a/x.gguf", "config.json", models[0], models[1]]);
    }
}
