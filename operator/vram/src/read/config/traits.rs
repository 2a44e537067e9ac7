//! What an architecture has that its config does not say.
//!
//! Few kinds of model need a word here: most fields speak for themselves. Facts about the modelling
//! code of Hugging Face transformers 5.24 and of vLLM, found by counting their tensors.

use crate::read::fields::Fields;

/// What goes without saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// Whether feed-forward layers have a gate: three matrices instead of two.
    pub gated: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection out of the attention has one.
    pub out_bias: bool,
    /// Whether the feed-forward layers have them.
    pub mlp_bias: bool,
    /// Norms as wide as the hidden state in a layer.
    pub norms: u32,
    /// Whether norms have biases.
    pub norm_bias: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether every query head has a gate for its output: twice the projection.
    pub query_gate: bool,
    /// A table of learned positions beside the vocabulary: how many rows more than positions.
    pub learned_positions: Option<u32>,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QkNorm {
    None,
    /// One for all heads.
    Head,
    /// As wide as all heads together.
    Full,
}

/// Feed-forward layers of two matrices, unless the activation says otherwise.
const WITHOUT_GATE: &[&str] = &[
    "apertus",
    "apertus1p5_text",
    "arcee",
    "bert",
    "biogpt",
    "bloom",
    "codegen",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_neox_japanese",
    "gptj",
    "mpt",
    "nanochat",
    "nemotron",
    "nemotron_h",
    "opt",
    "persimmon",
    "phi",
    "RefinedWeb",
    "RefinedWebModel",
    "starcoder2",
    "jais2",
    "whisper",
    "bart",
    "mbart",
    "m2m_100",
    "xglm",
    "phi-msft",
    "mixformer-sequential",
    "gpt_refact",
];

/// Everything has a bias, and norms do too, as in GPT-2.
const WITH_BIASES: &[&str] = &[
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "bloom",
    "phi",
    "opt",
    "starcoder2",
    "codegen",
    "jais2",
    "whisper",
    "bart",
    "mbart",
];

impl Traits {
    pub(super) fn of(kind: &str, fields: &Fields<'_>) -> Self {
        let any = |names: &[&str]| names.contains(&kind);
        let starts = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
        let flag = |names: &[&str]| fields.flag(names);
        let activation = fields.text(&[
            "mlp_hidden_act",
            "hidden_act",
            "hidden_activation",
            "activation_function",
        ]);
        let gated = match (activation, fields.text(&["feed_forward_proj"]), flag(&["is_gated_act"]))
        {
            (_, Some(projection), _) => projection.starts_with("gated"),
            (_, _, Some(gated)) => gated,
            (Some("swiglu" | "geglu" | "swigluoai"), ..) => true,
            (Some("relu2"), ..) => false,
            _ => !any(WITHOUT_GATE),
        };
        let biases = any(WITH_BIASES);
        let bias = flag(&[
            "attention_bias",
            "attn_bias",
            "use_bias",
            "qkv_bias",
            "use_qkv_bias",
            "add_qkv_bias",
            "bias",
            "use_attention_bias",
        ]);
        let attention_bias = bias.unwrap_or(biases);
        let qkv_bias = attention_bias
            || (starts(&["qwen2"]) && bias.is_none())
            || any(&["chatglm", "internlm"]) && bias.is_none()
            || any(&["qwen"]);
        let use_qk_norm = flag(&["use_qk_norm", "qk_layernorm", "qk_norm"]);
        Self {
            gated,
            qkv_bias,
            out_bias: flag(&["attention_out_bias"]).unwrap_or(
                attention_bias
                    && !starts(&["qwen2", "glm4", "hunyuan", "seed_oss", "dots1", "iquest"])
                    && !(any(&["stablelm"])),
            ),
            mlp_bias: flag(&["mlp_bias", "use_bias", "use_mlp_bias"]).unwrap_or(biases),
            norms: match () {
                () if starts(&["gemma2", "gemma3", "gemma4", "glm4v", "vaultgemma", "afmoe"])
                    || any(&["glm4", "glm_ocr_text", "exaone_moe_post"]) =>
                {
                    4
                }
                () if any(&[
                    "cohere",
                    "cohere2",
                    "phi",
                    "gptj",
                    "codegen",
                    "nemotron_h",
                    "falcon_mamba",
                    "mamba",
                    "mamba2",
                ]) =>
                {
                    1
                }
                () => 2,
            },
            norm_bias: biases
                || any(&["mpt", "falcon", "nemotron", "stablelm", "persimmon", "phimoe"]),
            qk_norm: match use_qk_norm {
                Some(true) if any(&["minimax_m2"]) => QkNorm::Full,
                Some(true) => QkNorm::Head,
                Some(false) => QkNorm::None,
                None if any(&[
                    "olmo2",
                    "olmo3",
                    "olmoe",
                    "flex_olmo",
                    "minimax_m2",
                    "olmo_hybrid",
                ]) =>
                {
                    QkNorm::Full
                }
                None if starts(&[
                    "qwen3",
                    "gemma3",
                    "gemma4",
                    "lfm",
                    "exaone4",
                    "exaone_moe",
                    "hunyuan",
                    "apertus",
                    "afmoe",
                    "laguna",
                    "step3p",
                ]) =>
                {
                    QkNorm::Head
                }
                None => QkNorm::None,
            },
            query_gate: flag(&["attn_output_gate"])
                .unwrap_or_else(|| starts(&["qwen3_next", "qwen3_5", "lara_mini"])),
            learned_positions: match kind {
                "gpt2" | "gpt_bigcode" | "gpt_neo" | "whisper" => Some(0),
                "opt" | "bart" | "mbart" => Some(2),
                _ => None,
            },
        }
    }
}
