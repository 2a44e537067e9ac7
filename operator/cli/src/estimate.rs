//! `estimate`: what a model needs on each GPU, and whether it fits.

mod text;

use anyhow::bail;
use berth_planner::usable;
use berth_units::Bytes;
use berth_vram::{
    Basis, Estimate, KvDtype,
    advise::{Change, Gpu, Question, Setup, changes, products},
    parameters, weights,
};
use serde::Serialize;

use crate::{
    args::{Degree, EstimateArgs, engine_name, kv_name},
    gpus::{self, GpuView},
    output::render,
    subject::Subject,
};

/// The answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The model.
    pub model: ModelView,
    /// As manifests spell it: `VLLM`, `SGLang`, `LlamaCpp` or `Custom`.
    pub engine: &'static str,
    /// What it is asked to hold.
    pub workload: WorkloadView,
    /// GPUs of one replica.
    pub gpus: u32,
    /// The GPU; absent where none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuView>,
    /// What each GPU needs.
    pub per_gpu: PartsView,
    /// What a token more of context takes on each GPU.
    pub kv_bytes_per_token: Bytes,
    /// Whether it fits; absent where no GPU was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<FitView>,
    /// Products that so many GPUs of would do; where no GPU was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_on: Option<Vec<String>>,
    /// How good the data behind it is.
    pub basis: BasisView,
}

/// The model.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Parameters in all.
    pub parameters: u64,
    /// The checkpoint.
    pub weight_bytes: Bytes,
    /// How the weights are stored, for people: `bf16`, `AWQ 4-bit`.
    pub quantization: String,
    /// The longest context that it was made for.
    pub max_context: u32,
    /// Its licence, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the facts come from.
    pub facts: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView {
    /// Tokens of the longest sequence.
    pub context_length: u32,
    /// The context that was tried first and fits nowhere; absent where it does, or was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortened_from: Option<u32>,
    /// Sequences of that length.
    pub max_concurrency: u32,
    /// How the KV cache is stored, as `--kv-dtype` spells it.
    pub kv_dtype: &'static str,
}

/// The parts of what a GPU needs.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartsView {
    /// Weights, as loaded.
    pub weights: Bytes,
    /// The KV cache that holds what is asked.
    pub kv_cache: Bytes,
    /// The peak of a step.
    pub activation: Bytes,
    /// What is taken outside of the framework's allocator.
    pub non_torch: Bytes,
    /// Captured graphs.
    pub graphs: Bytes,
    /// What is added for safety.
    pub margin: Bytes,
    /// All together, or what the manifest asks for in its place.
    pub total: Bytes,
    /// Whether the manifest asks for a total of its own (`spec.gpu.memory`).
    pub total_from_manifest: bool,
}

/// Whether it fits, and how much more would.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FitView {
    /// Whether it does.
    pub fits: bool,
    /// Why the GPU could not run it however much memory it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// What is left of the usable memory.
    pub free_bytes: Bytes,
    /// The longest context with this concurrency; absent where none fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_context: Option<u32>,
    /// The most sequences with this context.
    pub most_sequences: u32,
    /// What would make it fit, the smallest change first.
    pub changes: Vec<ChangeView>,
}

/// Something to do differently.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// In words.
    pub text: String,
    /// GPUs of one replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// The context, or any below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// The sequences, or any number below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// How the KV cache is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_dtype: Option<&'static str>,
    /// The model to take instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// How good the data is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasisView {
    /// `Fitted` to logs of this kind, or `Extrapolated`, with a wider margin.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

impl From<&Basis> for BasisView {
    fn from(basis: &Basis) -> Self {
        let kind = if basis.is_fitted() { "Fitted" } else { "Extrapolated" };
        Self { kind, text: basis.to_string() }
    }
}

impl ModelView {
    fn of(subject: &Subject) -> Self {
        let asked = subject.asked();
        Self {
            name: asked.name.clone(),
            parameters: parameters(&asked.facts),
            weight_bytes: weights(&asked.facts),
            quantization: asked.facts.quantization.to_string(),
            max_context: asked.facts.max_context,
            licence: subject.licence.clone(),
            facts: subject.source.clone(),
        }
    }
}

