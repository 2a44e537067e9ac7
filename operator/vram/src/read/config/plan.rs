//! Everything put together: each layer's matrices, stored as the quantisation says, and the facts.

use super::{
    attention::{self, Attention},
    feed_forward::{self, Experts},
    layers::{self, FeedForward, Mixer},
    modules::Modules,
    recurrent, towers,
    traits::Traits,
};
use crate::{
    CrossAttention, Heads, ModelFacts, Moe, Recurrent, Tensors, Window,
    read::{LayerCache, LayerRun, ReadError, fields::Fields, scheme::Scheme, tensors::Class},
};

/// The facts of the language model in `fields`, with the towers that `root` has.
pub(super) fn facts(
    kind: &str,
    fields: &Fields<'_>,
    root: &Fields<'_>,
    scheme: &Scheme,
) -> Result<ModelFacts, ReadError> {
    refuse(kind, fields, root)?;
    let model = Model::of(kind, fields)?;
    let mut tensors = Tensors::default();
    let mut state_bytes = 0_u64;
    for layer in 0..model.layers {
        let (modules, cache, state) = model.layer(layer)?;
        state_bytes = state_bytes.saturating_add(state);
        let mut run = LayerRun { layers: 1, cache, ..LayerRun::default() };
        store(&mut run, &modules, scheme, Some(layer));
        tensors.push_layer(run);
    }
    let tied = tied(fields, root);
    let mut outside = model.outside(tied)?;
    outside.small(Class::Other, towers::parameters(root, model.hidden)?);
    tensors.outside.layers = 1;
    store(&mut tensors.outside, &outside, scheme, None);
    tensors.draft_bytes = model.draft_bytes(scheme)?;

    let facts = model.facts(tensors, state_bytes, tied, scheme)?;
    facts.validate()?;
    Ok(facts)
}

/// Refuses what no engine serves as a model that answers.
fn refuse(kind: &str, fields: &Fields<'_>, root: &Fields<'_>) -> Result<(), ReadError> {
    let unsupported = |what: String, advice| Err(ReadError::Unsupported { what, advice });
    if kind.starts_with("rwkv") || kind.starts_with("xlstm") {
        return unsupported(format!("a {kind:?} model"), "no engine that Berth runs serves it");
    }
    if fields.get(&["compress_ratios", "compress_rates"]).is_some() {
        return unsupported(
            "a KV cache of compressed tokens (DeepSeek-V4)".to_owned(),
            "give spec.model.facts with recurrent and weightBytes",
        );
    }
    if root.flag(&["is_encoder_decoder"]) == Some(true) && !kind.starts_with("whisper") {
        return unsupported(
            format!("an encoder-decoder of the kind {kind:?}"),
            "no engine that Berth runs serves any but Whisper",
        );
    }
    Ok(())
}

fn tied(fields: &Fields<'_>, root: &Fields<'_>) -> bool {
    let name = "tie_word_embeddings";
    if fields.has_own(name) || !root.has_own(name) {
        return fields.flag(&[name]).unwrap_or(false);
    }
    root.flag(&[name]).unwrap_or(false)
}

/// Adds matrices as the scheme stores them.
fn store(run: &mut LayerRun, modules: &Modules, scheme: &Scheme, layer: Option<u32>) {
    for module in &modules.0 {
        run.parameters.add_to(module.class, module.parameters());
        run.bytes.add_to(module.class, scheme.bytes(module, layer));
    }
}

/// The language model.
struct Model<'a> {
    kind: &'a str,
    fields: &'a Fields<'a>,
    traits: Traits,
    hidden: u32,
    layers: u32,
    kinds: Vec<(Mixer, FeedForward)>,
    experts: Option<Experts>,
    mla: Option<crate::Mla>,
    window: Option<u32>,
    max_context: u32,
}

impl<'a> Model<'a> {
    fn of(kind: &'a str, fields: &'a Fields<'a>) -> Result<Self, ReadError> {
        let layers = layers::count(fields)?;
        let experts = Experts::of(kind, fields)?;
        let max_context = max_context(fields)?;
        Ok(Self {
            kind,
            fields,
            traits: Traits::of(kind, fields),
            hidden: fields.need(&["hidden_size", "n_embd", "d_model", "dim", "model_dim"])?,
            layers,
            kinds: layers::kinds(kind, fields, layers, experts.is_some())?,
            experts,
            mla: attention::latent(fields)?,
            // A window as long as the context is none.
            window: layers::window_tokens(fields)?.filter(|&tokens| tokens < max_context),
            max_context,
        })
    }

    fn attention(&self, layer: u32, windowed: bool) -> Result<Attention, ReadError> {
        Attention::of(self.kind, self.fields, self.hidden, layer, windowed)
    }

