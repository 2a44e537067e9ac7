//! Checks that facts about a model can be true, field by field.

use crate::{Heads, InvalidFact, Mla, ModelFacts, Moe, Quantization, Tensors};

/// Far beyond any model there is, and small enough that no product of them overflows unnoticed.
mod limit {
    pub const LAYERS: u32 = 10_000;
    pub const WIDTH: u32 = 1 << 20;
    pub const HEADS: u32 = 1 << 16;
    pub const HEAD_DIM: u32 = 1 << 14;
    pub const VOCABULARY: u32 = 1 << 24;
    pub const EXPERTS: u32 = 1 << 16;
    /// 2^50 parameters or bytes: a thousand times the largest model.
    pub const TOTAL: u64 = 1 << 50;
}

impl ModelFacts {
    /// Checks every field, and says which one is wrong and why.
    pub fn validate(&self) -> Result<(), InvalidFact> {
        within("layers", self.layers, 1, limit::LAYERS)?;
        within("hiddenSize", self.hidden_size, 1, limit::WIDTH)?;
        within("attentionHeads", self.attention_heads, 1, limit::HEADS)?;
        within("kvHeads", self.kv_heads, 1, limit::HEADS)?;
        within("headDim", self.head_dim, 1, limit::HEAD_DIM)?;
        within("vocabSize", self.vocab_size, 1, limit::VOCABULARY)?;
        within("maxContext", self.max_context, 1, u32::MAX)?;
        within("intermediateSize", self.intermediate_size, 0, limit::WIDTH)?;
        if self.kv_heads > self.attention_heads {
            return problem(
                "kvHeads",
                format!(
                    "is {}, more than the {} attention heads",
                    self.kv_heads, self.attention_heads
                ),
            );
        }
        if !self.attention_heads.is_multiple_of(self.kv_heads) {
            return problem(
                "kvHeads",
                format!(
                    "is {}, which does not divide the {} attention heads",
                    self.kv_heads, self.attention_heads
                ),
            );
        }
        if let Some(mla) = &self.mla {
            check_mla(mla)?;
        }
        if let Some(moe) = &self.moe {
            check_moe(moe, self.layers)?;
        }
        if self.intermediate_size == 0 && self.expert_layers() < self.layers {
            return problem("intermediateSize", "is 0, but there are layers without experts");
        }
        self.check_layer_kinds()?;
        check_quantization(self.quantization)?;
        self.check_totals()
    }

    fn check_layer_kinds(&self) -> Result<(), InvalidFact> {
        if let Some(recurrent) = self.recurrent {
            within("recurrent.attentionLayers", recurrent.attention_layers, 0, self.layers)?;
            total("recurrent.stateBytesPerSequence", recurrent.state_bytes_per_sequence)?;
            let counted = self.tensors.is_some();
            if self.parameters.is_none() && self.weight_bytes.is_none() && !counted {
                return problem(
                    "parameters",
                    "is missing: recurrent layers cannot be counted, give parameters or weightBytes",
                );
            }
        }
        if let Some(window) = self.window {
            within("window.tokens", window.tokens, 1, u32::MAX)?;
            within("window.windowedLayers", window.windowed_layers, 0, self.kv_layers())?;
        }
        if let Some(cross) = self.cross_attention {
            within("crossAttention.layers", cross.layers, 0, self.layers)?;
            within("crossAttention.tokens", cross.tokens, 1, limit::VOCABULARY)?;
        }
        if let Some(heads) = &self.window_heads {
            check_heads(heads)?;
        }
        within("valueHeadDim", self.value_head_dim.unwrap_or(1), 1, limit::HEAD_DIM)?;
        within("rotaryDim", self.rotary_dim.unwrap_or(0), 0, limit::HEAD_DIM)?;
        within("rotaryPositions", self.rotary_positions.unwrap_or(1), 1, u32::MAX)?;
        within("indexBytesPerToken", self.index_bytes_per_token, 0, limit::WIDTH)?;
        within("kvSharedLayers", self.kv_shared_layers, 0, self.layers)?;
        Ok(())
    }