impl ChangeView {
    /// A change in words, and by name.
    pub fn of(change: &Change, question: &Question<'_>) -> Self {
        let model = change.variant.map(|variant| question.variants[variant].name.clone());
        Self {
            text: text::change(change, question),
            gpus: change.gpus,
            context_length: change.context_length,
            max_concurrency: change.max_concurrency,
            kv_dtype: change.kv_dtype.map(kv_name),
            model,
        }
    }
}

/// Works it out, and renders it.
pub fn run(args: &EstimateArgs) -> anyhow::Result<String> {
    let mut subject = Subject::of(&args.model, &args.workload)?;
    if let Degree::Gpus(gpus) = args.tp {
        subject.degrees = vec![gpus];
    }
    let named = args.gpu.as_deref().or(subject.products.first().map(String::as_str));
    let product = named.map(gpus::find).transpose()?;
    let answer = match product {
        Some(product) => on(&subject, gpus::offered(product, None), args.workload.max_gpus)?,
        None => anywhere(&subject)?,
    };
    render(&answer, args.output, text::page)
}

/// On a GPU that was named: the full context first, then the fewest GPUs, as the controller chooses.
fn on(subject: &Subject, gpu: Gpu<'static>, max_gpus: u32) -> anyhow::Result<Answer> {
    let offered = [gpu];
    let question = question(subject, &offered, max_gpus);
    let total = |estimate: &Estimate| subject.memory.unwrap_or(estimate.per_gpu.total());
    let obstacle = obstacle(subject, &gpu);
    let mut first = None;
    let mut chosen = None;
    'choice: for &context in &subject.contexts {
        for &gpus in &subject.degrees {
            let setup = setup(subject, context, gpus);
            // Wrong whatever the GPU: told of at once.
            let estimate = setup.estimate(&question)?;
            let found = (setup, estimate);
            if total(&found.1) <= gpu.usable {
                chosen = Some(found);
                break 'choice;
            }
            // The most GPUs come nearest.
            if context == subject.contexts[0] {
                first = Some(found);
            }
        }
    }
    let fits = chosen.is_some() && obstacle.is_none();
    let Some((setup, estimate)) = chosen.or(first) else { bail!("nothing to try") };
    let total = total(&estimate);
    let question = Question { context_length: Some(setup.context_length), ..question };
    let changes = if fits || subject.memory.is_some() {
        Vec::new()
    } else {
        changes(&question, &setup).iter().map(|c| ChangeView::of(c, &question)).collect()
    };
    let fit = FitView {
        fits,
        obstacle,
        free_bytes: gpu.usable - total,
        longest_context: setup.longest_context(&question),
        most_sequences: setup.most_sequences(&question),
        changes,
    };
    let gpu = Some(GpuView::from(gpu.product));
    Ok(Answer { gpu, fit: Some(fit), ..answer(subject, &setup, &estimate) })
}

/// Without a GPU: what it needs, and which GPUs have that.
fn anywhere(subject: &Subject) -> anyhow::Result<Answer> {
    let offered: Vec<_> = products().iter().map(|product| gpus::offered(product, None)).collect();
    let question = question(subject, &offered, 1);
    let setup = setup(subject, subject.contexts[0], subject.degrees[0]);
    let estimate = setup.estimate(&question)?;
    let fits = |&gpu: &usize| {
        let setup = Setup { gpu, ..setup };
        let product = offered[gpu].product;
        match subject.memory {
            Some(memory) => memory <= usable(product.vram()),
            None => setup.fits(&question),
        }
    };
    let named = |gpu: usize| offered[gpu].product.name.clone();
    let fits_on = (0..offered.len()).filter(fits).map(named).collect();
    Ok(Answer { fits_on: Some(fits_on), ..answer(subject, &setup, &estimate) })
}

