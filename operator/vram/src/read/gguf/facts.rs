//! The facts of a model in GGUF files.

use super::{
    GgmlType, Header, Metadata,
    names::{Place, place},
};
use crate::{
    GgufType, Heads, Mla, ModelFacts, Moe, Quantization, Recurrent, Window,
    read::{Classes, LayerCache, LayerRun, ReadError, Tensors, tensors::Class},
};

/// More layers than any model has.
const MOST_LAYERS: u32 = 4096;

/// The facts of a model from the headers of its files: all of them, in any order.
///
/// The input table stays in the host's memory; where it is the output layer too, llama.cpp loads it
/// once more to a GPU (`tied_embeddings`).
pub fn with_gguf(headers: &[Header]) -> Result<ModelFacts, ReadError> {
    check_parts(headers)?;
    let Some(first) = headers.iter().min_by_key(|header| header.part.number) else {
        return Err(problem("there is no file".to_owned()));
    };
    let keys = Keys::of(&first.metadata)?;
    let model = Model::of(&keys, headers)?;
    let facts = model.facts(&keys)?;
    facts.validate()?;
    Ok(facts)
}

fn check_parts(headers: &[Header]) -> Result<(), ReadError> {
    let count = headers.first().map_or(1, |header| header.part.count);
    let mut held = vec![false; count as usize];
    for header in headers {
        if header.part.count != count {
            return Err(problem("its files are parts of different models".to_owned()));
        }
        held[header.part.number as usize] = true;
    }
    match held.iter().position(|held| !held) {
        Some(missing) => Err(problem(format!("part {} of {count} is missing", missing + 1))),
        None if headers.len() != count as usize => {
            Err(problem(format!("there are {} files for {count} parts", headers.len())))
        }
        None => Ok(()),
    }
}

/// The pairs of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, ReadError> {
        let architecture = metadata.word("general.architecture").ok_or_else(|| {
            problem("general.architecture is missing: is it the first part?".to_owned())
        })?;
        if matches!(
            architecture,
            "clip"
                | "mmproj"
                | "t5"
                | "t5encoder"
                | "rwkv6"
                | "rwkv7"
                | "arwkv7"
                | "wavtokenizer-dec"
        ) || metadata.word("general.type").is_some_and(|kind| kind != "model")
        {
            return Err(ReadError::Unsupported {
                what: format!("a GGUF file of {architecture:?}"),
                advice: "name the file of the language model",
            });
        }
        Ok(Self { metadata, architecture })
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn number(&self, name: &str) -> Result<Option<u32>, ReadError> {
        self.fit(name, self.metadata.number(&self.key(name)))
    }

    fn at(&self, name: &str, layer: u32) -> Result<Option<u32>, ReadError> {
        self.fit(name, self.metadata.number_at(&self.key(name), layer))
    }

    fn fit(&self, name: &str, number: Option<u64>) -> Result<Option<u32>, ReadError> {
        let Some(number) = number else { return Ok(None) };
        let fitting = u32::try_from(number).ok().filter(|&number| i32::try_from(number).is_ok());
        fitting.map(Some).ok_or_else(|| ReadError::Invalid {
            field: self.key(name),
            problem: format!("is {number}; it must be below 2^31"),
        })
    }

    fn need(&self, name: &'static str) -> Result<u32, ReadError> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, field: &'static str) -> ReadError {
        ReadError::Missing { model_type: self.architecture.to_owned(), field }
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.architecture)
    }
}

/// What the tensors add up to.
struct Model {
    layers: u32,
    each: Vec<LayerRun>,
    outside: LayerRun,
    host_bytes: u64,
    draft_bytes: u64,
    stored: u64,
    vocabulary: Option<u64>,
    tied: bool,
    main: Option<GgmlType>,
    recurrent: Vec<bool>,
}

