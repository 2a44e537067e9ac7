//! Attention: heads, latent vectors, and the indexers of sparse attention.

use serde_json::Value;

use super::{
    modules::Modules,
    traits::{QkNorm, Traits},
};
use crate::{
    Heads, Mla,
    read::{ReadError, fields::Fields, tensors::Class},
};

/// What the attention of one layer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attention {
    pub heads: u32,
    pub kv: Heads,
    /// Whether values are the keys: no projection of their own (Gemma 4's full layers).
    pub keys_are_values: bool,
    /// Width of the vector that queries of all heads are made from (Step-3), the same on every GPU.
    pub query_rank: Option<u32>,
}

/// The number of query heads.
pub(super) fn query_heads(fields: &Fields<'_>, layer: u32) -> Result<Option<u32>, ReadError> {
    let names = [
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "num_query_heads",
        "decoder_attention_heads",
        "encoder_attention_heads",
    ];
    fields.number_at(&names, layer)
}

impl Attention {
    /// The attention of layer `layer`, windowed or not.
    pub(super) fn of(
        kind: &str,
        fields: &Fields<'_>,
        hidden: u32,
        layer: u32,
        windowed: bool,
    ) -> Result<Self, ReadError> {
        let mut heads =
            query_heads(fields, layer)?.ok_or_else(|| fields.missing("num_attention_heads"))?;
        let at = |names: &[&str]| fields.number_at(names, layer);
        let mut head_dim =
            at(&["head_dim", "attention_head_dim", "kv_channels", "d_kv", "head_size"])?
                .filter(|&dim| dim > 0);
        let mut value = at(&["v_head_dim"])?.filter(|&value| value > 0);
        let mut kv_heads = at(&[
            "num_key_value_heads",
            "num_kv_heads",
            "multi_query_group_num",
            "num_query_groups",
            "n_head_kv",
            "num_attention_groups",
            "n_kv_heads",
        ])?;
        let inner = fields.object(&["attn_config"]);
        if let Some(inner) = &inner {
            kv_heads = inner.number(&["kv_n_heads", "kv_heads"])?.or(kv_heads);
        }
        let mut keys_are_values = false;
        match kind {
            "falcon" | "RefinedWeb" | "RefinedWebModel"
                if fields.flag(&["new_decoder_architecture"]) != Some(true) =>
            {
                let one = fields.flag(&["multi_query"]).unwrap_or(true);
                kv_heads = Some(if one { 1 } else { heads });
            }
            "gpt_bigcode" => {
                kv_heads = fields.flag(&["multi_query"]).unwrap_or(true).then_some(1);
            }
            "chatglm" if fields.flag(&["multi_query_attention"]) != Some(true) => {
                kv_heads = None;
            }
            _ => {}
        }
        if let Some(blocks) = fields.list(&["block_configs"])
            && let Some(group) = blocks
                .get(layer as usize)
                .and_then(|block| block["attention"]["n_heads_in_group"].as_u64())
            && group > 0
        {
            kv_heads = u32::try_from(u64::from(heads) / group).ok();
        }
        if windowed {
            heads = at(&["swa_num_attention_heads"])?.unwrap_or(heads);
            kv_heads = at(&["swa_num_key_value_heads"])?.or(kv_heads);
            head_dim = at(&["swa_head_dim"])?.or(head_dim);
            value = at(&["swa_v_head_dim"])?.or(value);
            if let Some(other) = fields.object(&["attention_other_setting"]) {
                heads = other.number(&["num_attention_heads"])?.unwrap_or(heads);
                kv_heads =
                    other.number(&["num_attention_groups", "num_key_value_heads"])?.or(kv_heads);
                head_dim = other.number(&["head_dim"])?.or(head_dim);
            }
        } else {
            head_dim = at(&["global_head_dim"])?.or(head_dim);
            kv_heads = at(&["num_global_key_value_heads"])?.or(kv_heads);
            keys_are_values = fields.flag(&["attention_k_eq_v"]) == Some(true);
        }
        if let Some(Value::Object(own)) = fields.get(&["per_layer_config"])
            && let Some(own) = own.get(&format!("{layer:02}")).and_then(Value::as_object)
        {
            let own = Fields::new(vec![own], None, kind);
            head_dim = own.number(&["head_dim"])?.or(head_dim);
            kv_heads = own.number(&["num_key_value_heads"])?.or(kv_heads);
        }
        if let Some(per_layer) = at(&["num_attention_heads_per_layer"])? {
            heads = per_layer;
        }
        let head_dim = match head_dim {
            Some(dim) => dim,
            None if kind.starts_with("zamba") => hidden.saturating_mul(2) / heads.max(1),
            None => hidden / heads.max(1),
        };
        let kv = Heads {
            kv_heads: kv_heads.filter(|&kv| kv > 0).unwrap_or(heads),
            head_dim,
            value_head_dim: value.filter(|&value| value != head_dim),
        };
        let query_rank = fields.number(&["share_q_dim"])?.filter(|&rank| rank > 0);
        Ok(Self { heads, kv, keys_are_values, query_rank })
    }

