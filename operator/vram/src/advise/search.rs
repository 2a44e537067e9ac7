//! The search: every variant on every number of every product's GPUs, the cheapest that fit first.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashSet,
};

use berth_units::Bytes;
use serde::Serialize;

use super::{
    Gpu, PricePerHour, Question, Roofline, Setup,
    change::{Change, OneProduct, changes_for},
    roofline::{Active, roofline, unpacked},
    table::{Row, Table},
};
use crate::{Basis, Breakdown, Engine, Quantization};

/// A way to run the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// What, on what and how.
    pub setup: Setup,
    /// What each GPU needs.
    pub per_gpu: Breakdown,
    /// What is usable of each and not needed.
    pub headroom: Bytes,
    /// The longest context that fits, with the concurrency asked for.
    pub longest_context: u32,
    /// The most sequences that fit, with the context asked for.
    pub most_sequences: u32,
    /// What all its GPUs cost an hour.
    pub cost: Option<PricePerHour>,
    /// Upper bounds of speed.
    pub roofline: Roofline,
    /// Whether weights are unpacked first, for want of arithmetic of their type.
    pub unpacked: bool,
    /// How good the estimate's data is.
    pub basis: Basis,
}

/// A product on which the model does not fit as asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Misfit {
    /// The way that comes nearest.
    pub setup: Setup,
    /// What each GPU would need.
    pub needs: Breakdown,
    /// What is usable of each.
    pub usable: Bytes,
    /// What would make it fit, the smallest change first.
    pub changes: Vec<Change>,
}

/// The advisor's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Advice {
    /// Ways that fit, the cheapest first; of those that cost the same, the one with most headroom.
    pub offers: Vec<Offer>,
    /// Ways that fit, those left out for the limits included.
    pub fitting: usize,
    /// Products that no way fits on.
    pub misfits: Vec<Misfit>,
    /// Products, by their place in the question, on which no engine serves any of the variants as
    /// asked, whatever their memory.
    pub unserved: Vec<usize>,
}

/// The cheapest ways to run a model.
///
/// GPUs with a price come first, the cheapest first; without prices a GPU counts as its memory. Ways
/// that cost the same on the same product, with weights of the same width and the same engine, are
/// one: the one with the most headroom stands for them.
pub fn advise(question: &Question<'_>) -> Advice {
    let table = Table::of(question);
    let mut candidates = Vec::new();
    let (mut misfits, mut unserved) = (Vec::new(), Vec::new());
    for gpu in 0..question.gpus.len() {
        let before = candidates.len();
        for variant in 0..question.variants.len() {
            fitting(question, &table, variant, gpu, &mut candidates);
        }
        if candidates.len() == before {
            match misfit(question, &table, gpu) {
                Some(misfit) => misfits.push(misfit),
                None => unserved.push(gpu),
            }
        }
    }
    let fitting = candidates.len();
    let chosen = choose(question, candidates);
    let offers = chosen.iter().map(|candidate| offer(question, candidate)).collect();
    Advice { offers, fitting, misfits, unserved }
}

/// Something that fits.
struct Candidate<'a> {
    setup: Setup,
    row: &'a Row,
    cost: Cost,
    headroom: Bytes,
}

/// Money where it is known, else memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Cost {
    Price(PricePerHour),
    Memory(Bytes),
}

fn fitting<'a>(
    question: &Question<'a>,
    table: &'a Table,
    variant: usize,
    gpu: usize,
    candidates: &mut Vec<Candidate<'a>>,
) {
    let Gpu { product, usable, price } = question.gpus[gpu];
    let mut last = 0;
    for row in table.rows(question, variant, gpu) {
        let total = row.total(product.vendor);
        // Rows of one GPU count stand together, the preferred cache first.
        if total > usable || row.gpus == last {
            continue;
        }
        last = row.gpus;
        candidates.push(Candidate {
            setup: setup(question, variant, gpu, row),
            row,
            cost: match price {
                Some(price) => Cost::Price(price.times(row.gpus)),
                None => Cost::Memory(product.vram() * u64::from(row.gpus)),
            },
            headroom: usable - total,
        });
    }
}

fn setup(question: &Question<'_>, variant: usize, gpu: usize, row: &Row) -> Setup {
    Setup {
        variant,
        gpu,
        gpus: row.gpus,
        kv_dtype: row.kv_dtype,
        context_length: question.context_of(&question.variants[variant]),
        max_concurrency: question.max_concurrency,
    }
}

/// The best within the limits, in order.
fn choose<'a>(question: &Question<'a>, mut candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
    /// Ways that cost the same and are as good.
    type Alike = (usize, u32, u32, Engine);
    candidates.sort_unstable_by(order);
    let mut seen: HashSet<Alike> = HashSet::new();
    let mut of_product = vec![0; question.gpus.len()];
    candidates.retain(|candidate| {
        let variant = &question.variants[candidate.setup.variant];
        let width = width(variant.facts.quantization);
        let alike = (candidate.setup.gpu, candidate.setup.gpus, width, variant.engine);
        let count = &mut of_product[candidate.setup.gpu];
        let keep = *count < question.limit_per_product && seen.insert(alike);
        *count += usize::from(keep);
        keep
    });
    candidates.truncate(question.limit);
    candidates
}

fn order(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let key = |c: &Candidate<'_>| (c.cost, Reverse(c.headroom * u64::from(c.setup.gpus)));
    key(a).cmp(&key(b)).then_with(|| {
        let place = |c: &Candidate<'_>| (c.setup.gpu, c.setup.gpus, c.setup.variant);
        place(a).cmp(&place(b))
    })
}

/// Bits of a weight, roughly: 32, 16, 8, 6, 4 or less.
fn width(stored: Quantization) -> u32 {
    match stored.bits() {
        bits if bits > 16.0 => 32,
        bits if bits > 9.0 => 16,
        bits if bits > 7.0 => 8,
        bits if bits > 5.2 => 6,
        _ => 4,
    }
}

fn offer(question: &Question<'_>, candidate: &Candidate<'_>) -> Offer {
    let setup = candidate.setup;
    let Gpu { product, price, .. } = question.gpus[setup.gpu];
    let facts = &question.variants[setup.variant].facts;
    let estimate = candidate.row.estimate.clone().on(product.vendor);
    let workload = setup.workload(question);
    Offer {
        setup,
        headroom: candidate.headroom,
        longest_context: setup.longest_context(question).unwrap_or(setup.context_length),
        most_sequences: setup.most_sequences(question).max(setup.max_concurrency),
        cost: price.map(|price| price.times(setup.gpus)),
        roofline: roofline(facts, Active::of(facts), &workload, &estimate, product),
        unpacked: unpacked(product, facts.quantization),
        per_gpu: estimate.per_gpu,
        basis: estimate.basis,
    }
}

/// Of the ways that do not fit on a product, the one that needs least beyond what is usable; where
/// the variant that was asked for has one, of those.
fn misfit(question: &Question<'_>, table: &Table, gpu: usize) -> Option<Misfit> {
    let Gpu { product, usable, .. } = question.gpus[gpu];
    let (setup, row) = (0..question.variants.len()).find_map(|variant| {
        let rows = table.rows(question, variant, gpu);
        let nearest = rows.min_by_key(|row| (row.total(product.vendor), row.gpus))?;
        Some((setup(question, variant, gpu, nearest), nearest))
    })?;
    let estimate = row.estimate.clone().on(product.vendor);
    Some(Misfit {
        changes: changes_for(&OneProduct { question, setup: &setup, table }),
        setup,
        needs: estimate.per_gpu,
        usable,
    })
}