impl Model {
    fn of(keys: &Keys<'_>, headers: &[Header]) -> Result<Self, ReadError> {
        let blocks = keys.need("block_count")?;
        // Layers that only draft are counted among the blocks.
        let layers = blocks.saturating_sub(keys.number("nextn_predict_layers")?.unwrap_or(0));
        if layers == 0 || layers > MOST_LAYERS {
            return Err(ReadError::Invalid {
                field: keys.key("block_count"),
                problem: format!("is {layers}; it must be from 1 to {MOST_LAYERS}"),
            });
        }
        let heads = u64::from(keys.at("attention.head_count", 0)?.unwrap_or(1));
        let kv_heads = keys.at("attention.head_count_kv", 0)?.map_or(heads, u64::from);
        let count = layers as usize;
        let mut model = Self {
            layers,
            each: vec![LayerRun { layers: 1, ..LayerRun::default() }; count],
            outside: LayerRun { layers: 1, ..LayerRun::default() },
            host_bytes: 0,
            draft_bytes: 0,
            stored: 0,
            vocabulary: None,
            tied: true,
            main: None,
            recurrent: vec![false; count],
        };
        let mut by_type: Vec<(GgmlType, u64)> = Vec::new();
        for tensor in headers.iter().flat_map(|header| &header.tensors) {
            model.stored = model.stored.saturating_add(tensor.bytes);
            let (bytes, weights) = (tensor.bytes, tensor.weights());
            match place(&tensor.name) {
                Place::Layer(layer, class) => {
                    let Some(run) = model.each.get_mut(layer as usize) else {
                        model.draft_bytes = model.draft_bytes.saturating_add(bytes);
                        continue;
                    };
                    split(&mut run.bytes, class, bytes, heads, kv_heads);
                    split(&mut run.parameters, class, weights, heads, kv_heads);
                    let state =
                        ["ssm_", "shortconv."].iter().any(|part| tensor.name.contains(part));
                    model.recurrent[layer as usize] |= state;
                    match by_type.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
                        Some((_, sum)) => *sum = sum.saturating_add(bytes),
                        None => by_type.push((tensor.kind, bytes)),
                    }
                }
                Place::Outside(class) => {
                    if class == Class::Embedding {
                        model.vocabulary = Some(tensor.shape[1]);
                    }
                    model.tied &= class != Class::Output;
                    model.outside.bytes.add_to(class, bytes);
                    model.outside.parameters.add_to(class, weights);
                }
                Place::Host => model.host_bytes = model.host_bytes.saturating_add(bytes),
            }
        }
        if let Some(empty) = model.each.iter().position(|run| run.bytes.total() == 0) {
            return Err(problem(format!("no file has tensors of layer {empty} of {layers}")));
        }
        model.main = by_type.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(kind, _)| kind);
        Ok(model)
    }

    fn facts(mut self, keys: &Keys<'_>) -> Result<ModelFacts, ReadError> {
        let hidden = keys.need("embedding_length")?;
        let windows = self.set_caches(keys)?;
        let (full, fewer) = self.fullest(keys)?;
        let windowed =
            (0..self.layers).find(|&layer| self.each[layer as usize].cache == LayerCache::Window);
        let (heads, kv) = heads(keys, hidden, full.or(windowed).unwrap_or(0), full.is_none())?;
        let window_heads = match windowed {
            Some(layer) => {
                Some(self::heads(keys, hidden, layer, true)?.1).filter(|other| *other != kv)
            }
            None => None,
        };
        let kept = self.count(&[LayerCache::Full, LayerCache::Window, LayerCache::StateAndFull]);
        let attention = kept - fewer;
        let shared = keys.number("attention.shared_kv_layers")?.unwrap_or(0).min(self.layers);
        let state = self.state_bytes(keys)?;
        let vocabulary = match self.vocabulary {
            Some(rows) => rows,
            None => u64::from(keys.need("vocab_size")?),
        };
        let mut tensors = Tensors {
            exact: true,
            outside: self.outside,
            draft_bytes: self.draft_bytes,
            host_bytes: self.host_bytes,
            ..Tensors::default()
        };
        let experts = self.each.iter().filter(|run| run.bytes.experts > 0).count();
        for run in &self.each {
            tensors.push_layer(*run);
        }
        let parameters: Classes = tensors.parameters();
        Ok(ModelFacts {
            parameters: Some(parameters.total()),
            layers: self.layers,
            hidden_size: hidden,
            intermediate_size: self.intermediate_size(keys, experts, hidden)?,
            attention_heads: heads,
            kv_heads: kv.kv_heads,
            head_dim: kv.head_dim,
            vocab_size: u32::try_from(vocabulary).unwrap_or(u32::MAX),
            max_context: keys
                .number("context_length")?
                .filter(|&tokens| tokens > 0)
                .unwrap_or(2048),
            tied_embeddings: self.tied,
            mla: mla(keys)?,
            moe: self.moe(keys, experts)?,
            window: windows.filter(|_| windowed.is_some()).map(|tokens| Window {
                tokens,
                windowed_layers: self.count(&[LayerCache::Window]),
            }),
            recurrent: (attention + shared < self.layers || state > 0).then_some(Recurrent {
                attention_layers: attention + shared,
                state_bytes_per_sequence: state,
            }),
            quantization: Quantization::Gguf(self.main.map_or(GgufType::F16, GgmlType::file)),
            weight_bytes: Some(self.stored),
            value_head_dim: kv.value_head_dim,
            window_heads,
            kv_shared_layers: shared,
            tensors: Some(tensors),
            ..ModelFacts::default()
        })
    }

    /// The layer that keeps the most heads of every token; and where layers keep different numbers
    /// (searched architectures), by how many layers of that kind all of them are fewer.
    fn fullest(&self, keys: &Keys<'_>) -> Result<(Option<u32>, u32), ReadError> {
        let (mut most, mut sum, mut layers): (Option<(u32, u32)>, u64, u64) = (None, 0, 0);
        for layer in 0..self.layers {
            let cache = self.each[layer as usize].cache;
            if matches!(cache, LayerCache::Full | LayerCache::StateAndFull) {
                let heads = keys.at("attention.head_count_kv", layer)?.unwrap_or(1).max(1);
                (sum, layers) = (sum + u64::from(heads), layers + 1);
                if most.is_none_or(|(_, most)| heads > most) {
                    most = Some((layer, heads));
                }
            }
        }
        let Some((layer, heads)) = most else { return Ok((None, 0)) };
        let fewer = layers.saturating_sub(sum.div_ceil(u64::from(heads)));
        Ok((Some(layer), u32::try_from(fewer).unwrap_or(0)))
    }

    fn count(&self, wanted: &[LayerCache]) -> u32 {
        self.each.iter().fold(0, |sum, run| sum + u32::from(wanted.contains(&run.cache)))
    }

    /// Says what each layer keeps; the tokens of a window, if some layers have one.
    fn set_caches(&mut self, keys: &Keys<'_>) -> Result<Option<u32>, ReadError> {
        let shared = keys.number("attention.shared_kv_layers")?.unwrap_or(0).min(self.layers);
        let window = window(keys)?;
        for layer in 0..self.layers {
            // None where the list of key-value heads says so.
            let attends = keys.at("attention.head_count_kv", layer)? != Some(0)
                && self.attends(keys, layer)?;
            let state = self.recurrent[layer as usize];
            let windowed = match &window {
                Some((_, pattern)) => pattern.holds(layer),
                None => false,
            };
            self.each[layer as usize].cache = match (attends, state) {
                (true, true) => LayerCache::StateAndFull,
                (false, true) => LayerCache::State,
                (false, false) => LayerCache::None,
                (true, false) if layer >= self.layers - shared => LayerCache::None,
                (true, false) if windowed => LayerCache::Window,
                (true, false) => LayerCache::Full,
            };
        }
        Ok(window.map(|(tokens, _)| tokens))
    }

    /// Whether a layer attends at all: it has a projection to keys. Mixed architectures whose
    /// attention and state have the same names are told apart by the interval.
    fn attends(&self, keys: &Keys<'_>, layer: u32) -> Result<bool, ReadError> {
        let built_in = keys.is(&["qwen3next", "qwen35", "qwen35moe"]).then_some(4);
        let interval = keys.number("full_attention_interval")?.or(built_in);
        if let Some(interval) = interval.filter(|&every| every > 0) {
            return Ok((layer + 1).is_multiple_of(interval));
        }
        let bytes = &self.each[layer as usize].bytes;
        Ok(bytes.kv_projection > 0 || bytes.latent_projection > 0)
    }

    /// What the recurrent layers keep of a sequence: llama.cpp stores their states in fp32.
    fn state_bytes(&self, keys: &Keys<'_>) -> Result<u64, ReadError> {
        let recurrent = self.count(&[LayerCache::State, LayerCache::StateAndFull]);
        let number = |name: &str| Ok::<_, ReadError>(keys.number(name)?.map_or(0, u64::from));
        let short = number("shortconv.l_cache")?;
        let kernel = number("ssm.conv_kernel")?;
        let (inner, state) = (number("ssm.inner_size")?, number("ssm.state_size")?);
        let mixed = inner
            .saturating_add(number("ssm.group_count")?.saturating_mul(state).saturating_mul(2));
        let convolution = kernel.saturating_sub(1).saturating_mul(mixed);
        let hidden = number("embedding_length")?;
        let each = convolution
            .saturating_add(inner.saturating_mul(state))
            .saturating_add(short.saturating_sub(1).saturating_mul(hidden));
        Ok(each.saturating_mul(4).saturating_mul(u64::from(recurrent)))
    }

    /// The width of the dense layers; what stands for it where layers have neither.
    fn intermediate_size(
        &self,
        keys: &Keys<'_>,
        experts: usize,
        hidden: u32,
    ) -> Result<u32, ReadError> {
        let mut width = 0;
        for layer in 0..self.layers {
            width = width.max(keys.at("feed_forward_length", layer)?.unwrap_or(0));
        }
        let dense = experts < self.each.len();
        Ok(match width {
            0 if dense => hidden,
            // Mixtures without dense layers give the width of an expert here, or nothing.
            _ if !dense => 0,
            width => width,
        })
    }

    fn moe(&self, keys: &Keys<'_>, layers: usize) -> Result<Option<Moe>, ReadError> {
        let Some(experts) = keys.number("expert_count")?.filter(|&count| count > 1 && layers > 0)
        else {
            return Ok(None);
        };
        let dense = keys.number("feed_forward_length")?;
        let width = keys
            .at("expert_feed_forward_length", self.layers - 1)?
            .filter(|&width| width > 0)
            .or(dense);
        let width = width.ok_or_else(|| keys.missing("feed_forward_length"))?;
        let shared = keys.number("expert_shared_count")?;
        let shared_width =
            keys.number("expert_shared_feed_forward_length")?.filter(|&width| width > 0);
        let routed = u32::try_from(layers).unwrap_or(self.layers);
        Ok(Some(Moe {
            experts,
            experts_per_token: keys.number("expert_used_count")?.unwrap_or(1).clamp(1, experts),
            expert_intermediate_size: width.max(1),
            shared_experts: shared.unwrap_or(u32::from(shared_width.is_some())),
            shared_expert_intermediate_size: shared_width.filter(|&shared| shared != width),
            dense_layers: self.layers - routed,
        }))
    }
}

