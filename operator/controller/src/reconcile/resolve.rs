//! From a spec to what Berth would run: every choice that the spec leaves open is made here, but
//! for those that need the fleet (GPU count, vendor, and how much context fits). Pure.
//!
//! A revision is frozen: once one serves, every choice that an edit does not touch is taken from
//! it, never from newer defaults.

use std::collections::BTreeMap;

use berth_crds::{
    LLMDeployment, LLMDeploymentSpec,
    llm_deployment::{Engine, EngineType, KvCacheDtype, ModelSummary, Vendor, WritableDirectory},
};
use berth_render::{
    CustomServer, EngineTemplate, Estimate, ModelSource, OwnDirectory, Resources, Template,
    engine::{self, Format},
    resources, startup_timeout,
};
use berth_units::Bytes;
use berth_vram::{
    Basis, Catalogue, EstimateError, ModelFacts, Parallelism, Quantization, Trust, Version,
    Workload, estimate, tensor_degrees,
};
use serde_json::Value;

use super::{
    canonical::{canonical, same},
    facts,
    problem::Problem,
};
use crate::{
    measured::notes::{self, Earlier},
    models::{Answer, Question},
};

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
/// How long a pod may go on with its requests when it is stopped.
const SHUTDOWN_GRACE_SECONDS: u32 = 60;
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

/// What is to run, but for the choices that need the fleet.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The spec it was made from.
    pub canonical: Value,
    /// The model as Berth understood it.
    pub model: ModelSummary,
    /// Why the model's own files could not be read, where the catalogue stands in for them.
    pub stands_in: Option<String>,
    /// Contexts to try, the longest first.
    pub contexts: Vec<u32>,
    /// GPU counts to try, the preferred first.
    pub degrees: Vec<u32>,
    /// Vendors to try.
    pub vendors: Vec<Vendor>,
    spec: LLMDeploymentSpec,
    source: ModelSource,
    facts: ModelFacts,
    workload: Workload,
    engine: EngineType,
    images: BTreeMap<Vendor, String>,
    custom: Option<CustomServer>,
    stated: Stated,
    runtime_classes: BTreeMap<Vendor, String>,
    kept: Option<Kept>,
    /// What engines told of it, by GPU count and vendor.
    earlier: BTreeMap<(u32, Vendor), Vec<Earlier>>,
}

/// Where an engine's version comes from.
#[derive(Clone, Copy, Debug)]
enum Stated {
    /// The tag of the image.
    ByImage,
    /// The serving revision, whose image is kept. `None` where it is older than fractions that follow
    /// from the claim: its engine is told a fixed one.
    Before(Option<Version>),
}

/// Derived figures of the serving revision that the edit does not touch.
#[derive(Clone, Debug)]
struct Kept {
    gpus: u32,
    resources: Resources,
    startup_timeout_seconds: u32,
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
    let engine = spec.engine.as_ref().and_then(|engine| engine.type_);
    let engine = engine
        .unwrap_or_else(|| engine::default_engine(&spec.model.uri, spec.model.files.as_deref()));
    let gguf = files.is_none() && engine == EngineType::LlamaCpp;
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
    let engine = asked
        .type_
        .unwrap_or_else(|| engine::default_engine(&spec.model.uri, spec.model.files.as_deref()));
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
        ..Workload::new(facts::engine(engine), LEAST_CONTEXT, max_concurrency)
    };
    let vendors = vendors(spec, kept(&["/gpu"]).map(|old| old.template.vendor));
    let images = vendors
        .iter()
        .filter_map(|&vendor| {
            let old = kept(&["/engine/type", "/engine/image"]).map(|old| old.template);
            let old = old.filter(|old| old.vendor == vendor && old.engine.type_ == engine);
            let image = image(spec, defaults, engine, vendor);
            Some((vendor, old.map(|old| old.engine.image.clone()).or(image)?))
        })
        .collect::<BTreeMap<_, _>>();
    let image_kept = kept(&["/engine/type", "/engine/image"]).map(|old| &old.template.engine);
    let stated = image_kept.map_or(Stated::ByImage, |old| Stated::Before(old.version));
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

impl Wish {
    /// The facts about the model.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// How its weights are stored.
    pub fn quantization(&self) -> Quantization {
        self.facts.quantization
    }

    /// The engine.
    pub fn engine(&self) -> EngineType {
        self.engine
    }

    /// Requests of full context that it holds at least.
    pub fn max_concurrency(&self) -> u32 {
        self.workload.max_concurrency
    }

