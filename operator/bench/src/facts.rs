//! The one adapter from `configs.json` to model facts.
//!
//! The file holds reduced facts under the lower-cased name of the model (`{"models": {key: {"name",
//! "facts"}}}`), with the names of a Hugging Face `config.json`, or whole `config.json` objects. Both
//! go through [`berth_vram::read::config`]. Reduced facts are first made whole again: lists of layers
//! from their counts, a quantisation from the case's own columns. What a reduced config leaves out is
//! taken from the embedded catalogue; where that does not know the model either, from what is
//! stated about its size, and the row says so.

mod guess;
mod storage;

use berth_vram::{Entry, ModelFacts, catalogue, read};
use serde_json::{Map, Value, json};

use self::{guess::guessed, storage::Storage};
use crate::cases::Case;

/// The models of a `configs.json`.
#[derive(Debug, Default)]
pub struct Configs(Map<String, Value>);

/// Facts, and where they come from.
#[derive(Clone, Debug)]
pub struct Known {
    /// The facts.
    pub facts: ModelFacts,
    /// In words.
    pub source: String,
    /// Whether widths and vocabulary are a guess: what follows from them is no comparison.
    pub guessed: bool,
}

impl Configs {
    /// Reads the file.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let mut root: Map<String, Value> = serde_json::from_str(text)?;
        let models = match root.remove("models") {
            Some(Value::Object(models)) => models,
            _ => root,
        };
        let objects = models.into_iter().filter(|(_, value)| value.is_object());
        Ok(Self(objects.map(|(key, value)| (key.to_lowercase(), value)).collect()))
    }

    /// The config of a case: by its key, else by its model's name, else by that of the model which
    /// it was quantised from.
    pub fn find(&self, case: &Case) -> Option<&Map<String, Value>> {
        let named = |name: &str| self.0.get(&name.to_lowercase());
        let entry =
            named(case.text("config_key")).or_else(|| named(case.model())).or_else(|| {
                let wanted = base_name(case.model());
                self.0.iter().find(|(key, _)| base_name(key) == wanted).map(|(_, value)| value)
            })?;
        let facts = entry.get("facts").unwrap_or(entry);
        facts.as_object()
    }
}

/// Facts for a case.
pub fn of(case: &Case, configs: &Configs) -> Result<Known, String> {
    let storage = Storage::of(case);
    let config = configs.find(case);
    let entry = in_catalogue(case.model());
    let whole = config.filter(|config| missing(config).is_none());
    let known = match (whole, entry) {
        (Some(config), _) => {
            let facts = from_config(config, &storage)?;
            plausible(case, facts, entry, &storage)?
        }
        (None, Some(entry)) => from_catalogue(entry, &storage),
        (None, None) => {
            let config = config.ok_or("neither configs.json nor the catalogue has the model")?;
            guessed(case, config, &storage)?
        }
    };
    Ok(Known { facts: with_stated_size(known.facts, config, &storage), ..known })
}

/// Reduced facts may lack what nobody would miss (that only every second layer has experts, that
/// experts work on a narrower state): what they count to must agree with what is known otherwise.
fn plausible(
    case: &Case,
    facts: ModelFacts,
    entry: Option<&Entry>,
    storage: &Storage,
) -> Result<Known, String> {
    const AGREES: f64 = 0.05;
    const NAME_AGREES: f64 = 0.35;
    let counted = berth_vram::parameters(&facts) as f64;
    let off = |known: f64, by: f64| (counted / known - 1.0).abs() > by;
    if let Some(entry) = entry {
        if off(berth_vram::parameters(&entry.facts) as f64, AGREES) {
            return Ok(from_catalogue(entry, storage));
        }
    } else if let Some(named) = parameters_in_name(case.model())
        && off(named, NAME_AGREES)
    {
        return Err(format!(
            "the facts in configs.json count to {:.0} billion parameters, the model's name says \
             {:.0}: they lack something",
            counted / 1e9,
            named / 1e9
        ));
    }
    Ok(Known { facts, source: "configs.json".to_owned(), guessed: false })
}

/// The number of parameters that a name states: `Qwen3-235B-A22B` has 235 billion, `8x7B` is none.
fn parameters_in_name(model: &str) -> Option<f64> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let words = || name.split(['-', '_', ' ']);
    let is_count = |word: &str, unit: [char; 2]| {
        word.strip_suffix(unit).is_some_and(|number| number.parse::<u32>().is_ok())
    };
    // `17B-16E`: what is active, and experts.
    if words().any(|word| is_count(word, ['E', 'e'])) {
        return None;
    }
    words().find_map(|word| {
        let number = word.strip_suffix(['B', 'b'])?;
        number.parse::<f64>().ok().filter(|&billions| billions >= 1.0).map(|n| n * 1e9)
    })
}

