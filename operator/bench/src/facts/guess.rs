//! Facts of a model that nobody knows: enough to compare its cache, not its weights.

use serde_json::{Map, Value, json};

use super::{Known, from_config, is_said, missing, stated_gib, storage::Storage};
use crate::cases::Case;

/// A model that nobody knows, from what is said about its size and its cache.
pub(super) fn guessed(
    case: &Case,
    config: &Map<String, Value>,
    storage: &Storage,
) -> Result<Known, String> {
    let number = |name: &str| {
        config.get(name).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok())
    };
    let lacks = missing(config).unwrap_or("facts");
    let refuse =
        || format!("configs.json lacks {lacks}, and the catalogue does not know the model");
    let layers = number("num_hidden_layers").ok_or_else(refuse)?;
    let head_dim = number("head_dim").unwrap_or(128).max(1);
    let stated = stated_gib(config).ok_or_else(refuse)?;
    // The size is that of the config's own checkpoint, whatever the case's is.
    let bytes_each = if config.contains_key("quantization_config") { 1.0 } else { 2.0 };
    let parameters = stated * (1_u64 << 30) as f64 / bytes_each;
    // A transformer has about twelve times its width squared in a layer.
    let width = (parameters / (12.0 * f64::from(layers))).sqrt();
    let hidden = number("hidden_size").unwrap_or_else(|| rounded(width, head_dim));
    let kv_heads = number("num_key_value_heads").unwrap_or(8).max(1);
    let heads = number("num_attention_heads").unwrap_or(hidden / head_dim).max(1);
    let heads = heads.next_multiple_of(kv_heads);
    let vocab = number("vocab_size").unwrap_or_else(|| vocabulary(case.model()));
    // What tables and attention leave is for three matrices of the feed-forward layer.
    let tables = 2.0 * f64::from(vocab) * f64::from(hidden);
    let attention = 2.0 * f64::from(hidden) * f64::from(head_dim) * f64::from(heads + kv_heads);
    let each = (parameters - tables) / f64::from(layers) - attention;
    let feed_forward = rounded(each / (3.0 * f64::from(hidden)), 64);
    let mut whole = config.clone();
    for (name, value) in [
        ("hidden_size", hidden),
        ("num_attention_heads", heads),
        ("num_key_value_heads", kv_heads),
        ("head_dim", head_dim),
        ("vocab_size", vocab),
        ("intermediate_size", feed_forward),
        ("max_position_embeddings", case.context().unwrap_or(8192).max(8192)),
    ] {
        if !config.get(name).is_some_and(is_said) {
            whole.insert(name.to_owned(), json!(value));
        }
    }
    Ok(Known {
        facts: from_config(&whole, storage)?,
        source: format!("configs.json, which lacks {lacks}: widths by size, vocabulary by family"),
        guessed: true,
    })
}

/// A positive width in whole units.
fn rounded(width: f64, unit: u32) -> u32 {
    let units = (width / f64::from(unit)).round().clamp(1.0, 1e6);
    (1..=1_000_000_u32).find(|&n| f64::from(n) >= units).unwrap_or(1).saturating_mul(unit)
}

/// The vocabulary of a family of models: tokenisers are shared.
fn vocabulary(model: &str) -> u32 {
    const FAMILIES: [(&str, u32); 24] = [
        ("gemma", 262_144),
        ("qwen3.5", 248_320),
        ("qwen3.6", 248_320),
        ("qwen3.8", 248_320),
        ("qwen", 151_936),
        ("qwq", 151_936),
        ("llama-4", 202_048),
        ("llama-2", 32_000),
        ("codellama", 32_016),
        ("llama", 128_256),
        ("nemo", 131_072),
        ("mistral-small", 131_072),
        ("ministral", 131_072),
        ("magistral", 131_072),
        ("devstral", 131_072),
        ("mixtral", 32_000),
        ("mistral", 32_768),
        ("deepseek", 129_280),
        ("granite", 49_160),
        ("phi-4", 100_352),
        ("phi", 51_200),
        ("gpt-oss", 201_088),
        ("minimax", 200_064),
        ("kimi", 163_840),
    ];
    let lower = model.to_lowercase();
    FAMILIES.iter().find(|(family, _)| lower.contains(family)).map_or(128_000, |&(_, size)| size)
}