    /// Every way in which the estimate or an amount can be wrong, found before anything is planned.
    fn check(&self) -> Result<(), Problem> {
        let (Some(&context), Some(&gpus), Some(&vendor)) =
            (self.contexts.first(), self.degrees.first(), self.vendors.first())
        else {
            return Ok(());
        };
        self.template(context, gpus, vendor).map(drop)
    }

    /// The same wish with what engines told of it, looked up by [`notes::subject`].
    #[must_use]
    pub fn remembering(mut self, told_of: impl Fn(&Template) -> Vec<Earlier>) -> Self {
        let Some(&context) = self.contexts.first() else { return self };
        for &gpus in &self.degrees {
            for &vendor in &self.vendors {
                let Ok(template) = self.template(context, gpus, vendor) else { continue };
                let told = told_of(&notes::subject(&template));
                if !told.is_empty() {
                    self.earlier.insert((gpus, vendor), told);
                }
            }
        }
        self
    }

    /// The template for a choice of context, GPU count and vendor.
    pub fn template(&self, context: u32, gpus: u32, vendor: Vendor) -> Result<Template, Problem> {
        let spec = &self.spec;
        let asked = spec.engine.clone().unwrap_or_default();
        let mut estimate = self.estimate(context, gpus, vendor)?;
        let measured = self.measured(context, gpus, vendor, &mut estimate);
        let weight_bytes = berth_vram::weights(&self.facts);
        let image = self.images.get(&vendor).cloned().unwrap_or_default();
        let server = EngineTemplate {
            type_: self.engine,
            version: match self.stated {
                Stated::ByImage => engine::version(self.engine, &image),
                Stated::Before(version) => version,
            },
            image,
            image_pull_policy: asked.image_pull_policy,
            args: asked.args,
            env: asked.env,
            kv_cache_dtype: asked.kv_cache_dtype.unwrap_or(KvCacheDtype::Auto),
            max_num_seqs: self.workload.max_num_seqs,
            max_num_batched_tokens: self.workload.max_num_batched_tokens,
            custom: self.custom.clone(),
        };
        let kept = self.kept.as_ref().filter(|kept| kept.gpus == gpus);
        let resources = match kept {
            Some(kept) => kept.resources,
            None => self.resources(&server, weight_bytes, gpus)?,
        };
        let startup_timeout_seconds = match (&asked.startup_timeout, kept) {
            (Some(period), _) => period.seconds().unwrap_or(600),
            (None, Some(kept)) => kept.startup_timeout_seconds,
            (None, None) => startup_timeout(weight_bytes, &self.source),
        };
        let pod = spec.pod_template.clone().unwrap_or_default();
        Ok(Template {
            source: self.source.clone(),
            source_secret: spec.model.secret_ref.as_ref().map(|secret| secret.name.clone()),
            served_name: self.model.name.clone(),
            trust_remote_code: spec.model.trust_remote_code,
            engine: server,
            vendor,
            products: spec.gpu.as_ref().map(|gpu| gpu.products.clone()).unwrap_or_default(),
            gpus,
            // Servers of GGUF files deal layers out instead.
            tensor: if matches!(self.facts.quantization, Quantization::Gguf(_)) { 1 } else { gpus },
            context_length: context,
            max_concurrency: self.workload.max_concurrency,
            weight_bytes,
            estimate,
            measured,
            resources,
            startup_timeout_seconds,
            shutdown_grace_seconds: asked
                .shutdown_grace
                .and_then(|period| period.seconds())
                .unwrap_or(SHUTDOWN_GRACE_SECONDS),
            node_selector: spec.placement.node_selector.clone(),
            tolerations: spec.placement.tolerations.clone(),
            priority_class: priority_class(spec).to_owned(),
            runtime_class: spec
                .runtime_class_name
                .clone()
                .or_else(|| self.runtime_classes.get(&vendor).cloned()),
            image_pull_secrets: spec.image_pull_secrets.iter().map(|s| s.name.clone()).collect(),
            pod_labels: pod.labels,
            pod_annotations: pod.annotations,
        })
    }

    /// Whether the serving revision is what this wish would come to, choices of its own kept.
    pub fn comes_to(&self, serving: &Template) -> bool {
        let candidate = self.template(serving.context_length, serving.gpus, serving.vendor);
        let offers = self.contexts.contains(&serving.context_length)
            && self.degrees.contains(&serving.gpus)
            && self.vendors.contains(&serving.vendor);
        offers
            && candidate.is_ok_and(|candidate| {
                let (estimate, measured) = (serving.estimate.clone(), serving.measured.clone());
                // The same files weigh the same, whoever counted.
                let same = candidate.source == serving.source;
                let weight_bytes = if same { serving.weight_bytes } else { candidate.weight_bytes };
                Template { estimate, measured, weight_bytes, ..candidate } == *serving
            })
    }

