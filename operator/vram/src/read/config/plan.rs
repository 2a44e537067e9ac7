//! Everything put together: each layer's matrices, stored as the quantisation says, and the facts.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    attention::{self, Attention},
    experts::Experts,
    feed_forward,
    layers::{self, FeedForward, Mixer},
    modules::Modules,
    recurrent, summary, towers,
    traits::Traits,
};
use crate::{
    Mla, ModelFacts, Tensors,
    read::{
        LayerCache, LayerRun, ReadError,
        fields::Fields,
        scheme::{self, Scheme},
        tensors::Class,
    },
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
    scheme.check_work(model.layers)?;
    let mut tensors = Tensors::default();
    let mut state_bytes = 0_u64;
    let alike = fields.is_uniform() && !scheme.varies_by_layer();
    let mut known = HashMap::new();
    for layer in 0..model.layers {
        let shape = model.shape(layer);
        let (run, state) = match known.get(&shape) {
            Some(known) if alike => *known,
            _ => {
                let (modules, cache, state) = model.layer(layer)?;
                let mut run = LayerRun { layers: 1, cache, ..LayerRun::default() };
                store(&mut run, &modules, scheme, Some(layer));
                known.insert(shape, (run, state));
                (run, state)
            }
        };
        state_bytes = state_bytes.saturating_add(state);
        tensors.push_layer(run);
    }
    let tied = tied(fields, root);
    let mut outside = model.outside(tied)?;
    outside.small(Class::Other, towers::parameters(root, model.hidden)?);
    tensors.outside.layers = 1;
    store(&mut tensors.outside, &outside, scheme, None);
    tensors.draft_bytes = model.draft_bytes(scheme)?;
    tensors.unused_bytes = model.adapter_bytes()?;

    let facts = model.facts(tensors, state_bytes)?;
    let facts = ModelFacts {
        tied_embeddings: tied,
        quantization: scheme.quantization(),
        kv_cache: scheme.kv_cache(),
        ..facts
    };
    facts.validate()?;
    Ok(facts)
}

/// Kinds whose layers are neither attention nor a state as others have them, or share weights.
const OTHER_SHAPES: [&str; 9] =
    ["rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm", "recurrent_gemma", "zamba", "zamba2", "jetmoe"];

/// Kinds that read and do not write.
const ENCODERS: [&str; 16] = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "distilbert",
    "albert",
    "mpnet",
    "deberta",
    "deberta-v2",
    "modernbert",
    "nomic_bert",
    "roformer",
    "ernie",
    "megatron-bert",
    "big_bird",
];

/// Refuses what no engine serves as a model that answers.
fn refuse(kind: &str, fields: &Fields<'_>, root: &Fields<'_>) -> Result<(), ReadError> {
    let unsupported = |what: String, advice| Err(ReadError::Unsupported { what, advice });
    if OTHER_SHAPES.contains(&kind) {
        return unsupported(
            format!("a {kind:?} model"),
            "its layers are of no shape that is known here; give spec.model.facts",
        );
    }
    if ENCODERS.contains(&kind) {
        return unsupported(format!("{kind:?}, an encoder"), "it answers no prompts");
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
pub(super) struct Model<'a> {
    pub kind: &'a str,
    pub fields: &'a Fields<'a>,
    pub traits: Traits,
    pub hidden: u32,
    pub layers: u32,
    pub kinds: Vec<(Mixer, FeedForward)>,
    pub experts: Option<Experts>,
    pub mla: Option<Mla>,
    /// Tokens that windowed layers look back over, where that is less than everything.
    pub window: Option<u32>,
    pub max_context: u32,
    /// Layers from this one on read an earlier layer's keys and values.
    pub shared_from: u32,
    /// `indexer_types` and `cross_attention_layers`.
    pub indexers: Option<&'a [Value]>,
    crossing: Option<&'a [Value]>,
}

/// What tells a layer from another where all have the same sizes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    mixer: Mixer,
    feed_forward: FeedForward,
    shared: bool,
    indexed: bool,
    crosses: bool,
    digits: u32,
}

