//! Manifests into a cluster: server-side apply of whatever a file holds.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{Scope, pinned_kind},
};
use serde_json::Value;

use crate::{
    Cluster,
    wait::{Look, patience, until},
};

/// Who applies.
pub const MANAGER: &str = "berth-e2e";

/// The objects of a YAML text with any number of documents.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies one object, into `namespace` where it names none and its kind has them.
pub async fn apply(client: &Client, object: &Value, namespace: &str) -> Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.as_ref().context("an object without apiVersion and kind")?;
    let name = object.metadata.name.clone().context("an object without a name")?;
    let kind = GroupVersionKind::try_from(types)?;
    let what = format!("{} {name}", kind.kind);
    let (resource, capabilities) = pinned_kind(client, &kind)
        .await
        .with_context(|| format!("{what}: the API server does not know the kind"))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let parameters = PatchParams::apply(MANAGER).force().validation_strict();
    api.patch(&name, &parameters, &Patch::Apply(&object)).await.with_context(|| what)
}

/// Applies all of a file.
pub async fn apply_file(client: &Client, path: &Path, namespace: &str) -> Result<Vec<Value>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let objects = objects(&text).with_context(|| path.display().to_string())?;
    for object in &objects {
        apply(client, object, namespace).await.with_context(|| path.display().to_string())?;
    }
    Ok(objects)
}

impl Cluster {
    /// Applies all files of a folder, in the order of their names.
    pub async fn apply_folder(&self, folder: &Path) -> Result<()> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        ensure!(!files.is_empty(), "{} holds no manifests", folder.display());
        for file in &files {
            apply_file(&self.client, file, "default").await?;
        }
        Ok(())
    }

    /// Waits until the API server serves every `CustomResourceDefinition`.
    pub async fn definitions_established(&self) -> Result<()> {
        until("the CustomResourceDefinitions are established", patience(), async || {
            let all = self.all::<CustomResourceDefinition>().list(&ListParams::default()).await?;
            for definition in all {
                let conditions = definition.status.and_then(|s| s.conditions).unwrap_or_default();
                let holds =
                    |type_| conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
                if !holds("Established") {
                    return Ok(Look::NotYet(format!(
                        "{:?}: {conditions:?}",
                        definition.metadata.name
                    )));
                }
            }
            Ok(Look::Done(()))
        })
        .await
    }
}
