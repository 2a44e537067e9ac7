//! From a spec to what Berth would run: every choice that the spec leaves open is made here, but
//! for those that need the fleet (GPU count, vendor, and how much context fits). Pure.
//!
//! A revision is frozen: once one serves, every choice that an edit does not touch is taken from
//! it, never from newer defaults.

use std::collections::BTreeMap;

use berth_crds::{
    LLMDeployment, LLMDeploymentSpec,
    llm_deployment::{Engine, EngineType, ModelSummary, Vendor, WritableDirectory},
};
use berth_render::{
    CustomServer, ModelSource, OwnDirectory, Template,
    engine::{self, Format},
};
use berth_units::Bytes;
use berth_vram::{Catalogue, EstimateError, ModelFacts, Quantization, Workload, tensor_degrees};
use serde_json::Value;

use super::{
    canonical::{canonical, same},
    facts,
    problem::Problem,
    wish::{Kept, Stated, Wish},
};
use crate::models::{Answer, Question};

/// The longest context that Berth chooses by itself, in tokens.
pub const DEFAULT_CONTEXT: u32 = 32_768;
/// The shortest context that Berth falls back to by itself, in tokens.
pub const LEAST_CONTEXT: u32 = 4_096;
/// The most GPUs of one node that Berth chooses by itself.
pub const MOST_GPUS: u32 = 16;
/// vLLM's `--max-num-seqs`. It decides the activation's size, so it is pinned and frozen.
const MAX_NUM_SEQS: u32 = 256;
/// vLLM's `--max-num-batched-tokens`, pinned likewise.
const MAX_NUM_BATCHED_TOKENS: u32 = 8_192;
/// Vendors to try where the spec names none.
const VENDORS: [Vendor; 2] = [Vendor::NVIDIA, Vendor::AMD];
/// The class of pods that name none.
pub const DEFAULT_PRIORITY_CLASS: &str = "berth-default";

/// What the administrator configured.
#[derive(Debug)]
pub struct Defaults {
    /// Models that Berth knows.
    pub catalogue: Catalogue,
    /// Images in place of those built in.
    pub images: BTreeMap<(EngineType, Vendor), String>,
    /// Runtime classes by vendor.
    pub runtime_classes: BTreeMap<Vendor, String>,
}

/// The revision that serves.
#[derive(Clone, Debug)]
pub struct Serving<'a> {
    /// The canonical spec it was made from.
    pub spec: &'a Value,
    /// Its template.
    pub template: &'a Template,
}

/// What a spec asks the hub about, if anything. An edit that does not touch the model asks about what
/// serves.
pub fn question(spec: &LLMDeploymentSpec, serving: Option<&Serving<'_>>) -> Option<Question> {
    if spec.model.facts.is_some() || spec.model.secret_ref.is_some() {
        return None;
    }
    let kept = serving.filter(|old| same(old.spec, &canonical(spec), "/model"));
    let source = match kept {
        Some(old) => old.template.source.clone(),
        None => ModelSource::parse(&spec.model).ok()?,
    };
    let ModelSource::Hub { repository, revision, files } = source else { return None };
    let gguf = files.is_none() && engine_of(spec) == EngineType::LlamaCpp;
    Some(Question { repository, revision, files, gguf })
}

/// Resolves a spec with nobody to ask about its model.
pub fn resolve(
    deployment: &LLMDeployment,
    defaults: &Defaults,
    serving: Option<&Serving<'_>>,
) -> Result<Wish, Problem> {
    resolve_with(deployment, defaults, serving, &Answer::Unasked)
}

