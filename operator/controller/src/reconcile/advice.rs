//! What would make a misfit fit: edits of the manifest, each of which was tried. Pure.
//!
//! The advisor of `berth_vram` names the changes; here they become fields as a user writes them, are
//! made to the spec word for word, resolved and placed in the ledger. So what is advised holds, CPU,
//! memory and everything that waits ahead counted in.

use std::{cell::RefCell, collections::BTreeSet};

use berth_crds::{
    LLMDeploymentSpec,
    llm_deployment::{FieldValue, KvCacheDtype, WouldFit},
};
use berth_planner::{Overlay, Refusal, Request};
use berth_vram::{
    Catalogue, KvDtype,
    advise::{Change, Room, Variant, changes_for, is_wide, others, product, smaller},
    tensor_degrees,
};
use serde_json::{Value, json};

use super::{
    facts,
    intend::Need,
    placing::{Misfit, Placed, Terms, try_first},
    problem::Problem,
    resolve::MOST_GPUS,
    wish::Wish,
};

/// The most that is advised at once.
const MOST: usize = 4;

/// How an edited spec is resolved.
pub type Resolve<'a> = &'a dyn Fn(&LLMDeploymentSpec) -> Result<Wish, Problem>;

/// What is needed to try edits.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    /// The spec that does not fit.
    pub spec: &'a LLMDeploymentSpec,
    /// How an edited one is resolved.
    pub resolve: Resolve<'a>,
    /// Where variants of a model are looked up.
    pub catalogue: &'a Catalogue,
}

/// What was advised on a misfit, as long as nothing about that changes.
#[derive(Clone, Debug)]
pub struct Advised {
    /// The canonical spec.
    pub spec: Value,
    /// The fleet's count of what was freed, by then.
    pub freed: u64,
    /// What was asked for.
    pub request: Request,
    /// Why it went nowhere.
    pub refusal: Refusal,
    /// The advice.
    pub advice: Vec<Advice>,
}

impl Advised {
    /// Whether it is on this misfit, and nothing was freed since that could have made more of it.
    pub fn is_on(&self, wish: &Wish, misfit: &Misfit, freed: u64) -> bool {
        self.freed == freed
            && self.spec == wish.canonical
            && self.request == misfit.request
            && self.refusal == misfit.refusal
    }
}

/// One field of a manifest, and what to put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The path in the spec, such as `["gpu", "count"]`.
    pub path: &'static [&'static str],
    /// The value; `null` takes the field out.
    pub value: Value,
}

/// Edits that make it fit, taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice(pub Vec<Edit>);

impl Advice {
    /// The spec with the edits.
    pub fn applied_to(&self, spec: &LLMDeploymentSpec) -> Option<LLMDeploymentSpec> {
        let mut json = serde_json::to_value(spec).ok()?;
        for Edit { path, value } in &self.0 {
            let mut at = &mut json;
            for name in *path {
                if !at.is_object() {
                    *at = json!({});
                }
                at = at.as_object_mut()?.entry(*name).or_insert(Value::Null);
            }
            at.clone_from(value);
        }
        serde_json::from_value(json).ok()
    }

    /// `spec.gpu.count: 2 and spec.engine.kvCacheDtype: FP8`.
    pub fn text(&self) -> String {
        let parts: Vec<String> = self.fields().iter().map(ToString::to_string).collect();
        parts.join(" and ")
    }

