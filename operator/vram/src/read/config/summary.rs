//! A model's layers in few numbers: the facts that the estimate takes.

use super::{
    attention::{self, Attention},
    feed_forward,
    layers::{FeedForward, Mixer},
    plan::Model,
};
use crate::{
    CrossAttention, Heads, Mla, ModelFacts, Moe, Recurrent, Tensors, Window,
    read::{LayerCache, ReadError, fields::Fields},
};

/// The heads of a model: how many ask, and what is kept of them.
struct AllHeads {
    queries: u32,
    kv: Heads,
    window: Option<Heads>,
}

impl Model<'_> {
    /// The facts, but for what the storage tells.
    pub(super) fn facts(
        &self,
        tensors: Tensors,
        state_bytes: u64,
    ) -> Result<ModelFacts, ReadError> {
        let shared = self.fields.number(&["num_kv_shared_layers"])?.unwrap_or(0).min(self.layers);
        let kept = |wanted: &[LayerCache]| {
            let kept = tensors.layers.iter().filter(|run| wanted.contains(&run.cache));
            kept.fold(0_u32, |sum, run| sum + run.layers)
        };
        let attention =
            shared + kept(&[LayerCache::Full, LayerCache::Window, LayerCache::StateAndFull]);
        let windowed = kept(&[LayerCache::Window]);
        let full = kept(&[LayerCache::Full, LayerCache::StateAndFull]);
        let attention = match self.uneven()? {
            Some((_, alike)) if self.mla.is_none() => attention - full + alike.min(full),
            _ => attention,
        };
        let AllHeads { queries, kv, window } = self.heads()?;
        let parameters = tensors.parameters();
        let moe = self.moe();
        Ok(ModelFacts {
            parameters: Some(parameters.total()),
            layers: self.layers,
            hidden_size: self.hidden,
            intermediate_size: self.intermediate_size(moe.as_ref())?,
            attention_heads: queries,
            kv_heads: kv.kv_heads,
            head_dim: kv.head_dim,
            vocab_size: self.vocabulary()?,
            max_context: self.max_context,
            gated: self.traits.gated,
            other_parameters: parameters.other,
            mla: self.mla.map(|mla| self.with_index(mla)),
            moe,
            window: self
                .window
                .filter(|_| windowed > 0)
                .map(|tokens| Window { tokens, windowed_layers: windowed }),
            recurrent: (attention < self.layers || state_bytes > 0).then_some(Recurrent {
                attention_layers: attention,
                state_bytes_per_sequence: state_bytes,
            }),
            value_head_dim: kv.value_head_dim,
            window_heads: window.filter(|window| *window != kv),
            kv_shared_layers: shared,
            cross_attention: self.cross_attention()?,
            index_bytes_per_token: if self.mla.is_none() { self.index_bytes()? } else { 0 },
            rotary_dim: self.rotary(kv.head_dim)?,
            rotary_positions: self.rotary_positions(),
            tensors: Some(tensors),
            ..ModelFacts::default()
        })
    }

    /// The heads of the layers that see everything, else of the windowed ones.
    fn heads(&self) -> Result<AllHeads, ReadError> {
        if let Some(mla) = self.mla {
            let queries = attention::query_heads(self.fields, 0)?.unwrap_or(1).max(1);
            let kv = Heads { kv_heads: queries, head_dim: mla.v_head_dim, value_head_dim: None };
            return Ok(AllHeads { queries, kv, window: None });
        }
        let first = |wanted: &[Mixer], windowed| {
            let layer = self.kinds.iter().position(|(mixer, _)| wanted.contains(mixer));
            layer
                .and_then(|layer| u32::try_from(layer).ok())
                .map(|layer| self.attention(layer, windowed))
                .transpose()
        };
        let full = match self.uneven()? {
            Some((most, _)) => Some(most),
            None => first(&[Mixer::Attention, Mixer::Both], false)?,
        };
        let window = first(&[Mixer::Windowed], true)?;
        Ok(match full.or(window) {
            Some(main) => {
                AllHeads { queries: main.heads.max(1), kv: main.kv, window: window.map(|w| w.kv) }
            }
            // No attention at all.
            None => AllHeads {
                queries: 1,
                kv: Heads { kv_heads: 1, head_dim: 1, value_head_dim: None },
                window: None,
            },
        })
    }

    /// Where layers keep different numbers of heads (searched architectures): the attention with
    /// the most, and how many such layers would keep as much as all of them.
    fn uneven(&self) -> Result<Option<(Attention, u32)>, ReadError> {
        if self.fields.is_uniform() {
            return Ok(None);
        }
        let (mut most, mut sum, mut layers): (Option<Attention>, u64, u64) = (None, 0, 0);
        for (layer, (mixer, _)) in (0..self.layers).zip(&self.kinds) {
            if !matches!(mixer, Mixer::Attention | Mixer::Both) {
                continue;
            }
            let attention = self.attention(layer, false)?;
            (sum, layers) = (sum + u64::from(attention.kv.kv_heads), layers + 1);
            if most.is_none_or(|most| attention.kv.kv_heads > most.kv.kv_heads) {
                most = Some(attention);
            }
        }
        let Some(most) = most else { return Ok(None) };
        let alike = sum.div_ceil(u64::from(most.kv.kv_heads).max(1));
        let fewer = alike < layers;
        Ok(fewer.then(|| (most, u32::try_from(alike).unwrap_or(self.layers))))
    }

    fn moe(&self) -> Option<Moe> {
        let experts = self.experts?;
        let routed = self.kinds.iter().fold(0_u32, |sum, (_, feed_forward)| {
            sum + u32::from(matches!(feed_forward, FeedForward::Experts | FeedForward::Both))
        });
        (routed > 0).then(|| Moe {
            experts: experts.count,
            experts_per_token: experts.per_token,
            expert_intermediate_size: experts.width,
            shared_experts: experts.shared.count,
            shared_expert_intermediate_size: experts
                .shared
                .each()
                .filter(|&width| width != experts.width),
            dense_layers: self.layers.saturating_sub(routed),
        })
    }

    /// The width of the dense layers; what stands for it where layers have neither.
    fn intermediate_size(&self, moe: Option<&Moe>) -> Result<u32, ReadError> {
        let dense = |kind: &FeedForward| matches!(kind, FeedForward::Dense | FeedForward::Both);
        let layer = self.kinds.iter().position(|(_, kind)| dense(kind));
        let width = match layer.and_then(|layer| u32::try_from(layer).ok()) {
            Some(layer) => {
                feed_forward::dense_width(self.kind, self.fields, self.hidden, layer, false)?
            }
            None => 0,
        };
        let needed = moe.is_none_or(|moe| moe.dense_layers > 0);
        Ok(if width == 0 && needed { self.hidden } else { width })
    }

    /// MLA with the index bytes of a layer on average: some layers share an indexer.
    fn with_index(&self, mla: Mla) -> Mla {
        let own = (0..self.layers).filter(|&layer| attention::has_indexer(self.indexers, layer));
        let all = u64::from(mla.indexer_bytes_per_token) * own.count() as u64;
        let mean = all.div_ceil(u64::from(self.layers));
        Mla { indexer_bytes_per_token: u32::try_from(mean).unwrap_or(u32::MAX), ..mla }
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
        /// Llama 3.2 Vision: four tiles of 40 × 40 patches and one more each.
        const TILES: u32 = 4 * (40 * 40 + 1);
        let crossing = (0..self.layers).filter(|&layer| self.crosses(layer)).count();
        if let Ok(layers @ 1..) = u32::try_from(crossing) {
            return Ok(Some(CrossAttention { layers, tokens: TILES }));
        }
        let tokens = self.fields.number(&["max_source_positions"])?;
        let tokens = tokens.filter(|&tokens| tokens > 0 && self.kind == "whisper");
        Ok(tokens.map(|tokens| CrossAttention { layers: self.layers, tokens }))
    }

    /// The part of a head that is rotated, where it is not the whole.
    fn rotary(&self, head_dim: u32) -> Result<Option<u32>, ReadError> {
        const WITHOUT: [&str; 6] = ["bloom", "mpt", "mamba", "mamba2", "falcon_mamba", "jamba"];
        if self.traits.learned_positions.is_some()
            || WITHOUT.contains(&self.kind)
            || self.fields.flag(&["alibi"]) == Some(true)
        {
            return Ok(Some(0));
        }
        if let Some(width) = self.fields.number(&["rotary_dim"])? {
            return Ok(Some(width).filter(|&width| width < head_dim));
        }
        let share = self
            .fields
            .object(&["rope_parameters"])
            .and_then(|inner| inner.fraction(&["partial_rotary_factor"]))
            .or_else(|| self.fields.fraction(&["partial_rotary_factor", "rotary_pct"]))
            .filter(|share| (0.0..1.0).contains(share));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of it")]
        Ok(share.map(|share| (f64::from(head_dim) * share) as u32))
    }

    /// The positions that vLLM makes rotations for, where the longest context is given stretched
    /// already and vLLM stretches once more (Gemma 3).
    fn rotary_positions(&self) -> Option<u32> {
        let scaling = self.fields.object(&["rope_scaling", "rope_parameters"])?;
        // By kind of layer in newer configs.
        let scaling = scaling.object(&["full_attention"]).unwrap_or(scaling);
        let linear = scaling.text(&["rope_type", "type"]) == Some("linear");
        let factor = scaling.fraction(&["factor"]).filter(|factor| *factor > 1.0)?;
        (linear && is_stretched(self.kind)).then(|| stretched(self.max_context, factor))
    }
}

/// Whether the kind gives its longest context stretched already.
fn is_stretched(kind: &str) -> bool {
    kind.starts_with("gemma3")
}

fn stretched(positions: u32, factor: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let stretched = (f64::from(positions) * factor.clamp(1.0, 1024.0)) as u32;
    stretched
}

/// The longest context: the positions that a config gives, stretched as vLLM does (by the factor of
/// the scaling, unless that is one of the kinds whose positions are given stretched).
pub(super) fn max_context(fields: &Fields<'_>) -> Result<u32, ReadError> {
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
    if is_stretched(fields.model_type())
        || matches!(kind, "default" | "llama3" | "su" | "longrope" | "mrope" | "proportional")
    {
        return Ok(given);
    }
    let factor = scaling.fraction(&["factor"]).unwrap_or(1.0).clamp(1.0, 1024.0);
    let from = match kind {
        "yarn" => scaling.number(&["original_max_position_embeddings"])?.unwrap_or(given),
        _ => given,
    };
    let stretched = stretched(from, factor);
    // The positions of DeepSeek and gpt-oss are given stretched already.
    Ok(if kind == "yarn" { stretched.max(given) } else { stretched })
}
