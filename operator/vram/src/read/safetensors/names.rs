//! What a tensor is, by its name.
//!
//! Names differ from family to family; a part of them tells. What is unknown counts as a divided
//! matrix, or, with one dimension, as one of the small tensors that every GPU holds.

use crate::{LayerCache, ModelFacts, read::tensors::Class};

/// Where a tensor belongs. No class: queries, keys and values in one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Layer(u32, Option<Class>),
    Outside(Option<Class>),
    /// Loaded only to draft tokens ahead.
    Draft,
    /// Not loaded.
    Unused,
}

/// Parts of names of towers for images and sound, and of what joins them to the language model.
const TOWERS: &[&str] = &[
    "visual",
    "vision",
    "vit",
    "vpm",
    "image_newline",
    "img_projection",
    "img_processor",
    "audio",
    "speech",
    "mm_projector",
    "multi_modal_projector",
    "patch_merge_mlp",
    "mlp1",
    "aligner",
    "projector",
    "resampler",
    "encoder",
    "connector",
    "vision_embed_tokens",
    "image_encoder",
    "pre_mm_projector_norm",
    "mm_input_projection",
    "image_adapter",
    "visual_tokenizer",
    "sam_model",
    "view_seperator",
    "embed_vision",
    "embed_audio",
    "vision_language_adapter",
    "patch_merger",
];

/// Buffers, and what speaks: engines answer in text.
const UNUSED: [&str; 5] = ["inv_freq", "masked_bias", "position_ids", "talker", "token2wav"];

/// The place of a tensor in a model of so many layers.
pub(super) fn place(name: &str, facts: &ModelFacts) -> Place {
    let parts: Vec<&str> = name.split('.').take(32).collect();
    if parts.iter().any(|part| UNUSED.contains(part)) {
        return Place::Unused;
    }
    let marker = parts.windows(2).position(|pair| {
        matches!(pair[0], "layers" | "h" | "blocks" | "block" | "layer")
            && pair[1].parse::<u32>().is_ok()
    });
    let trunk = &parts[..marker.unwrap_or(parts.len())];
    if trunk.iter().any(|part| part.starts_with("mtp") || *part == "nextn_predict") {
        return Place::Draft;
    }
    if trunk.iter().any(|part| is_tower(part)) {
        return Place::Outside(Some(Class::Other));
    }
    let layer = marker.and_then(|at| Some((at, parts.get(at + 1)?.parse::<u32>().ok()?)));
    match layer {
        Some((at, layer)) if layer < facts.layers => {
            Place::Layer(layer, class_in_layer(&parts[at + 2..]))
        }
        // Behind the last layer stand those that predict more than one token.
        Some(_) => Place::Draft,
        None => outside(&parts, facts),
    }
}

fn is_tower(part: &str) -> bool {
    TOWERS.iter().any(|tower| part.contains(tower)) && part != "embed_tokens"
}

fn outside(parts: &[&str], facts: &ModelFacts) -> Place {
    let any = |words: &[&str]| parts.iter().any(|part| words.contains(part));
    if any(&["lm_head", "embed_out", "output_layer", "head", "output"]) {
        return if facts.tied_embeddings {
            Place::Unused
        } else {
            Place::Outside(Some(Class::Output))
        };
    }
    let embedding = |part: &&str| part.contains("embed") || matches!(*part, "wte" | "wpe");
    if parts.iter().any(embedding) && !parts.iter().any(|part| part.contains("norm")) {
        return Place::Outside(Some(Class::Embedding));
    }
    let small = parts.iter().any(|part| part.contains("norm") || part.starts_with("ln_"));
    Place::Outside(Some(if small { Class::Replicated } else { Class::Dense }))
}

/// Parts of names within a layer, the first that is found counts; no class for queries, keys and
/// values together.
const WITHIN: &[(Option<Class>, &[&str])] = &[
    (Some(Class::Experts), &["experts"]),
    (
        Some(Class::Replicated),
        &[
            "gate",
            "router",
            "wg",
            "moe_gate",
            "e_score_correction_bias",
            "A_log",
            "D",
            "dt_bias",
            "sinks",
            "layer_scalar",
            "per_layer_input_gate",
            "per_layer_projection",
            "laurel",
            "altup",
        ],
    ),
    (
        Some(Class::LatentProjection),
        &[
            "indexer",
            "q_a_proj",
            "kv_a_proj_with_mqa",
            "kv_a_proj",
            "fused_qkv_a_proj_with_mqa",
            "wq_a",
            "wkv",
            "compressor",
        ],
    ),
    (
        Some(Class::KvProjection),
        &["k_proj", "v_proj", "k", "v", "key", "value", "wk", "wv", "key_proj", "value_proj"],
    ),
    (None, &["qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack", "qkv", "wqkv", "att_proj"]),
    (
        Some(Class::Dense),
        &[
            "mlp",
            "feed_forward",
            "ffn",
            "fc1",
            "fc2",
            "block_sparse_moe",
            "moe",
            "gate_proj",
            "up_proj",
            "down_proj",
            "gate_up_proj",
            "w1",
            "w2",
            "w3",
            "ff_proj",
            "ff_out",
            "dense_h_to_4h",
            "dense_4h_to_h",
            "c_fc",
            "fc1_latent_proj",
            "fc2_latent_proj",
        ],
    ),
];