    fn fields(&self) -> Vec<FieldValue> {
        let field = |edit: &Edit| FieldValue {
            field: format!("spec.{}", edit.path.join(".")),
            value: match &edit.value {
                Value::String(text) if text.starts_with('*') => format!("{text:?}"),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
        };
        self.0.iter().map(field).collect()
    }

    /// As an entry of a list in status.
    pub fn entry(&self) -> WouldFit {
        WouldFit { set: self.fields() }
    }

    /// Whether it still holds.
    pub fn holds(
        &self,
        trial: &Trial<'_>,
        overlay: &Overlay<'_>,
        need: &Need,
        terms: &Terms<'_>,
    ) -> bool {
        tried(self, trial, overlay, need, terms).is_some()
    }
}

/// Where the spec goes with the edits, if it is served there.
fn tried(
    advice: &Advice,
    trial: &Trial<'_>,
    overlay: &Overlay<'_>,
    need: &Need,
    terms: &Terms<'_>,
) -> Option<Placed> {
    let wish = (trial.resolve)(&advice.applied_to(trial.spec)?).ok()?;
    try_first(overlay, &wish, need, terms).filter(|placed| is_served(&wish, placed))
}

/// Whether the engine can keep such a cache, and serve such weights, on the GPUs that were found.
/// Of a product that is not known only what any GPU can is taken for sure.
fn is_served(wish: &Wish, placed: &Placed) -> bool {
    let kv_dtype = facts::kv_dtype(placed.template.engine.kv_cache_dtype);
    match product(&placed.placement.product) {
        Some(product) => product.serves(wish.quantization()) && product.keeps(kv_dtype),
        None => kv_dtype != KvDtype::Fp8,
    }
}

/// What would make a misfit fit, the least loss first.
pub fn advise(
    trial: &Trial<'_>,
    misfit: &Misfit,
    wish: &Wish,
    overlay: &Overlay<'_>,
    need: &Need,
    terms: &Terms<'_>,
) -> Vec<Advice> {
    let fleet = Fleet {
        trial,
        wish,
        gpus: misfit.request.gpus,
        overlay,
        need,
        terms,
        variants: variants(trial, wish),
        products: products(trial.spec, overlay),
        known: RefCell::default(),
    };
    let changes = changes_for(&fleet);
    changes.into_iter().take(MOST).map(|change| fleet.advice(change)).collect()
}

/// The same model, quantised otherwise, where nothing of the manifest is about this very checkpoint.
fn variants(trial: &Trial<'_>, wish: &Wish) -> Vec<Variant> {
    let model = &trial.spec.model;
    let engine = trial.spec.engine.as_ref();
    let tuned = engine.is_some_and(|engine| engine.image.is_some() || !engine.args.is_empty());
    let Some(repository) = model.uri.strip_prefix("hf://") else { return Vec::new() };
    if model.facts.is_some() || model.revision.is_some() || tuned {
        return Vec::new();
    }
    let known = Variant {
        name: repository.to_owned(),
        facts: wish.facts().clone(),
        engine: berth_render::engine::estimated(wish.engine()),
    };
    let mut others = others(trial.catalogue, &known);
    others.retain(|other| other.facts.quantization.bits() < known.facts.quantization.bits());
    others.sort_by(|a, b| b.facts.quantization.bits().total_cmp(&a.facts.quantization.bits()));
    others
}

/// The products of the fleet that the manifest rules out.
fn products(spec: &LLMDeploymentSpec, overlay: &Overlay<'_>) -> Vec<String> {
    let allowed = spec.gpu.as_ref().map(|gpu| gpu.products.as_slice()).unwrap_or_default();
    if allowed.is_empty() {
        return Vec::new();
    }
    let there = overlay.fleet().nodes().filter_map(|node| node.gpus.as_ref());
    let there: BTreeSet<&String> = there.map(|gpus| &gpus.product).collect();
    let is_allowed = |product: &str| allowed.iter().any(|name| name.eq_ignore_ascii_case(product));
    there.into_iter().filter(|product| !is_allowed(product)).cloned().collect()
}

/// The room that the fleet has for a deployment.
struct Fleet<'a> {
    trial: &'a Trial<'a>,
    wish: &'a Wish,
    gpus: u32,
    overlay: &'a Overlay<'a>,
    need: &'a Need,
    terms: &'a Terms<'a>,
    variants: Vec<Variant>,
    products: Vec<String>,
    /// What was tried.
    known: RefCell<Vec<(Change, bool)>>,
}

