//! What lies in one folder of a node's cache, as it stands on the folder's volume. Pure.

use std::collections::BTreeMap;

use berth_crds::names;
use berth_planner::NodeName;
use berth_units::Bytes;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// What lies in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Content {
    /// Whether a keeper made it fit for its users.
    pub prepared: bool,
    /// Models by the names of their directories.
    pub models: BTreeMap<String, Model>,
}

/// A model in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// The most that it takes.
    pub bytes: Bytes,
    /// When the last pod that used it was gone, in Unix seconds.
    pub last_used: i64,
    /// Whether a pod used it when this was written.
    pub in_use: bool,
    /// Whether an engine has answered from it: all of it is there.
    pub complete: bool,
    /// Whether a keeper is to remove it.
    pub leaving: bool,
}

/// A folder's volume as a watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name, and that of its claim.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version, for writes that must not overwrite another.
    pub version: String,
    /// The node.
    pub node: NodeName,
    /// The namespace whose pods use it.
    pub namespace: String,
    /// Whether its claim is gone: it serves nobody any more.
    pub released: bool,
    /// What lies in it.
    pub content: Content,
}

/// Reads a volume of ours. A content that cannot be read counts as empty and unprepared: models in
/// it are downloaded again where they are not found.
pub fn volume(volume: &PersistentVolume) -> Option<Volume> {
    let annotations = volume.annotations();
    let content = annotations.get(names::ANNOTATION_CACHE_CONTENT);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    Some(Volume {
        name: volume.name_any(),
        uid: volume.uid()?,
        version: volume.resource_version()?,
        node: NodeName::from(annotations.get(names::ANNOTATION_CACHE_NODE)?.as_str()),
        namespace: annotations.get(names::ANNOTATION_CACHE_NAMESPACE)?.clone(),
        released: matches!(phase, Some("Released" | "Failed")),
        content: content.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_newer_versions_are_no_reason_to_forget() {
        let text = r#"{"prepared": true, "new": 1, "models": {"a": {"bytes": 5, "new": 2}}}"#;
        let content: Content = serde_json::from_str(text).unwrap();
        assert!(content.prepared);
        assert_eq!(content.models["a"], Model { bytes: Bytes(5), ..Model::default() });
    }
}
