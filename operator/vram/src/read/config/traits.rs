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
    pub biases: Biases,
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

/// What has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Biases {
    /// The projections to queries, keys and values.
    pub qkv: bool,
    /// The projection out of the attention.
    pub out: bool,
    /// The feed-forward layers.
    pub mlp: bool,
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
        let biases = any(WITH_BIASES);
        let bias = fields.flag(&[
            "attention_bias",
            "attn_bias",
            "use_bias",
            "qkv_bias",
            "use_qkv_bias",
            "add_qkv_bias",
            "bias",
            "use_attention_bias",
        ]);
        let unsaid = starts(&["qwen2"]) || any(&["qwen", "chatglm"]);
        let attention_bias = bias.unwrap_or(biases);
        let queries_only = starts(&["qwen2", "glm4", "hunyuan", "seed_oss", "dots1", "iquest"])
            || any(&["stablelm"]);
        Self {
            gated: gated(kind, fields),
            biases: Biases {
                qkv: bias.unwrap_or(biases || unsaid),
                out: fields
                    .flag(&["attention_out_bias"])
                    .unwrap_or(attention_bias && !queries_only),
                mlp: fields.flag(&["mlp_bias", "use_bias", "use_mlp_bias"]).unwrap_or(biases),
            },
            norms: norms(kind),
            norm_bias: biases
                || any(&["mpt", "falcon", "nemotron", "stablelm", "persimmon", "phimoe"]),
            qk_norm: qk_norm(kind, fields),
            query_gate: fields
                .flag(&["attn_output_gate"])
                .unwrap_or_else(|| starts(&["qwen3_next", "qwen3_5", "lara_mini", "afmoe"])),
            learned_positions: match kind {
                "gpt2" | "gpt_bigcode" | "gpt_neo" | "whisper" => Some(0),
                "opt" | "bart" | "mbart" => Some(2),
                _ => None,
            },
        }
    }
}

fn gated(kind: &str, fields: &Fields<'_>) -> bool {
    if let Some(projection) = fields.text(&["feed_forward_proj"]) {
        return projection.starts_with("gated");
    }
    if let Some(gated) = fields.flag(&["is_gated_act"]) {
        return gated;
    }
    let names = ["mlp_hidden_act", "hidden_act", "hidden_activation", "activation_function"];
    match fields.text(&names) {
        Some("swiglu" | "geglu" | "swigluoai") => true,
        Some("relu2") if kind == "bitnet" => true,
        Some("relu2") => false,
        _ => !WITHOUT_GATE.contains(&kind),
    }
}

fn norms(kind: &str) -> u32 {
    match kind {
        "cohere" | "cohere2" | "phi" | "gptj" | "codegen" | "nemotron_h" | "falcon_mamba"
        | "mamba" | "mamba2" => 1,
        "glm4" | "glm_ocr_text" => 4,
        _ if ["gemma2", "gemma3", "gemma4", "afmoe"].iter().any(|name| kind.starts_with(name)) => 4,
        _ => 2,
    }
}

fn qk_norm(kind: &str, fields: &Fields<'_>) -> QkNorm {
    const FULL: &[&str] = &["olmo2", "olmo3", "olmoe", "flex_olmo", "minimax_m2", "olmo_hybrid"];
    const HEAD: &[&str] = &[
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
    ];
    let full = FULL.contains(&kind);
    match fields.flag(&["use_qk_norm", "qk_layernorm", "qk_norm"]) {
        Some(false) => QkNorm::None,
        _ if full => QkNorm::Full,
        Some(true) => QkNorm::Head,
        None if HEAD.iter().any(|name| kind.starts_with(name)) => QkNorm::Head,
        None => QkNorm::None,
    }
}