/// Adds to a class. A matrix of queries, keys and values together is split by its heads.
fn split(classes: &mut Classes, class: Option<Class>, amount: u64, heads: u64, kv_heads: u64) {
    let Some(class) = class else {
        let keys = u128::from(kv_heads) * 2;
        let part = u128::from(amount) * keys / (u128::from(heads) + keys).max(1);
        let part = u64::try_from(part).unwrap_or(amount);
        classes.add_to(Class::KvProjection, part);
        classes.add_to(Class::Attention, amount - part);
        return;
    };
    classes.add_to(class, amount);
}

/// Query heads, and what is kept of keys and values, in one layer.
fn heads(
    keys: &Keys<'_>,
    hidden: u32,
    layer: u32,
    windowed: bool,
) -> Result<(u32, Heads), ReadError> {
    let heads = keys.at("attention.head_count", layer)?.unwrap_or(1).max(1);
    let kv_heads = keys.at("attention.head_count_kv", layer)?.filter(|&kv| kv > 0).unwrap_or(heads);
    let width = |own: &str, all: &str| {
        let own = if windowed { keys.at(own, layer)? } else { None };
        Ok::<_, ReadError>(own.or(keys.at(all, layer)?).filter(|&width| width > 0))
    };
    let head_dim =
        width("attention.key_length_swa", "attention.key_length")?.unwrap_or(hidden / heads).max(1);
    let value = width("attention.value_length_swa", "attention.value_length")?;
    // The heads of latent attention are given as those of its cache: one of all ranks.
    let latent = keys.number("attention.key_length_mla")?;
    let (kv_heads, head_dim, value) = match latent {
        Some(key) => (heads, key.max(1), keys.number("attention.value_length_mla")?),
        None => (kv_heads, head_dim, value),
    };
    Ok((
        heads,
        Heads { kv_heads, head_dim, value_head_dim: value.filter(|&value| value != head_dim) },
    ))
}

