//! What would make a misfit fit: the smallest changes, each of which does so by itself.

use serde::Serialize;

use super::{
    Question, Setup,
    question::{keeps, smaller},
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
            ..*setup
        }
    }
}

/// The changes that make `setup` fit, one thing at a time where that is enough, else two; the least
/// loss first: the cache in 8 bits, more GPUs, a shorter context, fewer sequences, a variant with
/// smaller weights. None if nothing of that helps.
pub fn changes(question: &Question<'_>, setup: &Setup) -> Vec<Change> {
    Search { question, setup, table: &Table::of(question) }.changes()
}

pub(super) struct Search<'a> {
    pub question: &'a Question<'a>,
    pub setup: &'a Setup,
    pub table: &'a Table,
}

impl Search<'_> {
    pub(super) fn changes(&self) -> Vec<Change> {
        let none = Change::default();
        let mut found: Vec<Change> = [
            self.smaller_cache(none),
            self.more_gpus(none),
            self.shorter_context(none),
            self.fewer_sequences(none),
            self.other_variant(none),
        ]
        .into_iter()
        .flatten()
        .collect();
        if found.is_empty() {
            let larger = self.degrees(none).last().map(|gpus| Change { gpus: Some(gpus), ..none });
            let cache = self.cache().map(|kv| Change { kv_dtype: Some(kv), ..none });
            found.extend(cache.and_then(|cache| self.more_gpus(cache)));
            found.extend(self.other_variant_on_more_gpus());
            for start in [larger, cache].into_iter().flatten() {
                found.extend(self.shorter_context(start));
                found.extend(self.fewer_sequences(start));
            }
        }
        found.truncate(MOST);
        found
    }

    fn fits(&self, change: Change) -> bool {
        change.applied_to(self.setup).fits(self.question)
    }

    /// The cache in 8 bits, if it is in more by now and the GPU takes it.
    fn cache(&self) -> Option<KvDtype> {
        let small = smaller(self.question.variants[self.setup.variant].engine);
        let product = self.question.gpus[self.setup.gpu].product;
        let wide = matches!(self.setup.kv_dtype, KvDtype::Auto | KvDtype::F16 | KvDtype::Bf16);
        (wide && keeps(product, small)).then_some(small)
    }

    fn smaller_cache(&self, start: Change) -> Option<Change> {
        let change = Change { kv_dtype: Some(self.cache()?), ..start };
        self.fits(change).then_some(change)
    }

    /// The GPU counts beyond the present one.
    fn degrees(&self, start: Change) -> impl DoubleEndedIterator<Item = u32> {
        let variant = start.variant.unwrap_or(self.setup.variant);
        let now = self.setup.gpus;
        self.table.degrees(variant).filter(move |&gpus| gpus > now)
    }

    fn more_gpus(&self, start: Change) -> Option<Change> {
        self.degrees(start)
            .map(|gpus| Change { gpus: Some(gpus), ..start })
            .find(|&change| self.fits(change))
    }

    fn shorter_context(&self, start: Change) -> Option<Change> {
        let setup = start.applied_to(self.setup);
        let longest = setup.longest_context(self.question)?;
        let change = Change { context_length: Some(longest), ..start };
        let shorter = (LEAST_CONTEXT..setup.context_length).contains(&longest);
        (shorter && self.fits(change)).then_some(change)
    }

    fn fewer_sequences(&self, start: Change) -> Option<Change> {
        let setup = start.applied_to(self.setup);
        let most = setup.most_sequences(self.question);
        let change = Change { max_concurrency: Some(most), ..start };
        ((1..setup.max_concurrency).contains(&most) && self.fits(change)).then_some(change)
    }

    /// The variant with the widest weights that fits on as many GPUs.
    fn other_variant(&self, start: Change) -> Option<Change> {
        let gpus = start.gpus.unwrap_or(self.setup.gpus);
        let mut others: Vec<usize> = (0..self.question.variants.len())
            .filter(|&variant| variant != self.setup.variant)
            .filter(|&variant| self.table.spreads(variant, gpus))
            .collect();
        let bits = |variant: usize| self.question.variants[variant].facts.quantization.bits();
        others.sort_by(|&a, &b| bits(b).total_cmp(&bits(a)));
        others.into_iter().find_map(|variant| {
            let kv_dtype = self.cache_for(variant);
            let change = Change { variant: Some(variant), kv_dtype, ..start };
            self.fits(change).then_some(change)
        })
    }

    fn other_variant_on_more_gpus(&self) -> Option<Change> {
        (self.setup.gpus + 1..=self.question.max_gpus)
            .find_map(|gpus| self.other_variant(Change { gpus: Some(gpus), ..Change::default() }))
    }

    /// What the cache has to be said to be where the variant's engine has no such type.
    fn cache_for(&self, variant: usize) -> Option<KvDtype> {
        let engine = |variant: usize| self.question.variants[variant].engine;
        (engine(variant) != engine(self.setup.variant) && self.setup.kv_dtype != KvDtype::Auto)
            .then_some(KvDtype::Auto)
    }
}
