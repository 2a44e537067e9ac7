//! What is asked of the advisor, and one way to answer it.

use berth_units::Bytes;
use serde::Serialize;

use super::{PricePerHour, Product};
use crate::{
    Engine, Estimate, EstimateError, KvDtype, ModelFacts, Parallelism, Vendor, Workload, estimate,
    max_concurrency, max_context,
};

/// The longest context that is taken where none is asked for, as the controller does.
const DEFAULT_CONTEXT: u32 = 32_768;

/// One way in which the model's weights are published.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name, for people: the repository.
    pub name: String,
    /// The facts, quantisation included.
    pub facts: ModelFacts,
    /// The engine that serves it.
    pub engine: Engine,
}

/// A kind of GPU that there is, or that could be bought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu<'a> {
    /// The product.
    pub product: &'a Product,
    /// What a claim may use of one.
    pub usable: Bytes,
    /// What one costs, where known.
    pub price: Option<PricePerHour>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The model, in all the ways that it is published; the first is the one that was asked for.
    pub variants: &'a [Variant],
    /// The GPUs to choose among.
    pub gpus: &'a [Gpu<'a>],
    /// The context; else the model's maximum or 32,768, the lesser of the two.
    pub context_length: Option<u32>,
    /// Sequences of that context that are held at once.
    pub max_concurrency: u32,
    /// How the KV cache is stored; else as the engine does, and in 8 bits where only that fits.
    pub kv_dtype: Option<KvDtype>,
    /// The most GPUs of one replica.
    pub max_gpus: u32,
    /// The most offers.
    pub limit: usize,
    /// The most offers of one product.
    pub limit_per_product: usize,
}

/// One way to run the model: what is run, on what, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// The variant, by its place in the question.
    pub variant: usize,
    /// The GPU, by its place in the question.
    pub gpu: usize,
    /// GPUs of one replica.
    pub gpus: u32,
    /// How the KV cache is stored.
    pub kv_dtype: KvDtype,
    /// The context.
    pub context_length: u32,
    /// Sequences of that context.
    pub max_concurrency: u32,
}

impl Question<'_> {
    /// The context that a variant is asked for.
    pub fn context_of(&self, variant: &Variant) -> u32 {
        self.context_length.unwrap_or_else(|| variant.facts.max_context.min(DEFAULT_CONTEXT))
    }

    /// The ways to store the KV cache that are tried, the preferred first.
    pub(super) fn kv_dtypes(&self, variant: &Variant) -> Vec<KvDtype> {
        match (self.kv_dtype, variant.engine) {
            (Some(asked), _) => vec![asked],
            (None, engine) => vec![KvDtype::Auto, smaller(engine)],
        }
    }

    pub(super) fn workload(&self, variant: &Variant, kv_dtype: KvDtype) -> Workload {
        let context = self.context_of(variant);
        Workload { kv_dtype, ..Workload::new(variant.engine, context, self.max_concurrency) }
    }
}

/// The KV cache in 8 bits.
pub const fn smaller(engine: Engine) -> KvDtype {
    match engine {
        Engine::LlamaCpp => KvDtype::Q8_0,
        _ => KvDtype::Fp8,
    }
}

/// Whether a cache takes 16 bits and more, so that 8 would be less.
pub const fn is_wide(kv_dtype: KvDtype) -> bool {
    matches!(kv_dtype, KvDtype::Auto | KvDtype::F16 | KvDtype::Bf16)
}

impl Setup {
    /// What the engine has to hold.
    pub fn workload(&self, question: &Question<'_>) -> Workload {
        let engine = question.variants[self.variant].engine;
        Workload {
            kv_dtype: self.kv_dtype,
            ..Workload::new(engine, self.context_length, self.max_concurrency)
        }
    }

    /// What each GPU needs.
    pub fn estimate(&self, question: &Question<'_>) -> Result<Estimate, EstimateError> {
        let facts = &question.variants[self.variant].facts;
        let parallelism = Parallelism::tensor(self.gpus);
        let vendor = question.gpus[self.gpu].product.vendor;
        Ok(estimate(facts, &self.workload(question), parallelism)?.on(vendor))
    }

    /// Whether that is there.
    pub fn fits(&self, question: &Question<'_>) -> bool {
        let Gpu { product, usable, .. } = question.gpus[self.gpu];
        product.serves(question.variants[self.variant].facts.quantization)
            && product.keeps(self.kv_dtype)
            && self.estimate(question).is_ok_and(|estimate| estimate.per_gpu.total() <= usable)
    }

    /// The longest context that fits, the concurrency as it is.
    pub fn longest_context(&self, question: &Question<'_>) -> Option<u32> {
        let facts = &question.variants[self.variant].facts;
        let workload = self.workload(question);
        let usable = self.usable_as_nvidia(question)?;
        max_context(facts, &workload, Parallelism::tensor(self.gpus), usable)
    }

    /// The most sequences that fit, the context as it is.
    pub fn most_sequences(&self, question: &Question<'_>) -> u32 {
        let facts = &question.variants[self.variant].facts;
        let workload = self.workload(question);
        let Some(usable) = self.usable_as_nvidia(question) else { return 0 };
        let most = max_concurrency(facts, &workload, Parallelism::tensor(self.gpus), usable);
        if most <= workload.max_num_seqs {
            return most;
        }
        // Beyond what a step runs by default, the step grows too, and the sampler's memory with it.
        let fits = |max_concurrency: u32| Self { max_concurrency, ..*self }.fits(question);
        let (mut yes, mut no) = (workload.max_num_seqs, most + 1);
        if !fits(yes) {
            return most.min(yes);
        }
        while yes + 1 < no {
            let middle = u32::midpoint(yes, no);
            if fits(middle) { yes = middle } else { no = middle }
        }
        yes
    }

    /// What is usable, less what this vendor's GPUs take beyond NVIDIA's: the searches of
    /// [`max_context`] and [`max_concurrency`] are for NVIDIA. What is beyond follows neither from
    /// the context nor from the concurrency.
    fn usable_as_nvidia(&self, question: &Question<'_>) -> Option<Bytes> {
        let Gpu { product, usable, .. } = question.gpus[self.gpu];
        if product.vendor == Vendor::Nvidia {
            return Some(usable);
        }
        let facts = &question.variants[self.variant].facts;
        let least = Workload { context_length: 1, ..self.workload(question) };
        let nvidia = estimate(facts, &least, Parallelism::tensor(self.gpus)).ok()?;
        let beyond = nvidia.clone().on(product.vendor).per_gpu.total() - nvidia.per_gpu.total();
        Some(usable - beyond)
    }
}
