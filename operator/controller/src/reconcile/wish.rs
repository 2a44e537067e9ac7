//! What is to run, but for the choices that need the fleet: for each of those, the template that it comes
//! to. Pure.

use std::collections::BTreeMap;

use berth_crds::{
    LLMDeploymentSpec,
    llm_deployment::{EngineType, KvCacheDtype, ModelSummary, Vendor},
};
use berth_render::{
    CustomServer, EngineTemplate, Estimate, ModelSource, Resources, Template, engine, resources,
    startup_timeout,
};
use berth_units::Bytes;
use berth_vram::{
    Basis, ModelFacts, Parallelism, Quantization, Trust, Version, Workload, estimate,
};
use serde_json::Value;

use super::{facts, problem::Problem, resolve::priority_class};
use crate::measured::notes::{self, Earlier};

/// How long a pod may go on with its requests when it is stopped.
const SHUTDOWN_GRACE_SECONDS: u32 = 60;

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
    pub(super) spec: LLMDeploymentSpec,
    pub(super) source: ModelSource,
    pub(super) facts: ModelFacts,
    pub(super) workload: Workload,
    pub(super) engine: EngineType,
    pub(super) images: BTreeMap<Vendor, String>,
    pub(super) custom: Option<CustomServer>,
    pub(super) stated: Stated,
    pub(super) runtime_classes: BTreeMap<Vendor, String>,
    pub(super) kept: Option<Kept>,
    /// What engines told of it, by GPU count and vendor.
    pub(super) earlier: BTreeMap<(u32, Vendor), Vec<Earlier>>,
}

/// Where an engine's version comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stated {
    /// The tag of the image.
    ByImage,
    /// The serving revision, whose image is kept. `None` where it is older than fractions that follow
    /// from the claim: its engine is told a fixed one.
    Before(Option<Version>),
}

/// Derived figures of the serving revision that the edit does not touch.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) gpus: u32,
    pub(super) resources: Resources,
    pub(super) startup_timeout_seconds: u32,
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
    pub(super) fn check(&self) -> Result<(), Problem> {
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
