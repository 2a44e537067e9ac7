//! Towers for images and sound, and what joins them to the language model.
//!
//! They are small beside the language model, so a shape that is unknown is counted as the plain
//! transformer that nearly all of them are.

use serde_json::Value;

use crate::read::{ReadError, fields::Fields};

/// Parameters of all towers and projectors of a model whose hidden state is `hidden` wide.
pub(super) fn parameters(root: &Fields<'_>, hidden: u32) -> Result<u64, ReadError> {
    const VISION: [&str; 5] =
        ["vision_config", "vision_tower_config", "visual", "vit_config", "vision_model_config"];
    const AUDIO: [&str; 3] = ["audio_config", "encoder_config", "sound_config"];
    let text = u64::from(hidden);
    // Qwen's models of all senses have the towers within the part that thinks.
    let thinker = root.object(&["thinker_config"]);
    let root = thinker.as_ref().unwrap_or(root);
    let mut sum = 0_u64;
    if let Some(vision) = VISION.iter().find_map(|name| tower(root, name)) {
        sum = sum.saturating_add(Vision::of(root, &vision)?.parameters(text)?);
    }
    if let Some(encoder) = AUDIO.iter().find_map(|name| tower(root, name)) {
        sum = sum.saturating_add(audio(&encoder, text)?);
    }
    if root.model_type() == "phi4mm" {
        sum = sum.saturating_add(PHI4MM);
    }
    if root.model_type() == "whisper" {
        sum = sum.saturating_add(audio(root, 0)?);
    }
    Ok(sum)
}

/// Phi-4-multimodal's towers with their projectors, which its config only names: 440 million for images
/// and 460 for sound, as its report says (arXiv 2503.01743, section 2.2).
const PHI4MM: u64 = 900_000_000;

/// A config within, with the defaults of its own kind.
fn tower<'a>(root: &Fields<'a>, name: &str) -> Option<Fields<'a>> {
    let object = root.get(&[name])?.as_object().filter(|object| !object.is_empty())?;
    let kind = object.get("model_type").and_then(Value::as_str).unwrap_or_default();
    // Older configs name the family alone.
    let guess = format!("{kind}_vision");
    let defaults = super::defaults::of(&guess)
        .filter(|_| name.starts_with("vi"))
        .or_else(|| super::defaults::of(kind));
    Some(Fields::new(vec![object], defaults, kind))
}

/// Towers whose feed-forward layers have a gate.
const GATED: [&str; 11] = [
    "qwen2_5_vl",
    "qwen2_5_omni",
    "pixtral",
    "mistral3",
    "lighton",
    "glm4v",
    "glm46v",
    "glm_ocr",
    "gemma4",
    "exaone4_5",
    "ovis2",
];

/// A transformer over patches.
struct Vision<'a> {
    root: &'a Fields<'a>,
    tower: &'a Fields<'a>,
    width: u64,
    layers: u64,
    intermediate: u64,
}

/// A number, or the first of a list: patches and images are given by their sides, too.
fn side(tower: &Fields<'_>, names: &[&str]) -> Result<Option<u64>, ReadError> {
    match tower.get(names) {
        Some(Value::Array(list)) => {
            Ok(list.first().and_then(Value::as_u64).map(|side| side.min(1 << 20)))
        }
        _ => Ok(tower.number(names)?.map(u64::from)),
    }
}

