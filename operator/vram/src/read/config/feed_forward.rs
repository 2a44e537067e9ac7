//! Feed-forward layers: dense, and mixtures of experts.

use serde_json::Value;

use super::{modules::Modules, traits::Traits};
use crate::read::{ReadError, fields::Fields, tensors::Class};

/// A mixture of experts, as a config describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Experts {
    pub count: u32,
    pub per_token: u32,
    pub width: u32,
    /// Width of all shared experts together, and how many there are.
    pub shared_width: u64,
    pub shared: u32,
    /// Width of what goes into an expert, where it is not the hidden state's.
    pub latent: Option<u32>,
    /// Whether the shared expert has a gate of its own.
    pub shared_gate: bool,
}

impl Experts {
    /// The experts of a model that has some.
    pub(super) fn of(kind: &str, fields: &Fields<'_>) -> Result<Option<Self>, ReadError> {
        if fields.flag(&["enable_moe_block"]) == Some(false) {
            return Ok(None);
        }
        let nested = fields.object(&["ffn_config"]);
        let at = |names: &[&str]| most(fields, names);
        let names = [
            "num_local_experts",
            "num_experts",
            "n_routed_experts",
            "moe_num_experts",
            "num_routed_experts",
            "n_experts",
            "num_moe_experts",
        ];
        let own = nested.as_ref().map_or(Ok(None), |own| own.number(&["moe_num_experts"]))?;
        let Some(mut count) = own.or(at(&names)?).filter(|&count| count > 1) else {
            return Ok(None);
        };
        let mut width = at(&[
            "moe_intermediate_size",
            "moe_ffn_hidden_size",
            "expert_ffn_hidden_size",
            "expert_intermediate_size",
            "moe_ffn_dim",
            "ffn_hidden_size",
        ])?;
        if let Some(own) = &nested {
            width = own.number(&["ffn_hidden_size"])?.or(width);
        }
        let width = match width.filter(|&width| width > 0) {
            Some(width) => width,
            None => at(&["intermediate_size"])?
                .ok_or_else(|| fields.missing("moe_intermediate_size"))?,
        };
        // ERNIE 4.5 VL has a second set for images, of another width: counted in whole experts.
        if let (Some(counts), Some(widths)) =
            (fields.numbers(&["moe_num_experts"]), fields.numbers(&["moe_intermediate_size"]))
            && counts.len() == widths.len()
        {
            let sum = counts.iter().zip(&widths).fold(0, |sum: u64, (count, width)| {
                sum.saturating_add(count.saturating_mul(*width))
            });
            count = u32::try_from(sum / u64::from(width.max(1))).unwrap_or(u32::MAX);
        }
        let per_token = at(&[
            "num_experts_per_tok",
            "num_experts_per_token",
            "moe_k",
            "moe_topk",
            "moe_top_k",
            "top_k_experts",
            "experts_per_token",
            "num_selected_experts",
            "top_k",
        ])?;
        let per_token = match (per_token, &nested) {
            (Some(per_token), _) => per_token,
            (None, Some(own)) => own.number(&["moe_top_k"])?.unwrap_or(1),
            (None, None) => 1,
        };
        let shared = at(&[
            "n_shared_experts",
            "num_shared_experts",
            "moe_num_shared_experts",
            "num_shared_expert",
        ])?;
        let shared_each = at(&[
            "moe_shared_expert_intermediate_size",
            "shared_expert_intermediate_size",
            "share_expert_dim",
            "shared_experts_intermediate_size",
            "share_expert_dims",
        ])?;
        let together = at(&["shared_intermediate_size"])?;
        let wide = u64::from;
        let (shared_width, shared) = match (shared, shared_each, together) {
            _ if kind.starts_with("llama4") => (wide(width), 1),
            _ if kind == "hunyuan_v1_moe" && fields.flag(&["use_mixed_mlp_moe"]) == Some(false) => {
                (0, 0)
            }
            (_, _, Some(width)) => (wide(width), u32::from(width > 0)),
            (Some(0), ..) => (0, 0),
            // Nemotron-H gives the width of all of them together.
            (Some(shared), Some(each), _) if kind.starts_with("nemotron") => (wide(each), shared),
            (Some(shared), Some(each), _)
                if kind.starts_with("ernie")
                    || kind.starts_with("bailing")
                    || kind.starts_with("dots3") =>
            {
                (wide(each) * wide(shared), shared)
            }
            (Some(shared), Some(each), _) => (wide(each), shared),
            (Some(shared), None, _) if kind == "hunyuan_v1_moe" => {
                let dense = at(&["intermediate_size"])?.unwrap_or(width);
                (wide(dense) * wide(shared), shared)
            }
            (Some(shared), None, _) => (wide(width).saturating_mul(wide(shared)), shared),
            (None, Some(each), _) => (wide(each), u32::from(each > 0)),
            (None, None, _) if kind == "hunyuan_v1_moe" => {
                (at(&["intermediate_size"])?.map_or(0, wide), 1)
            }
            (None, None, _) => (0, 0),
        };
        Ok(Some(Self {
            count,
            per_token: per_token.clamp(1, count),
            width,
            shared_width,
            shared,
            latent: at(&["moe_latent_size", "routed_expert_hidden_size"])?,
            shared_gate: shared_width > 0 && (kind.starts_with("qwen") || kind == "lara_mini"),
        }))
    }