/// Latent attention as llama.cpp keeps it: only files that give the lengths of its heads beside
/// those of the cache are kept compressed; older ones are expanded to all heads.
fn mla(keys: &Keys<'_>) -> Result<Option<Mla>, ReadError> {
    let rank = keys.number("attention.kv_lora_rank")?.filter(|&rank| rank > 0);
    let key = keys.number("attention.key_length_mla")?.filter(|&key| key > 0);
    let (Some(kv_lora_rank), Some(key)) = (rank, key) else { return Ok(None) };
    let rope = keys.number("rope.dimension_count")?.unwrap_or(64).min(key);
    Ok(Some(Mla {
        kv_lora_rank,
        qk_rope_head_dim: rope,
        qk_nope_head_dim: key - rope,
        v_head_dim: keys.number("attention.value_length_mla")?.unwrap_or(key).max(1),
        q_lora_rank: keys.number("attention.q_lora_rank")?.filter(|&rank| rank > 0),
        indexer_bytes_per_token: 0,
    }))
}

/// Which layers are windowed.
enum Pattern {
    /// All but every so many.
    Every(u32),
    /// As a list says.
    Listed(Vec<bool>),
}

impl Pattern {
    fn holds(&self, layer: u32) -> bool {
        match self {
            Self::Every(period) => !(layer + 1).is_multiple_of(*period),
            Self::Listed(list) => list.get(layer as usize).copied().unwrap_or(false),
        }
    }
}

