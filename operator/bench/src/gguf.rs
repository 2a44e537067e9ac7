//! Cases of llama.cpp's family: the cache in MiB for a context, and the size of the file.
//!
//! Most are of the fork `ik_llama.cpp`, which holds windowed layers like the others and has MLA as an
//! option; the row's note says which. A file's tensors are known in sum only: by its parameters and
//! its bits a weight, both from its header.

use berth_vram::{Engine, GgufType, KvDtype, Mla, ModelFacts, Quantization, Workload, buffers};
use serde_json::{Map, Value};

use crate::{
    cases::{Case, gib},
    facts::Configs,
    workload::llama_dtype,
};

/// What is compared of a case.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The KV cache in MiB: ours and the log's.
    pub kv_mib: Option<(f64, f64)>,
    /// The file in GiB: ours and the log's.
    pub file_gib: Option<(f64, f64)>,
    /// The KV cache if attention is taken to be that of plain heads, as a general rule has it.
    pub plain_kv_mib: Option<f64>,
}

/// Compares a case.
pub fn compare(case: &Case, configs: &Configs) -> Result<Compared, String> {
    let known = configs.find(case).cloned();
    let known =
        known.or_else(|| crate::facts::of(case, configs).ok().map(|known| from(&known.facts)));
    let Some(config) = known.as_ref() else {
        return Err("neither configs.json nor the catalogue has the model".to_owned());
    };
    let mut compared = Compared { file_gib: file(case, config), ..Compared::default() };
    if let Some(mib) = case.gib("kv_size_mib") {
        let facts = cache_facts(case, config)?;
        let (keys, values) = types(case)?;
        compared.kv_mib = Some((kv_mib(case, &facts, keys, values), mib));
        let plain = ModelFacts { mla: None, ..facts };
        compared.plain_kv_mib = Some(kv_mib(case, &plain, keys, values));
    }
    if compared.kv_mib.is_none() && compared.file_gib.is_none() {
        return Err("states neither the cache nor the file".to_owned());
    }
    Ok(compared)
}

fn kv_mib(case: &Case, facts: &ModelFacts, keys: KvDtype, values: KvDtype) -> f64 {
    let workload = Workload {
        kv_dtype: keys,
        value_dtype: Some(values),
        ..Workload::new(Engine::LlamaCpp, case.count("n_ctx"), 1)
    };
    buffers(facts, &workload).kv.as_gib_f64() * 1024.0
}

/// The file by its parameters and its bits a weight.
fn file(case: &Case, config: &Map<String, Value>) -> Option<(f64, f64)> {
    let (truth, bits) = (case.gib("gguf_file_gib")?, case.gib("gguf_bpw")?);
    let parameters = parameters(config.get("params")?.as_str()?)?;
    let bytes = parameters * bits / 8.0;
    Some((bytes / gib(1.0).get() as f64, truth))
}

/// `672.050 B`, `1.026 T`; some logs have a comma for the point, and some the rest of the log.
fn parameters(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let number: f64 = words.next()?.replace(',', ".").parse().ok()?;
    let unit = match words.next()? {
        "T" => 1e12,
        "B" => 1e9,
        "M" => 1e6,
        _ => return None,
    };
    Some(number * unit)
}

/// The types of keys and values: the note has both, the column only the first.
fn types(case: &Case) -> Result<(KvDtype, KvDtype), String> {
    let note = case.text("note");
    let between = |start: &str| {
        let (_, after) = note.split_once(start)?;
        after.split_once(')').map(|(name, _)| name.trim())
    };
    let column = case.text("kv_cache_dtype");
    let keys = between("K (").filter(|name| !name.is_empty()).unwrap_or(column);
    let values = between("V (").unwrap_or(keys);
    let known =
        |name: &str| llama_dtype(name).ok_or_else(|| format!("cache type {name:?} is not known"));
    Ok((known(keys)?, known(values)?))
}

