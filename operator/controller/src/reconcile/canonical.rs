//! The user's pod-relevant fields in canonical form. Pure.
//!
//! A revision is made when these change, and only then: never because a rendering changed. A value
//! equal to its default in the schema counts as absent, so a new field with a default changes
//! nothing, and neither do empty maps and lists.

use std::sync::LazyLock;

use berth_crds::{LLMDeployment, LLMDeploymentSpec};
use kube::CustomResourceExt;
use serde_json::{Map, Value};

/// Fields that no pod shows.
const NOT_IN_PODS: [&str; 3] = ["replicas", "suspend", "endpoint"];

/// The schema of the spec.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(LLMDeployment::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
});

/// The pod-relevant fields of a spec.
pub fn canonical(spec: &LLMDeploymentSpec) -> Value {
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|name, _| !NOT_IN_PODS.contains(&name.as_str()));
        if let Some(placement) = fields.get_mut("placement").and_then(Value::as_object_mut) {
            placement.remove("strategy");
        }
    }
    without_defaults(&spec, &SCHEMA).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Whether two canonical specs agree at a JSON pointer.
pub fn same(a: &Value, b: &Value, pointer: &str) -> bool {
    a.pointer(pointer) == b.pointer(pointer)
}

/// A value without what its schema would add by itself; `None` where nothing is left.
fn without_defaults(value: &Value, schema: &Value) -> Option<Value> {
    if schema.get("default") == Some(value) {
        return None;
    }
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let properties = schema.get("properties");
            let any = schema.get("additionalProperties").filter(|any| any.is_object());
            let left: Map<_, _> = fields
                .iter()
                .filter_map(|(name, value)| {
                    // Keys of a map are the user's own: an empty value there is a value.
                    if any.is_some() || properties.is_none() {
                        return Some((name.clone(), value.clone()));
                    }
                    let schema = properties.and_then(|all| all.get(name)).unwrap_or(&Value::Null);
                    Some((name.clone(), without_defaults(value, schema)?))
                })
                .collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            let keep = |item| without_defaults(item, schema).unwrap_or(Value::Null);
            (!items.is_empty()).then(|| Value::Array(items.iter().map(keep).collect()))
        }
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: Value) -> LLMDeploymentSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_no_pod_shows_is_left_out() {
        let plain = canonical(&spec(json!({"model": {"uri": "hf://a/b"}})));
        assert_eq!(plain, json!({"model": {"uri": "hf://a/b"}}));
        let same = canonical(&spec(json!({
            "model": {"uri": "hf://a/b"},
            "replicas": 7,
            "suspend": true,
            "endpoint": {"port": 8080},
            "placement": {"strategy": "Spread"},
        })));
        assert_eq!(same, plain);
    }

    #[test]
    fn a_default_spelled_out_is_no_change() {
        let plain =
            canonical(&spec(json!({"model": {"uri": "hf://a/b"}, "engine": {"args": ["--x"]}})));
        let spelled = canonical(&spec(json!({
            "model": {"uri": "hf://a/b", "trustRemoteCode": false},
            "engine": {"args": ["--x"], "imagePullPolicy": "IfNotPresent"},
            "podTemplate": {"labels": {}},
            "gpu": {"products": []},
        })));
        assert_eq!(spelled, plain);
    }

    #[test]
    fn what_pods_show_is_kept_as_it_is() {
        let canonical = canonical(&spec(json!({
            "model": {"uri": "hf://a/b"},
            "podTemplate": {"labels": {"empty": ""}},
            "placement": {"tolerations": [{"key": "a", "operator": "Equal"}]},
        })));
        assert_eq!(canonical.pointer("/podTemplate/labels/empty"), Some(&json!("")));
        assert_eq!(canonical.pointer("/placement/tolerations/0"), Some(&json!({"key": "a"})));
    }
}