/// The window of the architectures for which llama.cpp keeps one, and which layers have it: a list
/// in the file, or what llama.cpp's `load_hparams` has built in.
fn window(keys: &Keys<'_>) -> Result<Option<(u32, Pattern)>, ReadError> {
    let tokens = match keys.number("attention.sliding_window")?.filter(|&tokens| tokens > 0) {
        Some(tokens) => tokens,
        None if keys.is(&["llama4"]) => 8192,
        None if keys.is(&["gemma2"]) => 4096,
        None => return Ok(None),
    };
    let key = keys.key("attention.sliding_window_pattern");
    if let Some(list) = keys.metadata.numbers(&key) {
        let list = list.iter().map(|&windowed| windowed != 0).collect();
        return Ok(Some((tokens, Pattern::Listed(list))));
    }
    let built_in = match keys.architecture {
        "gemma2" | "gpt-oss" => Some(2),
        "gemma3n" => Some(5),
        "gemma3" => Some(6),
        "cohere2" | "llama4" | "exaone4" | "olmo2" | "afmoe" | "exaone-moe" => Some(4),
        _ => None,
    };
    let period = keys.number("attention.sliding_window_pattern")?.or(built_in);
    Ok(period.filter(|&period| period > 1).map(|period| (tokens, Pattern::Every(period))))
}

fn problem(problem: String) -> ReadError {
    ReadError::Format { format: "a whole model in GGUF", problem }
}
