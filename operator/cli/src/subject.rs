//! What is asked about: the model, from the catalogue, its own files, or a manifest, and what is
//! asked of it.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use berth_crds::LLMDeployment;
use berth_operator::reconcile::{
    facts,
    problem::Problem,
    resolve::{DEFAULT_CONTEXT, Defaults, LEAST_CONTEXT, resolve},
};
use berth_units::Bytes;
use berth_vram::{
    Engine, KvDtype, ModelFacts, Quantization,
    advise::{Variant, others},
    catalogue, tensor_degrees,
};
use serde_json::Value;

use crate::{
    args::{ModelArgs, WorkloadArgs},
    files,
    names::nearest,
};

/// A manifest longer than this is none.
const LONGEST: u64 = 16 << 20;

/// The model and what is asked of it.
#[derive(Debug)]
pub struct Subject {
    /// The model in all the ways that are known; the first was asked for.
    pub variants: Vec<Variant>,
    /// Where the facts come from.
    pub source: String,
    /// Its licence, where known.
    pub licence: Option<String>,
    /// Contexts to try, the preferred first: the one asked for, or the default and its halves.
    pub contexts: Vec<u32>,
    /// Whether the context was asked for.
    pub context_asked: bool,
    /// GPU counts to try, the preferred first.
    pub degrees: Vec<u32>,
    /// Sequences at once.
    pub concurrency: u32,
    /// How the KV cache is stored, where that is asked for.
    pub kv_dtype: Option<KvDtype>,
    /// What each GPU shall have free in place of the estimate.
    pub memory: Option<Bytes>,
    /// Products that the manifest allows, as nodes are labelled.
    pub products: Vec<String>,
}

impl Subject {
    /// The model that was asked for.
    pub fn asked(&self) -> &Variant {
        &self.variants[0]
    }

    /// Finds out.
    pub fn of(model: &ModelArgs, workload: &WorkloadArgs) -> anyhow::Result<Self> {
        let mut subject = match model {
            ModelArgs { model: Some(name), file, .. } => from_catalogue(name, file.as_deref())?,
            ModelArgs { config: Some(path), .. } => from_files(path, files::config(path)?),
            ModelArgs { safetensors: Some(path), .. } => from_files(path, files::checkpoint(path)?),
            ModelArgs { gguf: Some(path), .. } => from_files(path, files::gguf(path)?),
            ModelArgs { manifest: Some(path), name, .. } => {
                Self::from_manifest(path, name.as_deref())?
            }
            _ => bail!("name a model: --model, --config, --safetensors, --gguf or -f"),
        };
        if let Some(context) = workload.context {
            subject.contexts = vec![context];
            subject.context_asked = true;
        }
        subject.concurrency = workload.concurrency.unwrap_or(subject.concurrency);
        subject.kv_dtype = workload.kv_dtype.map(KvDtype::from).or(subject.kv_dtype);
        if let Some(engine) = workload.engine.map(Engine::from) {
            subject.serve_by(engine)?;
        }
        subject.degrees.retain(|&gpus| gpus <= workload.max_gpus);
        if subject.degrees.is_empty() {
            bail!("the GPUs that are asked for are more than --max-gpus {}", workload.max_gpus);
        }
        Ok(subject)
    }

    /// From a manifest, resolved by the controller's own code.
    pub fn from_manifest(path: &Path, name: Option<&str>) -> anyhow::Result<Self> {
        let text = manifest(path)?;
        let deployment = deployment(&text, name).with_context(|| path.display().to_string())?;
        let defaults = Defaults {
            catalogue: catalogue().clone(),
            images: BTreeMap::new(),
            runtime_classes: BTreeMap::new(),
        };
        let spec = &deployment.spec;
        let told = |problem: Problem| anyhow!("{problem}");
        let wish = resolve(&deployment, &defaults, None).map_err(told)?;
        let known = facts::find(&spec.model, &defaults.catalogue).map_err(told)?;
        let asked = spec.engine.clone().unwrap_or_default();
        let gpu = spec.gpu.clone().unwrap_or_default();
        let memory = match gpu.memory {
            Some(amount) => Some(amount.0.parse::<Bytes>().context("spec.gpu.memory")?),
            None => None,
        };
        let variant = Variant {
            name: spec.model.uri.strip_prefix("hf://").unwrap_or(&spec.model.uri).to_owned(),
            engine: engine(&known.facts),
            facts: known.facts,
        };
        let mut subject = Self {
            contexts: wish.contexts.clone(),
            context_asked: asked.context_length.is_some(),
            degrees: wish.degrees.clone(),
            concurrency: asked.max_concurrency.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            kv_dtype: asked
                .kv_cache_dtype
                .map(facts::kv_dtype)
                .filter(|&kind| kind != KvDtype::Auto),
            memory,
            products: gpu.products,
            ..Self::new(variant, known.source, known.licence)
        };
        if let Some(type_) = asked.type_ {
            subject.serve_by(berth_render::engine::estimated(type_))?;
        }
        Ok(subject)
    }

