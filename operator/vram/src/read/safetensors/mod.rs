//! Safetensors: what every tensor takes, from the first bytes of each file.
//!
//! A file begins with the length of its header (8 bytes, little endian), then the header: JSON with
//! each tensor's type, shape and place. A model of several files has an index that names them. So a
//! few range requests tell a checkpoint's size to the byte, and [`with_safetensors`] puts it into
//! the facts, class by class and layer by layer.

mod header;
mod names;

use std::collections::{BTreeSet, HashSet};

pub use header::{Dtype, Header, Tensor, header};

use self::names::{Place, place};
use super::{Classes, LayerCache, LayerRun, ReadError, Tensors, json, tensors::Class};
use crate::{ModelFacts, Quantization};

/// Longest index that is read. A trillion parameters in single experts need some 20 MiB.
const LONGEST_INDEX: usize = 128 << 20;

/// Most files that a model is read from.
const MOST_FILES: usize = 4096;

/// A `model.safetensors.index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The files, by name.
    pub files: BTreeSet<String>,
    /// Bytes of all tensors, as the index says. Not to be relied on: some count parameters.
    pub total_size: Option<u64>,
    tensors: HashSet<String>,
}

/// Reads a `model.safetensors.index.json`.
pub fn index(text: &str) -> Result<Index, ReadError> {
    let value = json::parse(text, "a safetensors index", LONGEST_INDEX)?;
    let format = |problem: &str| ReadError::Format {
        format: "a safetensors index",
        problem: problem.to_owned(),
    };
    let map = value["weight_map"].as_object().ok_or_else(|| format("weight_map is missing"))?;
    let (mut files, mut tensors) = (BTreeSet::new(), HashSet::with_capacity(map.len()));
    for (tensor, file) in map {
        let file = file.as_str().ok_or_else(|| format("a file has no name"))?;
        // It becomes part of a URL or a path.
        if file.is_empty() || file.contains(['/', '\\', '?', '#', '\0']) || file.starts_with('.') {
            return Err(format("a file's name is none of a file beside it"));
        }
        if !files.contains(file) {
            files.insert(file.to_owned());
        }
        if files.len() > MOST_FILES {
            return Err(format("it names more than 4,096 files"));
        }
        tensors.insert(tensor.clone());
    }
    let total = &value["metadata"]["total_size"];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let total_size = total
        .as_u64()
        .or_else(|| total.as_f64().filter(|size| *size >= 0.0).map(|size| size as u64));
    Ok(Index { files, total_size, tensors })
}

impl Index {
    /// Checks that the headers of all files are there: a missing one would be memory unaccounted.
    pub fn check(&self, headers: &[Header]) -> Result<(), ReadError> {
        let held: HashSet<&str> =
            headers.iter().flat_map(Header::tensors).map(|tensor| tensor.name).collect();
        match self.tensors.iter().find(|name| !held.contains(name.as_str())) {
            None => Ok(()),
            Some(missing) => Err(ReadError::Format {
                format: "a whole checkpoint",
                problem: format!("no file's header has the tensor {missing:.100}"),
            }),
        }
    }
}

/// The facts with the exact sizes of the tensors in these files: all of them of one checkpoint.
///
/// `weight_bytes` becomes what the files hold, `tensors` what an engine loads of it: vLLM casts
/// 32-bit weights to 16 (unless the facts are of fp32), takes no output layer that is the embedding
/// table, and no layers that only draft.
pub fn with_safetensors(facts: &ModelFacts, headers: &[Header]) -> Result<ModelFacts, ReadError> {
    facts.validate()?;
    let counted = facts.tensors.as_ref();
    // Packed tensors do not tell how many parameters they hold: the architecture does, where known.
    let known: Vec<_> = counted.map_or_else(Vec::new, |counted| {
        let each = counted.layers.iter().flat_map(|run| (0..run.layers).map(move |_| *run));
        each.take(facts.layers as usize).collect()
    });
    let mut layers = vec![Classes::default(); facts.layers as usize];
    let mut found = vec![Classes::default(); facts.layers as usize];
    let mut tensors = Tensors { exact: true, ..Tensors::default() };
    let (mut stored, mut outside_count, mut seen) = (0_u64, Classes::default(), HashSet::new());
    for tensor in headers.iter().flat_map(Header::tensors) {
        // The same tensor in two files is loaded once.
        if !seen.insert(tensor.name) {
            continue;
        }
        stored = stored.saturating_add(tensor.bytes);
        let loaded = loaded(&tensor, facts.quantization);
        match place(tensor.name, facts) {
            Place::Layer(layer, class) => {
                let at = layer as usize;
                // Recurrent layers divide all their heads.
                let state = known.get(at).is_some_and(|run| run.cache == LayerCache::State);
                let class = match class {
                    Some(Class::KvProjection) | None if state => Some(Class::Attention),
                    class => class,
                };
                add(&mut layers[at], class, loaded, facts);
                add(&mut found[at], class, tensor.elements, facts);
            }
            Place::Outside(class) => {
                add(&mut tensors.outside.bytes, class, loaded, facts);
                add(&mut outside_count, class, tensor.elements, facts);
            }
            Place::Draft => tensors.draft_bytes = tensors.draft_bytes.saturating_add(tensor.bytes),
            Place::Unused => {
                tensors.unused_bytes = tensors.unused_bytes.saturating_add(tensor.bytes);
            }
        }
    }
    if stored == 0 {
        return Err(ReadError::Format {
            format: "a checkpoint",
            problem: "its files hold no tensors".to_owned(),
        });
    }
    if let Some(empty) = layers.iter().position(|layer| layer.total() == 0) {
        return Err(ReadError::Format {
            format: "a whole checkpoint",
            problem: format!("no file has tensors of layer {empty} of {}", facts.layers),
        });
    }
    tensors.outside.layers = 1;
    tensors.outside.parameters =
        counted.map_or(outside_count, |counted| counted.outside.parameters);
    for (at, bytes) in layers.into_iter().enumerate() {
        let run = known.get(at).copied();
        tensors.push_layer(LayerRun {
            layers: 1,
            cache: run.map_or_else(|| names::cache(facts), |run| run.cache),
            parameters: run.map_or(found[at], |run| run.parameters),
            bytes,
        });
    }
    let facts = ModelFacts { tensors: Some(tensors), weight_bytes: Some(stored), ..facts.clone() };
    facts.validate()?;
    Ok(facts)
}

/// Adds to a class. A matrix of queries, keys and values together is split by its heads.
fn add(classes: &mut Classes, class: Option<Class>, amount: u64, facts: &ModelFacts) {
    if let Some(class) = class {
        classes.add_to(class, amount);
        return;
    }
    let (queries, keys) = (u64::from(facts.attention_heads), u64::from(facts.kv_heads) * 2);
    let part = u128::from(amount) * u128::from(keys) / u128::from((queries + keys).max(1));
    let part = u64::try_from(part).unwrap_or(amount);
    classes.add_to(Class::KvProjection, part);
    classes.add_to(Class::Attention, amount - part);
}

/// What an engine loads of a tensor.
fn loaded(tensor: &Tensor<'_>, quantization: Quantization) -> u64 {
    let cast = quantization != Quantization::Fp32
        && tensor.name.ends_with("weight")
        && tensor.dimensions >= 2;
    match tensor.dtype {
        Dtype::F32 | Dtype::F64 if cast => tensor.elements.saturating_mul(2),
        _ => tensor.bytes,
    }
}