    /// The matrices, without those to keys and values where they are an earlier layer's.
    pub(super) fn modules(&self, into: &mut Modules, traits: &Traits, hidden: u32, shared: bool) {
        let (hidden, heads) = (u64::from(hidden), u64::from(self.heads));
        let key = u64::from(self.kv.head_dim);
        let value = u64::from(self.kv.value_head_dim.unwrap_or(self.kv.head_dim));
        let kv_heads = u64::from(self.kv.kv_heads);
        let queries = heads * key * if traits.query_gate { 2 } else { 1 };
        let bias = traits.biases.qkv;
        if let Some(rank) = self.query_rank.map(u64::from) {
            into.linear(Class::LatentProjection, "self_attn.q_proj", hidden, rank, bias);
            into.small(Class::Replicated, rank);
            into.linear(Class::Attention, "self_attn.wq", rank, queries, false);
        } else {
            into.linear(Class::Attention, "self_attn.q_proj", hidden, queries, bias);
        }
        if !shared {
            let keys = kv_heads * key;
            into.linear(Class::KvProjection, "self_attn.k_proj", hidden, keys, traits.biases.qkv);
            if !self.keys_are_values {
                let values = kv_heads * value;
                into.linear(
                    Class::KvProjection,
                    "self_attn.v_proj",
                    hidden,
                    values,
                    traits.biases.qkv,
                );
            }
        }
        into.linear(Class::Attention, "self_attn.o_proj", heads * value, hidden, traits.biases.out);
        match traits.qk_norm {
            QkNorm::None => {}
            QkNorm::Head => into.small(Class::Replicated, 2 * key),
            QkNorm::Full => into.small(Class::Replicated, (heads + kv_heads) * key),
        }
    }
}

/// Multi-head latent attention, if the config has it.
pub(super) fn latent(fields: &Fields<'_>) -> Result<Option<Mla>, ReadError> {
    if fields.flag(&["use_mla"]) == Some(false) {
        return Ok(None);
    }
    let Some(kv_lora_rank) = fields.number(&["kv_lora_rank"])?.filter(|&rank| rank > 0) else {
        return Ok(None);
    };
    // An index key in fp8 and one scale in fp32 for each 128 of its values: 132 bytes.
    let index = fields.number(&["index_head_dim", "indexer_head_dim"])?;
    let index_bytes =
        index.map_or(0, |width| width.saturating_add(width.div_ceil(128).saturating_mul(4)));
    Ok(Some(Mla {
        kv_lora_rank,
        qk_rope_head_dim: fields.need(&["qk_rope_head_dim"])?,
        qk_nope_head_dim: fields.need(&["qk_nope_head_dim"])?,
        v_head_dim: fields.need(&["v_head_dim"])?,
        q_lora_rank: fields.number(&["q_lora_rank"])?.filter(|&rank| rank > 0),
        indexer_bytes_per_token: index_bytes,
    }))
}

/// Whether a layer has an indexer of its own by `indexer_types`: some share an earlier layer's
/// (GLM 5.2).
pub(super) fn has_indexer(types: Option<&[Value]>, layer: u32) -> bool {
    types.is_none_or(|types| {
        types.get(layer as usize).is_none_or(|word| word.as_str() != Some("shared"))
    })
}

/// The matrices of latent attention.
pub(super) fn latent_modules(
    into: &mut Modules,
    fields: &Fields<'_>,
    mla: &Mla,
    hidden: u32,
    heads: u32,
    layer: u32,
) -> Result<(), ReadError> {
    let wide = u64::from;
    let (hidden, heads) = (wide(hidden), wide(heads));
    let query = heads * (wide(mla.qk_nope_head_dim) + wide(mla.qk_rope_head_dim));
    let rank = wide(mla.kv_lora_rank);
    let query_from = if let Some(q_rank) = mla.q_lora_rank.map(wide) {
        into.linear(Class::LatentProjection, "self_attn.q_a_proj", hidden, q_rank, false);
        into.small(Class::Replicated, q_rank);
        into.linear(Class::Attention, "self_attn.q_b_proj", q_rank, query, false);
        q_rank
    } else {
        into.linear(Class::Attention, "self_attn.q_proj", hidden, query, false);
        hidden
    };
    let compressed = rank + wide(mla.qk_rope_head_dim);
    into.linear(Class::LatentProjection, "self_attn.kv_a_proj_with_mqa", hidden, compressed, false);
    into.small(Class::Replicated, rank);
    let key_value = heads * (wide(mla.qk_nope_head_dim) + wide(mla.v_head_dim));
    into.linear(Class::Attention, "self_attn.kv_b_proj", rank, key_value, false);
    let values = heads * wide(mla.v_head_dim);
    into.linear(Class::Attention, "self_attn.o_proj", values, hidden, false);
    if fields.flag(&["mla_use_output_gate"]) == Some(true) {
        into.linear(Class::Attention, "self_attn.g_proj", hidden, values, false);
    }
    let index_heads = fields.number(&["index_n_heads", "indexer_n_heads"])?;
    if let (Some(width), Some(index_heads), true) = (
        fields.number(&["index_head_dim", "indexer_head_dim"])?,
        index_heads,
        has_indexer(fields.list(&["indexer_types"]), layer),
    ) {
        let (width, index_heads) = (wide(width), wide(index_heads));
        let class = Class::LatentProjection;
        into.linear(class, "self_attn.indexer.wq_b", query_from, index_heads * width, false);
        into.linear(class, "self_attn.indexer.wk", hidden, width, false);
        into.table(class, "self_attn.indexer.weights_proj", index_heads, hidden);
        into.small(Class::Replicated, 2 * width);
    }
    Ok(())
}
