//! The command line.

use std::path::PathBuf;

use berth_vram::{Engine, KvDtype};
use clap::{ArgGroup, Args as Group, Parser, Subcommand, ValueEnum};

/// Plans large language models on your own GPUs, with Berth's own estimates.
///
/// Needs no cluster and no network.
#[derive(Debug, Parser)]
#[command(name = "kubectl-berth", bin_name = "kubectl berth", version)]
#[command(after_help = "Exit status: 0 with an answer, also where the answer is that it does not \
                        fit; 1 without one; 2 for a command line that cannot be understood.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How much VRAM a model needs on each GPU, and whether it fits.
    #[command(after_help = "Examples:
  kubectl berth estimate --model meta-llama/Llama-3.1-8B-Instruct --gpu L4
  kubectl berth estimate --model Qwen/Qwen3-32B --gpu H100-80GB --context 32768 --concurrency 8
  kubectl berth estimate --config ./config.json --gpu A100-80GB --tp 4 -o json
  kubectl berth estimate -f llm.yaml --gpu H200")]
    Estimate(EstimateArgs),
    /// The cheapest ways to run a model: products, GPU counts, quantised variants.
    #[command(after_help = "Examples:
  kubectl berth advise --model meta-llama/Llama-3.1-70B-Instruct
  kubectl berth advise --model Qwen/Qwen3-32B --gpu L40S --gpu H100-80GB --price L40S=0.90 \\
    --price H100-80GB=2.50 --concurrency 16
  kubectl berth advise --model openai/gpt-oss-120b --max-gpus 2 -o json")]
    Advise(AdviseArgs),
}

/// Where the model is told of.
#[derive(Debug, Group)]
#[command(group = ArgGroup::new("subject").required(true).args(["model", "config", "safetensors", "gguf", "manifest"]))]
pub struct ModelArgs {
    /// A model of the catalogue, as the hub names it.
    #[arg(long, value_name = "ORG/NAME")]
    pub model: Option<String>,

    /// With --model, the file of a GGUF repository: a name or a pattern such as `*Q4_K_M.gguf`.
    #[arg(long, value_name = "PATTERN", requires = "model")]
    pub file: Option<String>,

    /// The config.json of a model.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The folder of a checkpoint: config.json and safetensors files, whose headers are read.
    #[arg(long, value_name = "FOLDER")]
    pub safetensors: Option<PathBuf>,

    /// A GGUF file, whose header is read; of a model that is split, any of its files.
    #[arg(long, value_name = "FILE")]
    pub gguf: Option<PathBuf>,

    /// A manifest with an LLMDeployment; - reads it from standard input.
    #[arg(short = 'f', long = "filename", id = "manifest", value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// With -f, which of several LLMDeployments.
    #[arg(long, value_name = "NAME", requires = "manifest")]
    pub name: Option<String>,
}

/// What is asked of the model.
#[derive(Debug, Group)]
pub struct WorkloadArgs {
    /// Tokens of the longest sequence; else the model's maximum or 32768, the lesser of the two.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,

    /// Sequences of that length that the KV cache holds at once [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency: Option<u32>,

    /// The engine that serves it [default: the manifest's, else by the format of the weights].
    #[arg(long, value_enum, value_name = "ENGINE", ignore_case = true)]
    pub engine: Option<EngineKind>,

    /// How the KV cache is stored.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub kv_dtype: Option<KvType>,

    /// The most GPUs of one replica.
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_gpus: u32,
}

/// `estimate`.
#[derive(Debug, Group)]
pub struct EstimateArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// The GPU: a short name (H100-80GB) or a node's label (NVIDIA-H100-80GB-HBM3).
    #[arg(long, value_name = "PRODUCT")]
    pub gpu: Option<String>,

    #[command(flatten)]
    pub workload: WorkloadArgs,

    /// GPUs that share the model: a number, or auto for the fewest that hold it.
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = degree)]
    pub tp: Degree,

    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `advise`.
#[derive(Debug, Group)]
pub struct AdviseArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// A GPU to choose from; may be repeated [default: all products that are known].
    #[arg(long = "gpu", value_name = "PRODUCT")]
    pub gpus: Vec<String>,

    /// What one GPU costs an hour, such as H100-80GB=2.50; may be repeated. Without any, GPUs count
    /// by their memory.
    #[arg(long = "price", value_name = "PRODUCT=PRICE")]
    pub prices: Vec<String>,

    #[command(flatten)]
    pub workload: WorkloadArgs,

    /// The most ways that are shown.
    #[arg(long, value_name = "N", default_value_t = 12,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,

    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// How many GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degree {
    /// The fewest that hold the model.
    Auto,
    /// So many.
    Gpus(u32),
}

fn degree(text: &str) -> Result<Degree, String> {
    match text.parse::<u32>() {
        _ if text.eq_ignore_ascii_case("auto") => Ok(Degree::Auto),
        Ok(gpus @ 1..=1024) => Ok(Degree::Gpus(gpus)),
        _ => Err("use auto, or a number of GPUs from 1 to 1024".to_owned()),
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

/// An engine, as manifests spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// vLLM.
    #[value(name = "VLLM")]
    Vllm,
    /// SGLang, by its own rule.
    #[value(name = "SGLang")]
    Sglang,
    /// llama.cpp's server.
    #[value(name = "LlamaCpp")]
    LlamaCpp,
    /// Any other server, with the widest margin.
    #[value(name = "Custom")]
    Custom,
}

impl From<EngineKind> for Engine {
    fn from(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Vllm => Self::Vllm,
            EngineKind::Sglang => Self::Sglang,
            EngineKind::LlamaCpp => Self::LlamaCpp,
            EngineKind::Custom => Self::Custom,
        }
    }
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvType {
    /// As the engine does: 16 bits.
    Auto,
    /// 8-bit floats (vLLM, SGLang).
    Fp8,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8-bit integers (llama.cpp).
    #[value(name = "q8_0")]
    Q8_0,
    /// 4-bit integers (llama.cpp).
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<KvType> for KvDtype {
    fn from(kind: KvType) -> Self {
        match kind {
            KvType::Auto => Self::Auto,
            KvType::Fp8 => Self::Fp8,
            KvType::F16 => Self::F16,
            KvType::Bf16 => Self::Bf16,
            KvType::Q8_0 => Self::Q8_0,
            KvType::Q4_0 => Self::Q4_0,
        }
    }
}

/// A KV cache type as `--kv-dtype` spells it.
pub fn kv_name(kind: KvDtype) -> &'static str {
    match kind {
        KvDtype::Auto => "auto",
        KvDtype::Fp8 => "fp8",
        KvDtype::F16 => "f16",
        KvDtype::Bf16 => "bf16",
        KvDtype::Q8_0 => "q8_0",
        KvDtype::Q4_0 => "q4_0",
        _ => "other",
    }
}

/// An engine as manifests spell it.
pub fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Vllm => "VLLM",
        Engine::Sglang => "SGLang",
        Engine::LlamaCpp => "LlamaCpp",
        Engine::Custom => "Custom",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