    /// Asks for an engine, of which every variant is that it can serve.
    fn serve_by(&mut self, engine: Engine) -> anyhow::Result<()> {
        let serves = |variant: &Variant| match (engine, variant.facts.quantization) {
            (Engine::Custom, _) => true,
            (Engine::LlamaCpp, stored) => matches!(stored, Quantization::Gguf(_)),
            (_, stored) => !matches!(stored, Quantization::Gguf(_)),
        };
        if !serves(self.asked()) {
            bail!(
                "{engine} does not serve {} weights; name another --engine, or leave it out",
                self.asked().facts.quantization
            );
        }
        // Others stay with the engine that serves them.
        for variant in self.variants.iter_mut().filter(|variant| serves(variant)) {
            variant.engine = engine;
        }
        Ok(())
    }

    fn new(known: Variant, source: String, licence: Option<String>) -> Self {
        let facts = &known.facts;
        let full = facts.max_context.min(DEFAULT_CONTEXT);
        let least = facts.max_context.min(LEAST_CONTEXT);
        let contexts = std::iter::successors(Some(full), |context| Some(context / 2))
            .take_while(|&context| context >= least)
            .collect();
        let degrees = tensor_degrees(facts, 1024);
        let mut all = vec![known];
        all.extend(others(catalogue(), &all[0]));
        Self {
            variants: all,
            source,
            licence,
            contexts,
            context_asked: false,
            degrees,
            concurrency: 1,
            kv_dtype: None,
            memory: None,
            products: Vec::new(),
        }
    }
}

fn engine(facts: &ModelFacts) -> Engine {
    match facts.quantization {
        Quantization::Gguf(_) => Engine::LlamaCpp,
        _ => Engine::Vllm,
    }
}

fn from_catalogue(name: &str, file: Option<&str>) -> anyhow::Result<Subject> {
    let catalogue = catalogue();
    let Some(entry) = catalogue.find(name, file) else {
        if catalogue.is_gguf(name) {
            bail!(
                "{name} holds GGUF files of several types; name one with --file, such as \
                 --file '*Q4_K_M.gguf'"
            );
        }
        let near = nearest(name, catalogue.iter().map(|entry| entry.id.as_str()), 5);
        let hint = if near.is_empty() {
            ".".to_owned()
        } else {
            format!("; did you mean {}?", near.join(", "))
        };
        bail!(
            "the catalogue has no model {name:?}{hint} For any other model give its files: \
             --config FILE, --safetensors FOLDER or --gguf FILE"
        );
    };
    let (id, facts) = (entry.id.clone(), entry.facts.clone());
    let name = match file {
        Some(file) if catalogue.is_gguf(name) => format!("{id} {file}"),
        _ => id,
    };
    let known = Variant { engine: engine(&facts), name, facts };
    Ok(Subject::new(known, entry.source.clone(), Some(entry.licence.clone())))
}

fn from_files(path: &Path, facts: ModelFacts) -> Subject {
    let name = path.display().to_string();
    let known = Variant { engine: engine(&facts), name: name.clone(), facts };
    Subject::new(known, name, None)
}

/// The LLMDeployment of that name in a manifest, or the only one.
fn deployment(text: &str, name: Option<&str>) -> anyhow::Result<LLMDeployment> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    let found: Vec<Value> = documents
        .into_iter()
        .filter(|document| document.get("kind").and_then(Value::as_str) == Some("LLMDeployment"))
        .collect();
    let called = |document: &Value| {
        let name = document.pointer("/metadata/name").and_then(Value::as_str);
        name.unwrap_or_default().to_owned()
    };
    let names: Vec<String> = found.iter().map(called).collect();
    let mut chosen =
        found.into_iter().filter(|document| name.is_none_or(|name| called(document) == name));
    let (Some(document), None) = (chosen.next(), chosen.next()) else {
        match (names.as_slice(), name) {
            ([], _) => bail!("holds no LLMDeployment (apiVersion: berth.dev/v1alpha1)"),
            (_, Some(name)) => bail!("holds no LLMDeployment {name:?}, but {}", names.join(", ")),
            _ => bail!("holds several LLMDeployments; choose with --name: {}", names.join(", ")),
        }
    };
    serde_json::from_value(document).context("not an LLMDeployment")
}

fn manifest(path: &Path) -> anyhow::Result<String> {
    if path != Path::new("-") {
        return files::text(path);
    }
    let mut text = String::new();
    io::stdin().take(LONGEST).read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}
