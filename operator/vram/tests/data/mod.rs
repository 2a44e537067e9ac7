//! The measured cases and the model configs that go with them.

use std::{collections::HashMap, fmt, fs, path::PathBuf};

use berth_vram::{Mla, ModelFacts, Quantization, catalogue};
use serde_json::Value;

/// One row, by column.
pub struct Case(HashMap<String, String>);

/// Both files.
pub struct Data {
    pub cases: Vec<Case>,
    models: Value,
}

impl Data {
    /// Reads them, or says that they are not there.
    pub fn read() -> Option<Self> {
        let shared = std::env::var_os("BERTH_SHARED").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
            PathBuf::from,
        );
        let folder = shared.join("data/vram");
        let texts = (
            fs::read_to_string(folder.join("cases.csv")),
            fs::read_to_string(folder.join("configs.json")),
        );
        let (Ok(cases), Ok(configs)) = texts else {
            println!("skipped: no data");
            return None;
        };
        let mut rows = parse_csv(&cases).into_iter();
        let header = rows.next().expect("a header");
        let cases = rows.map(|row| Case(header.iter().cloned().zip(row).collect())).collect();
        let mut configs: Value = serde_json::from_str(&configs).expect("configs.json is JSON");
        Some(Self { cases, models: configs["models"].take() })
    }

    /// The configs, by the model's name.
    pub fn configs(&self) -> impl Iterator<Item = (String, &Value)> {
        let models = self.models.as_object().expect("models by name");
        models
            .values()
            .map(|model| (model["name"].as_str().unwrap_or_default().to_owned(), &model["facts"]))
    }

    /// Facts from a config, enough for the KV cache alone.
    pub fn config_facts(&self, case: &Case) -> Result<ModelFacts, String> {
        let config = &self.models[case.text("config_key")]["facts"];
        let number = |field: &str| {
            config[field].as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
        };
        let layers = number("num_hidden_layers");
        if layers == 0 {
            return Err("not in the catalogue, and no config".to_owned());
        }
        let heads = number("num_attention_heads").max(number("num_key_value_heads"));
        let head_dim = match number("head_dim") {
            0 => number("hidden_size") / heads.max(1),
            known => known,
        };
        Ok(ModelFacts {
            parameters: None,
            layers,
            hidden_size: number("hidden_size").max(1024),
            intermediate_size: 1 << 15,
            attention_heads: heads,
            kv_heads: number("num_key_value_heads"),
            head_dim,
            vocab_size: 1 << 16,
            max_context: number("max_position_embeddings").max(8192),
            tied_embeddings: false,
            gated: true,
            other_parameters: 0,
            mla: (number("kv_lora_rank") > 0).then(|| Mla {
                kv_lora_rank: number("kv_lora_rank"),
                qk_rope_head_dim: number("qk_rope_head_dim"),
                qk_nope_head_dim: 128,
                v_head_dim: 128,
                q_lora_rank: None,
                indexer_bytes_per_token: 0,
            }),
            moe: None,
            window: None,
            recurrent: None,
            quantization: Quantization::None,
            weight_bytes: None,
            ..ModelFacts::default()
        })
    }
}

/// The facts of a case's model, with what the log's flags changed.
pub fn from_catalogue(case: &Case) -> Result<ModelFacts, String> {
    let entry = catalogue().find(case.text("model"), None).ok_or("not in the catalogue")?;
    let mut facts = entry.facts.clone();
    if case.text("dtype") == "float32" {
        facts.quantization = Quantization::Fp32;
    } else if case.text("quantization") == "fp8" && facts.quantization == Quantization::None {
        facts.quantization = Quantization::Fp8;
    }
    Ok(facts)
}

impl Case {
    /// A column's text, empty where there is none.
    pub fn text(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    /// A column's number.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, model, tensor) = (self.text("case_id"), self.text("model"), self.text("tp"));
        write!(f, "{id} {model} on {tensor} {}", self.text("gpu"))
    }
}

/// CSV with quoted fields.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            _ => field.push(c),
        }
    }
    rows
}
