//! Dense feed-forward layers.

use serde_json::Value;

use super::{modules::Modules, traits::Traits};
use crate::read::{ReadError, fields::Fields, tensors::Class};

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
        into.linear(Class::Dense, "mlp.gate_proj", hidden, width, traits.biases.mlp);
    }
    into.linear(Class::Dense, "mlp.up_proj", hidden, width, traits.biases.mlp);
    into.linear(Class::Dense, "mlp.down_proj", width, hidden, traits.biases.mlp);
}
