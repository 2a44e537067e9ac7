//! What is known about a model: from the manifest, else from its own files, else from the catalogue.
//! Pure.

use berth_crds::{
    LLMDeploymentSpec,
    llm_deployment::{self as api, Facts, KvCacheDtype, Model, ModelSummary},
};
use berth_vram::{
    Catalogue, GgufType, KvDtype, Mla, ModelFacts, Moe, Quantization, Recurrent, Window,
    parameters, weights,
};

use super::problem::Problem;
use crate::models::Answer;

/// What status says of facts that were read from the model's own files.
pub const INSPECTED: &str = "Inspected";

/// The facts about a model, and where they come from.
pub struct Known {
    /// The facts.
    pub facts: ModelFacts,
    /// `Manifest`, [`INSPECTED`], or the catalogue's source.
    pub source: String,
    /// Licence, where the hub or the catalogue names it.
    pub licence: Option<String>,
    /// The commit that they are about.
    pub commit: Option<String>,
    /// Why the model's own files could not be read, where the catalogue stands in for them.
    pub stands_in: Option<String>,
}

impl Known {
    /// The summary for status.
    pub fn summary(&self, spec: &LLMDeploymentSpec) -> ModelSummary {
        let name = spec.model.served_name.clone().unwrap_or_else(|| {
            let path = spec.model.uri.split("://").last().unwrap_or_default();
            let path = path.split('@').next().unwrap_or(path);
            let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            last.split(':').next().unwrap_or(last).to_owned()
        });
        ModelSummary {
            name,
            parameters: i64::try_from(parameters(&self.facts)).ok(),
            weight_bytes: i64::try_from(weights(&self.facts).get()).unwrap_or(i64::MAX),
            facts: self.source.clone(),
            commit: None,
            licence: self.licence.clone(),
        }
    }
}

/// Finds the facts about a model, with nobody to ask.
pub fn find(model: &Model, catalogue: &Catalogue) -> Result<Known, Problem> {
    find_with(model, catalogue, &Answer::Unasked)
}

/// Finds the facts about a model, given what its own files say.
pub fn find_with(model: &Model, catalogue: &Catalogue, answer: &Answer) -> Result<Known, Problem> {
    if let Some(facts) = &model.facts {
        let facts = from_manifest(facts, model.files.as_deref())?;
        facts.validate().map_err(|error| Problem::InvalidFacts(error.to_string()))?;
        let source = "Manifest".to_owned();
        return Ok(Known { facts, source, licence: None, commit: None, stands_in: None });
    }
    match answer {
        Answer::Known(inspection) => Ok(Known {
            facts: inspection.facts.clone(),
            source: INSPECTED.to_owned(),
            licence: inspection.licence.clone(),
            commit: inspection.commit.clone(),
            stands_in: None,
        }),
        Answer::Asking => Err(Problem::ReadingModel(model.uri.clone())),
        Answer::Unasked => in_catalogue(model, catalogue),
        Answer::Failed(failure) => match in_catalogue(model, catalogue) {
            Ok(known) => Ok(Known { stands_in: Some(failure.message.clone()), ..known }),
            Err(_) => Err(Problem::NotRead { model: model.uri.clone(), failure: failure.clone() }),
        },
    }
}

fn in_catalogue(model: &Model, catalogue: &Catalogue) -> Result<Known, Problem> {
    let unknown = |missing: &str| Problem::UnknownModel {
        model: model.uri.clone(),
        missing: missing.to_owned(),
    };
    let repository = model.uri.strip_prefix("hf://");
    if let Some(repository) = repository {
        if catalogue.is_gguf(repository) && model.files.is_none() {
            return Err(unknown(
                "the repository holds several files; name one in spec.model.files, such as \
                 \"*Q4_K_M.gguf\"",
            ));
        }
        if let Some(entry) = catalogue.find(repository, model.files.as_deref()) {
            return Ok(Known {
                facts: entry.facts.clone(),
                source: entry.source.clone(),
                licence: Some(entry.licence.clone()),
                commit: None,
                stands_in: None,
            });
        }
    }
    Err(unknown(
        "layers, hiddenSize, attentionHeads, kvHeads, vocabSize, maxContext, and \
         intermediateSize, parameters or weightBytes are missing",
    ))
}