/// What a reduced config would have to say and does not.
fn missing(config: &Map<String, Value>) -> Option<&'static str> {
    if has_inner(config) {
        return None;
    }
    let has = |names: &[&str]| names.iter().any(|name| config.get(*name).is_some_and(is_said));
    let widths =
        ["intermediate_size", "moe_intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"];
    [
        (&["num_hidden_layers", "n_layer", "n_layers"][..], "num_hidden_layers"),
        (&["hidden_size", "n_embd", "d_model"], "hidden_size"),
        (&["num_attention_heads", "n_head", "n_heads"], "num_attention_heads"),
        (&["vocab_size"], "vocab_size"),
        (&widths, "intermediate_size"),
    ]
    .into_iter()
    .find(|(names, _)| !has(names))
    .map(|(_, name)| name)
}

/// Whether the language model stands in a part of its own.
fn has_inner(config: &Map<String, Value>) -> bool {
    ["text_config", "llm_config", "language_config", "thinker_config"]
        .iter()
        .any(|name| config.get(*name).is_some_and(Value::is_object))
}

fn is_said(value: &Value) -> bool {
    !value.is_null()
}

fn from_config(config: &Map<String, Value>, storage: &Storage) -> Result<ModelFacts, String> {
    let mut whole = config.clone();
    restore(&mut whole);
    if has_inner(&whole) || whole.contains_key("quantization_config") {
        // What the checkpoint itself says goes before a word in a table.
        if let (Some(asked), false) = (storage.config(&whole), says_quantization(&whole)) {
            whole.insert("quantization_config".to_owned(), asked);
        }
    } else if let Some(asked) = storage.config(&whole) {
        whole.insert("quantization_config".to_owned(), asked);
    }
    if storage.is_plain() {
        whole.remove("quantization_config");
    }
    let text = Value::Object(whole).to_string();
    let facts = read::config(&text, None).map_err(|error| error.to_string())?;
    Ok(storage.apply(facts))
}

/// Whether a quantisation's config has what it takes to tell bytes.
fn says_quantization(config: &Map<String, Value>) -> bool {
    let own = config.get("quantization_config");
    let says = |own: &Value| {
        own["quant_method"].is_string()
            && (own["quant_method"] != "compressed-tensors" || own["config_groups"].is_object())
    };
    own.is_some_and(says)
}

/// Lists of layers from the counts that stand for them in reduced facts, and what was left out of
/// them because it was null.
fn restore(config: &mut Map<String, Value>) {
    let count = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(0);
    if let Some(Value::Object(pattern)) = config.get("hybrid_pattern_count") {
        // The order does not matter to memory.
        let letters: String =
            pattern.iter().map(|(letter, value)| letter.repeat(count(value))).collect();
        config.insert("hybrid_override_pattern".to_owned(), json!(letters));
    }
    if let Some(Value::Object(kinds)) = config.get("layer_types_count") {
        let mut types = Vec::new();
        for (kind, value) in kinds {
            types.extend(std::iter::repeat_n(json!(kind), count(value)));
        }
        config.insert("layer_types".to_owned(), Value::Array(types));
    }
    if !has_inner(config) {
        // Mistral's default is a window that none of its newer models has.
        config.entry("sliding_window").or_insert(Value::Null);
    }
}

fn from_catalogue(entry: &Entry, storage: &Storage) -> Known {
    let facts = storage.apply_to_catalogue(&entry.facts);
    Known { facts, source: format!("the catalogue's {}", entry.id), guessed: false }
}

/// The catalogue's entry for a model, or for the one that it was quantised from.
fn in_catalogue(model: &str) -> Option<&'static Entry> {
    catalogue().find(model, None).or_else(|| {
        let wanted = base_name(model);
        catalogue().iter().find(|entry| base_name(&entry.id) == wanted)
    })
}

/// A model's name without owner and without what quantisers add.
pub fn base_name(model: &str) -> String {
    const SUFFIXES: [&str; 18] = [
        "-quantized.w4a16",
        "-quantized.w8a8",
        "-quantized.w8a16",
        "-fp8-dynamic",
        "-fp8-kv",
        "-fp8",
        "-nvfp4",
        "-fp4",
        "-awq",
        "-gptq-int4",
        "-gptq-int8",
        "-gptq",
        "-int4",
        "-int8",
        "-w4a16",
        "-w8a8",
        "-bnb-4bit",
        "-bf16",
    ];
    let lower = model.to_lowercase();
    let mut name = lower.rsplit('/').next().unwrap_or(&lower);
    name = name.strip_prefix("meta-llama-").map_or(name, |_| &name["meta-".len()..]);
    while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) {
        name = shorter;
    }
    name.to_owned()
}