    /// A layer's matrices, what it keeps, and the bytes of its state.
    fn layer(&self, layer: u32) -> Result<(Modules, LayerCache, u64), ReadError> {
        let (mixer, feed_forward) = self.kinds[layer as usize];
        let mut modules = Modules::default();
        let hidden = u64::from(self.hidden);
        let norm = if self.traits.norm_bias { hidden * 2 } else { hidden };
        modules.small(Class::Replicated, norm * u64::from(self.traits.norms));
        let mut state = 0;
        let mut shared = false;
        if matches!(mixer, Mixer::Recurrent | Mixer::Both) {
            let kept = recurrent::modules(&mut modules, self.kind, self.fields, self.hidden)?;
            state = kept.bytes(self.fields);
        }
        if matches!(mixer, Mixer::Attention | Mixer::Windowed | Mixer::Both) {
            if let Some(mla) = &self.mla {
                let heads = attention::query_heads(self.fields, layer)?
                    .ok_or_else(|| self.fields.missing("num_attention_heads"))?;
                attention::latent_modules(
                    &mut modules,
                    self.fields,
                    mla,
                    self.hidden,
                    heads,
                    layer,
                )?;
            } else {
                let attention = self.attention(layer, mixer == Mixer::Windowed)?;
                attention.modules(&mut modules, &self.traits, self.hidden);
                shared = attention.shared;
            }
        }
        if matches!(feed_forward, FeedForward::Dense | FeedForward::Both) {
            let double = shared && self.fields.flag(&["use_double_wide_mlp"]) == Some(true);
            let width =
                feed_forward::dense_width(self.kind, self.fields, self.hidden, layer, double)?;
            feed_forward::dense_modules(&mut modules, &self.traits, self.hidden, width);
        }
        if let (FeedForward::Experts | FeedForward::Both, Some(experts)) =
            (feed_forward, &self.experts)
        {
            let biases = self.kind == "gpt_oss";
            experts.modules(&mut modules, &self.traits, self.hidden, biases);
        }
        self.extra(&mut modules)?;
        let cache = match mixer {
            Mixer::None => LayerCache::None,
            _ if shared => LayerCache::None,
            Mixer::Recurrent => LayerCache::State,
            Mixer::Both => LayerCache::StateAndFull,
            Mixer::Windowed if self.window.is_some() => LayerCache::Window,
            Mixer::Windowed | Mixer::Attention => LayerCache::Full,
        };
        Ok((modules, cache, state))
    }

    /// What single families have in each layer beside the usual.
    fn extra(&self, modules: &mut Modules) -> Result<(), ReadError> {
        let hidden = u64::from(self.hidden);
        let number =
            |names: &[&str]| Ok::<_, ReadError>(self.fields.number(names)?.map_or(0, u64::from));
        let per_layer = number(&["hidden_size_per_layer_input"])?;
        modules.linear(Class::Replicated, "per_layer_input_gate", hidden, per_layer, false);
        modules.linear(Class::Replicated, "per_layer_projection", per_layer, hidden, false);
        let laurel = number(&["laurel_rank"])?;
        modules.linear(Class::Replicated, "laurel.linear_left", hidden, laurel, false);
        modules.linear(Class::Replicated, "laurel.linear_right", laurel, hidden, false);
        Ok(())
    }

    /// The tables, the last norm, and what single families have outside of their layers.
    fn outside(&self, tied: bool) -> Result<Modules, ReadError> {
        let number =
            |names: &[&str]| Ok::<_, ReadError>(self.fields.number(names)?.map_or(0, u64::from));
        let (hidden, layers) = (u64::from(self.hidden), u64::from(self.layers));
        let vocabulary = u64::from(self.vocabulary()?);
        let mut modules = Modules::default();
        let embedded = match number(&["word_embed_proj_dim", "embedding_size"])? {
            0 => hidden,
            width => width,
        };
        modules.table(Class::Embedding, "embed_tokens", vocabulary, embedded);
        if !tied {
            modules.table(Class::Output, "lm_head", vocabulary, hidden);
        }
        modules.small(Class::Replicated, if self.traits.norm_bias { hidden * 2 } else { hidden });
        if let Some(more) = self.traits.learned_positions {
            let rows = u64::from(self.max_context) + u64::from(more);
            modules.table(Class::Embedding, "embed_positions", rows, hidden);
        }
        let per_layer = number(&["hidden_size_per_layer_input"])?.saturating_mul(layers);
        if per_layer > 0 {
            let rows = number(&["vocab_size_per_layer_input"])?;
            modules.table(Class::Embedding, "embed_tokens_per_layer", rows, per_layer);
            modules.linear(Class::Dense, "per_layer_model_projection", hidden, per_layer, false);
        }
        let copies = number(&["altup_num_inputs"])?;
        if copies > 1 {
            let each = hidden.saturating_mul(hidden);
            modules.table(Class::Dense, "altup_projections", 2 * (copies - 1), each);
        }
        Ok(modules)
    }