fn from_manifest(facts: &Facts, files: Option<&str>) -> Result<ModelFacts, Problem> {
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    let large = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(ModelFacts {
        parameters: facts.parameters.map(large),
        layers: number(facts.layers),
        hidden_size: number(facts.hidden_size),
        intermediate_size: facts.intermediate_size.map_or(0, number),
        attention_heads: number(facts.attention_heads),
        kv_heads: number(facts.kv_heads),
        head_dim: facts
            .head_dim
            .map_or(number(facts.hidden_size) / number(facts.attention_heads).max(1), number),
        vocab_size: number(facts.vocab_size),
        max_context: number(facts.max_context),
        tied_embeddings: facts.tied_embeddings,
        gated: true,
        other_parameters: 0,
        mla: facts.mla.as_ref().map(|mla| Mla {
            kv_lora_rank: number(mla.kv_lora_rank),
            qk_rope_head_dim: number(mla.qk_rope_head_dim),
            qk_nope_head_dim: number(mla.qk_nope_head_dim),
            v_head_dim: number(mla.v_head_dim),
            q_lora_rank: mla.q_lora_rank.map(number),
            indexer_bytes_per_token: 0,
        }),
        moe: facts.moe.as_ref().map(|moe| Moe {
            experts: number(moe.experts),
            experts_per_token: number(moe.experts_per_token),
            expert_intermediate_size: number(moe.expert_intermediate_size),
            shared_experts: number(moe.shared_experts),
            shared_expert_intermediate_size: None,
            dense_layers: number(moe.dense_layers),
        }),
        window: facts.sliding_window.as_ref().map(|window| Window {
            tokens: number(window.tokens),
            windowed_layers: number(window.layers),
        }),
        recurrent: facts.recurrent.as_ref().map(|recurrent| Recurrent {
            attention_layers: number(recurrent.attention_layers),
            state_bytes_per_sequence: large(recurrent.state_bytes_per_sequence),
        }),
        quantization: quantization(facts, files)?,
        weight_bytes: facts.weight_bytes.map(large),
        ..ModelFacts::default()
    })
}

fn quantization(facts: &Facts, files: Option<&str>) -> Result<Quantization, Problem> {
    let grouped = facts.grouped.as_ref();
    let bits = grouped.map_or(4, |grouped| u8::try_from(grouped.bits).unwrap_or(4));
    let group_size =
        grouped.map_or(128, |grouped| u32::try_from(grouped.group_size).unwrap_or(128));
    Ok(match facts.quantization {
        api::Quantization::None => Quantization::None,
        api::Quantization::FP8 => Quantization::Fp8,
        api::Quantization::INT8 => Quantization::Int8,
        api::Quantization::AWQ => Quantization::Awq { bits, group_size },
        api::Quantization::GPTQ => Quantization::Gptq { bits, group_size },
        api::Quantization::MXFP4 => Quantization::Mxfp4,
        api::Quantization::NVFP4 => Quantization::Nvfp4,
        api::Quantization::GGUF => {
            let type_ = files.and_then(GgufType::from_file_name).ok_or_else(|| {
                Problem::InvalidFacts(
                    "quantization GGUF needs the type in the name of spec.model.files, such as \
                     \"model-Q4_K_M.gguf\""
                        .to_owned(),
                )
            })?;
            Quantization::Gguf(type_)
        }
    })
}

/// The vendor in the estimator's words.
pub fn vendor(vendor: api::Vendor) -> berth_vram::Vendor {
    match vendor {
        api::Vendor::NVIDIA => berth_vram::Vendor::Nvidia,
        api::Vendor::AMD => berth_vram::Vendor::Amd,
    }
}

/// How keys and values are stored, in the estimator's words.
pub fn kv_dtype(dtype: KvCacheDtype) -> KvDtype {
    match dtype {
        KvCacheDtype::Auto => KvDtype::Auto,
        KvCacheDtype::FP8 | KvCacheDtype::FP8_E5M2 => KvDtype::Fp8,
        KvCacheDtype::F16 => KvDtype::F16,
        KvCacheDtype::Q8_0 => KvDtype::Q8_0,
        KvCacheDtype::Q4_0 => KvDtype::Q4_0,
    }
}
