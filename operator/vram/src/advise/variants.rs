//! The ways in which the catalogue knows a model: the same model, quantised otherwise.

use super::Variant;
use crate::{Catalogue, Engine, ModelFacts, Quantization};

/// Types of GGUF that are tried: from the one that most people take to the nearly exact.
const GGUF_TYPES: [&str; 4] = ["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"];

/// The other variants of a model, by quantisation: one of each.
pub fn others(catalogue: &Catalogue, known: &Variant) -> Vec<Variant> {
    let base = base(&known.name);
    let mut found: Vec<Variant> = catalogue
        .iter()
        .filter(|entry| self::base(&entry.id) == base && alike(&entry.facts, &known.facts))
        .map(|entry| Variant {
            name: entry.id.clone(),
            facts: entry.facts.clone(),
            engine: Engine::Vllm,
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let originals: Vec<String> = found
        .iter()
        .filter(|variant| variant.facts.quantization == Quantization::None)
        .map(|variant| variant.name.clone())
        .collect();
    for kind in GGUF_TYPES {
        found.extend(originals.iter().find_map(|name| gguf(catalogue, name, kind)));
    }
    let mut kept: Vec<Variant> = Vec::new();
    for variant in found {
        let stored = variant.facts.quantization;
        let another = |other: &Variant| other.facts.quantization != stored;
        if another(known) && kept.iter().all(another) {
            kept.push(variant);
        }
    }
    kept
}

/// A GGUF file of the model, in its owner's repository or in one of those who convert models.
fn gguf(catalogue: &Catalogue, name: &str, kind: &str) -> Option<Variant> {
    let file = format!("*{kind}.gguf");
    let last = name.rsplit('/').next()?;
    let owners = ["bartowski", "unsloth", "lmstudio-community", "ggml-org"];
    let mut repositories: Vec<String> = vec![format!("{name}-GGUF")];
    repositories.extend(owners.map(|owner| format!("{owner}/{last}-GGUF")));
    repositories.iter().find_map(|repository| {
        let entry =
            catalogue.find(repository, Some(&file)).filter(|_| catalogue.is_gguf(repository))?;
        let facts = entry.facts.clone();
        Some(Variant { name: format!("{} {file}", entry.id), facts, engine: Engine::LlamaCpp })
    })
}

/// A name without its owner and without what tells of the quantisation.
fn base(name: &str) -> String {
    let name = name.split(' ').next().unwrap_or(name).to_lowercase();
    let last = name.rsplit('/').next().unwrap_or(&name);
    let last = last.strip_prefix("meta-").unwrap_or(last);
    let words = last.split('-').filter(|word| {
        !matches!(
            *word,
            "awq"
                | "gptq"
                | "int4"
                | "int8"
                | "fp8"
                | "dynamic"
                | "bnb"
                | "4bit"
                | "gguf"
                | "quantized.w8a8"
                | "quantized.w4a16"
                | "nvfp4"
                | "mxfp4"
        )
    });
    words.collect::<Vec<_>>().join("-")
}

/// Whether two are of one architecture.
fn alike(a: &ModelFacts, b: &ModelFacts) -> bool {
    let shape = |facts: &ModelFacts| {
        (facts.layers, facts.hidden_size, facts.attention_heads, facts.kv_heads, facts.vocab_size)
    };
    shape(a) == shape(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn of(id: &str) -> Vec<String> {
        let entry = catalogue().find(id, None).unwrap();
        let known =
            Variant { name: entry.id.clone(), facts: entry.facts.clone(), engine: Engine::Vllm };
        let others = others(catalogue(), &known);
        others.iter().map(|variant| variant.facts.quantization.to_string()).collect()
    }

    #[test]
    fn one_variant_of_each_quantisation_is_found() {
        let llama = of("meta-llama/Llama-3.1-8B-Instruct");
        for stored in ["fp8", "int8", "GPTQ 4-bit", "AWQ 4-bit", "GGUF Q4_K_M"] {
            assert_eq!(llama.iter().filter(|other| *other == stored).count(), 1, "{llama:?}");
        }
        assert!(!llama.contains(&"bf16".to_owned()));
        // The other way round, the original is found.
        let awq = of("Qwen/Qwen2.5-7B-Instruct-AWQ");
        assert!(awq.contains(&"bf16".to_owned()) && awq.contains(&"GGUF Q8_0".to_owned()));
        assert_eq!(base("casperhansen/llama-3.3-70b-instruct-awq"), "llama-3.3-70b-instruct");
    }
}
