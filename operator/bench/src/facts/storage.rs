//! How a case's checkpoint is stored: what the columns of the table say, as a `quantization_config`.

use berth_vram::{ModelFacts, Quantization};
use serde_json::{Map, Value, json};

use super::is_said;
use crate::cases::Case;

/// How a case's checkpoint is stored, by its columns and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    word: String,
    name: String,
    pub(super) fp32: bool,
}

impl Storage {
    pub(super) fn of(case: &Case) -> Self {
        Self {
            word: case.text("quantization").to_lowercase(),
            name: case.model().to_lowercase(),
            fp32: case.text("dtype") == "float32",
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.word.as_str(), "none" | "")
    }

    /// As the catalogue's facts name it; none where the columns do not tell.
    pub(super) fn quantization(&self, block: bool) -> Option<Quantization> {
        let (word, name) = (self.word.as_str(), self.name.as_str());
        let says = |what: &str| word.contains(what) || name.contains(what);
        let integers = Quantization::Gptq { bits: 4, group_size: 128 };
        Some(if self.is_plain() {
            if self.fp32 { Quantization::Fp32 } else { Quantization::None }
        } else if says("nvfp4") || word.contains("fp4") && word.contains("modelopt") {
            Quantization::Nvfp4
        } else if word.contains("mxfp4") {
            Quantization::Mxfp4
        } else if says("awq") {
            Quantization::Awq { bits: 4, group_size: 128 }
        } else if says("w4a16") || says("int4") || says("gptq") || says("4bit") {
            integers
        } else if says("w8a8") || says("int8") || says("w8a16") {
            if name.contains("fp8") { Quantization::Fp8 } else { Quantization::Int8 }
        } else if says("fp8") || word == "modelopt" {
            if block { Quantization::Fp8Block } else { Quantization::Fp8 }
        } else {
            return None;
        })
    }

    /// A `quantization_config` that says the same.
    pub(super) fn config(&self, config: &Map<String, Value>) -> Option<Value> {
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let block = ["deepseek_v3", "deepseek_v32", "kimi_k2", "minimax_m2"].contains(&kind)
            || config
                .get("quantization_config")
                .is_some_and(|own| own["weight_block_size"].is_array());
        let groups = |weights: Value| {
            json!({
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
                "ignore": ["lm_head", "re:.*vision.*", "re:.*visual.*", "re:.*router.*", "re:.*gate$"],
            })
        };
        Some(match self.quantization(block)? {
            Quantization::Fp8Block => {
                json!({"quant_method": "fp8", "weight_block_size": [128, 128]})
            }
            Quantization::Fp8 if self.word == "modelopt" => {
                json!({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head"]})
            }
            Quantization::Fp8 => {
                groups(json!({"num_bits": 8, "type": "float", "strategy": "channel"}))
            }
            Quantization::Int8 => {
                groups(json!({"num_bits": 8, "type": "int", "strategy": "channel"}))
            }
            Quantization::Gptq { .. } => groups(json!({
                "num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": true,
            })),
            Quantization::Awq { .. } => {
                json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true})
            }
            Quantization::Nvfp4 => {
                // NVIDIA's own of DeepSeek's models leave attention alone.
                let latent = config.get("kv_lora_rank").is_some_and(is_said);
                let exclude =
                    if latent { json!(["lm_head", "*self_attn*"]) } else { json!(["lm_head"]) };
                json!({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": exclude})
            }
            Quantization::Mxfp4 => json!({"quant_method": "mxfp4"}),
            _ => return None,
        })
    }

    /// What the flags of the run change of a checkpoint's facts.
    pub(super) fn apply(&self, facts: ModelFacts) -> ModelFacts {
        if self.fp32 {
            // Loaded in 32 bits: counted anew from the architecture.
            let parameters = berth_vram::parameters(&facts);
            return ModelFacts {
                parameters: Some(parameters),
                quantization: Quantization::Fp32,
                tensors: None,
                weight_bytes: None,
                ..facts
            };
        }
        facts
    }

    pub(super) fn apply_to_catalogue(&self, facts: &ModelFacts) -> ModelFacts {
        let block = facts.quantization == Quantization::Fp8Block || facts.mla.is_some();
        match self.quantization(block) {
            Some(asked) if asked != facts.quantization && !same_kind(asked, facts.quantization) => {
                ModelFacts {
                    quantization: asked,
                    weight_bytes: None,
                    tensors: None,
                    ..facts.clone()
                }
            }
            _ => facts.clone(),
        }
    }
}

/// Whether two say the same but for the size of groups and blocks.
fn same_kind(a: Quantization, b: Quantization) -> bool {
    use Quantization::{Awq, Fp8, Fp8Block, Gptq};
    matches!(
        (a, b),
        (Fp8 | Fp8Block, Fp8 | Fp8Block) | (Gptq { .. } | Awq { .. }, Gptq { .. } | Awq { .. })
    )
}
