//! vLLM's KV cache: blocks of one size for all layers, dealt out to groups of layers.
//!
//! Layers of a kind (all of the context, a window, a recurrent state) form groups of one size, the
//! number of layers of the rarest kind; the last group of a kind is filled up. A block holds some
//! tokens of all layers of a group. So a sequence takes, for every group:
//!
//! - full attention: a block for each 16 tokens;
//! - a window: blocks for `min(window − 1 + tokens of a step, length)` tokens and one more, as it
//!   need not begin at a block's edge;
//! - a recurrent state: two blocks, made so large that one holds the state.
//!
//! Before 0.10 every layer was held as if it looked back over all of the context.

use std::ops::Range;

use berth_units::Bytes;

use crate::{
    ModelFacts, Version, Workload,
    kv::{CacheType, full_layer_bytes, window_layer_bytes},
    parallelism::Stage,
    read::LayerCache,
};

/// Tokens of a block (vLLM's default on NVIDIA).
const BLOCK: u64 = 16;

/// Blocks that a recurrent state takes: one in use, and one at the last prefix that is kept.
const STATE_BLOCKS: u64 = 2;

/// Since this version windows are held as windows.
const HYBRID: Version = Version::new(0, 10);

/// Since this version the log counts tokens by what a sequence of full length takes, not by groups.
const COUNTS_SEQUENCES: Version = Version::new(0, 21);

/// How the layers of a stage share blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// One block of one group.
    block: Bytes,
    /// Tokens that it holds of layers that look back over everything, and over a window.
    full_tokens: u64,
    window_tokens: u64,
    /// Groups of each kind.
    full: u64,
    window: u64,
    state: u64,
}

/// How many layers keep what.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    full: u64,
    window: u64,
    state: u64,
}

impl Kinds {
    fn of(facts: &ModelFacts, stage: &Stage) -> Self {
        if let Some(tensors) = facts.tensors.as_ref().filter(|t| t.layer_count() >= facts.layers) {
            let held = |layers: &Range<u32>| {
                let mut kinds = Self::default();
                let some = tensors.caches().skip(layers.start as usize);
                for cache in some.take(layers.len()) {
                    match cache {
                        LayerCache::None => {}
                        LayerCache::Full => kinds.full += 1,
                        LayerCache::Window => kinds.window += 1,
                        LayerCache::State => kinds.state += 1,
                        LayerCache::StateAndFull => {
                            kinds.full += 1;
                            kinds.state += 1;
                        }
                    }
                }
                kinds
            };
            let kinds = held(&stage.layers);
            // Layers with fewer heads count as a part of one: the facts say how many that makes.
            let (all, count) =
                (held(&(0..facts.layers)).full, facts.kv_layers() - facts.windowed_layers());
            let full = (kinds.full * u64::from(count)).div_ceil(all.max(1)).min(kinds.full);
            return Self { full, ..kinds };
        }
        let (held, all) = (u64::from(stage.len()), u64::from(facts.layers.max(1)));
        let share = |layers: u32| (u64::from(layers) * held).div_ceil(all);
        let windowed = facts.windowed_layers();
        let recurrent = facts.recurrent.map_or(0, |r| facts.layers - r.attention_layers);
        Self {
            full: share(facts.kv_layers() - windowed),
            window: share(windowed),
            state: share(recurrent),
        }
    }

    /// The number of layers of a group: that of the rarest kind, or of the most frequent one where
    /// there are hardly more.
    fn group(self) -> u64 {
        let kinds = || [self.full, self.window, self.state].into_iter().filter(|&count| count > 0);
        let (least, most) = (kinds().min().unwrap_or(1), kinds().max().unwrap_or(1));
        if most * 2 < least * 3 { most } else { least }
    }
}

impl Layout {
    pub(super) fn of(facts: &ModelFacts, workload: &Workload, gpus: u32, stage: &Stage) -> Self {
        let mut kinds = Kinds::of(facts, stage);
        if super::version(workload) < HYBRID {
            kinds = Kinds { full: kinds.full + kinds.window, window: 0, ..kinds };
        }
        let cache = CacheType::of(facts, workload);
        let full = full_layer_bytes(facts, cache, gpus);
        let window = window_layer_bytes(facts, cache, gpus);
        let kept = facts.recurrent.map_or(Bytes::ZERO, |recurrent| {
            let layers = Kinds::of(facts, &Stage { layers: 0..facts.layers, ..stage.clone() });
            let layer = Bytes(recurrent.state_bytes_per_sequence).div_ceil(layers.state.max(1));
            layer.div_ceil(u64::from(gpus.max(1)))
        });

        // One size for all: that of 16 tokens of the wider attention, or more to hold a state.
        let widest = match (kinds.full, kinds.window) {
            (_, 0) => full,
            (0, _) => window,
            _ => full.max(window),
        };
        let mut page = widest * BLOCK;
        if kinds.state > 0 {
            page = kept.max(page).round_up_to(page);
        }
        let tokens = |layer: Bytes| (page.get() / layer.get().max(1)).max(1);
        let group = kinds.group();
        Self {
            block: page * group,
            full_tokens: tokens(full),
            window_tokens: tokens(window),
            full: kinds.full.div_ceil(group),
            window: kinds.window.div_ceil(group),
            state: kinds.state.div_ceil(group),
        }
    }

    /// What a sequence of the context asked for takes.
    pub(super) fn sequence(&self, facts: &ModelFacts, workload: &Workload) -> Bytes {
        let length = u64::from(workload.context_length);
        let step = u64::from(workload.max_num_batched_tokens);
        let full = length.div_ceil(self.full_tokens) * self.full;
        let window = facts.window.map_or(0, |window| {
            let held = (u64::from(window.tokens).saturating_sub(1) + step).min(length);
            (held.div_ceil(self.window_tokens) + 1) * self.window
        });
        let encoder = facts.cross_attention.map_or(Bytes::ZERO, |cross| {
            let all = u64::from(cross.layers) * u64::from(cross.tokens);
            self.block.div_ceil(self.full_tokens * self.full.max(1)) * all
        });
        self.block * (full + window + STATE_BLOCKS * self.state) + encoder
    }

    /// What a token more takes.
    pub(super) fn token(&self) -> Bytes {
        self.block.div_ceil(self.full_tokens) * self.full
    }

    /// What the log counts for a token: all groups alike; in newer versions a part of a sequence.
    pub(super) fn logged(&self, facts: &ModelFacts, workload: &Workload) -> Bytes {
        if super::version(workload) >= COUNTS_SEQUENCES {
            return self
                .sequence(facts, workload)
                .div_ceil(u64::from(workload.context_length.max(1)));
        }
        let least = match (self.full, self.window) {
            (0, 0) => return Bytes::ZERO,
            (_, 0) => self.full_tokens,
            (0, _) => self.window_tokens,
            _ => self.full_tokens.min(self.window_tokens),
        };
        self.block.div_ceil(least) * (self.full + self.window + self.state)
    }
}