fn question<'a>(subject: &'a Subject, gpus: &'a [Gpu<'a>], max_gpus: u32) -> Question<'a> {
    Question {
        variants: &subject.variants,
        gpus,
        context_length: Some(subject.contexts[0]),
        max_concurrency: subject.concurrency,
        kv_dtype: Some(subject.kv_dtype.unwrap_or(KvDtype::Auto)),
        max_gpus,
        limit: 1,
        limit_per_product: 1,
    }
}

fn setup(subject: &Subject, context_length: u32, gpus: u32) -> Setup {
    Setup {
        variant: 0,
        gpu: 0,
        gpus,
        kv_dtype: subject.kv_dtype.unwrap_or(KvDtype::Auto),
        context_length,
        max_concurrency: subject.concurrency,
    }
}

/// Why the GPU cannot compute what is asked, however much memory it has.
fn obstacle(subject: &Subject, gpu: &Gpu<'_>) -> Option<String> {
    let (product, stored) = (gpu.product, subject.asked().facts.quantization);
    if !product.serves(stored) {
        return Some(format!("the engine does not serve {stored} weights on {product}"));
    }
    let fp8 = product.teraflops.fp8.is_some() || subject.kv_dtype != Some(KvDtype::Fp8);
    (!fp8).then(|| format!("{product} has no fp8 arithmetic, which a KV cache in fp8 needs"))
}

fn answer(subject: &Subject, setup: &Setup, estimate: &Estimate) -> Answer {
    let parts = estimate.per_gpu;
    Answer {
        model: ModelView::of(subject),
        engine: engine_name(subject.asked().engine),
        workload: WorkloadView {
            context_length: setup.context_length,
            shortened_from: subject
                .contexts
                .first()
                .copied()
                .filter(|&context| context != setup.context_length),
            max_concurrency: setup.max_concurrency,
            kv_dtype: kv_name(setup.kv_dtype),
        },
        gpus: setup.gpus,
        gpu: None,
        per_gpu: PartsView {
            weights: parts.weights,
            kv_cache: parts.kv_cache,
            activation: parts.activation,
            non_torch: parts.non_torch,
            graphs: parts.graphs,
            margin: parts.margin,
            total: subject.memory.unwrap_or(parts.total()),
            total_from_manifest: subject.memory.is_some(),
        },
        kv_bytes_per_token: estimate.kv_bytes_per_token,
        fit: None,
        fits_on: None,
        basis: BasisView::from(&estimate.basis),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use berth_crds::{LLMDeployment, llm_deployment::Vendor};
    use berth_operator::reconcile::resolve::{Defaults, resolve};
    use berth_vram::{advise::product, catalogue};

    use super::*;

    /// The controller's template and the command's answer, for the same manifest.
    #[test]
    fn the_controller_comes_to_the_same() {
        let defaults = Defaults {
            catalogue: catalogue().clone(),
            images: BTreeMap::new(),
            runtime_classes: BTreeMap::new(),
        };
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
        let mut compared = 0;
        for file in fs::read_dir(examples).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if !text.contains("kind: LLMDeployment") {
                continue;
            }
            let deployment: LLMDeployment = serde_saphyr::from_str(&text).unwrap();
            let wish = resolve(&deployment, &defaults, None).unwrap();
            let subject = Subject::from_manifest(&path, None).unwrap();
            for (vendor, gpu) in [(Vendor::NVIDIA, "H200"), (Vendor::AMD, "MI300X")] {
                let offered = [gpus::offered(product(gpu).unwrap(), None)];
                let question = question(&subject, &offered, 8);
                for &gpus in &subject.degrees {
                    let setup = setup(&subject, subject.contexts[0], gpus);
                    let ours = setup.estimate(&question).unwrap();
                    let theirs = wish.template(wish.contexts[0], gpus, vendor).unwrap().estimate;
                    assert_eq!(ours.per_gpu.total(), theirs.total, "{} on {gpu}", path.display());
                    assert_eq!(ours.kv_bytes_per_token, theirs.kv_bytes_per_token);
                    compared += 1;
                }
            }
        }
        assert!(compared >= 16, "{compared}");
    }
}