/// Parts of names, of which a part is enough.
const ATTENTION: [&str; 6] = ["att", "mixer", "mamba", "conv", "q_proj", "o_proj"];

/// The class of a tensor within a layer; none for queries, keys and values together.
fn class_in_layer(parts: &[&str]) -> Option<Class> {
    let holds = |word: &str| parts.iter().any(|part| part.contains(word));
    if ["shared_expert", "shared_mlp", "share_expert"].iter().any(|word| holds(word)) {
        // Its gate is a single row.
        let gate = holds("shared_expert_gate");
        return Some(if gate { Class::Replicated } else { Class::Dense });
    }
    if holds("norm") || holds("ln_") {
        return Some(Class::Replicated);
    }
    let named = |words: &[&str]| parts.iter().any(|part| words.contains(part));
    if let Some((class, _)) = WITHIN.iter().find(|(_, words)| named(words)) {
        return *class;
    }
    if ATTENTION.iter().any(|word| holds(word)) {
        return Some(Class::Attention);
    }
    let small = parts.len() == 1 || parts.last() == Some(&"bias");
    Some(if small { Class::Replicated } else { Class::Dense })
}

/// What a layer keeps, where nobody has told: the model's main kind.
pub(super) fn cache(facts: &ModelFacts) -> LayerCache {
    if facts.recurrent.is_some_and(|recurrent| recurrent.attention_layers == 0) {
        LayerCache::State
    } else {
        LayerCache::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_families() {
        let facts = ModelFacts { layers: 61, ..ModelFacts::default() };
        let layer = |layer, class| Place::Layer(layer, Some(class));
        let outside = |class| Place::Outside(Some(class));
        for (name, expected) in [
            ("model.embed_tokens.weight", outside(Class::Embedding)),
            ("language_model.model.embed_tokens.weight", outside(Class::Embedding)),
            ("transformer.wte.weight", outside(Class::Embedding)),
            ("backbone.embeddings.weight", outside(Class::Embedding)),
            ("lm_head.weight", outside(Class::Output)),
            ("model.norm.weight", outside(Class::Replicated)),
            ("model.layers.3.self_attn.q_proj.weight", layer(3, Class::Attention)),
            ("model.layers.3.self_attn.q_proj.bias", layer(3, Class::Attention)),
            ("model.layers.3.self_attn.k_proj.weight_scale_inv", layer(3, Class::KvProjection)),
            (
                "model.layers.3.self_attn.kv_a_proj_with_mqa.weight",
                layer(3, Class::LatentProjection),
            ),
            ("model.layers.3.self_attn.indexer.wk.weight", layer(3, Class::LatentProjection)),
            ("model.layers.3.self_attn.kv_b_proj.weight", layer(3, Class::Attention)),
            ("model.layers.3.mlp.experts.17.up_proj.weight", layer(3, Class::Experts)),
            ("model.layers.3.mlp.experts.gate_up_proj_blocks", layer(3, Class::Experts)),
            ("model.layers.3.block_sparse_moe.experts.0.w1.qweight", layer(3, Class::Experts)),
            ("model.layers.3.mlp.shared_experts.up_proj.weight", layer(3, Class::Dense)),
            ("model.layers.3.mlp.shared_expert_gate.weight", layer(3, Class::Replicated)),
            ("model.layers.3.mlp.gate.weight", layer(3, Class::Replicated)),
            ("model.layers.3.mlp.gate_proj.qzeros", layer(3, Class::Dense)),
            ("model.layers.3.input_layernorm.weight", layer(3, Class::Replicated)),
            (
                "model.language_model.layers.9.linear_attn.in_proj_qkv.weight",
                layer(9, Class::Attention),
            ),
            ("backbone.layers.7.mixer.in_proj.weight", layer(7, Class::Attention)),
            ("backbone.layers.7.mixer.up_proj.weight", layer(7, Class::Dense)),
            ("backbone.layers.7.mixer.A_log", layer(7, Class::Replicated)),
            ("transformer.h.0.attn.c_attn.weight", Place::Layer(0, None)),
            ("model.layers.0.self_attn.qkv_proj.weight", Place::Layer(0, None)),
            ("model.layers.61.eh_proj.weight", Place::Draft),
            ("mtp.layers.0.mlp.gate.weight", Place::Draft),
            ("model.visual.blocks.3.attn.qkv.weight", outside(Class::Other)),
            ("vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias", outside(Class::Other)),
            ("multi_modal_projector.linear_1.weight", outside(Class::Other)),
            ("model.encoder.layers.0.fc1.weight", outside(Class::Other)),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", Place::Unused),
        ] {
            assert_eq!(place(name, &facts), expected, "{name}");
        }
        let tied = ModelFacts { tied_embeddings: true, ..facts };
        assert_eq!(place("lm_head.weight", &tied), Place::Unused);
    }
}
