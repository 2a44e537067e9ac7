//! The tensors of a checkpoint, added up by layer and by what an engine does with them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// All tensors of a model: those outside of its layers, and each layer's.
///
/// Sizes are as an engine loads them: vLLM casts 32-bit weights to 16, llama.cpp takes a file's
/// tensors as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tensors {
    /// Whether the sizes were read from the headers of the files; else they were counted from the
    /// architecture.
    #[serde(default)]
    pub exact: bool,
    /// What belongs to no layer: the two tables, the last norm, towers for images and sound.
    pub outside: LayerRun,
    /// The layers from the first to the last, equal neighbours in one run.
    pub layers: Vec<LayerRun>,
    /// Bytes that are loaded only to draft tokens ahead (multi-token prediction).
    #[serde(default)]
    pub draft_bytes: u64,
    /// Bytes that stay in the host's memory, beside the embedding table that llama.cpp keeps there.
    #[serde(default)]
    pub host_bytes: u64,
    /// Bytes that the files hold and no engine loads.
    #[serde(default)]
    pub unused_bytes: u64,
}

/// Neighbouring layers that are alike. The amounts are those of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerRun {
    /// How many.
    pub layers: u32,
    /// What a layer keeps of a sequence.
    #[serde(default)]
    pub cache: LayerCache,
    /// Parameters of one layer.
    pub parameters: Classes,
    /// Bytes of one layer.
    pub bytes: Classes,
}

/// What a layer keeps of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum LayerCache {
    /// Nothing: a feed-forward layer alone, or one that reads an earlier layer's cache.
    #[default]
    None,
    /// Keys and values of every token.
    Full,
    /// Keys and values of a window.
    Window,
    /// A state of fixed size.
    State,
    /// A state, and keys and values of every token (Falcon-H1).
    StateAndFull,
}

/// An amount for each class of tensor: the classes are what parallelism treats alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Classes {
    /// The input embedding table, divided by rows.
    #[serde(skip_serializing_if = "is_zero")]
    pub embedding: u64,
    /// The output layer, divided likewise; zero where it is the same table.
    #[serde(skip_serializing_if = "is_zero")]
    pub output: u64,
    /// Attention without the next two, and recurrent mixers: divided.
    #[serde(skip_serializing_if = "is_zero")]
    pub attention: u64,
    /// Projections to keys and values: divided, and repeated where there are more GPUs than heads.
    #[serde(skip_serializing_if = "is_zero")]
    pub kv_projection: u64,
    /// Projections to compressed vectors and sparse attention's indexers: the same on every GPU.
    #[serde(skip_serializing_if = "is_zero")]
    pub latent_projection: u64,
    /// Dense feed-forward layers and shared experts: divided.
    #[serde(skip_serializing_if = "is_zero")]
    pub dense: u64,
    /// Routed experts: divided, or dealt out whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub experts: u64,
    /// Norms, routers and other small tensors: the same on every GPU.
    #[serde(skip_serializing_if = "is_zero")]
    pub replicated: u64,
    /// Towers for images and sound and their projectors.
    #[serde(skip_serializing_if = "is_zero")]
    pub other: u64,
}

/// The classes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Embedding,
    Output,
    Attention,
    KvProjection,
    LatentProjection,
    Dense,
    Experts,
    Replicated,
    Other,
}

impl Classes {
    /// Adds to one class. Saturates.
    pub(crate) fn add_to(&mut self, class: Class, amount: u64) {
        let part = match class {
            Class::Embedding => &mut self.embedding,
            Class::Output => &mut self.output,
            Class::Attention => &mut self.attention,
            Class::KvProjection => &mut self.kv_projection,
            Class::LatentProjection => &mut self.latent_projection,
            Class::Dense => &mut self.dense,
            Class::Experts => &mut self.experts,
            Class::Replicated => &mut self.replicated,
            Class::Other => &mut self.other,
        };
        *part = part.saturating_add(amount);
    }

    const fn parts(&self) -> [u64; 9] {
        [
            self.embedding,
            self.output,
            self.attention,
            self.kv_projection,
            self.latent_projection,
            self.dense,
            self.experts,
            self.replicated,
            self.other,
        ]
    }

    fn parts_mut(&mut self) -> [&mut u64; 9] {
        [
            &mut self.embedding,
            &mut self.output,
            &mut self.attention,
            &mut self.kv_projection,
            &mut self.latent_projection,
            &mut self.dense,
            &mut self.experts,
            &mut self.replicated,
            &mut self.other,
        ]
    }

    /// All classes together. Saturates.
    pub fn total(&self) -> u64 {
        self.parts().into_iter().fold(0, u64::saturating_add)
    }

    /// Adds `times` the other amounts. Saturates.
    pub fn add(&mut self, other: &Self, times: u32) {
        for (part, added) in self.parts_mut().into_iter().zip(other.parts()) {
            *part = part.saturating_add(added.saturating_mul(u64::from(times)));
        }
    }
}

impl Tensors {
    /// How many layers there are.
    pub fn layer_count(&self) -> u32 {
        self.layers.iter().fold(0, |count, run| count.saturating_add(run.layers))
    }

    /// Adds a layer at the end; equal neighbours become one run.
    pub fn push_layer(&mut self, layer: LayerRun) {
        match self.layers.last_mut() {
            Some(last) if (LayerRun { layers: layer.layers, ..*last }) == layer => {
                last.layers = last.layers.saturating_add(layer.layers);
            }
            _ => self.layers.push(layer),
        }
    }

    /// Parameters by class, without those that only draft.
    pub fn parameters(&self) -> Classes {
        let mut sum = self.outside.parameters;
        self.layers.iter().for_each(|run| sum.add(&run.parameters, run.layers));
        sum
    }

    /// Bytes by class, as loaded.
    pub fn bytes(&self) -> Classes {
        let mut sum = self.outside.bytes;
        sum.add(&self.layer_bytes(0..u32::MAX), 1);
        sum
    }

    /// Bytes by class of the layers in `range`: a pipeline stage.
    pub fn layer_bytes(&self, range: Range<u32>) -> Classes {
        let (mut sum, mut first) = (Classes::default(), 0_u32);
        for run in &self.layers {
            let end = first.saturating_add(run.layers);
            let held = end.min(range.end).saturating_sub(first.max(range.start));
            sum.add(&run.bytes, held);
            first = end;
        }
        sum
    }

    /// What each layer keeps of a sequence, from the first to the last.
    pub fn caches(&self) -> impl Iterator<Item = LayerCache> {
        self.layers.iter().flat_map(|run| (0..run.layers).map(|_| run.cache))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(layers: u32, dense: u64) -> LayerRun {
        LayerRun { layers, bytes: Classes { dense, ..Classes::default() }, ..LayerRun::default() }
    }

    #[test]
    fn equal_neighbours_are_one_run() {
        let mut tensors = Tensors::default();
        for dense in [1, 1, 2, 2, 2, 1] {
            tensors.push_layer(layer(1, dense));
        }
        assert_eq!(tensors.layers, [layer(2, 1), layer(3, 2), layer(1, 1)]);
        assert_eq!(tensors.layer_count(), 6);
        assert_eq!(tensors.bytes().total(), 9);
    }

    #[test]
    fn stages_add_up_to_the_whole() {
        let tensors = Tensors { layers: vec![layer(3, 1), layer(2, 10)], ..Tensors::default() };
        for (range, bytes) in [(0..5, 23), (0..3, 3), (2..4, 11), (4..4, 0), (3..99, 20)] {
            assert_eq!(tensors.layer_bytes(range.clone()).dense, bytes, "{range:?}");
        }
    }
}