    /// The matrices of one layer of experts.
    pub(super) fn modules(&self, into: &mut Modules, traits: &Traits, hidden: u32, biases: bool) {
        let (hidden, width, count) =
            (u64::from(hidden), u64::from(self.width), u64::from(self.count));
        let input = self.latent.map_or(hidden, u64::from);
        if self.latent.is_some() {
            into.linear(Class::Dense, "mixer.fc1_latent_proj", hidden, input, false);
            into.linear(Class::Dense, "mixer.fc2_latent_proj", input, hidden, false);
        }
        if traits.gated {
            into.experts("mlp.experts.0.gate_proj", input, width, count);
        }
        into.experts("mlp.experts.0.up_proj", input, width, count);
        into.experts("mlp.experts.0.down_proj", width, input, count);
        if biases {
            let each = if traits.gated { 2 * width } else { width } + input;
            into.small(Class::Experts, each.saturating_mul(count));
        }
        into.table(Class::Replicated, "mlp.gate", count, hidden);
        into.small(Class::Replicated, count);
        if self.shared_width > 0 {
            if traits.gated {
                into.linear(
                    Class::Dense,
                    "mlp.shared_experts.gate_proj",
                    hidden,
                    self.shared_width,
                    false,
                );
            }
            into.linear(
                Class::Dense,
                "mlp.shared_experts.up_proj",
                hidden,
                self.shared_width,
                false,
            );
            into.linear(
                Class::Dense,
                "mlp.shared_experts.down_proj",
                self.shared_width,
                hidden,
                false,
            );
        }
        if self.shared_gate {
            into.table(Class::Replicated, "mlp.shared_expert_gate", 1, hidden);
        }
    }
}

/// The width of the dense feed-forward layer of layer `layer`.
pub(super) fn dense_width(
    kind: &str,
    fields: &Fields<'_>,
    hidden: u32,
    layer: u32,
    double: bool,
) -> Result<u32, ReadError> {
    let at = |names: &[&str]| fields.number_at(names, layer);
    if let Some(blocks) = fields.list(&["block_configs"])
        && let Some(block) = blocks.get(layer as usize)
    {
        return Ok(block_width(&block["ffn"], hidden));
    }
    let names = [
        "intermediate_size",
        "ffn_hidden_size",
        "n_inner",
        "ffn_dim",
        "d_ff",
        "decoder_ffn_dim",
        "dff",
        "dim_ff",
        "inner_hidden_size",
        "mlp_hidden_size",
    ];
    let mut width = match kind {
        "llama4_text" => at(&["intermediate_size_mlp"])?,
        "minimax_m3" | "minimax_m3_vl_text" => at(&["dense_intermediate_size"])?,
        "granitemoehybrid" if fields.has_own("shared_intermediate_size") => {
            at(&["shared_intermediate_size"])?
        }
        _ => None,
    };
    if width.is_none() {
        width = at(&names)?;
    }
    let width = match (width, kind) {
        (Some(width), "qwen") => width / 2,
        (Some(width), _) => width,
        (None, "mpt") => {
            let ratio = fields.number(&["expansion_ratio"])?.unwrap_or(4);
            hidden.saturating_mul(ratio)
        }
        (None, _) => hidden.saturating_mul(4),
    };
    if kind == "lfm2" && fields.flag(&["block_auto_adjust_ff_dim"]).unwrap_or(true) {
        let multiple = fields.number(&["block_multiple_of"])?.unwrap_or(256).max(1);
        return Ok((width / 3 * 2 + width % 3 * 2 / 3).div_ceil(multiple).saturating_mul(multiple));
    }
    Ok(if double { width.saturating_mul(2) } else { width })
}

/// Nemotron's searched architectures give a multiple of the hidden state; two thirds of it, rounded
/// up to 256, is the width.
fn block_width(block: &Value, hidden: u32) -> u32 {
    if block["no_op"].as_bool() == Some(true) {
        return 0;
    }
    if block["replace_with_linear"].as_bool() == Some(true) {
        // One square matrix, counted as a third of three.
        return hidden.div_ceil(3);
    }
    if let Some(width) = block["intermediate_size"].as_u64() {
        return u32::try_from(width).unwrap_or(u32::MAX);
    }
    let multiple = block["ffn_mult"].as_f64().filter(|m| m.is_finite() && *m >= 0.0).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let width = (2.0 * multiple * f64::from(hidden) / 3.0) as u32;
    width.div_ceil(256).saturating_mul(256)
}

/// The matrices of a dense layer.
pub(super) fn dense_modules(into: &mut Modules, traits: &Traits, hidden: u32, width: u32) {
    let (hidden, width) = (u64::from(hidden), u64::from(width));
    if traits.gated {
        into.linear(Class::Dense, "mlp.gate_proj", hidden, width, traits.mlp_bias);
    }
    into.linear(Class::Dense, "mlp.up_proj", hidden, width, traits.mlp_bias);
    into.linear(Class::Dense, "mlp.down_proj", width, hidden, traits.mlp_bias);
}

/// A number, or the largest of a list.
fn most(fields: &Fields<'_>, names: &[&str]) -> Result<Option<u32>, ReadError> {
    match fields.get(names) {
        Some(Value::Array(list)) => Ok(list
            .iter()
            .filter_map(Value::as_u64)
            .max()
            .and_then(|most| u32::try_from(most).ok())),
        _ => fields.number(names),
    }
}