/// Resolves a spec, given the answer to its [`question`].
pub fn resolve_with(
    deployment: &LLMDeployment,
    defaults: &Defaults,
    serving: Option<&Serving<'_>>,
    answer: &Answer,
) -> Result<Wish, Problem> {
    let spec = &deployment.spec;
    let now = canonical(spec);
    let kept = |pointers: &[&str]| {
        serving.filter(|old| pointers.iter().all(|pointer| same(old.spec, &now, pointer)))
    };
    let source = ModelSource::parse(&spec.model)
        .map_err(|error| Problem::InvalidModelUri(error.to_string()))?;
    let known = facts::find_with(&spec.model, &defaults.catalogue, answer)?;
    let source = match kept(&["/model"]) {
        Some(old) => old.template.source.clone(),
        None => source.at(known.commit.as_deref()),
    };
    let asked = spec.engine.clone().unwrap_or_default();
    let engine = engine_of(spec);
    let gguf = matches!(known.facts.quantization, Quantization::Gguf(_));
    let format = if gguf { Format::Gguf } else { Format::Safetensors };
    if !engine::serves(engine, format) {
        let (files, other) = if gguf { ("GGUF", "LlamaCpp") } else { ("safetensors", "VLLM") };
        return Err(Problem::UnsupportedFormat(format!(
            "spec.engine.type: {engine:?} does not serve {files} files; use {other}, or leave the \
             field out"
        )));
    }
    if let Some(refused) = engine::refused_source(engine, &source) {
        return Err(Problem::InvalidModelUri(refused));
    }
    let words = || [&asked.command[..], &asked.args[..]].concat();
    let refused = engine::refused_argument(engine, &asked.args)
        .or_else(|| engine::refused_environment(engine, &asked.env))
        .or_else(|| engine::refused_reference(engine, &words(), &asked.env));
    if let Some(refused) = refused {
        return Err(Problem::ReservedArgument(refused));
    }
    let batching = kept(&["/engine/type"]).map(|old| &old.template.engine);
    let max_concurrency = unsigned(asked.max_concurrency).unwrap_or(1);
    let workload = Workload {
        kv_dtype: facts::kv_dtype(asked.kv_cache_dtype.unwrap_or_default()),
        max_num_seqs: batching.map_or(MAX_NUM_SEQS, |old| old.max_num_seqs).max(max_concurrency),
        max_num_batched_tokens: batching
            .map_or(MAX_NUM_BATCHED_TOKENS, |old| old.max_num_batched_tokens),
        ..Workload::new(engine::estimated(engine), LEAST_CONTEXT, max_concurrency)
    };
    let vendors = vendors(spec, kept(&["/gpu"]).map(|old| old.template.vendor));
    let image_kept = kept(&["/engine/type", "/engine/image"]).map(|old| old.template);
    let images = vendors
        .iter()
        .filter_map(|&vendor| {
            let old = image_kept.filter(|old| old.vendor == vendor && old.engine.type_ == engine);
            let image = image(spec, defaults, engine, vendor);
            Some((vendor, old.map(|old| old.engine.image.clone()).or(image)?))
        })
        .collect::<BTreeMap<_, _>>();
    let stated = image_kept.map_or(Stated::ByImage, |old| Stated::Before(old.engine.version));
    let custom = (engine == EngineType::Custom).then(|| custom(&asked)).transpose()?;
    let contexts = contexts(
        spec,
        &known.facts,
        kept(&["/model", "/gpu", "/engine/contextLength", "/engine/type"]),
    );
    let degrees = degrees(spec, &known.facts, kept(&["/model", "/gpu"]))?;
    let kept = kept(&["/model", "/resources", "/engine/startupTimeout", "/gpu"]).map(|old| Kept {
        gpus: old.template.gpus,
        resources: old.template.resources,
        startup_timeout_seconds: old.template.startup_timeout_seconds,
    });
    let wish = Wish {
        model: ModelSummary { commit: pinned(&source, spec), ..known.summary(spec) },
        stands_in: known.stands_in,
        canonical: now,
        contexts,
        degrees,
        vendors: images.keys().copied().collect(),
        spec: spec.clone(),
        source,
        facts: known.facts,
        workload,
        engine,
        images,
        custom,
        stated,
        runtime_classes: defaults.runtime_classes.clone(),
        kept,
        earlier: BTreeMap::new(),
    };
    wish.check()?;
    Ok(wish)
}

/// The commit that Berth chose for a branch or a tag.
pub fn pinned(source: &ModelSource, spec: &LLMDeploymentSpec) -> Option<String> {
    let ModelSource::Hub { revision, .. } = source else { return None };
    let asked = spec.model.revision.as_deref().unwrap_or("main");
    (revision != asked).then(|| revision.clone())
}

/// The priority class of a spec's pods.
pub fn priority_class(spec: &LLMDeploymentSpec) -> &str {
    spec.priority_class_name.as_deref().unwrap_or(DEFAULT_PRIORITY_CLASS)
}

/// The engine of a spec.
fn engine_of(spec: &LLMDeploymentSpec) -> EngineType {
    let asked = spec.engine.as_ref().and_then(|engine| engine.type_);
    asked.unwrap_or_else(|| engine::default_engine(&spec.model.uri, spec.model.files.as_deref()))
}