    fn check_totals(&self) -> Result<(), InvalidFact> {
        total("otherParameters", self.other_parameters)?;
        if let Some(parameters) = self.parameters {
            if parameters == 0 {
                return problem("parameters", "is 0; leave it out to have them counted");
            }
            total("parameters", parameters)?;
        }
        if let Some(bytes) = self.weight_bytes {
            if bytes == 0 {
                return problem("weightBytes", "is 0; leave it out to have them computed");
            }
            total("weightBytes", bytes)?;
        }
        if let Some(tensors) = &self.tensors {
            check_tensors(tensors, self.layers)?;
        }
        let counted = crate::counted_parameters(self);
        if counted > limit::TOTAL {
            return problem(
                "layers",
                format!("and widths make {counted} parameters, which cannot be"),
            );
        }
        Ok(())
    }
}

fn check_tensors(tensors: &Tensors, layers: u32) -> Result<(), InvalidFact> {
    let count = tensors.layer_count();
    if count != layers {
        return problem("tensors.layers", format!("are {count}, but the model has {layers}"));
    }
    total("tensors", tensors.bytes().total())?;
    total("tensors", tensors.parameters().total())?;
    total("tensors.draftBytes", tensors.draft_bytes)?;
    total("tensors.hostBytes", tensors.host_bytes)?;
    total("tensors.unusedBytes", tensors.unused_bytes)
}

fn check_heads(heads: &Heads) -> Result<(), InvalidFact> {
    within("windowHeads.kvHeads", heads.kv_heads, 1, limit::HEADS)?;
    within("windowHeads.headDim", heads.head_dim, 1, limit::HEAD_DIM)?;
    within("windowHeads.valueHeadDim", heads.value_head_dim.unwrap_or(1), 1, limit::HEAD_DIM)
}

fn check_mla(mla: &Mla) -> Result<(), InvalidFact> {
    within("mla.kvLoraRank", mla.kv_lora_rank, 1, limit::WIDTH)?;
    within("mla.qkRopeHeadDim", mla.qk_rope_head_dim, 1, limit::HEAD_DIM)?;
    within("mla.qkNopeHeadDim", mla.qk_nope_head_dim, 0, limit::HEAD_DIM)?;
    within("mla.vHeadDim", mla.v_head_dim, 1, limit::HEAD_DIM)?;
    within("mla.indexerBytesPerToken", mla.indexer_bytes_per_token, 0, limit::WIDTH)?;
    mla.q_lora_rank.map_or(Ok(()), |rank| within("mla.qLoraRank", rank, 1, limit::WIDTH))
}

fn check_moe(moe: &Moe, layers: u32) -> Result<(), InvalidFact> {
    within("moe.experts", moe.experts, 1, limit::EXPERTS)?;
    within("moe.expertsPerToken", moe.experts_per_token, 1, moe.experts)?;
    within("moe.expertIntermediateSize", moe.expert_intermediate_size, 1, limit::WIDTH)?;
    within("moe.sharedExperts", moe.shared_experts, 0, limit::EXPERTS)?;
    within(
        "moe.sharedExpertIntermediateSize",
        moe.shared_expert_intermediate_size.unwrap_or(0),
        0,
        limit::WIDTH,
    )?;
    within("moe.denseLayers", moe.dense_layers, 0, layers)
}

fn check_quantization(quantization: Quantization) -> Result<(), InvalidFact> {
    match quantization {
        Quantization::Awq { bits, group_size } | Quantization::Gptq { bits, group_size } => {
            within("quantization.bits", u32::from(bits), 2, 8)?;
            within("quantization.groupSize", group_size, 1, limit::WIDTH)
        }
        _ => Ok(()),
    }
}

fn within(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), InvalidFact> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        problem(field, format!("is {value}; it must be from {least} to {most}"))
    }
}

fn total(field: &'static str, value: u64) -> Result<(), InvalidFact> {
    if value > limit::TOTAL {
        return problem(field, format!("is {value}, more than any model has ({})", limit::TOTAL));
    }
    Ok(())
}

