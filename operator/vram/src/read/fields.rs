//! The fields of a JSON object by their many names, with the defaults of the model's kind.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::ReadError;

/// Where fields are looked up: in the objects one after the other, then in the defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields<'a> {
    objects: Vec<Object<'a>>,
    defaults: Option<Object<'a>>,
    model_type: String,
}

/// An object by its keys: looked up hundreds of times, most of them in vain.
type Object<'a> = HashMap<&'a str, &'a Value>;

fn object(map: &Map<String, Value>) -> Object<'_> {
    map.iter().map(|(key, value)| (&**key, value)).collect()
}

/// Lists that may be there though all layers have the same sizes.
const LISTS: [&str; 24] = [
    "architectures",
    "attn_layer_indices",
    "attn_type_list",
    "auto_map",
    "bad_words_ids",
    "cross_attention_layers",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "hybrid_layer_pattern",
    "id2label",
    "indexer_types",
    "label2id",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "mlp_only_layers",
    "moe_layer_freq",
    "moe_layers",
    "no_rope_layers",
    "pruned_heads",
    "suppress_tokens",
    "time_step_limit",
    "torch_dtype",
    "_block_types",
];

/// What a field says.
enum Found<'a> {
    Value(&'a Value),
    Null,
    Nothing,
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        objects: Vec<&'a Map<String, Value>>,
        defaults: Option<&'a Map<String, Value>>,
        model_type: &str,
    ) -> Self {
        Self {
            objects: objects.into_iter().map(object).collect(),
            defaults: defaults.map(object),
            model_type: model_type.to_owned(),
        }
    }

    /// The word for the architecture, for messages.
    pub(super) fn model_type(&self) -> &str {
        &self.model_type
    }

    /// The first of these names that has a value. A null in an object hides the default.
    pub(super) fn get(&self, names: &[&str]) -> Option<&'a Value> {
        for object in &self.objects {
            match look_up(object, names) {
                Found::Value(value) => return Some(value),
                Found::Null => return None,
                Found::Nothing => {}
            }
        }
        match look_up(self.defaults.as_ref()?, names) {
            Found::Value(value) => Some(value),
            Found::Null | Found::Nothing => None,
        }
    }

    /// Whether an object itself says so, not the defaults.
    pub(super) fn has_own(&self, name: &str) -> bool {
        self.objects.iter().any(|object| object.get(name).is_some_and(|value| !value.is_null()))
    }

    /// A whole number.
    pub(super) fn number(&self, names: &[&str]) -> Result<Option<u32>, ReadError> {
        self.get(names).map(|value| whole(names[0], value)).transpose()
    }

    /// A whole number that may be one for each layer; the first where it is a list.
    pub(super) fn number_at(&self, names: &[&str], layer: u32) -> Result<Option<u32>, ReadError> {
        match self.get(names) {
            Some(Value::Array(list)) => {
                let value = list.get(layer as usize).or(list.last());
                value.filter(|value| !value.is_null()).map(|v| whole(names[0], v)).transpose()
            }
            Some(value) => whole(names[0], value).map(Some),
            None => Ok(None),
        }
    }

    /// A number that there must be.
    pub(super) fn need(&self, names: &[&'static str]) -> Result<u32, ReadError> {
        self.number(names)?.ok_or_else(|| self.missing(names[0]))
    }

    /// The error for a field that there must be.
    pub(super) fn missing(&self, field: &'static str) -> ReadError {
        ReadError::Missing { model_type: self.model_type.clone(), field }
    }

    /// Whether no field gives a number for each layer: lists that tell kinds of layers, and those
    /// that have nothing to do with layers, do not count.
    pub(super) fn is_uniform(&self) -> bool {
        self.objects.iter().all(|object| {
            object.iter().all(|(key, value)| {
                !matches!(value, Value::Array(_) | Value::Object(_))
                    || LISTS.contains(key)
                    || key.ends_with("_config") && *key != "per_layer_config"
                    || key.starts_with("rope")
                    || key.ends_with("token_id")
            })
        })
    }

    /// A number with a fraction.
    pub(super) fn fraction(&self, names: &[&str]) -> Option<f64> {
        self.get(names)?.as_f64().filter(|value| value.is_finite())
    }

    /// Yes or no.
    pub(super) fn flag(&self, names: &[&str]) -> Option<bool> {
        self.get(names)?.as_bool()
    }

    /// A word.
    pub(super) fn text(&self, names: &[&str]) -> Option<&'a str> {
        self.get(names)?.as_str()
    }

    /// A list.
    pub(super) fn list(&self, names: &[&str]) -> Option<&'a [Value]> {
        self.get(names)?.as_array().map(Vec::as_slice)
    }

    /// A list of whole numbers: what is none is left out.
    pub(super) fn numbers(&self, names: &[&str]) -> Option<Vec<u64>> {
        Some(self.list(names)?.iter().filter_map(Value::as_u64).collect())
    }

    /// An object within.
    pub(super) fn object(&self, names: &[&str]) -> Option<Self> {
        let within = |outer: &Object<'a>| {
            names.iter().find_map(|name| outer.get(*name)?.as_object()).map(object)
        };
        let own: Vec<_> = self.objects.iter().filter_map(within).collect();
        let defaults = self.defaults.as_ref().and_then(within);
        (!own.is_empty() || defaults.is_some()).then(|| Self {
            objects: own,
            defaults,
            model_type: self.model_type.clone(),
        })
    }
}