    fn workload(&self, context: u32, sequences: u32, vendor: Vendor) -> Workload {
        Workload {
            context_length: context,
            max_concurrency: sequences,
            vendor: facts::vendor(vendor),
            version: self.version(vendor),
            ..self.workload.clone()
        }
    }

    fn estimate(&self, context: u32, gpus: u32, vendor: Vendor) -> Result<Estimate, Problem> {
        let workload = self.workload(context, self.workload.max_concurrency, vendor);
        let found = estimate(&self.facts, &workload, Parallelism::tensor(gpus))?;
        let asked = self.spec.gpu.as_ref().and_then(|gpu| gpu.memory.as_ref());
        let estimate = frozen(&found, self.basis(&found.basis, vendor));
        let Some(amount) = asked else { return Ok(estimate) };
        let total = amount.0.parse::<Bytes>().map_err(|error| Problem::InvalidAmount {
            field: "spec.gpu.memory".to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Estimate { total, basis: "spec.gpu.memory".to_owned(), ..estimate })
    }

    /// The estimates for products that an engine told of. What was told and cannot be is said on the
    /// estimate for the others. The user's own figure stands above all of it.
    fn measured(
        &self,
        context: u32,
        gpus: u32,
        vendor: Vendor,
        estimate: &mut Estimate,
    ) -> BTreeMap<String, Estimate> {
        if self.spec.gpu.as_ref().is_some_and(|gpu| gpu.memory.is_some()) {
            return BTreeMap::new();
        }
        let now = self.workload(context, self.workload.max_concurrency, vendor);
        let mut measured = BTreeMap::new();
        for earlier in self.earlier.get(&(gpus, vendor)).into_iter().flatten() {
            let then = self.workload(earlier.context_length, earlier.max_concurrency, vendor);
            let split = Parallelism::tensor(gpus);
            match berth_vram::measured(&self.facts, (&now, &then), split, &earlier.told) {
                Ok(found) => {
                    let found = frozen(&found, earlier.basis());
                    // What only raises an estimate may leave it as it is.
                    if found.total != estimate.total || earlier.told.trust == Trust::Replaces {
                        measured.insert(earlier.product.clone(), found);
                    }
                }
                Err(error) => {
                    let said = format!("; pod {} was not believed: {error}", earlier.pod);
                    estimate.basis.push_str(&said);
                }
            }
        }
        measured
    }

    /// The version that memory is counted for.
    fn version(&self, vendor: Vendor) -> Option<Version> {
        match self.stated {
            Stated::Before(Some(version)) => Some(version),
            _ => engine::version(self.engine, self.images.get(&vendor)?),
        }
    }

    /// What an estimate rests on, and whether it had to guess the engine's version.
    fn basis(&self, basis: &Basis, vendor: Vendor) -> String {
        let image = self.images.get(&vendor).map(String::as_str).unwrap_or_default();
        match (self.version(vendor), engine::stated_version(self.engine, image)) {
            (Some(version), None) => {
                format!("{basis}; the image's tag states no version, taken for {version}")
            }
            _ => basis.to_string(),
        }
    }

    fn resources(
        &self,
        server: &EngineTemplate,
        weight_bytes: Bytes,
        gpus: u32,
    ) -> Result<Resources, Problem> {
        let asked = self.spec.resources.as_ref();
        resources(asked, server, &self.source, weight_bytes, gpus).map_err(|error| {
            Problem::InvalidAmount {
                field: format!("spec.resources.{}", error.field),
                problem: error.message,
            }
        })
    }
}

/// An estimate as a template keeps it.
fn frozen(estimate: &berth_vram::Estimate, basis: String) -> Estimate {
    let parts = estimate.per_gpu;
    Estimate {
        weights: parts.weights,
        kv_cache: parts.kv_cache,
        activation: parts.activation,
        non_torch: parts.non_torch,
        graphs: parts.graphs,
        margin: parts.margin,
        total: parts.total(),
        kv_bytes_per_token: estimate.kv_bytes_per_token,
        basis,
    }
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
        user: asked.run_as_user.unwrap_or(engine::CUSTOM_USER),
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
