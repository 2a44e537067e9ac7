//! `advise`: the cheapest ways to run a model.

mod text;

use berth_units::Bytes;
use berth_vram::advise::{Advice, Misfit, Offer, PricePerHour, Question, Roofline, advise};
use serde::Serialize;

use crate::{
    args::{AdviseArgs, engine_name, kv_name},
    estimate::ChangeView,
    gpus,
    output::render,
    subject::Subject,
};

/// The answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The model that was asked for.
    pub model: String,
    /// Ways that fit, the cheapest first.
    pub offers: Vec<OfferView>,
    /// Ways that fit, those left out for the limits included.
    pub fitting: usize,
    /// Products that no way fits on.
    pub misfits: Vec<MisfitView>,
    /// Products on which no engine serves any variant as asked, whatever their memory.
    pub unserved: Vec<String>,
}

/// What is run on what.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupView {
    /// The GPU's short name.
    pub gpu: String,
    /// GPUs of one replica.
    pub gpus: u32,
    /// The model, in the variant that is run.
    pub model: String,
    /// How its weights are stored, for people.
    pub quantization: String,
    /// As manifests spell it.
    pub engine: &'static str,
    /// How the KV cache is stored.
    pub kv_dtype: &'static str,
    /// Tokens of the longest sequence.
    pub context_length: u32,
    /// Sequences of that length.
    pub max_concurrency: u32,
}

/// A way that fits.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferView {
    /// What is run on what.
    #[serde(flatten)]
    pub setup: SetupView,
    /// What each GPU needs.
    pub needed_bytes: Bytes,
    /// What is left of the usable memory of each.
    pub free_bytes: Bytes,
    /// The longest context with this concurrency.
    pub longest_context: u32,
    /// The most sequences with this context.
    pub most_sequences: u32,
    /// What all the GPUs cost an hour, where prices were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<PricePerHour>,
    /// Upper bounds of speed, in tokens a second: the roofline.
    pub roofline: Roofline,
    /// Whether the weights are unpacked first, for want of arithmetic of their type.
    pub unpacked: bool,
    /// Whether the estimate is `Fitted` to data of this kind or `Extrapolated`.
    pub basis: &'static str,
}

/// A product that no way fits on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MisfitView {
    /// The way that comes nearest.
    #[serde(flatten)]
    pub setup: SetupView,
    /// What each GPU would need.
    pub needed_bytes: Bytes,
    /// What is usable of each.
    pub usable_bytes: Bytes,
    /// What would make it fit, the smallest change first.
    pub changes: Vec<ChangeView>,
}

/// Works it out, and renders it.
pub fn run(args: &AdviseArgs) -> anyhow::Result<String> {
    let subject = Subject::of(&args.model, &args.workload)?;
    let names = if args.gpus.is_empty() { &subject.products } else { &args.gpus };
    let gpus = gpus::choose(names, &args.prices)?;
    // One product's ways side by side, or a few of each of many.
    let limit_per_product = if gpus.len() <= 2 { usize::from(args.limit) } else { 3 };
    let question = Question {
        variants: &subject.variants,
        gpus: &gpus,
        context_length: subject.context_asked.then(|| subject.contexts[0]),
        max_concurrency: subject.concurrency,
        kv_dtype: subject.kv_dtype,
        max_gpus: args.workload.max_gpus,
        limit: usize::from(args.limit),
        limit_per_product,
    };
    if let Some(context) = question.context_length {
        // What the model itself does not allow is an error, not a misfit.
        let max = subject.asked().facts.max_context;
        anyhow::ensure!(
            context <= max,
            "a context of {context} tokens is more than the model's maximum of {max}; use \
             --context {max} or less"
        );
    }
    let advice = advise(&question);
    let answer = view(&subject, &question, &advice);
    render(&answer, args.output, text::page)
}

fn view(subject: &Subject, question: &Question<'_>, advice: &Advice) -> Answer {
    Answer {
        model: subject.asked().name.clone(),
        offers: advice.offers.iter().map(|offer| offer_view(question, offer)).collect(),
        fitting: advice.fitting,
        misfits: advice.misfits.iter().map(|misfit| misfit_view(question, misfit)).collect(),
        unserved: advice
            .unserved
            .iter()
            .map(|&gpu| question.gpus[gpu].product.name.clone())
            .collect(),
    }
}

fn setup_view(question: &Question<'_>, setup: &berth_vram::advise::Setup) -> SetupView {
    let variant = &question.variants[setup.variant];
    SetupView {
        gpu: question.gpus[setup.gpu].product.name.clone(),
        gpus: setup.gpus,
        model: variant.name.clone(),
        quantization: variant.facts.quantization.to_string(),
        engine: engine_name(variant.engine),
        kv_dtype: kv_name(setup.kv_dtype),
        context_length: setup.context_length,
        max_concurrency: setup.max_concurrency,
    }
}

fn offer_view(question: &Question<'_>, offer: &Offer) -> OfferView {
    OfferView {
        setup: setup_view(question, &offer.setup),
        needed_bytes: offer.per_gpu.total(),
        free_bytes: offer.headroom,
        longest_context: offer.longest_context,
        most_sequences: offer.most_sequences,
        cost_per_hour: offer.cost,
        roofline: whole(offer.roofline),
        unpacked: offer.unpacked,
        basis: if offer.basis.is_fitted() { "Fitted" } else { "Extrapolated" },
    }
}

/// To a tenth of a token: more digits would say more than is known.
fn whole(Roofline { prefill, decode_one, decode_all }: Roofline) -> Roofline {
    let tenth = |rate: f64| (rate * 10.0).round() / 10.0;
    Roofline {
        prefill: tenth(prefill),
        decode_one: tenth(decode_one),
        decode_all: tenth(decode_all),
    }
}

fn misfit_view(question: &Question<'_>, misfit: &Misfit) -> MisfitView {
    MisfitView {
        setup: setup_view(question, &misfit.setup),
        needed_bytes: misfit.needs.total(),
        usable_bytes: misfit.usable,
        changes: misfit.changes.iter().map(|change| ChangeView::of(change, question)).collect(),
    }
}