/// Vendors to try: the one asked for, or the one that serves, or all.
fn vendors(spec: &LLMDeploymentSpec, serving: Option<Vendor>) -> Vec<Vendor> {
    match spec.gpu.as_ref().and_then(|gpu| gpu.vendor).or(serving) {
        Some(vendor) => vec![vendor],
        None => VENDORS.to_vec(),
    }
}

fn image(
    spec: &LLMDeploymentSpec,
    defaults: &Defaults,
    engine: EngineType,
    vendor: Vendor,
) -> Option<String> {
    let asked = spec.engine.as_ref().and_then(|engine| engine.image.as_ref());
    let asked = asked.and_then(|image| match vendor {
        Vendor::NVIDIA => image.nvidia.clone(),
        Vendor::AMD => image.amd.clone(),
    });
    asked
        .or_else(|| defaults.images.get(&(engine, vendor)).cloned())
        .or_else(|| engine::default_image(engine, vendor).map(ToOwned::to_owned))
}

/// What the spec says of an engine that Berth does not know.
fn custom(asked: &Engine) -> Result<CustomServer, Problem> {
    const SIZE: Bytes = Bytes::gib(2);
    let directory = |own: &WritableDirectory| -> Result<OwnDirectory, Problem> {
        let size = own.size.as_ref().map_or(Ok(SIZE), |size| size.0.parse());
        let size = size.map_err(|error| Problem::InvalidAmount {
            field: format!("spec.engine.writableDirectories[{}].size", own.path),
            problem: error.to_string(),
        })?;
        Ok(OwnDirectory { path: own.path.clone(), size })
    };
    Ok(CustomServer {
        command: asked.command.clone(),
        port: asked.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(engine::PORT),
        health_path: asked.health_path.clone().unwrap_or_else(|| "/health".to_owned()),
        user: asked.run_as_user.unwrap_or(engine::USER),
        directories: asked
            .writable_directories
            .iter()
            .map(directory)
            .collect::<Result<_, Problem>>()?,
    })
}

/// Contexts to try: the one asked for, or the default and its halves.
fn contexts(
    spec: &LLMDeploymentSpec,
    facts: &ModelFacts,
    serving: Option<&Serving<'_>>,
) -> Vec<u32> {
    let asked = spec.engine.as_ref().and_then(|engine| unsigned(engine.context_length));
    if let Some(context) = asked {
        return vec![context];
    }
    if let Some(serving) = serving {
        return vec![serving.template.context_length];
    }
    let full = facts.max_context.min(DEFAULT_CONTEXT);
    let least = facts.max_context.min(LEAST_CONTEXT);
    std::iter::successors(Some(full), |context| Some(context / 2))
        .take_while(|&context| context >= least)
        .collect()
}

/// GPU counts to try: the one asked for, or all that the model can be split over, fewest first;
/// the count that serves goes before the others.
fn degrees(
    spec: &LLMDeploymentSpec,
    facts: &ModelFacts,
    serving: Option<&Serving<'_>>,
) -> Result<Vec<u32>, Problem> {
    let asked = spec.gpu.as_ref().and_then(|gpu| {
        gpu.count.or_else(|| gpu.parallelism.as_ref().and_then(|parallelism| parallelism.tensor))
    });
    if let Some(count) = unsigned(asked) {
        return Ok(vec![count]);
    }
    let mut degrees = tensor_degrees(facts, MOST_GPUS);
    if matches!(facts.quantization, Quantization::Gguf(_)) {
        // Its server splits by layers; beyond one node's GPUs there is nothing to gain.
        degrees.truncate(8);
    }
    if degrees.is_empty() {
        return Err(Problem::InvalidFacts(facts.validate().err().map_or_else(
            || "the model cannot be split over any number of GPUs".to_owned(),
            |error| error.to_string(),
        )));
    }
    if let Some(serving) = serving {
        let gpus = serving.template.gpus;
        degrees.sort_by_key(|&degree| (degree != gpus, degree));
    }
    Ok(degrees)
}

fn unsigned(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

impl From<EstimateError> for Problem {
    fn from(error: EstimateError) -> Self {
        let message = error.to_string();
        match error {
            EstimateError::ContextTooLong { .. } => Self::ContextTooLong(message),
            EstimateError::TensorDegree { .. }
            | EstimateError::LayerSplit { .. }
            | EstimateError::NoGpu => Self::InvalidParallelism(message),
            EstimateError::Format { .. } | EstimateError::KvDtype { .. } => {
                Self::UnsupportedFormat(message)
            }
            _ => Self::InvalidFacts(message),
        }
    }
}