impl Fleet<'_> {
    fn advice(&self, change: Change) -> Advice {
        let spec = self.trial.spec;
        let Change { kv_dtype, gpus, context_length, max_concurrency, variant, gpu } = change;
        let mut edits = Vec::new();
        let mut set = |path, value| edits.push(Edit { path, value });
        if let Some(variant) = variant {
            let name = &self.variants[variant].name;
            let (repository, file) = name.split_once(' ').unwrap_or((name, ""));
            set(&["model", "uri"], json!(format!("hf://{repository}")));
            if !file.is_empty() {
                set(&["model", "files"], json!(file));
            } else if spec.model.files.is_some() {
                set(&["model", "files"], Value::Null);
            }
        }
        if let Some(kv_dtype) = kv_dtype {
            set(&["engine", "kvCacheDtype"], json!(manifest(kv_dtype)));
        }
        if let Some(gpus) = gpus {
            let asked = spec.gpu.as_ref();
            let tensor = asked
                .and_then(|gpu| gpu.parallelism.as_ref())
                .and_then(|parallelism| parallelism.tensor);
            if tensor.is_some() {
                set(&["gpu", "parallelism", "tensor"], json!(gpus));
            }
            if tensor.is_none() || asked.is_some_and(|gpu| gpu.count.is_some()) {
                set(&["gpu", "count"], json!(gpus));
            }
        }
        if let Some(product) = gpu.and_then(|gpu| self.products.get(gpu)) {
            set(&["gpu", "products"], json!([product]));
        }
        if let Some(context) = context_length {
            set(&["engine", "contextLength"], json!(context));
        }
        if let Some(sequences) = max_concurrency {
            set(&["engine", "maxConcurrency"], json!(sequences));
        }
        Advice(edits)
    }
}

impl Room for Fleet<'_> {
    fn fits(&self, change: Change) -> bool {
        if let Some((_, fits)) = self.known.borrow().iter().find(|(known, _)| *known == change) {
            return *fits;
        }
        let Self { trial, overlay, need, terms, .. } = self;
        let fits = self.advice(change).holds(trial, overlay, need, terms);
        self.known.borrow_mut().push((change, fits));
        fits
    }

    fn context_length(&self) -> u32 {
        self.wish.contexts.first().copied().unwrap_or_default()
    }

    fn max_concurrency(&self) -> u32 {
        self.wish.max_concurrency()
    }

    fn smaller_cache(&self) -> Option<KvDtype> {
        let asked = self.trial.spec.engine.as_ref().and_then(|engine| engine.kv_cache_dtype);
        let now = facts::kv_dtype(asked.unwrap_or(KvCacheDtype::Auto));
        is_wide(now).then(|| smaller(berth_render::engine::estimated(self.wish.engine())))
    }

    /// Where the count is left to Berth, all of them were tried.
    fn more_gpus(&self, start: Change) -> Vec<u32> {
        if self.wish.degrees.len() > 1 {
            return Vec::new();
        }
        let facts = start.variant.map_or(self.wish.facts(), |at| &self.variants[at].facts);
        let degrees = tensor_degrees(facts, MOST_GPUS).into_iter();
        degrees.filter(|&gpus| gpus > self.gpus).collect()
    }

    fn variants(&self, start: Change) -> Vec<Change> {
        (0..self.variants.len()).map(|at| Change { variant: Some(at), ..start }).collect()
    }

    fn counts_for_variants(&self) -> Vec<u32> {
        self.more_gpus(Change::default())
    }

    fn products(&self) -> Vec<Change> {
        (0..self.products.len()).map(|at| Change { gpu: Some(at), ..Change::default() }).collect()
    }
}

/// How a manifest says how the cache is stored.
fn manifest(kv_dtype: KvDtype) -> KvCacheDtype {
    match kv_dtype {
        KvDtype::Fp8 | KvDtype::Fp8E4m3 => KvCacheDtype::FP8,
        KvDtype::Q8_0 => KvCacheDtype::Q8_0,
        KvDtype::Q4_0 => KvCacheDtype::Q4_0,
        KvDtype::F16 => KvCacheDtype::F16,
        _ => KvCacheDtype::Auto,
    }
}