fn look_up<'a>(object: &Object<'a>, names: &[&str]) -> Found<'a> {
    let mut found = Found::Nothing;
    for name in names {
        match object.get(*name) {
            Some(Value::Null) => found = Found::Null,
            Some(value) => return Found::Value(value),
            None => {}
        }
    }
    found
}

/// Larger than any number that matters, and small enough that products of two never overflow.
const LARGEST: u32 = i32::MAX.unsigned_abs();

/// A whole number; Python writes some as `1e6`.
fn whole(field: &str, value: &Value) -> Result<u32, ReadError> {
    let number = value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is checked"
        )]
        (float.fract() == 0.0 && (0.0..=f64::from(LARGEST)).contains(&float))
            .then_some(float as u64)
    });
    number
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= LARGEST)
        .ok_or_else(|| {
            let mut shown = value.to_string();
            shown.truncate(shown.char_indices().nth(40).map_or(shown.len(), |(end, _)| end));
            ReadError::Invalid {
                field: field.to_owned(),
                problem: format!("is {shown}; it must be a whole number below 2^31"),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_nulls_and_defaults() {
        let (own, defaults) = (
            json!({"a": 1, "b": null, "list": [3, 4], "float": 2e3, "bad": -1}),
            json!({"b": 2, "c": 3, "nested": {"d": 4}}),
        );
        let fields = Fields::new(vec![own.as_object().unwrap()], defaults.as_object(), "kind");
        assert_eq!(fields.number(&["x", "a"]), Ok(Some(1)));
        assert_eq!(fields.number(&["b"]), Ok(None));
        assert_eq!(fields.number(&["c"]), Ok(Some(3)));
        assert_eq!(fields.number(&["float"]), Ok(Some(2000)));
        assert_eq!(fields.number_at(&["list"], 1), Ok(Some(4)));
        assert_eq!(fields.number_at(&["list"], 9), Ok(Some(4)));
        assert_eq!(fields.object(&["nested"]).unwrap().number(&["d"]), Ok(Some(4)));
        assert_eq!(
            fields.number(&["bad"]).unwrap_err().to_string(),
            "bad is -1; it must be a whole number below 2^31"
        );
        assert_eq!(
            fields.need(&["x"]).unwrap_err().to_string(),
            "the config of a \"kind\" model lacks x"
        );
    }
}
