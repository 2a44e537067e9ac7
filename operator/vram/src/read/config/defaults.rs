//! What a `config.json` leaves out because it is the default of its `model_type`.
//!
//! `defaults.json` has the numbers that the configuration classes of Hugging Face transformers
//! 5.24 (Apache-2.0) give a config without any fields, as far as they matter here: Gemma 3 4B, for
//! one, does not say how many heads it has.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

static DEFAULTS: LazyLock<HashMap<String, Map<String, Value>>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("defaults.json"))
        .unwrap_or_else(|error| panic!("the embedded defaults: {error}"))
});

/// The defaults of a kind of model.
pub(super) fn of(model_type: &str) -> Option<&'static Map<String, Value>> {
    DEFAULTS.get(model_type)
}

#[cfg(test)]
mod tests {
    #[test]
    fn gemma_has_its_heads() {
        let gemma = super::of("gemma3_text").unwrap();
        assert_eq!(gemma["num_attention_heads"], 8);
        assert_eq!(gemma["num_key_value_heads"], 4);
        assert!(super::of("none_such").is_none());
    }
}
