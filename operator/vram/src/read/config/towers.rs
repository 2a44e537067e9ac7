//! Towers for images and sound, and what joins them to the language model.
//!
//! They are small beside the language model, so a shape that is unknown is counted as the plain
//! transformer that nearly all of them are.

use crate::read::{ReadError, fields::Fields};

/// Parameters of all towers and projectors of a model whose hidden state is `hidden` wide.
pub(super) fn parameters(root: &Fields<'_>, hidden: u32) -> Result<u64, ReadError> {
    let mut sum = 0_u64;
    for name in
        ["vision_config", "vision_tower_config", "visual", "vit_config", "vision_model_config"]
    {
        if let Some(vision) = tower(root, name) {
            sum = sum.saturating_add(self::vision(root, &vision, u64::from(hidden))?);
            break;
        }
    }
    if let Some(audio) = tower(root, "audio_config").or_else(|| tower(root, "encoder_config")) {
        sum = sum.saturating_add(self::audio(&audio, u64::from(hidden))?);
    }
    Ok(sum)
}

/// A config within, with the defaults of its own kind.
fn tower<'a>(root: &Fields<'a>, name: &str) -> Option<Fields<'a>> {
    let object = root.get(&[name])?.as_object()?;
    let kind = object.get("model_type").and_then(|kind| kind.as_str()).unwrap_or_default();
    // Older configs name the family alone.
    let guess = format!("{kind}_vision");
    let defaults = super::defaults::of(&guess)
        .filter(|_| name.starts_with("vi"))
        .or_else(|| super::defaults::of(kind));
    (!object.is_empty()).then(|| Fields::new(vec![object], defaults, kind))
}

/// A transformer over patches, and its projector.
fn vision(root: &Fields<'_>, tower: &Fields<'_>, text: u64) -> Result<u64, ReadError> {
    let kind = tower.model_type().to_owned();
    let family = root.model_type().to_owned();
    let at = |names: &[&str]| Ok::<_, ReadError>(tower.number(names)?.map(u64::from));
    let is = |part: &str| kind.contains(part) || family.contains(part);
    // Qwen2-VL calls the tower's own width embed_dim, and the language model's hidden_size.
    let width = at(&["embed_dim", "vt_hidden_size", "hidden_size", "width", "d_model"])?;
    let layers = at(&[
        "depth",
        "vt_num_hidden_layers",
        "num_hidden_layers",
        "layers",
        "num_layers",
        "n_layers",
    ])?;
    let (Some(width), Some(layers)) = (width, layers) else { return Ok(0) };
    let given = at(&["vt_intermediate_size", "intermediate_size", "mlp_dim"])?;
    let intermediate = if let Some(given) = given {
        given
    } else {
        {
            let ratio = tower.fraction(&["mlp_ratio"]).unwrap_or(4.0).clamp(0.0, 64.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is bounded"
            )]
            let ratio = (ratio * 10_000.0) as u64;
            width.saturating_mul(ratio) / 10_000
        }
    };
    let gated = [
        "qwen2_5_vl",
        "qwen2_5_omni",
        "pixtral",
        "glm4v",
        "glm46v",
        "glm_ocr",
        "gemma4",
        "exaone4_5",
        "mistral3",
        "lighton",
        "ovis2",
        "paddle_gated",
    ]
    .iter()
    .any(|part| is(part));
    let attention = at(&["qkv_hidden_size"])?.map_or(width, |qkv| qkv);
    let mlp = if gated { 3 } else { 2 };
    let layer = (width.saturating_mul(attention).saturating_mul(4))
        .saturating_add(width.saturating_mul(intermediate).saturating_mul(mlp))
        // Biases and two norms.
        .saturating_add(width.saturating_mul(9))
        .saturating_add(intermediate);
    let mut sum = layer.saturating_mul(layers);

    let patch = at(&["patch_size", "spatial_patch_size"])?.unwrap_or(14);
    let channels = at(&["in_channels", "in_chans", "num_channels"])?.unwrap_or(3);
    let frames = at(&["temporal_patch_size"])?.unwrap_or(1);
    sum = sum.saturating_add(
        width
            .saturating_mul(patch.saturating_mul(patch))
            .saturating_mul(channels.saturating_mul(frames)),
    );
    // Positions that are learned: those that a config counts, or one for each patch of an image.
    let positions = match at(&[
        "num_position_embeddings",
        "position_embedding_size",
        "max_position_embeddings_",
    ])? {
        Some(positions) if is("gemma4") => positions.saturating_mul(2),
        Some(positions) => positions,
        None if at(&["init_pos_emb_height"])?.is_some() => at(&["init_pos_emb_height"])?
            .unwrap_or(0)
            .saturating_mul(at(&["init_pos_emb_width"])?.unwrap_or(0)),
        None if is("qwen2") || is("pixtral") => 0,
        None => {
            let side = at(&["image_size", "img_size"])?.unwrap_or(0) / patch.max(1);
            side.saturating_mul(side)
        }
    };
    sum = sum.saturating_add(positions.saturating_mul(width));
    Ok(sum.saturating_add(projector(root, tower, width, text)?))
}