impl<'a> Vision<'a> {
    fn of(root: &'a Fields<'a>, tower: &'a Fields<'a>) -> Result<Self, ReadError> {
        let at = |names: &[&str]| Ok::<_, ReadError>(tower.number(names)?.map_or(0, u64::from));
        // Qwen2-VL calls the tower's own width embed_dim, and the language model's hidden_size.
        let width = at(&["embed_dim", "vt_hidden_size", "hidden_size", "width", "d_model"])?;
        let layers = [
            "depth",
            "vt_num_hidden_layers",
            "num_hidden_layers",
            "layers",
            "num_layers",
            "n_layers",
        ];
        let layers = at(&layers)?.saturating_add(at(&["num_global_layers"])?);
        let given = at(&["vt_intermediate_size", "intermediate_size", "mlp_dim"])?;
        let kind = tower.model_type();
        let intermediate = match given {
            _ if kind.starts_with("glm4v") || kind.starts_with("glm46v") => {
                at(&["out_hidden_size"])?
            }
            0 => {
                let ratio = tower.fraction(&["mlp_ratio"]).unwrap_or(4.0).clamp(0.0, 64.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "bounded"
                )]
                let ratio = (ratio * 10_000.0) as u64;
                width.saturating_mul(ratio) / 10_000
            }
            given => given,
        };
        Ok(Self { root, tower, width, layers, intermediate })
    }

    fn at(&self, names: &[&str]) -> Result<u64, ReadError> {
        Ok(self.tower.number(names)?.map_or(0, u64::from))
    }

    fn is(&self, part: &str) -> bool {
        self.tower.model_type().contains(part) || self.root.model_type().contains(part)
    }

    fn parameters(&self, text: u64) -> Result<u64, ReadError> {
        // A convolutional tower whose name is its only description: 300 million, as it says, and
        // an adapter (what Gemma 3n E2B and E4B publish, less everything else).
        if self.tower.text(&["architecture"]) == Some("mobilenetv5_300m_enc") {
            return Ok(310_000_000);
        }
        if self.width == 0 || self.layers == 0 {
            return Ok(0);
        }
        let (width, intermediate) = (self.width, self.intermediate);
        let gated = GATED.iter().any(|part| self.is(part));
        // Queries and output, keys and values.
        let attention = match self.at(&["qkv_hidden_size"])? {
            0 => width,
            own => own,
        };
        let heads = self.at(&["num_heads", "num_attention_heads"])?.max(1);
        let kv_heads = match self.at(&["num_key_value_heads"])? {
            0 => heads,
            kv_heads => kv_heads.min(heads),
        };
        let keys = attention.saturating_mul(kv_heads) / heads;
        let layer = width
            .saturating_mul(attention.saturating_add(keys).saturating_mul(2))
            .saturating_add(width.saturating_mul(intermediate).saturating_mul(if gated {
                3
            } else {
                2
            }))
            // Biases and two norms.
            .saturating_add(width.saturating_mul(9))
            .saturating_add(intermediate);
        let sum = layer
            .saturating_mul(self.layers)
            .saturating_add(self.embeddings()?)
            .saturating_add(self.projector(text)?);
        let head = self.tower.flag(&["vision_use_head"]).unwrap_or(false)
            && ["cohere2", "lfm2", "phi4"].iter().any(|part| self.is(part));
        let pooling = width.saturating_mul(width).saturating_mul(4);
        let pooling = pooling.saturating_add(width.saturating_mul(intermediate).saturating_mul(2));
        Ok(if head { sum.saturating_add(pooling) } else { sum })
    }

    /// Patches, and their positions where those are learned: what a config counts, or one for each
    /// patch of an image.
    fn embeddings(&self) -> Result<u64, ReadError> {
        let patch = side(self.tower, &["patch_size", "spatial_patch_size"])?.unwrap_or(14);
        let channels = match self.at(&["in_channels", "in_chans", "num_channels"])? {
            0 => 3,
            channels => channels,
        };
        let frames = self.at(&["temporal_patch_size"])?.max(1);
        let pixels = patch.saturating_mul(patch).saturating_mul(channels).saturating_mul(frames);
        let height = self.at(&["init_pos_emb_height"])?;
        let image = side(self.tower, &["image_size", "img_size"])?.unwrap_or(0) / patch.max(1);
        let grid = image.saturating_mul(image);
        let counted =
            self.at(&["num_position_embeddings", "num_patches", "position_embedding_size"])?;
        let positions = match counted {
            // Rows and columns.
            _ if self.is("gemma4") => counted.saturating_mul(2),
            _ if height > 0 => height.saturating_mul(self.at(&["init_pos_emb_width"])?),
            // Rotated instead.
            _ if self.is("qwen2") || self.is("pixtral") || self.is("mistral3") => 0,
            // One set for each arrangement of tiles.
            _ if self.is("mllama") => {
                let tiles = self.at(&["max_num_tiles"])?;
                grid.saturating_mul(tiles).saturating_mul(9)
            }
            0 => grid,
            counted => counted,
        };
        Ok(self.width.saturating_mul(pixels.saturating_add(positions)))
    }

    /// What joins the tower to the language model.
    fn projector(&self, text: u64) -> Result<u64, ReadError> {
        let (root, width) = (self.root, self.width);
        let family = root.model_type();
        let starts = |names: &[&str]| names.iter().any(|name| family.starts_with(name));
        let of_root = |names: &[&str]| Ok::<_, ReadError>(root.number(names)?.map_or(0, u64::from));
        let two = |input: u64, inner: u64, output: u64| {
            input.saturating_mul(inner).saturating_add(inner.saturating_mul(output))
        };
        if starts(&["gemma3", "gemma4", "paligemma"]) {
            return Ok(width.saturating_mul(text));
        }
        if starts(&["mllama"]) {
            return Ok(self.at(&["vision_output_dim"])?.saturating_mul(text));
        }
        if starts(&["llama4"]) {
            let output = self.at(&["vision_output_dim"])?;
            let adapter = two(self.intermediate, self.at(&["projector_input_dim"])?, output);
            return Ok(adapter.saturating_add(output.saturating_mul(text)));
        }
        let merged = width.saturating_mul(self.merged_patches()?);
        if starts(&["mistral3"]) {
            let joined = merged.saturating_mul(width);
            return Ok(joined.saturating_add(two(width, text, text)));
        }
        if starts(&["glm4v", "glm46v"]) {
            // A convolution that merges, a linear layer, and a gated one.
            let output = self.at(&["out_hidden_size"])?;
            let inner = self.at(&["intermediate_size"])?;
            let gated = output.saturating_mul(inner).saturating_mul(3);
            return Ok(two(merged, output, output).saturating_add(gated));
        }
        match of_root(&["alignment_intermediate_size"])? {
            0 => {}
            aligned => {
                let first = merged.saturating_mul(aligned);
                return Ok(first.saturating_add((aligned / 2).saturating_mul(text)));
            }
        }
        if self.tower.get(&["spatial_merge_size"]).is_some() || starts(&["kimi"]) {
            let output = match self.at(&["out_hidden_size"])? {
                0 => text,
                output => output,
            };
            // Qwen3-VL has one more for each deep layer that it reads from.
            let deep = self.tower.list(&["deepstack_visual_indexes"]).map_or(0, <[_]>::len) as u64;
            return Ok(two(merged, merged, output).saturating_mul(deep.saturating_add(1)));
        }
        Ok(match of_root(&["projector_hidden_size"])? {
            0 => two(merged, text, text),
            inner => two(merged, inner, text),
        })
    }

    /// Patches that become one before they reach the language model.
    fn merged_patches(&self) -> Result<u64, ReadError> {
        if let Some(Value::Array(sides)) = self.tower.get(&["merge_kernel_size"]) {
            return Ok(sides.iter().filter_map(Value::as_u64).take(2).fold(1, u64::saturating_mul));
        }
        let own = self.tower.number(&["spatial_merge_size"])?;
        let names = ["spatial_merge_size", "downsample_factor", "scale_factor"];
        let side = own.or(self.root.number(&names)?);
        let four = ["internvl", "kimi"].iter().any(|part| self.is(part));
        Ok(match side {
            Some(side) => u64::from(side).saturating_mul(u64::from(side)),
            None if four => 4,
            None => 1,
        })
    }
}

