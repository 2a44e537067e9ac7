//! Which layer does what: attention over everything or a window, a recurrent state, experts.
//!
//! Configs say it in many ways: a word or a letter for each layer, a period, the index of those
//! that differ. All of them end in one [`Mixer`] and one [`FeedForward`] a layer.

use serde_json::Value;

use crate::read::{ReadError, fields::Fields};

/// More layers than any model has.
const MOST_LAYERS: u32 = 4096;

/// What a layer mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mixer {
    Attention,
    /// Attention over a window or a chunk.
    Windowed,
    /// Mamba, `DeltaNet` and other states of fixed size.
    Recurrent,
    /// A state and attention side by side.
    Both,
    None,
}

/// What a layer does after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FeedForward {
    Dense,
    Experts,
    /// Both side by side (Gemma 4).
    Both,
    None,
}

/// How many layers there are, by a number or by the length of a list.
pub(super) fn count(fields: &Fields<'_>) -> Result<u32, ReadError> {
    let twice = fields.model_type().starts_with("longcat_flash");
    let listed = || {
        let pattern =
            fields.text(&["hybrid_override_pattern"]).map(|text| layer_letters(text).count());
        pattern.or_else(|| fields.list(&["layers_block_type", "layer_types"]).map(<[Value]>::len))
    };
    let names = [
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "decoder_layers",
        "n_layers_total",
    ];
    // Whisper's num_hidden_layers is its encoder's: large-v3-turbo decodes with 4 layers, not 32.
    let decoders = ["decoder_layers"];
    let names = if fields.has_own("decoder_layers") { &decoders[..] } else { &names[..] };
    let count = match fields.number(names)? {
        Some(count) => count,
        None => listed()
            .and_then(|count| u32::try_from(count).ok())
            .ok_or_else(|| fields.missing("num_hidden_layers"))?,
    };
    let count = if twice { count.saturating_mul(2) } else { count };
    if count == 0 || count > MOST_LAYERS {
        return Err(ReadError::Invalid {
            field: "num_hidden_layers".to_owned(),
            problem: format!("is {count}; it must be from 1 to {MOST_LAYERS}"),
        });
    }
    Ok(count)
}

/// The letters of Nemotron-H's pattern: M for Mamba, * for attention, - and E for feed-forward.
fn layer_letters(pattern: &str) -> impl Iterator<Item = char> {
    pattern.chars().filter(|c| matches!(c, 'M' | '*' | '-' | 'E'))
}

/// Each layer's mixer and feed-forward layer.
pub(super) fn kinds(
    kind: &str,
    fields: &Fields<'_>,
    layers: u32,
    experts: bool,
) -> Result<Vec<(Mixer, FeedForward)>, ReadError> {
    if let Some(pattern) = fields.text(&["hybrid_override_pattern"]) {
        let kinds = layer_letters(pattern).map(|letter| match letter {
            'M' => (Mixer::Recurrent, FeedForward::None),
            '*' => (Mixer::Attention, FeedForward::None),
            'E' => (Mixer::None, FeedForward::Experts),
            _ => (Mixer::None, FeedForward::Dense),
        });
        return sized(kinds.collect(), layers, "hybrid_override_pattern");
    }
    if kind == "nemotron_h"
        && let Some(types) = fields.list(&["layers_block_type", "layer_types"])
    {
        let kinds = types.iter().map(|word| match word.as_str().unwrap_or_default() {
            "mamba" | "linear_attention" => (Mixer::Recurrent, FeedForward::None),
            "attention" | "full_attention" => (Mixer::Attention, FeedForward::None),
            "moe" => (Mixer::None, FeedForward::Experts),
            _ => (Mixer::None, FeedForward::Dense),
        });
        return sized(kinds.collect(), layers, "layers_block_type");
    }
    if kind.starts_with("longcat_flash") {
        return Ok(doubled(layers));
    }
    let mixers = mixers(kind, fields, layers)?;
    let routed = expert_layers(kind, fields, layers, experts)?;
    let feed_forward = |layer: usize| match (kind, routed[layer]) {
        ("mamba" | "mamba2" | "falcon_mamba", _) => FeedForward::None,
        (_, true) if kind.contains("gemma4") => FeedForward::Both,
        // Grok 2.
        (_, true) if fields.flag(&["residual_moe"]) == Some(true) => FeedForward::Both,
        (_, true) => FeedForward::Experts,
        (_, false) => FeedForward::Dense,
    };
    Ok(mixers.into_iter().enumerate().map(|(layer, mixer)| (mixer, feed_forward(layer))).collect())
}