impl<'a> Model<'a> {
    fn of(kind: &'a str, fields: &'a Fields<'a>) -> Result<Self, ReadError> {
        let layers = layers::count(fields)?;
        let experts = Experts::of(kind, fields)?;
        let max_context = summary::max_context(fields)?;
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
            indexers: fields.list(&["indexer_types"]),
            crossing: fields.list(&["cross_attention_layers"]),
            shared_from: layers
                .saturating_sub(fields.number(&["num_kv_shared_layers"])?.unwrap_or(0)),
        })
    }

    fn shape(&self, layer: u32) -> Shape {
        let (mixer, feed_forward) = self.kinds[layer as usize];
        Shape {
            mixer,
            feed_forward,
            shared: layer >= self.shared_from,
            indexed: attention::has_indexer(self.indexers, layer),
            crosses: self.crosses(layer),
            digits: scheme::digits(layer),
        }
    }

    pub(super) fn attention(&self, layer: u32, windowed: bool) -> Result<Attention, ReadError> {
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
                shared = layer >= self.shared_from;
                attention.modules(&mut modules, &self.traits, self.hidden, shared);
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
            experts.modules(&mut modules, &self.traits, self.hidden);
        }
        self.extra(&mut modules)?;
        let cache = match mixer {
            Mixer::None => LayerCache::None,
            _ if shared || self.crosses(layer) => LayerCache::None,
            Mixer::Recurrent => LayerCache::State,
            Mixer::Both => LayerCache::StateAndFull,
            Mixer::Windowed if self.window.is_some() => LayerCache::Window,
            Mixer::Windowed | Mixer::Attention => LayerCache::Full,
        };
        Ok((modules, cache, state))
    }

    /// Whether a layer attends to images, and to no text (Llama 3.2 Vision).
    pub(super) fn crosses(&self, layer: u32) -> bool {
        self.crossing
            .is_some_and(|layers| layers.iter().any(|one| one.as_u64() == Some(layer.into())))
    }

    /// What single families have in each layer beside the usual.
    fn extra(&self, modules: &mut Modules) -> Result<(), ReadError> {
        let hidden = u64::from(self.hidden);
        let number =
            |names: &[&str]| Ok::<_, ReadError>(self.fields.number(names)?.map_or(0, u64::from));
        let per_layer = number(&["hidden_size_per_layer_input"])?;
        modules.linear(Class::Replicated, "per_layer_input_gate", hidden, per_layer, false);
        modules.linear(Class::Replicated, "per_layer_projection", per_layer, hidden, false);
        if self.kind == "whisper" {
            // Attention to the encoder's output, in each layer.
            modules.linear(Class::Attention, "encoder_attn.q_proj", hidden, hidden, true);
            modules.linear(Class::KvProjection, "encoder_attn.k_proj", hidden, hidden, false);
            modules.linear(Class::KvProjection, "encoder_attn.v_proj", hidden, hidden, true);
            modules.linear(Class::Attention, "encoder_attn.o_proj", hidden, hidden, true);
        }
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

    pub(super) fn vocabulary(&self) -> Result<u32, ReadError> {
        self.fields.need(&["vocab_size", "padded_vocab_size", "n_vocab"])
    }

    /// Adapters that a checkpoint holds beside its weights, one for each sense (Phi-4-multimodal), in
    /// 16 bits: vLLM loads them only where they are asked for as `LoRA` modules.
    fn adapter_bytes(&self) -> Result<u64, ReadError> {
        let mut ranks = 0;
        for name in ["vision_lora", "speech_lora"] {
            if let Some(adapter) = self.fields.object(&[name]) {
                ranks += adapter.number(&["r"])?.map_or(0, u64::from);
            }
        }
        if ranks == 0 {
            return Ok(0);
        }
        let attention = self.attention(0, false)?;
        let width = feed_forward::dense_width(self.kind, self.fields, self.hidden, 0, false)?;
        let (hidden, width, head) =
            (u64::from(self.hidden), u64::from(width), u64::from(attention.kv.head_dim));
        let queries = u64::from(attention.heads).saturating_mul(head);
        let keys = u64::from(attention.kv.kv_heads).saturating_mul(head);
        // In and out of the fused projection to queries, keys and values, the one out of attention,
        // the fused gate and up, and down.
        let sides = [hidden * 4, queries.saturating_mul(2), keys.saturating_mul(2), width * 3];
        let sides = sides.into_iter().fold(0, u64::saturating_add);
        Ok(sides.saturating_mul(ranks).saturating_mul(u64::from(self.layers)).saturating_mul(2))
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
}
