//! Over how many GPUs a replica can be spread.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{EstimateError, ModelFacts, Quantization};

/// How a replica is spread over GPUs. Data parallelism is more replicas in one, and comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// GPUs that share each layer (vLLM, `SGLang`), or the layers (llama.cpp).
    pub tensor: u32,
    /// Stages that follow each other, each of `tensor` GPUs with a part of the layers.
    #[serde(default = "one")]
    pub pipeline: u32,
    /// Whether experts are dealt out whole instead of being cut like the other layers.
    #[serde(default)]
    pub expert: bool,
}

const fn one() -> u32 {
    1
}

impl Parallelism {
    /// One GPU.
    pub const SINGLE: Self = Self::tensor(1);

    /// So many GPUs that share each layer.
    pub const fn tensor(gpus: u32) -> Self {
        Self { tensor: gpus, pipeline: 1, expert: false }
    }

    /// The GPUs of one replica.
    pub const fn gpus(self) -> u32 {
        self.tensor.saturating_mul(self.pipeline)
    }

    /// The stages from the first to the last, with the layers of each as vLLM deals them out: where
    /// they do not come out even, the stages before the last have one more.
    pub(crate) fn stages(self, layers: u32) -> impl Iterator<Item = Stage> {
        let stages = self.pipeline.max(1);
        let (each, more) = (layers / stages, layers % stages);
        let long = stages.saturating_sub(more + 1)..stages - 1;
        let mut next = 0;
        (0..stages).map(move |index| {
            let first = next;
            next += each + u32::from(long.contains(&index));
            Stage { layers: first..next, first: index == 0, last: index + 1 == stages }
        })
    }
}

/// One stage of a pipeline; all of the model where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Its layers.
    pub layers: Range<u32>,
    /// Whether it has the input table.
    pub first: bool,
    /// Whether it has the output layer, and samples.
    pub last: bool,
}

impl Stage {
    /// How many layers it has.
    pub(crate) const fn len(&self) -> u32 {
        self.layers.end - self.layers.start
    }
}

/// vLLM pads the vocabulary to a multiple of this before it divides it (its
/// `VocabParallelEmbedding`, `DEFAULT_VOCAB_PADDING_SIZE`).
const VOCAB_PADDING: u32 = 64;

/// The GPU counts up to `max` that a replica can be spread over, ascending.
///
/// Tensor parallelism: powers of two that divide the heads, the feed-forward layers and, where
/// weights are quantised in groups, leave whole groups on each GPU (vLLM's
/// `validate_fp8_block_shape`, and the same for experts: "is not divisible by weight quantization
/// `block_n`"). GGUF: any number up to that of
/// the layers, which llama.cpp deals out. Empty for facts that are not valid.
pub fn tensor_degrees(facts: &ModelFacts, max: u32) -> Vec<u32> {
    if facts.validate().is_err() {
        return Vec::new();
    }
    if let Quantization::Gguf(_) = facts.quantization {
        return (1..=max.min(facts.layers)).collect();
    }
    (0..16)
        .map(|power| 1 << power)
        .take_while(|&degree| degree <= max)
        .filter(|&degree| obstacle(facts, degree, false).is_none())
        .collect()
}

/// Why vLLM would refuse this tensor-parallel degree.
fn obstacle(facts: &ModelFacts, degree: u32, expert: bool) -> Option<Obstacle> {
    let divides = |what: u32| what.is_multiple_of(degree);
    if !divides(facts.attention_heads) {
        return Some(Obstacle::Heads(facts.attention_heads));
    }
    if facts.mla.is_none() && !divides(facts.kv_heads) && !degree.is_multiple_of(facts.kv_heads) {
        return Some(Obstacle::KvHeads(facts.kv_heads));
    }
    if !divides(facts.vocab_size.next_multiple_of(VOCAB_PADDING)) {
        return Some(Obstacle::Vocabulary(facts.vocab_size));
    }
    let group = facts.quantization.group();
    // Where nothing is cut, a checkpoint loads as it was made, groups that are not full included.
    let cuts = |width: u32| degree > 1 && !(width / degree).is_multiple_of(group);
    feed_forward_widths(facts, expert).into_iter().find_map(|width| {
        if !divides(width) {
            Some(Obstacle::FeedForward(width))
        } else if cuts(width) {
            Some(Obstacle::Group { width, group })
        } else {
            None
        }
    })
}