/// LongCat-Flash has two of attention and dense layer in what it calls a layer, and one set of
/// experts beside them.
fn doubled(layers: u32) -> Vec<(Mixer, FeedForward)> {
    let both = |layer: u32| {
        if layer.is_multiple_of(2) { FeedForward::Both } else { FeedForward::Dense }
    };
    (0..layers).map(|layer| (Mixer::Attention, both(layer))).collect()
}

fn sized<T>(list: Vec<T>, layers: u32, field: &str) -> Result<Vec<T>, ReadError> {
    if list.len() == layers as usize {
        return Ok(list);
    }
    Err(ReadError::Invalid {
        field: field.to_owned(),
        problem: format!("has {} entries for {layers} layers", list.len()),
    })
}

fn mixers(kind: &str, fields: &Fields<'_>, layers: u32) -> Result<Vec<Mixer>, ReadError> {
    let each = |mixer: &dyn Fn(u32) -> Mixer| (0..layers).map(mixer).collect::<Vec<_>>();
    if matches!(kind, "mamba" | "mamba2" | "falcon_mamba") {
        return Ok(each(&|_| Mixer::Recurrent));
    }
    if kind.starts_with("falcon_h1") || kind.starts_with("hymba") {
        return Ok(each(&|_| Mixer::Both));
    }
    if let Some(blocks) = fields.list(&["block_configs"]) {
        let mixers = blocks.iter().map(|block| {
            let attention = &block["attention"];
            let none = attention["no_op"].as_bool() == Some(true)
                || attention["replace_with_linear"].as_bool() == Some(true);
            if none { Mixer::None } else { Mixer::Attention }
        });
        return sized(mixers.collect(), layers, "block_configs");
    }
    // Whoever has window_size in a layer's own words has it in sliding_window too.
    let windows = window_tokens(fields)?.is_some();
    let types = ["layer_types", "layers_block_type", "block_types", "_block_types"];
    if let Some(types) = fields.list(&types).filter(|types| !types.is_empty()) {
        let word = |layer: usize| types[layer % types.len()].as_str().unwrap_or_default();
        return Ok((0..layers as usize)
            .map(|layer| match word(layer) {
                "linear_attention" | "mamba" | "conv" | "recurrent" | "linear" | "short_conv"
                | "mamba2" | "gated_deltanet" | "kda" => Mixer::Recurrent,
                "sliding_attention" | "chunked_attention" | "local_attention" | "sliding"
                | "local"
                    if windows =>
                {
                    Mixer::Windowed
                }
                "mlp" | "moe" | "none" => Mixer::None,
                _ => Mixer::Attention,
            })
            .collect());
    }
    if let Some(types) = fields.numbers(&["attn_type_list"]) {
        // MiniMax-Text-01: 0 is linear.
        let mixer = |&kind: &u64| if kind == 0 { Mixer::Recurrent } else { Mixer::Attention };
        return sized(types.iter().map(mixer).collect(), layers, "attn_type_list");
    }
    if let Some(pattern) = fields.numbers(&["hybrid_layer_pattern"]) {
        let mixer = |&kind: &u64| if kind == 1 { Mixer::Windowed } else { Mixer::Attention };
        return sized(pattern.iter().map(mixer).collect(), layers, "hybrid_layer_pattern");
    }
    if let Some(linear) = fields.object(&["linear_attn_config"])
        && let Some(full) = linear.numbers(&["full_attn_layers"])
    {
        // Kimi Linear counts from 1.
        return Ok(each(&|layer| {
            if full.contains(&(u64::from(layer) + 1)) { Mixer::Attention } else { Mixer::Recurrent }
        }));
    }
    for name in ["attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids", "attention_layers_idx"]
    {
        if let Some(full) = fields.numbers(&[name]) {
            return Ok(each(&|layer| {
                if full.contains(&u64::from(layer)) { Mixer::Attention } else { Mixer::Recurrent }
            }));
        }
    }
    if let Some(period) = fields.number(&["attn_layer_period"])?.filter(|&period| period > 0) {
        let offset = fields.number(&["attn_layer_offset"])?.unwrap_or(0);
        return Ok(each(&|layer| {
            if layer % period == offset { Mixer::Attention } else { Mixer::Recurrent }
        }));
    }
    if starts(kind, &["bamba", "granitemoehybrid"]) {
        return Ok(each(&|_| Mixer::Recurrent));
    }
    let recurrent = starts(
        kind,
        &[
            "qwen3_next",
            "qwen3_5",
            "lara_mini",
            "olmo_hybrid",
            "bailing_hybrid",
            "bailing_moe_linear",
        ],
    );
    let interval = fields.number(&["full_attention_interval", "layer_group_size"])?;
    if recurrent || interval.is_some() {
        let interval = interval.unwrap_or(4).max(1);
        return Ok(each(&|layer| {
            if (layer + 1).is_multiple_of(interval) { Mixer::Attention } else { Mixer::Recurrent }
        }));
    }
    if starts(kind, &["lfm"]) {
        return Ok(each(&|_| Mixer::Attention));
    }
    windowed(kind, fields, layers)
}

