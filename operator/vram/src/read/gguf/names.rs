//! What a tensor is, by its name: llama.cpp gives all families the same ones.

use crate::read::tensors::Class;

/// Where a tensor belongs. No class: queries, keys and values in one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Layer(u32, Option<Class>),
    Outside(Class),
    /// Looked up by the host, never copied to a GPU.
    Host,
}

/// The place of a tensor.
pub(super) fn place(name: &str) -> Place {
    if let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
        && let Ok(layer) = layer.parse()
    {
        return Place::Layer(layer, class_in_layer(rest));
    }
    let part = name.split('.').next().unwrap_or(name);
    match part {
        "token_embd" => Place::Outside(Class::Embedding),
        "output" => Place::Outside(Class::Output),
        // llama.cpp's tensors of the input layer.
        "per_layer_token_embd" | "position_embd" | "token_types" | "token_embd_norm" => Place::Host,
        "output_norm" | "rope_freqs" | "rope_factors_long" | "rope_factors_short" => {
            Place::Outside(Class::Replicated)
        }
        _ => Place::Outside(Class::Dense),
    }
}

fn class_in_layer(rest: &str) -> Option<Class> {
    let part = rest.split('.').next().unwrap_or(rest);
    if part.ends_with("_exps") || part.contains("_exps_") {
        return Some(Class::Experts);
    }
    if part.ends_with("_norm") || part.starts_with("exp_probs") || part.contains("norm") {
        return Some(Class::Replicated);
    }
    Some(match part {
        "attn_qkv" => return None,
        "attn_k" | "attn_v" => Class::KvProjection,
        "attn_q_a" | "attn_kv_a_mqa" => Class::LatentProjection,
        "ffn_gate_inp" | "ffn_gate_inp_shexp" | "attn_sinks" | "layer_output_scale" | "ssm_a"
        | "ssm_d" | "ssm_dt" => Class::Replicated,
        _ if part.starts_with("indexer") => Class::LatentProjection,
        _ if part.starts_with("attn")
            || part.starts_with("ssm")
            || part.starts_with("shortconv")
            || part.starts_with("time_mix") =>
        {
            Class::Attention
        }
        _ => Class::Dense,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_families() {
        let layer = |layer, class| Place::Layer(layer, Some(class));
        for (name, expected) in [
            ("token_embd.weight", Place::Outside(Class::Embedding)),
            ("output.weight", Place::Outside(Class::Output)),
            ("output_norm.weight", Place::Outside(Class::Replicated)),
            ("per_layer_token_embd.weight", Place::Host),
            ("blk.3.attn_q.weight", layer(3, Class::Attention)),
            ("blk.3.attn_output.weight", layer(3, Class::Attention)),
            ("blk.3.attn_k.bias", layer(3, Class::KvProjection)),
            ("blk.3.attn_kv_a_mqa.weight", layer(3, Class::LatentProjection)),
            ("blk.3.attn_k_b.weight", layer(3, Class::Attention)),
            ("blk.3.attn_norm.weight", layer(3, Class::Replicated)),
            ("blk.3.ffn_gate_exps.weight", layer(3, Class::Experts)),
            ("blk.3.ffn_down_shexp.weight", layer(3, Class::Dense)),
            ("blk.3.ffn_gate_inp.weight", layer(3, Class::Replicated)),
            ("blk.3.ffn_up.weight", layer(3, Class::Dense)),
            ("blk.3.ssm_in.weight", layer(3, Class::Attention)),
            ("blk.3.attn_qkv.weight", Place::Layer(3, None)),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
    }
}