    fn vocabulary(&self) -> Result<u32, ReadError> {
        self.fields.need(&["vocab_size", "padded_vocab_size", "n_vocab"])
    }

    /// Layers that only draft tokens ahead: one like the last, with a projection from two hidden
    /// states to one.
    fn draft_bytes(&self, scheme: &Scheme) -> Result<u64, ReadError> {
        let names = [
            "num_nextn_predict_layers",
            "mtp_num_hidden_layers",
            "mtp_num_layers",
            "num_mtp_layers",
        ];
        let drafts = self.fields.number(&names)?.unwrap_or(0).min(64);
        if drafts == 0 {
            return Ok(0);
        }
        let like = (0..self.layers).rev().find(|&layer| {
            matches!(self.kinds[layer as usize].0, Mixer::Attention | Mixer::Windowed)
        });
        let Some(like) = like else { return Ok(0) };
        let mut modules = self.layer(like)?.0;
        let hidden = u64::from(self.hidden);
        modules.table(Class::Replicated, "eh_proj", hidden, 2 * hidden);
        let bytes = modules
            .0
            .iter()
            .fold(0_u64, |sum, module| sum.saturating_add(scheme.bytes(module, Some(self.layers))));
        Ok(bytes.saturating_mul(u64::from(drafts)))
    }

    fn facts(
        &self,
        tensors: Tensors,
        state_bytes: u64,
        tied: bool,
        scheme: &Scheme,
    ) -> Result<ModelFacts, ReadError> {
        let caches: Vec<_> = tensors.caches().collect();
        let count = |wanted: &[LayerCache]| {
            caches.iter().filter(|cache| wanted.contains(cache)).fold(0, |sum: u32, _| sum + 1)
        };
        let keeping = count(&[LayerCache::Full, LayerCache::Window, LayerCache::StateAndFull]);
        let windowed = count(&[LayerCache::Window]);
        let shared = match self.fields.number(&["num_kv_shared_layers"])? {
            Some(shared) => shared.min(self.layers),
            None => 0,
        };
        let first = |wanted: Mixer| self.kinds.iter().position(|(mixer, _)| *mixer == wanted);
        let full = first(Mixer::Attention).or(first(Mixer::Both));
        let of = |layer: Option<usize>, windowed| {
            layer
                .and_then(|layer| u32::try_from(layer).ok())
                .map(|layer| self.attention(layer, windowed))
                .transpose()
        };
        let full = if self.mla.is_some() { None } else { of(full, false)? };
        let window = if self.mla.is_some() { None } else { of(first(Mixer::Windowed), true)? };
        let main = full.or(window);
        let heads = match (main, attention::query_heads(self.fields, 0)?) {
            (Some(main), _) => main.heads,
            (None, Some(heads)) => heads,
            // No attention at all.
            (None, None) => 1,
        };
        let kv = main.map_or(
            Heads {
                kv_heads: heads,
                head_dim: self.mla.map_or(self.hidden / heads.max(1), |mla| mla.v_head_dim).max(1),
                value_head_dim: None,
            },
            |main| main.kv,
        );
        let window_heads = window.map(|window| window.kv).filter(|other| *other != kv);
        let parameters = tensors.parameters();
        let other = parameters.other;
        let dense_width = match self
            .kinds
            .iter()
            .position(|(_, ff)| matches!(ff, FeedForward::Dense | FeedForward::Both))
        {
            Some(layer) => {
                let layer = u32::try_from(layer).unwrap_or(0);
                feed_forward::dense_width(self.kind, self.fields, self.hidden, layer, false)?
            }
            None => 0,
        };
        let routed = self
            .kinds
            .iter()
            .filter(|(_, ff)| matches!(ff, FeedForward::Experts | FeedForward::Both))
            .count();
        let routed = u32::try_from(routed).unwrap_or(self.layers);
        let mla = self.mla.map(|mla| self.with_index(mla));
        Ok(ModelFacts {
            parameters: Some(parameters.total()),
            layers: self.layers,
            hidden_size: self.hidden,
            intermediate_size: if dense_width == 0 && routed < self.layers {
                self.hidden
            } else {
                dense_width
            },
            attention_heads: heads.max(1),
            kv_heads: kv.kv_heads,
            head_dim: kv.head_dim,
            vocab_size: self.vocabulary()?,
            max_context: self.max_context,
            tied_embeddings: tied,
            gated: self.traits.gated,
            other_parameters: other,
            mla,
            moe: self.experts.filter(|_| routed > 0).map(|experts| Moe {
                experts: experts.count,
                experts_per_token: experts.per_token,
                expert_intermediate_size: experts.width,
                shared_experts: experts.shared,
                shared_expert_intermediate_size: (experts.shared > 0)
                    .then(|| {
                        u32::try_from(experts.shared_width / u64::from(experts.shared))
                            .unwrap_or(u32::MAX)
                    })
                    .filter(|&width| width != experts.width),
                dense_layers: self.layers - routed,
            }),
            window: (windowed > 0)
                .then_some(self.window)
                .flatten()
                .map(|tokens| Window { tokens, windowed_layers: windowed }),
            recurrent: (keeping + shared < self.layers || state_bytes > 0).then_some(Recurrent {
                attention_layers: keeping + shared,
                state_bytes_per_sequence: state_bytes,
            }),
            quantization: scheme.quantization(),
            value_head_dim: kv.value_head_dim,
            window_heads,
            kv_shared_layers: shared,
            cross_attention: self.cross_attention()?,
            index_bytes_per_token: if self.mla.is_none() { self.index_bytes()? } else { 0 },
            rotary_dim: self.rotary(kv.head_dim),
            kv_cache: scheme.kv_cache(),
            tensors: Some(tensors),
            weight_bytes: None,
        })
    }