/// Facts enough for a cache.
fn cache_facts(case: &Case, config: &Map<String, Value>) -> Result<ModelFacts, String> {
    let number = |name: &str| {
        let value = config.get(name).and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(value).unwrap_or(0)
    };
    let layers = number("num_hidden_layers");
    if layers == 0 {
        return Err("configs.json lacks num_hidden_layers".to_owned());
    }
    let heads = number("num_attention_heads").max(1);
    let kv_heads = match number("num_key_value_heads") {
        0 => heads,
        own => own,
    };
    let kind = config.get("gguf_arch").or_else(|| config.get("model_type"));
    let kind = kind.and_then(Value::as_str).unwrap_or_default();
    let compressed = is_compressed(case);
    let latent = kind.starts_with("deepseek") || number("kv_lora_rank") > 0;
    // DeepSeek's heads, where only the name of the architecture tells.
    let (keys, values) = match (number("n_embd_k_gqa"), number("n_embd_v_gqa")) {
        (0, _) if latent => (192, 128),
        (0, _) => {
            let width = number("head_dim").max(number("hidden_size") / heads);
            (width, width)
        }
        (keys, 0) => (keys / kv_heads, keys / kv_heads),
        (keys, values) => (keys / kv_heads, values / kv_heads),
    };
    let or = |value: u32, other: u32| if value == 0 { other } else { value };
    let mla = (latent && compressed).then(|| Mla {
        kv_lora_rank: or(number("kv_lora_rank"), 512),
        qk_rope_head_dim: or(number("qk_rope_head_dim"), 64),
        qk_nope_head_dim: 128,
        v_head_dim: 128,
        q_lora_rank: None,
        indexer_bytes_per_token: 0,
    });
    Ok(ModelFacts {
        layers,
        hidden_size: or(number("hidden_size"), 1),
        intermediate_size: 1,
        attention_heads: heads,
        kv_heads,
        head_dim: keys,
        value_head_dim: (values != keys).then_some(values),
        vocab_size: or(number("vocab_size"), 1),
        max_context: u32::MAX,
        mla,
        quantization: Quantization::Gguf(GgufType::Q8_0),
        ..ModelFacts::default()
    })
}

/// Whether latent attention is cached in compressed form: mainline llama.cpp does since it can, the
/// fork if told so (`mla=1` to 3).
fn is_compressed(case: &Case) -> bool {
    let note = case.text("note");
    match note.split_once("mla=").and_then(|(_, after)| after.chars().next()) {
        Some(mode) => matches!(mode, '1'..='3'),
        None => !note.contains("pre-MLA"),
    }
}

/// The facts of the catalogue or a whole config, under the names of reduced ones.
fn from(facts: &ModelFacts) -> Map<String, Value> {
    let mut config = Map::new();
    let keys = facts.kv_heads * facts.head_dim;
    let values = facts.kv_heads * facts.value_head_dim.unwrap_or(facts.head_dim);
    for (name, value) in [
        ("num_hidden_layers", facts.layers),
        ("num_attention_heads", facts.attention_heads),
        ("num_key_value_heads", facts.kv_heads),
        ("n_embd_k_gqa", keys),
        ("n_embd_v_gqa", values),
        ("hidden_size", facts.hidden_size),
        ("vocab_size", facts.vocab_size),
        ("kv_lora_rank", facts.mla.map_or(0, |mla| mla.kv_lora_rank)),
        ("qk_rope_head_dim", facts.mla.map_or(0, |mla| mla.qk_rope_head_dim)),
    ] {
        config.insert(name.to_owned(), value.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_logs_write_them() {
        assert_eq!(parameters("672.050 B"), Some(672.05e9));
        assert_eq!(parameters("235,741 B"), Some(235.741e9));
        assert_eq!(parameters("1.026 T"), Some(1.026e12));
        assert_eq!(parameters("2.413 B   and the rest of the log"), Some(2.413e9));
        assert_eq!(parameters("many"), None);
    }
}