/// The widths that tensor parallelism cuts: those of dense layers, of shared experts, which are cut
/// even where the routed ones are dealt out whole (sglang issue 10852, vLLM issue 42384), and of
/// routed experts. What is stored in 4-bit floats for experts alone has no groups elsewhere.
fn feed_forward_widths(facts: &ModelFacts, expert: bool) -> [u32; 3] {
    let routed = facts.moe.filter(|_| !expert).map_or(0, |moe| moe.expert_intermediate_size);
    let shared = facts.moe.map_or(0, |moe| moe.shared_width());
    [facts.intermediate_size, u32::try_from(shared).unwrap_or(u32::MAX), routed]
}

/// Checks tensor-parallel degree and stages as vLLM does.
pub(crate) fn check_tensor(
    facts: &ModelFacts,
    parallelism: Parallelism,
) -> Result<(), EstimateError> {
    let degree = parallelism.tensor;
    if parallelism.gpus() == 0 {
        return Err(EstimateError::NoGpu);
    }
    if parallelism.pipeline > facts.layers {
        return Err(EstimateError::LayerSplit { gpus: parallelism.pipeline, layers: facts.layers });
    }
    match obstacle(facts, degree, parallelism.expert) {
        None => Ok(()),
        Some(obstacle) => Err(EstimateError::TensorDegree {
            degree,
            obstacle: obstacle.to_string(),
            use_instead: one_of(&tensor_degrees(facts, 64)),
        }),
    }
}

/// Checks the number of GPUs that layers are dealt out to.
pub(crate) fn check_layer_split(facts: &ModelFacts, gpus: u32) -> Result<(), EstimateError> {
    match gpus {
        0 => Err(EstimateError::NoGpu),
        gpus if gpus > facts.layers => {
            Err(EstimateError::LayerSplit { gpus, layers: facts.layers })
        }
        _ => Ok(()),
    }
}

/// What a tensor-parallel degree does not divide.
enum Obstacle {
    Heads(u32),
    KvHeads(u32),
    Vocabulary(u32),
    FeedForward(u32),
    Group { width: u32, group: u32 },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heads(heads) => write!(f, "does not divide {heads} attention heads"),
            Self::KvHeads(heads) => {
                write!(f, "neither divides {heads} key-value heads nor is a multiple of them")
            }
            Self::Vocabulary(size) => {
                write!(f, "does not divide the padded vocabulary of {size} tokens")
            }
            Self::FeedForward(width) => {
                write!(f, "does not divide the feed-forward width of {width}")
            }
            Self::Group { width, group } => write!(
                f,
                "would cut quantised groups of {group} in a feed-forward width of {width}"
            ),
        }
    }
}

