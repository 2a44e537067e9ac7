//! What would make a misfit fit: the smallest changes, each of which does so by itself.

use serde::Serialize;

use super::{
    Question, Setup,
    question::{is_wide, smaller},
    table::Table,
};
use crate::KvDtype;

/// The shortest context that is advised: the shortest that a manifest may ask for.
const LEAST_CONTEXT: u32 = 256;
/// The most changes that are told of.
const MOST: usize = 6;

/// Something to do differently; what is absent stays. Taken word for word, the setup fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// How the KV cache is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_dtype: Option<KvDtype>,
    /// GPUs of one replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// The longest context, or any below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// The most sequences, or any number below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// The variant, by its place in the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<usize>,
    /// The kind of GPU, by its place in the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<usize>,
}

impl Change {
    /// The setup with this change.
    #[must_use]
    pub fn applied_to(&self, setup: &Setup) -> Setup {
        Setup {
            variant: self.variant.unwrap_or(setup.variant),
            gpus: self.gpus.unwrap_or(setup.gpus),
            kv_dtype: self.kv_dtype.unwrap_or(setup.kv_dtype),
            context_length: self.context_length.unwrap_or(setup.context_length),
            max_concurrency: self.max_concurrency.unwrap_or(setup.max_concurrency),
            gpu: self.gpu.unwrap_or(setup.gpu),
        }
    }
}

/// What changes are tried against, and which there are: one kind of GPU, or a whole fleet.
pub trait Room {
    /// Whether the setup fits with this change.
    fn fits(&self, change: Change) -> bool;
    /// The context of the setup.
    fn context_length(&self) -> u32;
    /// The sequences of the setup.
    fn max_concurrency(&self) -> u32;
    /// The cache in 8 bits, if it is in more by now.
    fn smaller_cache(&self) -> Option<KvDtype>;
    /// The GPU counts beyond the present one, of the variant of `start`, the fewest first.
    fn more_gpus(&self, start: Change) -> Vec<u32>;
    /// The other variants on the GPUs of `start`, the widest weights first, each with all that it needs
    /// to be said.
    fn variants(&self, start: Change) -> Vec<Change>;
    /// GPU counts on which no variant was tried yet, the fewest first.
    fn counts_for_variants(&self) -> Vec<u32>;
    /// Other kinds of GPUs, each as a change.
    fn products(&self) -> Vec<Change> {
        Vec::new()
    }

    /// The longest context that fits with `start`, shorter than the present one.
    fn longest_context(&self, start: Change) -> Option<u32> {
        const STEP: u32 = LEAST_CONTEXT;
        let fits = |steps| self.fits(Change { context_length: Some(steps * STEP), ..start });
        let most = self.context_length().div_ceil(STEP);
        Some(last_below(most, fits) * STEP).filter(|&context| context > 0)
    }

    /// The most sequences that fit with `start`, fewer than at present.
    fn most_sequences(&self, start: Change) -> Option<u32> {
        let fits = |most| self.fits(Change { max_concurrency: Some(most), ..start });
        Some(last_below(self.max_concurrency(), fits)).filter(|&most| most > 0)
    }
}

/// The largest number below `limit` for which `holds`, where it holds for all smaller ones too; 0 if it
/// holds for none.
fn last_below(limit: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut yes, mut no) = (0, limit);
    while yes + 1 < no {
        let middle = u32::midpoint(yes, no);
        if holds(middle) { yes = middle } else { no = middle }
    }
    yes
}

