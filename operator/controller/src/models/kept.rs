//! What is kept of models in the cluster: one `ConfigMap` for each model and commit, in the
//! operator's own namespace. Pure.

use std::{collections::BTreeMap, sync::Arc};

use berth_crds::names;
use berth_inspect::{Inspection, checksum::encode};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use sha2::{Digest as _, Sha256};

use super::{Question, library::Entry};

const QUESTION: &str = "question.json";
const INSPECTION: &str = "inspection.json";
const BRANCHES: &str = "branches.json";

/// Which objects these are.
pub fn selector() -> String {
    format!("{}={},{}", names::LABEL_MANAGED_BY, names::MANAGER, names::LABEL_MODEL_FACTS)
}

/// Name of the object that keeps the answer to a question. Nobody can choose a model whose name comes
/// out the same as another's.
pub fn name(question: &Question) -> String {
    let text = serde_json::to_string(question).unwrap_or_default();
    format!("berth-model-{}", encode(&Sha256::digest(text)[..20]))
}

/// The object. `None` for what is too long to be kept.
pub fn object(entry: &Entry, namespace: &str) -> Option<ConfigMap> {
    let json = |value: serde_json::Result<String>| value.ok();
    let data = BTreeMap::from([
        (QUESTION.to_owned(), json(serde_json::to_string(&entry.question))?),
        (INSPECTION.to_owned(), entry.inspection.to_json().ok()?),
        (BRANCHES.to_owned(), json(serde_json::to_string(&entry.branches))?),
    ]);
    let labels = [
        (names::LABEL_MANAGED_BY, names::MANAGER),
        // What the operator learnt without a secret, for all namespaces.
        (names::LABEL_MODEL_FACTS, "public"),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Some(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(&entry.question)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    })
}

/// What an object keeps; `None` for what another version of Berth wrote, or somebody else.
pub fn entry(object: &ConfigMap) -> Option<Entry> {
    let data = object.data.as_ref()?;
    let question: Question = serde_json::from_str(data.get(QUESTION)?).ok()?;
    (object.metadata.name.as_deref() == Some(&name(&question))).then_some(())?;
    Some(Entry {
        inspection: Arc::new(Inspection::from_json(data.get(INSPECTION)?).ok()?),
        branches: serde_json::from_str(data.get(BRANCHES)?).ok()?,
        question,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is() {
        let question = Question {
            repository: "org/a".to_owned(),
            revision: "a".repeat(40),
            files: Some("*Q4_K_M.gguf".to_owned()),
            gguf: false,
        };
        let inspection = Inspection {
            commit: Some("a".repeat(40)),
            facts: berth_vram::ModelFacts { layers: 32, ..berth_vram::ModelFacts::default() },
            licence: Some("mit".to_owned()),
            exact: true,
            bytes_read: 7,
        };
        let branches = BTreeMap::from([("main".to_owned(), 5)]);
        let kept = Entry { question, inspection: Arc::new(inspection), branches };
        let object = object(&kept, "berth-system").unwrap();
        assert_eq!(entry(&object), Some(kept));
        let mut renamed = object.clone();
        renamed.metadata.name = Some("berth-model-other".to_owned());
        assert_eq!(entry(&renamed), None);
        let mut broken = object;
        broken.data.as_mut().unwrap().insert(INSPECTION.to_owned(), "{}".to_owned());
        assert_eq!(entry(&broken), None);
    }
}