/// `1, 2, 4 or 8`.
fn one_of(numbers: &[u32]) -> String {
    let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
    match words.split_last() {
        None => "another model".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn degrees(id: &str, file: Option<&str>) -> Vec<u32> {
        tensor_degrees(&catalogue().find(id, file).unwrap().facts, 16)
    }

    #[test]
    fn degrees_divide_heads_feed_forward_and_groups() {
        assert_eq!(degrees("meta-llama/Llama-3.1-8B-Instruct", None), [1, 2, 4, 8, 16]);
        assert_eq!(degrees("Qwen/Qwen2.5-7B-Instruct", None), [1, 2, 4]);
        assert_eq!(degrees("Qwen/Qwen2.5-0.5B-Instruct", None), [1, 2]);
        // Its published checkpoint is padded so that groups of 128 divide.
        assert_eq!(degrees("Qwen/Qwen2.5-72B-Instruct-AWQ", None), [1, 2, 4, 8]);
        // 1,536 / 8 = 192 is no multiple of a block of 128.
        assert_eq!(degrees("Qwen/Qwen3-235B-A22B-FP8", None), [1, 2, 4]);
        assert_eq!(degrees("Qwen/Qwen3-235B-A22B", None), [1, 2, 4, 8, 16]);
        assert_eq!(degrees("deepseek-ai/DeepSeek-R1", None), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn llama_cpp_deals_layers_out_to_any_number() {
        let file = Some("*Q4_K_M.gguf");
        let degrees = degrees("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", file);
        assert_eq!(degrees, (1..=16).collect::<Vec<_>>());
    }

    #[test]
    fn a_refusal_says_what_to_use() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let check = |facts, degree| check_tensor(facts, Parallelism::tensor(degree));
        assert_eq!(
            check(facts, 3).unwrap_err().to_string(),
            "tensor degree 3 does not divide 32 attention heads: use 1, 2, 4, 8, 16 or 32"
        );
        assert_eq!(check(facts, 0), Err(EstimateError::NoGpu));
        let qwen = &catalogue().find("Qwen/Qwen3-235B-A22B-FP8", None).unwrap().facts;
        assert_eq!(
            check(qwen, 8).unwrap_err().to_string(),
            "tensor degree 8 would cut quantised groups of 128 in a feed-forward width of 1536: \
             use 1, 2 or 4"
        );
    }

    #[test]
    fn experts_that_are_dealt_out_whole_are_not_cut() {
        let qwen = &catalogue().find("Qwen/Qwen3-235B-A22B-FP8", None).unwrap().facts;
        let whole = Parallelism { expert: true, ..Parallelism::tensor(8) };
        assert_eq!(check_tensor(qwen, whole), Ok(()));
    }

    #[test]
    fn shared_experts_are_cut_even_then() {
        // Qwen3-Next's shared expert of 512 leaves 64 on each of 8 GPUs: vLLM and SGLang refuse its
        // fp8 checkpoint (sglang issue 10852), with and without expert parallelism.
        let shared_experts = crate::Moe {
            experts: 512,
            experts_per_token: 10,
            expert_intermediate_size: 512,
            shared_experts: 1,
            shared_expert_intermediate_size: None,
            dense_layers: 0,
        };
        let next = ModelFacts {
            layers: 48,
            hidden_size: 2048,
            attention_heads: 16,
            kv_heads: 2,
            head_dim: 256,
            vocab_size: 151_936,
            max_context: 262_144,
            moe: Some(shared_experts),
            quantization: Quantization::Fp8Block,
            ..ModelFacts::default()
        };
        assert_eq!(tensor_degrees(&next, 16), [1, 2, 4]);
        let whole = Parallelism { expert: true, ..Parallelism::tensor(8) };
        let refusal = check_tensor(&next, whole).unwrap_err().to_string();
        assert!(refusal.contains("groups of 128 in a feed-forward width of 512"), "{refusal}");
        let plain = ModelFacts { quantization: Quantization::None, ..next };
        assert_eq!(tensor_degrees(&plain, 16), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn one_gpu_takes_groups_that_are_not_full() {
        let llama = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let odd = ModelFacts {
            intermediate_size: 14_400,
            quantization: Quantization::Gptq { bits: 4, group_size: 128 },
            ..llama.clone()
        };
        assert!(!odd.intermediate_size.is_multiple_of(128));
        assert_eq!(tensor_degrees(&odd, 4), [1]);
    }

    #[test]
    fn stages_have_all_layers_and_the_last_is_never_the_longest() {
        let layers = |pipeline, layers| {
            let parallelism = Parallelism { pipeline, ..Parallelism::SINGLE };
            parallelism.stages(layers).map(|stage| stage.len()).collect::<Vec<_>>()
        };
        assert_eq!(layers(1, 32), [32]);
        assert_eq!(layers(2, 32), [16, 16]);
        assert_eq!(layers(2, 61), [31, 30]);
        assert_eq!(layers(4, 61), [15, 15, 16, 15]);
        assert_eq!(layers(4, 62), [15, 16, 16, 15]);
        assert_eq!(layers(4, 63), [16, 16, 16, 15]);
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let deep = Parallelism { pipeline: 33, ..Parallelism::SINGLE };
        assert!(check_tensor(facts, deep).is_err());
    }
}