/// The changes that make a setup fit into `room`, one thing at a time where that is enough, else two;
/// the least loss first: the cache in 8 bits, more GPUs, other GPUs, a shorter context, fewer sequences,
/// a variant with smaller weights. None if nothing of that helps.
pub fn changes_for(room: &impl Room) -> Vec<Change> {
    let none = Change::default();
    let first = |changes: Vec<Change>| changes.into_iter().find(|&change| room.fits(change));
    let cache = room.smaller_cache().map(|kv| Change { kv_dtype: Some(kv), ..none });
    let more_gpus = |start: Change| {
        let counts = room.more_gpus(start).into_iter();
        first(counts.map(|gpus| Change { gpus: Some(gpus), ..start }).collect())
    };
    let shorter = |start| {
        let context_length = Some(room.longest_context(start)?);
        Some(Change { context_length, ..start }).filter(|&change| room.fits(change))
    };
    let fewer = |start| {
        let max_concurrency = Some(room.most_sequences(start)?);
        Some(Change { max_concurrency, ..start }).filter(|&change| room.fits(change))
    };
    let mut found: Vec<Change> = [
        first(cache.into_iter().collect()),
        more_gpus(none),
        first(room.products()),
        shorter(none),
        fewer(none),
        first(room.variants(none)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() {
        let larger = room.more_gpus(none).last().map(|&gpus| Change { gpus: Some(gpus), ..none });
        found.extend(cache.and_then(more_gpus));
        found.extend(
            room.counts_for_variants()
                .into_iter()
                .find_map(|gpus| first(room.variants(Change { gpus: Some(gpus), ..none }))),
        );
        for start in [larger, cache].into_iter().flatten() {
            found.extend(shorter(start));
            found.extend(fewer(start));
        }
    }
    found.truncate(MOST);
    found
}

/// The changes that make `setup` fit on its kind of GPU.
pub fn changes(question: &Question<'_>, setup: &Setup) -> Vec<Change> {
    changes_for(&OneProduct { question, setup, table: &Table::of(question) })
}

/// As many GPUs of one kind as one likes.
pub(super) struct OneProduct<'a> {
    pub question: &'a Question<'a>,
    pub setup: &'a Setup,
    pub table: &'a Table,
}

impl Room for OneProduct<'_> {
    fn fits(&self, change: Change) -> bool {
        change.applied_to(self.setup).fits(self.question)
    }

    fn context_length(&self) -> u32 {
        self.setup.context_length
    }

    fn max_concurrency(&self) -> u32 {
        self.setup.max_concurrency
    }

    fn smaller_cache(&self) -> Option<KvDtype> {
        let small = smaller(self.question.variants[self.setup.variant].engine);
        let product = self.question.gpus[self.setup.gpu].product;
        (is_wide(self.setup.kv_dtype) && product.keeps(small)).then_some(small)
    }

    fn more_gpus(&self, start: Change) -> Vec<u32> {
        let variant = start.variant.unwrap_or(self.setup.variant);
        let now = self.setup.gpus;
        self.table.degrees(variant).filter(move |&gpus| gpus > now).collect()
    }

    fn variants(&self, start: Change) -> Vec<Change> {
        let gpus = start.gpus.unwrap_or(self.setup.gpus);
        let mut others: Vec<usize> = (0..self.question.variants.len())
            .filter(|&variant| variant != self.setup.variant)
            .filter(|&variant| self.table.spreads(variant, gpus))
            .collect();
        let bits = |variant: usize| self.question.variants[variant].facts.quantization.bits();
        others.sort_by(|&a, &b| bits(b).total_cmp(&bits(a)));
        let change = |variant| {
            let kv_dtype = self.cache_for(variant);
            Change { variant: Some(variant), kv_dtype, ..start }
        };
        others.into_iter().map(change).collect()
    }

    fn counts_for_variants(&self) -> Vec<u32> {
        (self.setup.gpus + 1..=self.question.max_gpus).collect()
    }

    /// Computed, for the steps of the engines.
    fn longest_context(&self, start: Change) -> Option<u32> {
        let setup = start.applied_to(self.setup);
        let longest = setup.longest_context(self.question)?;
        (LEAST_CONTEXT..setup.context_length).contains(&longest).then_some(longest)
    }

    fn most_sequences(&self, start: Change) -> Option<u32> {
        let setup = start.applied_to(self.setup);
        let most = setup.most_sequences(self.question);
        (1..setup.max_concurrency).contains(&most).then_some(most)
    }
}

impl OneProduct<'_> {
    /// What the cache has to be said to be where the variant's engine has no such type.
    fn cache_for(&self, variant: usize) -> Option<KvDtype> {
        let engine = |variant: usize| self.question.variants[variant].engine;
        (engine(variant) != engine(self.setup.variant) && self.setup.kv_dtype != KvDtype::Auto)
            .then_some(KvDtype::Auto)
    }
}