fn starts(kind: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| kind.starts_with(prefix))
}

/// Layers of attention, some of them over a window, where no list says which.
fn windowed(kind: &str, fields: &Fields<'_>, layers: u32) -> Result<Vec<Mixer>, ReadError> {
    let every = |full: &dyn Fn(u32) -> bool| {
        let mixer = |layer| if full(layer) { Mixer::Attention } else { Mixer::Windowed };
        Ok((0..layers).map(mixer).collect())
    };
    if window_tokens(fields)?.is_none() {
        return every(&|_| true);
    }
    if let Some(rotated) =
        fields.numbers(&["no_rope_layers"]).filter(|list| list.len() == layers as usize)
        && kind.starts_with("llama4")
    {
        // Llama 4: layers without rotation look back over everything.
        return every(&|layer| rotated[layer as usize] == 0);
    }
    if let Some(Value::String(pattern)) = fields.get(&["sliding_window_pattern"])
        && !pattern.is_empty()
    {
        // EXAONE 4: LLLG.
        let letters: Vec<char> = pattern.chars().collect();
        return every(&|layer| letters[layer as usize % letters.len()] == 'G');
    }
    let period = match kind {
        "llama4_text" | "llama4" => fields.number(&["no_rope_layer_interval"])?.or(Some(4)),
        _ => fields
            .number(&[
                "sliding_window_pattern",
                "_sliding_window_pattern",
                "global_attn_every_n_layers",
            ])?
            .or(match kind {
                "gemma3_text" | "gemma3" | "gemma4_text" | "gemma4" => Some(6),
                "gemma3n_text" => Some(5),
                "gemma2" | "gpt_oss" => Some(2),
                "cohere2" | "cohere2_moe" | "exaone4" | "olmo3" | "afmoe" | "exaone_moe" => Some(4),
                _ => None,
            }),
    };
    if let Some(period) = period.filter(|&period| period > 1) {
        return every(&|layer| (layer + 1).is_multiple_of(period));
    }
    if let Some(first) = fields.number(&["max_window_layers"])? {
        // Qwen 2: the first layers look back over everything.
        return every(&|layer| layer < first);
    }
    every(&|_| false)
}