fn problem(field: &'static str, problem: impl Into<String>) -> Result<(), InvalidFact> {
    Err(InvalidFact { field, problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Parallelism, Recurrent, Window, Workload, catalogue, estimate};

    fn llama() -> ModelFacts {
        catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts.clone()
    }

    fn refusal(facts: &ModelFacts) -> String {
        facts.validate().unwrap_err().to_string()
    }

    #[test]
    fn each_message_names_the_field_and_the_way_out() {
        assert_eq!(llama().validate(), Ok(()));
        assert_eq!(
            refusal(&ModelFacts { layers: 0, ..llama() }),
            "model facts: layers is 0; it must be from 1 to 10000"
        );
        assert_eq!(
            refusal(&ModelFacts { kv_heads: 64, ..llama() }),
            "model facts: kvHeads is 64, more than the 32 attention heads"
        );
        assert_eq!(
            refusal(&ModelFacts { kv_heads: 5, ..llama() }),
            "model facts: kvHeads is 5, which does not divide the 32 attention heads"
        );
        assert_eq!(
            refusal(&ModelFacts { intermediate_size: 0, ..llama() }),
            "model facts: intermediateSize is 0, but there are layers without experts"
        );
        let window = Some(Window { tokens: 1024, windowed_layers: 33 });
        assert!(refusal(&ModelFacts { window, ..llama() }).contains("window.windowedLayers is 33"));
        let recurrent = Some(Recurrent { attention_layers: 8, state_bytes_per_sequence: 1 });
        assert!(
            refusal(&ModelFacts { parameters: None, recurrent, ..llama() })
                .contains("parameters is missing")
        );
    }

    #[test]
    fn absurd_values_are_refused_and_never_panic() {
        let extremes = [0, 1, 3, 1 << 13, 1 << 20, u32::MAX - 1, u32::MAX];
        let moe = Moe {
            experts: 8,
            experts_per_token: 2,
            expert_intermediate_size: 14336,
            shared_experts: 1,
            shared_expert_intermediate_size: None,
            dense_layers: 1,
        };
        let mla = Mla {
            kv_lora_rank: 512,
            qk_rope_head_dim: 64,
            qk_nope_head_dim: 128,
            v_head_dim: 128,
            q_lora_rank: Some(1536),
            indexer_bytes_per_token: 132,
        };
        let mut shapes = Vec::new();
        for a in extremes {
            for b in extremes {
                shapes.push(ModelFacts { layers: a, hidden_size: b, ..llama() });
                shapes.push(ModelFacts { attention_heads: a, kv_heads: b, ..llama() });
                shapes.push(ModelFacts { head_dim: a, vocab_size: b, ..llama() });
                shapes.push(ModelFacts { intermediate_size: a, max_context: b, ..llama() });
                let window = Some(Window { tokens: a, windowed_layers: b });
                shapes.push(ModelFacts { window, ..llama() });
                let moe = Moe { experts: a, expert_intermediate_size: b, ..moe };
                shapes.push(ModelFacts { moe: Some(moe), parameters: None, ..llama() });
                let moe = Moe { shared_experts: a, dense_layers: b, ..moe };
                shapes.push(ModelFacts { moe: Some(moe), ..llama() });
                let mla = Mla { kv_lora_rank: a, indexer_bytes_per_token: b, ..mla };
                shapes.push(ModelFacts { mla: Some(mla), ..llama() });
            }
        }
        for facts in shapes {
            // Not checked first: these saturate.
            let _ = (crate::weights(&facts), crate::parameters(&facts));
            for tensor in extremes {
                for size in [1, 8192, u32::MAX] {
                    let workload = Workload {
                        max_num_seqs: size,
                        max_num_batched_tokens: size,
                        ..Workload::new(Engine::Vllm, 1, size)
                    };
                    let _ = estimate(&facts, &workload, Parallelism::tensor(tensor));
                }
            }
            let _ = crate::tensor_degrees(&facts, u32::MAX);
        }
    }
}
