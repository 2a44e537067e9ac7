//! Over how many GPUs a replica can be spread.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{EstimateError, ModelFacts, Quantization};

/// How a replica is spread over GPUs. Pipeline, expert and data parallelism come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// GPUs that share each layer (vLLM), or the layers (llama.cpp).
    pub tensor: u32,
}

impl Parallelism {
    /// One GPU.
    pub const SINGLE: Self = Self { tensor: 1 };

    /// So many GPUs.
    pub const fn tensor(gpus: u32) -> Self {
        Self { tensor: gpus }
    }

    /// The GPUs of one replica.
    pub const fn gpus(self) -> u32 {
        self.tensor
    }
}

/// vLLM pads the vocabulary to a multiple of this before it divides it (its
/// `VocabParallelEmbedding`, `DEFAULT_VOCAB_PADDING_SIZE`).
const VOCAB_PADDING: u32 = 64;

/// The GPU counts up to `max` that a replica can be spread over, ascending.
///
/// Tensor parallelism: powers of two that divide the heads, the feed-forward layers and, where
/// weights are quantised in groups, leave whole groups on each GPU. GGUF: any number up to that of
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
        .filter(|&degree| obstacle(facts, degree).is_none())
        .collect()
}

/// Why vLLM would refuse this tensor-parallel degree.
fn obstacle(facts: &ModelFacts, degree: u32) -> Option<Obstacle> {
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
    let experts = facts.moe.map_or(0, |moe| moe.expert_intermediate_size);
    [facts.intermediate_size, experts].into_iter().find_map(|width| {
        if !divides(width) {
            Some(Obstacle::FeedForward(width))
        } else if !(width / degree).is_multiple_of(group) {
            Some(Obstacle::Group { width, group })
        } else {
            None
        }
    })
}

/// Checks a tensor-parallel degree as vLLM does.
pub(crate) fn check_tensor(facts: &ModelFacts, degree: u32) -> Result<(), EstimateError> {
    if degree == 0 {
        return Err(EstimateError::NoGpu);
    }
    match obstacle(facts, degree) {
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
        assert_eq!(
            check_tensor(facts, 3).unwrap_err().to_string(),
            "tensor degree 3 does not divide 32 attention heads: use 1, 2, 4, 8, 16 or 32"
        );
        assert_eq!(check_tensor(facts, 0), Err(EstimateError::NoGpu));
        let qwen = &catalogue().find("Qwen/Qwen3-235B-A22B-FP8", None).unwrap().facts;
        assert_eq!(
            check_tensor(qwen, 8).unwrap_err().to_string(),
            "tensor degree 8 would cut quantised groups of 128 in a feed-forward width of 1536: \
             use 1, 2 or 4"
        );
    }
}