    /// MLA with the index bytes of a layer on average: some layers share an indexer.
    fn with_index(&self, mla: crate::Mla) -> crate::Mla {
        let own =
            (0..self.layers).filter(|&layer| attention::has_indexer(self.fields, layer)).count();
        let all = u64::from(mla.indexer_bytes_per_token) * own as u64;
        let mean = all.div_ceil(u64::from(self.layers));
        crate::Mla { indexer_bytes_per_token: u32::try_from(mean).unwrap_or(u32::MAX), ..mla }
    }

    /// MiniMax-M3 keeps one index key of 16 bits a token and layer.
    fn index_bytes(&self) -> Result<u32, ReadError> {
        let inner = self.fields.object(&["sparse_attention_config"]);
        let width = match &inner {
            Some(inner) => inner.number(&["sparse_index_dim"])?,
            None => self.fields.number(&["index_head_dim"])?,
        };
        Ok(width.unwrap_or(0).saturating_mul(2))
    }

    fn cross_attention(&self) -> Result<Option<CrossAttention>, ReadError> {
        let tokens = self.fields.number(&["max_source_positions"])?;
        Ok(tokens
            .filter(|_| self.kind == "whisper")
            .map(|tokens| CrossAttention { layers: self.layers, tokens }))
    }

    /// The part of a head that is rotated, where it is not the whole.
    fn rotary(&self, head_dim: u32) -> Option<u32> {
        if self.traits.learned_positions.is_some()
            || matches!(self.kind, "bloom" | "mpt" | "mamba" | "mamba2" | "falcon_mamba" | "jamba")
            || self.fields.flag(&["alibi"]) == Some(true)
        {
            return Some(0);
        }
        let inner = self.fields.object(&["rope_parameters"]);
        let share = inner
            .and_then(|inner| inner.fraction(&["partial_rotary_factor"]))
            .or_else(|| {
                self.fields.fraction(&["partial_rotary_factor", "rotary_pct", "rope_ratio_"])
            })
            .filter(|share| (0.0..1.0).contains(share))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of it")]
        Some((f64::from(head_dim) * share) as u32)
    }
}

/// The longest context: the positions that a config gives, stretched as vLLM does (by the factor of
/// the scaling, unless that is one of the kinds whose positions are given stretched).
fn max_context(fields: &Fields<'_>) -> Result<u32, ReadError> {
    let names = [
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
        "model_max_length",
        "max_target_positions",
        "n_ctx",
        "context_length",
        "max_seq_length",
    ];
    let given = fields.number(&names)?.filter(|&tokens| tokens > 0).unwrap_or(2048);
    let Some(scaling) = fields.object(&["rope_scaling", "rope_parameters"]) else {
        return Ok(given);
    };
    let kind = scaling.text(&["rope_type", "type"]).unwrap_or("default");
    if matches!(kind, "default" | "llama3" | "su" | "longrope" | "mrope" | "proportional") {
        return Ok(given);
    }
    let factor = scaling.fraction(&["factor"]).unwrap_or(1.0).clamp(1.0, 1024.0);
    let from = match kind {
        "yarn" => scaling.number(&["original_max_position_embeddings"])?.unwrap_or(given),
        _ => given,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let stretched = (f64::from(from) * factor) as u32;
    // The positions of DeepSeek and gpt-oss are given stretched already.
    Ok(if kind == "yarn" { stretched.max(given) } else { stretched })
}