/// Tokens that windowed layers look back over, unless windows are switched off.
pub(super) fn window_tokens(fields: &Fields<'_>) -> Result<Option<u32>, ReadError> {
    if fields.flag(&["use_sliding_window"]) == Some(false) {
        return Ok(None);
    }
    let names = [
        "sliding_window",
        "sliding_window_size",
        "attention_chunk_size",
        "attention_window_size",
        "window_size",
        "local_attention",
    ];
    for name in names {
        // Each for itself: a null in one does not hide the other.
        let value = match fields.get(&[name]) {
            Some(Value::Number(_)) => fields.number(&[name])?,
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_u64)
                .max()
                .and_then(|most| u32::try_from(most).ok()),
            _ => None,
        };
        if let Some(tokens) = value.filter(|&tokens| tokens > 0) {
            return Ok(Some(tokens));
        }
    }
    Ok(None)
}

/// Which layers have experts.
fn expert_layers(
    kind: &str,
    fields: &Fields<'_>,
    layers: u32,
    experts: bool,
) -> Result<Vec<bool>, ReadError> {
    if !experts {
        return Ok(vec![false; layers as usize]);
    }
    if let Some(types) =
        fields.list(&["mlp_layer_types"]).filter(|types| types.len() == layers as usize)
    {
        return Ok(types.iter().map(|word| word.as_str() != Some("dense")).collect());
    }
    if let Some(list) =
        fields.list(&["moe_layer_freq"]).filter(|list| list.len() == layers as usize)
    {
        return Ok(list.iter().map(|flag| flag.as_u64() != Some(0)).collect());
    }
    let named = fields.numbers(&["moe_layers"]).or_else(|| {
        fields
            .text(&["moe_layers_enum"])
            .map(|text| text.split(',').filter_map(|word| word.trim().parse().ok()).collect())
    });
    let dense_list = fields.numbers(&["mlp_only_layers"]).unwrap_or_default();
    let number = |names: &[&str]| fields.number(names);
    let first = number(&[
        "first_k_dense_replace",
        "num_dense_layers",
        "n_dense_layers",
        "first_k_dense_layers",
        "moe_layer_start_index",
        "dense_layers",
        "num_leading_dense_layers",
        "first_dense_layers",
    ])?;
    let first = first.unwrap_or(match kind {
        "glm_moe_dsa" | "step3p5" | "hy_v4" | "hy_v4_vl_text" => 3,
        "glm4_moe_lite" | "exaone_moe" | "axk1" | "axk2" | "dots3_note_text" | "mimo_v2_flash"
        | "hy_v3" => 1,
        _ => 0,
    });
    let last = match fields.get(&["moe_layer_end_index"]) {
        Some(Value::Number(end)) => end.as_i64().filter(|&end| end >= 0),
        _ => None,
    };
    let after = |names: &[&str]| Ok::<_, ReadError>(fields.number(names)?.filter(|&step| step > 0));
    // Every so many, counted from the first layer or from the one after.
    let from_one =
        after(&["decoder_sparse_step", "interleave_moe_layer_step", "moe_every_n_layers"])?;
    let from_zero = match fields.get(&["moe_layer_freq", "moe_layer_interval"]) {
        Some(Value::Number(_)) => after(&["moe_layer_freq", "moe_layer_interval"])?,
        _ => None,
    };
    let period = after(&["expert_layer_period"])?;
    let offset = number(&["expert_layer_offset"])?.unwrap_or(0);
    let routed = |layer: u32| {
        let index = u64::from(layer);
        if let Some(named) = &named {
            return named.contains(&index);
        }
        layer >= first
            && last.is_none_or(|last| i64::from(layer) <= last)
            && !dense_list.contains(&index)
            && from_one.is_none_or(|step| (layer + 1).is_multiple_of(step))
            && from_zero.is_none_or(|step| {
                layer.is_multiple_of(step)
                    || kind.starts_with("ernie") && (layer + 1).is_multiple_of(step)
            })
            && period.is_none_or(|period| layer % period == offset)
    };
    Ok((0..layers).map(routed).collect())
}
