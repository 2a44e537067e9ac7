//! The model configs that go with the measured cases.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// The configs of `configs.json`.
pub struct Data {
    models: Value,
}

impl Data {
    /// Reads them, or says that they are not there.
    pub fn read() -> Option<Self> {
        let shared = std::env::var_os("BERTH_SHARED").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
            PathBuf::from,
        );
        let Ok(configs) = fs::read_to_string(shared.join("data/vram/configs.json")) else {
            println!("skipped: no data");
            return None;
        };
        let mut configs: Value = serde_json::from_str(&configs).expect("configs.json is JSON");
        Some(Self { models: configs["models"].take() })
    }

    /// The configs, by the model's name.
    pub fn configs(&self) -> impl Iterator<Item = (String, &Value)> {
        let models = self.models.as_object().expect("models by name");
        models
            .values()
            .map(|model| (model["name"].as_str().unwrap_or_default().to_owned(), &model["facts"]))
    }
}