/// An encoder of sound, and what joins it to a language model (of width 0: nothing).
fn audio(tower: &Fields<'_>, text: u64) -> Result<u64, ReadError> {
    let at = |names: &[&str]| Ok::<_, ReadError>(tower.number(names)?.map_or(0, u64::from));
    let width = at(&["d_model", "hidden_size", "hidden_dim"])?;
    let layers = at(&[
        "encoder_layers",
        "num_hidden_layers",
        "conf_num_hidden_layers",
        "num_layers",
        "num_blocks",
    ])?;
    let intermediate = match at(&["encoder_ffn_dim", "intermediate_size"])? {
        0 => width.saturating_mul(4),
        given => given,
    };
    let square = width.saturating_mul(width);
    let matrix = width.saturating_mul(intermediate);
    let kind = tower.model_type();
    let layer = if kind.contains("phi4") {
        // A conformer: two gated feed-forward layers and a convolution around the attention.
        square.saturating_mul(8).saturating_add(matrix.saturating_mul(6))
    } else if kind.contains("gemma") || kind.contains("granite_speech") {
        square.saturating_mul(8).saturating_add(matrix.saturating_mul(4))
    } else {
        square.saturating_mul(4).saturating_add(matrix.saturating_mul(2))
    };
    let bins = at(&["num_mel_bins"])?;
    let convolutions = width.saturating_mul(bins).saturating_add(square).saturating_mul(3);
    let positions = at(&["max_source_positions"])?.saturating_mul(width);
    let projector = match kind {
        // Frames are joined to the width of the feed-forward layer.
        "voxtral_encoder" => intermediate.saturating_add(text).saturating_mul(text),
        _ => width.saturating_mul(text),
    };
    Ok(layer
        .saturating_mul(layers)
        .saturating_add(convolutions)
        .saturating_add(positions)
        .saturating_add(projector))
}