/// Takes a stated size of the checkpoint for exact where it is that of a plain one and agrees with the
/// architecture: some tables add up files that no engine loads.
fn with_stated_size(
    facts: ModelFacts,
    config: Option<&Map<String, Value>>,
    storage: &Storage,
) -> ModelFacts {
    const AGREES: f64 = 0.05;
    if !storage.is_plain() || storage.fp32 || facts.weight_bytes.is_some() {
        return facts;
    }
    let Some(stated) = config.and_then(stated_gib) else { return facts };
    let counted = berth_vram::weights(&facts).as_gib_f64();
    if counted > 0.0 && (stated / counted - 1.0).abs() > AGREES {
        return facts;
    }
    ModelFacts { weight_bytes: Some(crate::cases::gib(stated).get()), ..facts }
}

/// The size of the checkpoint that a config states.
fn stated_gib(config: &Map<String, Value>) -> Option<f64> {
    ["planner_total_weight_gib", "checkpoint_size_gib"]
        .iter()
        .find_map(|name| config.get(*name)?.as_f64())
        .filter(|&gib| gib > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn case(model: &str, quantization: &str, key: &str) -> Case {
        let text = format!(
            "case_id,engine,model,quantization,config_key\nc1,vLLM,{model},{quantization},{key}\n"
        );
        cases::read(&text).unwrap().remove(0)
    }

    fn configs(text: &str) -> Configs {
        Configs::read(text).unwrap()
    }

    const QWEN: &str = r#"{
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 36,
        "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": false, "max_position_embeddings": 40960}"#;

    #[test]
    fn reduced_and_raw_configs_are_the_same() {
        let reduced =
            configs(&format!(r#"{{"models": {{"o/m": {{"name": "O/M", "facts": {QWEN}}}}}}}"#));
        let raw = configs(&format!(r#"{{"O/M": {QWEN}}}"#));
        let one = of(&case("O/M", "none", "o/m"), &reduced).unwrap();
        let other = of(&case("O/M", "none", ""), &raw).unwrap();
        assert_eq!(one.facts, other.facts);
        assert_eq!(one.facts.vocab_size, 151_936);
        assert!((berth_vram::weights(&one.facts).as_gib_f64() - 15.26).abs() < 0.1);
    }

    #[test]
    fn names_state_parameters() {
        for (name, billions) in [
            ("Qwen/Qwen3-235B-A22B-FP8", Some(235.0)),
            ("meta-llama/Llama-3.1-8B-Instruct", Some(8.0)),
            ("mistralai/Mixtral-8x7B-v0.1", None),
            ("meta-llama/Llama-4-Scout-17B-16E-Instruct", None),
            ("openai/gpt-oss-120b", Some(120.0)),
            ("microsoft/phi-2", None),
        ] {
            assert_eq!(parameters_in_name(name), billions.map(|n: f64| n * 1e9), "{name}");
        }
    }

    #[test]
    fn facts_that_lack_something_are_not_believed() {
        let configs = configs(&format!(r#"{{"o/m": {QWEN}}}"#));
        let refused = of(&case("O/Model-120B", "none", "o/m"), &configs).unwrap_err();
        assert!(refused.contains("count to 8 billion"), "{refused}");
    }

    #[test]
    fn the_columns_say_how_a_relative_is_stored() {
        let configs = configs(&format!(r#"{{"o/m": {QWEN}}}"#));
        let gib = |model: &str, word: &str| {
            let known = of(&case(model, word, "o/m"), &configs).unwrap();
            berth_vram::weights(&known.facts).as_gib_f64()
        };
        let plain = gib("O/M", "none");
        assert!(gib("O/M-FP8-dynamic", "compressed-tensors") < 0.6 * plain);
        assert!(gib("O/M-quantized.w8a8", "compressed-tensors") < 0.6 * plain);
        assert!(gib("O/M-quantized.w4a16", "gptq_marlin") < 0.4 * plain);
        assert!(gib("O/M-NVFP4", "modelopt_fp4") < 0.45 * plain);
    }

    #[test]
    fn partial_facts_come_from_the_catalogue_or_are_guessed() {
        let partial = r#"{"o/m": {"facts": {"architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128,
            "planner_total_weight_gib": 14.96}}}"#;
        let known = of(&case("meta-llama/Llama-3.1-8B-Instruct", "none", "o/m"), &configs(partial));
        assert_eq!(known.unwrap().facts.vocab_size, 128_256);
        let guess = of(&case("O/Llama-X", "none", "o/m"), &configs(partial)).unwrap();
        assert!(guess.source.contains("lacks"));
        assert_eq!((guess.facts.kv_heads, guess.facts.layers), (8, 32));
        assert!((3500..5200).contains(&guess.facts.hidden_size), "{}", guess.facts.hidden_size);
        assert!(guess.guessed);
        let gib = berth_vram::weights(&guess.facts).as_gib_f64();
        assert!((gib - 14.96).abs() < 0.3, "{gib}");
        let nothing = of(&case("O/M", "none", ""), &configs("{}")).unwrap_err();
        assert!(nothing.contains("neither"));
    }
}
