//! The `ControllerRevision` that keeps a template, and the hash that names it.
//!
//! Later replicas of a revision are rendered from what stands in here, never from newer defaults.

use std::fmt::Write as _;

use berth_crds::names;
use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::runtime::RawExtension};
use serde_json::Value;

use crate::{Owner, Template, short_hash::short_hash};

/// A `ControllerRevision` that no template can be read from.
#[derive(Debug, thiserror::Error)]
pub enum ParseRevisionError {
    /// It holds nothing.
    #[error("ControllerRevision {name} has no data; it was not written by Berth")]
    Empty {
        /// Name of the `ControllerRevision`.
        name: String,
    },
    /// What it holds is no template.
    #[error(
        "ControllerRevision {name} holds no template that this version of Berth can read: {source}"
    )]
    Unreadable {
        /// Name of the `ControllerRevision`.
        name: String,
        /// What the reader said.
        source: serde_json::Error,
    },
}

/// The `ControllerRevision` of a template. `number` orders the revisions of a deployment; `spec` is
/// the JSON of the user's pod-relevant fields, against which the next edit is compared.
pub fn revision(owner: &Owner, template: &Template, number: i64, spec: &str) -> ControllerRevision {
    let hash = hash(template);
    let mut metadata = owner.metadata(format!("{}-{hash}", owner.name));
    metadata.labels.get_or_insert_default().insert(names::LABEL_REVISION.to_owned(), hash);
    metadata
        .annotations
        .get_or_insert_default()
        .insert(names::ANNOTATION_SPEC.to_owned(), spec.to_owned());
    ControllerRevision { metadata, revision: Some(number), data: RawExtension(json(template)) }
}

/// The template that a `ControllerRevision` keeps.
pub fn parse(revision: &ControllerRevision) -> Result<Template, ParseRevisionError> {
    let name = revision.metadata.name.clone().unwrap_or_default();
    let RawExtension(data) = &revision.data;
    if data.is_null() {
        return Err(ParseRevisionError::Empty { name });
    }
    serde_json::from_value(data.clone())
        .map_err(|source| ParseRevisionError::Unreadable { name, source })
}

/// The hash of a template, over canonical JSON (keys in order, no spaces), in 8 letters.
///
/// It only has to tell the revisions of one deployment apart; a name that is taken by a different
/// template is answered with a conflict, and never overwritten. A revision that exists has its hash
/// in its name and its label: it is read there, never computed again.
pub fn hash(template: &Template) -> String {
    let mut text = String::new();
    canonical(&json(template), &mut text);
    short_hash(&text, 8)
}

fn json(template: &Template) -> Value {
    serde_json::to_value(template).expect("a template has only text keys and finite numbers")
}

/// Keys are sorted here and not by `serde_json`, whose maps keep the order of insertion as soon as
/// any crate in the build asks for that.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}