/// What joins the tower to the language model.
fn projector(
    root: &Fields<'_>,
    tower: &Fields<'_>,
    width: u64,
    text: u64,
) -> Result<u64, ReadError> {
    let family = root.model_type();
    let at = |names: &[&str]| Ok::<_, ReadError>(tower.number(names)?.map(u64::from));
    let starts = |names: &[&str]| names.iter().any(|name| family.starts_with(name));
    let two = |input: u64, inner: u64, output: u64| {
        input.saturating_mul(inner).saturating_add(inner.saturating_mul(output))
    };
    if starts(&["gemma3", "gemma4", "paligemma"]) {
        return Ok(width.saturating_mul(text));
    }
    if starts(&["llama4"]) {
        let output = at(&["vision_output_dim", "projector_output_dim"])?.unwrap_or(4096);
        let ratio = at(&["projector_input_dim"])?.unwrap_or(4096);
        let adapter = two(at(&["intermediate_size"])?.unwrap_or(5632), ratio, output);
        return Ok(adapter.saturating_add(output.saturating_mul(text)));
    }
    let merge = match tower.get(&["merge_kernel_size"]).and_then(|list| list.as_array()) {
        Some(list) => {
            list.iter().filter_map(serde_json::Value::as_u64).take(2).fold(1, u64::saturating_mul)
        }
        None => match at(&["spatial_merge_size"])?
            .or(root.number(&["spatial_merge_size"])?.map(u64::from))
        {
            Some(side) => side.saturating_mul(side),
            None if starts(&["internvl", "kimi", "InternVL"]) => 4,
            None => 1,
        },
    };
    let merged = width.saturating_mul(merge);
    if starts(&["mistral3"]) {
        return Ok(merged.saturating_mul(width).saturating_add(two(width, text, text)));
    }
    if starts(&["glm4v", "glm46v", "glm_ocr"]) {
        // A convolution that merges, then a gated layer.
        let inner = at(&["intermediate_size"])?.unwrap_or(text);
        let _ = inner;
        let hidden = at(&["out_hidden_size"])?.unwrap_or(text);
        let context = at(&["intermediate_size"])?.unwrap_or(hidden);
        return Ok(merged
            .saturating_mul(hidden)
            .saturating_add(hidden.saturating_mul(hidden))
            .saturating_add(hidden.saturating_mul(context).saturating_mul(3)));
    }
    if starts(&["internvl", "InternVL"]) {
        return Ok(two(merged, text, text));
    }
    if at(&["spatial_merge_size"])?.is_some() || starts(&["kimi"]) {
        let out = at(&["out_hidden_size"])?.unwrap_or(text);
        // Qwen3-VL has one more for each deep layer that it reads from.
        let deep = tower.list(&["deepstack_visual_indexes"]).map_or(0, <[_]>::len) as u64;
        return Ok(two(merged, merged, out).saturating_mul(deep.saturating_add(1)));
    }
    Ok(two(merged, text, text))
}

/// An encoder of sound.
fn audio(tower: &Fields<'_>, text: u64) -> Result<u64, ReadError> {
    let at = |names: &[&str]| Ok::<_, ReadError>(tower.number(names)?.map(u64::from));
    let width = at(&["d_model", "hidden_size", "hidden_dim"])?;
    let layers =
        at(&["encoder_layers", "num_hidden_layers", "conf_num_hidden_layers", "num_layers"])?;
    let (Some(width), Some(layers)) = (width, layers) else { return Ok(0) };
    let intermediate =
        at(&["encoder_ffn_dim", "intermediate_size"])?.unwrap_or(width.saturating_mul(4));
    let kind = tower.model_type();
    let square = width.saturating_mul(width);
    let layer =
        if kind.contains("gemma") || kind.contains("granite_speech") || kind.contains("phi4") {
            // A conformer: two feed-forward layers and a convolution around the attention.
            square
                .saturating_mul(4 + 3)
                .saturating_add(width.saturating_mul(intermediate).saturating_mul(4))
        } else {
            square
                .saturating_mul(4)
                .saturating_add(width.saturating_mul(intermediate).saturating_mul(2))
        };
    let bins = at(&["num_mel_bins"])?.unwrap_or(0);
    let convolutions =
        width.saturating_mul(bins).saturating_mul(3).saturating_add(square.saturating_mul(3));
    Ok(layer
        .saturating_mul(layers)
        .saturating_add(convolutions)
        .saturating_add(width.saturating_mul(text)))
}
