//! A Hugging Face `config.json`: what the model is, and what its weights come to.
//!
//! The story: find the part that describes the language model (`text_config` and its other names),
//! look fields up by all their names and fall back on the defaults of the `model_type`, tell each
//! layer's kind, list its matrices, and store each as the quantisation says. A kind of model that
//! nobody has met is read by its fields alone; one that lacks a field names it.

mod attention;
mod defaults;
mod experts;
mod feed_forward;
mod layers;
mod modules;
mod plan;
mod recurrent;
mod summary;
mod towers;
mod traits;

pub(super) use modules::{Kind, Module};

use serde_json::{Map, Value};

use super::{ReadError, fields::Fields, json, scheme::Scheme};
use crate::ModelFacts;

/// Longest text that is read: the longest known, with its lists of modules, are some 100 KiB.
const LONGEST: usize = 4 << 20;

/// The facts that a `config.json` gives.
///
/// `quantization` is the text of `hf_quant_config.json`, where the checkpoint has one and the config
/// says nothing (NVIDIA's `ModelOpt`).
pub fn config(text: &str, quantization: Option<&str>) -> Result<ModelFacts, ReadError> {
    let root = json::parse(text, "config.json", LONGEST)?;
    let quantization =
        quantization.map(|text| json::parse(text, "hf_quant_config.json", LONGEST)).transpose()?;
    let Value::Object(root) = &root else {
        return Err(ReadError::Format {
            format: "a config.json",
            problem: "it is no object".to_owned(),
        });
    };
    read(root, quantization.as_ref())
}

fn read(root: &Map<String, Value>, quantization: Option<&Value>) -> Result<ModelFacts, ReadError> {
    let root_kind = word(root, "model_type");
    let inner = language_model(root);
    let kind = inner.map_or(root_kind, |inner| match word(inner, "model_type") {
        "" => text_kind(root_kind),
        kind => kind,
    });
    let mut objects: Vec<_> = inner.into_iter().collect();
    if inner.is_none_or(|inner| !says_layers(inner, kind)) {
        objects.push(root);
    }
    let fields = Fields::new(objects, defaults::of(kind), kind);
    let whole = Fields::new(vec![root], defaults::of(root_kind), root_kind);
    let scheme = Scheme::of(inner, root, quantization)?;
    plan::facts(kind, &fields, &whole, &scheme)
}

/// The config of the language model within that of a model with more senses.
fn language_model(root: &Map<String, Value>) -> Option<&Map<String, Value>> {
    for name in [
        "text_config",
        "llm_config",
        "language_config",
        "thinker_config",
        "text_model_config",
        "lm_config",
    ] {
        if let Some(inner) = root.get(name).and_then(Value::as_object) {
            return Some(inner.get("text_config").and_then(Value::as_object).unwrap_or(inner));
        }
    }
    None
}

/// Whether the inner config, or its kind's defaults, say enough to stand for themselves.
fn says_layers(inner: &Map<String, Value>, kind: &str) -> bool {
    const NAMES: [&str; 4] = ["num_hidden_layers", "n_layer", "n_layers", "num_layers"];
    let says = |map: &Map<String, Value>| NAMES.iter().any(|name| map.contains_key(*name));
    says(inner)
        || inner.contains_key("layers_block_type")
        || !kind.is_empty() && defaults::of(kind).is_some_and(says)
}

fn word<'a>(map: &'a Map<String, Value>, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The kind of language model in a model of several senses that does not say.
fn text_kind(root_kind: &str) -> &str {
    match root_kind {
        "gemma3" => "gemma3_text",
        "gemma3n" => "gemma3n_text",
        "gemma4" => "gemma4_text",
        "llama4" => "llama4_text",
        "mllama" => "mllama_text_model",
        "qwen2_vl" => "qwen2_vl_text",
        "qwen2_5_vl" => "qwen2_5_vl_text",
        "qwen3_vl" => "qwen3_vl_text",
        "qwen3_vl_moe" => "qwen3_vl_moe_text",
        "qwen3_5" => "qwen3_5_text",
        "qwen3_5_moe" => "qwen3_5_moe_text",
        "mistral3" | "pixtral" => "mistral",
        "llava" | "llava_next" | "idefics2" | "vipllava" | "aria" => "llama",
        "kimi_k25" => "deepseek_v3",
        other => other,
    }
}
