//! The weights: bytes of the whole checkpoint, and of the share that one GPU loads.

use std::ops::Range;

use berth_units::Bytes;

use crate::{
    ModelFacts, Quantization,
    parallelism::Stage,
    parameters::{Counts, product},
    read::Classes,
};

/// The checkpoint, in bytes: what is downloaded, cached and read.
///
/// Exact where the facts give `weight_bytes`, else what the tensors add up to, else counted from the
/// architecture with the bits of each part. Published `parameters` beyond the counted ones (vision
/// towers, prediction heads) count in 16 bits.
pub fn weights(facts: &ModelFacts) -> Bytes {
    let counted = || Parts::of(facts).total() + not_loaded(facts);
    facts.weight_bytes.map_or_else(counted, Bytes)
}

/// What the checkpoint holds and no engine loads to a GPU.
fn not_loaded(facts: &ModelFacts) -> Bytes {
    facts.tensors.as_ref().map_or(Bytes::ZERO, |tensors| {
        Bytes(tensors.draft_bytes) + Bytes(tensors.unused_bytes) + Bytes(tensors.host_bytes)
    })
}

/// The checkpoint in bytes, by what an engine does with each part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    /// The input embedding table.
    pub embedding: Bytes,
    /// The output layer; zero if it shares the table.
    pub output: Bytes,
    /// What tensor parallelism divides, without the next ones.
    pub divided: Bytes,
    /// Routed experts.
    pub experts: Bytes,
    /// Projections to keys and values: repeated where there are more GPUs than heads.
    pub kv_projection: Bytes,
    /// The same on every GPU.
    pub replicated: Bytes,
}

impl Parts {
    pub(crate) fn of(facts: &ModelFacts) -> Self {
        if let Some(tensors) = &facts.tensors {
            let parts = Self::from(tensors.bytes());
            let loaded = facts
                .weight_bytes
                .filter(|_| !tensors.exact)
                .map(|bytes| bytes.saturating_sub(not_loaded(facts).get()));
            return parts.exact(loaded);
        }
        let counts = Counts::of(facts);
        let stored = facts.quantization;
        let linear = stored.bits();
        let dense = stored.dense_bits(facts.moe.is_some());
        // What the architecture does not tell: more than counted is taken as not quantised, less
        // as missing from the layers.
        let published = facts.parameters.unwrap_or_else(|| counts.total());
        let unknown = published.saturating_sub(counts.total());
        let missing = counts.total().saturating_sub(published);

        Self {
            embedding: bytes(counts.embedding, stored.embedding_bits(facts.tied_embeddings)),
            output: bytes(counts.output, stored.output_bits()),
            divided: bytes(counts.attention, dense)
                + bytes(counts.dense, dense)
                + bytes(counts.other.saturating_add(unknown), crate::quantization::PLAIN_BITS)
                - bytes(missing, linear),
            experts: bytes(counts.experts, linear),
            kv_projection: bytes(counts.kv_projection, dense),
            replicated: bytes(counts.latent_projection, dense)
                + bytes(counts.replicated, stored.other_bits()),
        }
        .exact(facts.weight_bytes)
    }

    /// The parts of some layers, as much of the whole as they are of the tensors, or of the layers
    /// where those are not known. Without what belongs to no layer.
    pub(crate) fn of_layers(facts: &ModelFacts, layers: Range<u32>) -> Self {
        let held = f64::from(layers.end.saturating_sub(layers.start));
        let whole = Self::of(facts);
        match &facts.tensors {
            Some(tensors) => {
                let counted = Self::from(tensors.bytes()).total().get();
                let factor = whole.total().get() as f64 / counted.max(1) as f64;
                Self::from(tensors.layer_bytes(layers)).scale(factor)
            }
            None => Self { embedding: Bytes::ZERO, output: Bytes::ZERO, ..whole }
                .scale(held / f64::from(facts.layers.max(1))),
        }
    }

    fn scale(self, factor: f64) -> Self {
        Self {
            embedding: self.embedding.scale(factor),
            output: self.output.scale(factor),
            divided: self.divided.scale(factor),
            experts: self.experts.scale(factor),
            kv_projection: self.kv_projection.scale(factor),
            replicated: self.replicated.scale(factor),
        }
    }

    /// The same parts, scaled so that they add up to the exact size where it is known.
    fn exact(self, weight_bytes: Option<u64>) -> Self {
        let counted = self.total().get();
        match weight_bytes {
            Some(exact) if counted > 0 => self.scale(exact as f64 / counted as f64),
            _ => self,
        }
    }

    pub(crate) fn total(&self) -> Bytes {
        self.embedding
            + self.output
            + self.divided
            + self.experts
            + self.kv_projection
            + self.replicated
    }
}

impl From<Classes> for Parts {
    fn from(bytes: Classes) -> Self {
        Self {
            embedding: Bytes(bytes.embedding),
            output: Bytes(bytes.output),
            divided: Bytes(bytes.attention) + Bytes(bytes.dense) + Bytes(bytes.other),
            experts: Bytes(bytes.experts),
            kv_projection: Bytes(bytes.kv_projection),
            replicated: Bytes(bytes.latent_projection) + Bytes(bytes.replicated),
        }
    }
}

impl ModelFacts {
    /// The facts of a checkpoint that is quantised while it is loaded (vLLM's `--quantization` on
    /// weights in 16 bits): what was read of its tensors no longer tells their sizes.
    #[must_use]
    pub fn loaded_as(&self, quantization: Quantization) -> Self {
        let experts = self.moe.is_some();
        let stored = |parameters: &Classes| {
            let dense = |count| bytes(count, quantization.dense_bits(experts)).get();
            let plain = |count| bytes(count, quantization.other_bits()).get();
            let table = quantization.embedding_bits(self.tied_embeddings);
            Classes {
                embedding: bytes(parameters.embedding, table).get(),
                output: bytes(parameters.output, quantization.output_bits()).get(),
                attention: dense(parameters.attention),
                kv_projection: dense(parameters.kv_projection),
                latent_projection: dense(parameters.latent_projection),
                dense: dense(parameters.dense),
                experts: bytes(parameters.experts, quantization.bits()).get(),
                replicated: plain(parameters.replicated),
                other: bytes(parameters.other, crate::quantization::PLAIN_BITS).get(),
            }
        };
        let mut facts = Self { quantization, weight_bytes: None, ..self.clone() };
        if let Some(tensors) = &mut facts.tensors {
            tensors.exact = false;
            tensors.outside.bytes = stored(&tensors.outside.parameters);
            for run in &mut tensors.layers {
                run.bytes = stored(&run.parameters);
            }
        }
        facts
    }
}

/// Weights of one GPU of `gpus` under tensor parallelism, as vLLM loads them.
///
/// Beyond the share of the checkpoint: projections to keys and values repeat where there are more
/// GPUs than heads; routers, norms and MLA's down-projections are whole on each.
/// Loaded ÷ checkpoint is 0.99–1.02 for most models in the logs; the two terms below explain the
/// larger ones.
pub(crate) fn tensor_parallel_share(facts: &ModelFacts, gpus: u32) -> Bytes {
    divide(facts, Parts::of(facts), gpus)
        + rotary_cache(facts)
        + absorbed_projections(facts, facts.layers, gpus)
}

/// The same of one stage of a pipeline: its layers, the input table in the first and the output layer
/// in the last, and the table of rotations in each. Towers are loaded with the input table.
pub(crate) fn stage_share(facts: &ModelFacts, gpus: u32, stage: &Stage) -> Bytes {
    let whole = Parts::of(facts);
    let mut parts = Parts::of_layers(facts, stage.layers.clone());
    if stage.first {
        let layers = Parts::of_layers(facts, 0..facts.layers);
        parts.divided += whole.divided - layers.divided;
        parts.replicated += whole.replicated - layers.replicated;
    }
    if stage.first || (stage.last && facts.tied_embeddings) {
        parts.embedding = whole.embedding;
    }
    if stage.last {
        parts.output = whole.output;
    }
    divide(facts, parts, gpus)
        + rotary_cache(facts)
        + absorbed_projections(facts, stage.len(), gpus)
}

/// What tensor parallelism makes of the parts of a checkpoint on each GPU.
fn divide(facts: &ModelFacts, parts: Parts, gpus: u32) -> Bytes {
    let each = u64::from(gpus);
    let kv_parts = u64::from(gpus.min(facts.kv_heads));
    (parts.embedding + parts.output + parts.divided).div_ceil(each)
        + padded_experts(facts, parts.experts, gpus).div_ceil(each)
        + parts.kv_projection.div_ceil(kv_parts)
        + parts.replicated
}

/// The table of rotations for every position: `max_context · head_dim` values of 16 bits, whole on
/// each GPU. It is why Llama-3.1-8B loads 0.03 GiB and Llama-4-Scout (10 M positions) 2.5 GiB more
/// than its share of the checkpoint. Gemma 3 has one for stretched positions (0.5 GiB) and another
/// for its windowed layers. Where part of a head is rotated, the table is that much narrower.
fn rotary_cache(facts: &ModelFacts) -> Bytes {
    let head = facts.rotary_dim.unwrap_or(facts.head_dim);
    let width = facts.mla.map_or(head, |mla| mla.qk_rope_head_dim);
    let table = |positions: u32| Bytes(product(&[positions, width, 2]));
    match facts.rotary_positions {
        Some(stretched) => table(stretched) + table(facts.max_context),
        None => table(facts.max_context),
    }
}

/// MLA's up-projections, which vLLM keeps a second time in 16 bits for decoding.
fn absorbed_projections(facts: &ModelFacts, layers: u32, gpus: u32) -> Bytes {
    facts.mla.map_or(Bytes::ZERO, |mla| {
        let width = mla.qk_nope_head_dim.saturating_add(mla.v_head_dim);
        let layer = product(&[mla.kv_lora_rank, facts.attention_heads, width, 2]);
        Bytes(layer.saturating_mul(u64::from(layers))).div_ceil(u64::from(gpus))
    })
}

/// vLLM's MXFP4 kernels want each GPU's share of an expert in multiples of 256; gpt-oss' 2,880 is
/// none, and loads 64.4 GiB from a checkpoint of 60.8 (H100).
fn padded_experts(facts: &ModelFacts, experts: Bytes, gpus: u32) -> Bytes {
    const MULTIPLE: u32 = 256;
    match (facts.quantization, facts.moe) {
        (Quantization::Mxfp4, Some(moe)) => {
            let share = moe.expert_intermediate_size.div_ceil(gpus).max(1);
            experts.scale(f64::from(share.next_multiple_of(MULTIPLE)) / f64::from(share))
        }
        _ => experts,
    }
}

fn bytes(count: u64, bits: f64) -> Bytes {
    Bytes(count).scale(bits / 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GgufType, catalogue, parameters};

    fn facts(id: &str, file: Option<&str>) -> ModelFacts {
        catalogue().find(id, file).unwrap().facts.clone()
    }

    fn assert_gib(actual: Bytes, expected: f64, within: f64) {
        let gib = actual.as_gib_f64();
        assert!((gib - expected).abs() <= within * expected, "{gib:.2} GiB, not {expected}");
    }

    #[test]
    fn checkpoints_have_their_published_size() {
        // GiB, as kaito-project/kaito's model catalogue and the models' own pages state them.
        for (id, gib) in [
            ("meta-llama/Llama-3.1-8B-Instruct", 14.96),
            ("meta-llama/Llama-3.3-70B-Instruct", 131.42),
            ("Qwen/Qwen2.5-Coder-32B-Instruct", 61.03),
            ("Qwen/Qwen2.5-72B-Instruct-AWQ", 38.74),
            ("Qwen/Qwen3-8B-AWQ", 5.68),
            ("mistralai/Mistral-7B-Instruct-v0.3", 13.50),
            ("google/gemma-3-27b-it", 51.10),
            ("microsoft/phi-4", 27.31),
            ("mistralai/Mixtral-8x7B-Instruct-v0.1", 86.99),
            ("openai/gpt-oss-120b", 60.77),
        ] {
            assert_gib(weights(&facts(id, None)), gib, 0.01);
        }
    }

    #[test]
    fn gguf_files_have_their_published_size() {
        // GiB, from the table in llama.cpp's tools/quantize/README.md.
        let repository = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF";
        for (file, gib) in [
            ("*Q2_K.gguf", 2.95),
            ("*IQ4_XS.gguf", 4.17),
            ("*Q4_K_M.gguf", 4.58),
            ("*Q6_K.gguf", 6.14),
            ("*Q8_0.gguf", 7.95),
            ("*F16.gguf", 14.96),
        ] {
            assert_gib(weights(&facts(repository, Some(file))), gib, 0.005);
        }
        // 70B Q4_K_M and gpt-oss-20b, as published.
        let llama = facts("bartowski/Meta-Llama-3.1-70B-Instruct-GGUF", Some("*Q4_K_M.gguf"));
        assert_gib(weights(&llama), 39.6, 0.02);
        let oss = facts("ggml-org/gpt-oss-20b-GGUF", Some("gpt-oss-20b-mxfp4.gguf"));
        assert_eq!(oss.quantization, Quantization::Gguf(GgufType::Mxfp4));
        assert_gib(weights(&oss), 11.28, 0.02);
    }

    #[test]
    fn an_exact_size_goes_before_everything() {
        let exact =
            ModelFacts { weight_bytes: Some(12_345_678_901), ..facts("Qwen/Qwen3-8B", None) };
        assert_eq!(weights(&exact), Bytes(12_345_678_901));
        let (one, two) = (tensor_parallel_share(&exact, 1), tensor_parallel_share(&exact, 2));
        assert_gib(one, 11.51, 0.001);
        assert_gib(two, 5.76, 0.001);
    }

    #[test]
    fn weights_can_be_quantised_while_they_are_loaded() {
        let config = r#"{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
            "vocab_size": 128256, "tie_word_embeddings": false}"#;
        let read = crate::read::config(config, None).unwrap();
        assert_gib(weights(&read), 14.96, 0.001);
        // As the checkpoint in fp8: 8.46 GiB.
        let eight = read.loaded_as(Quantization::Fp8);
        assert_gib(weights(&eight), 8.46, 0.001);
        assert_eq!(parameters(&eight), parameters(&read));
    }

    #[test]
    fn stages_load_their_own_layers() {
        let config = r#"{"model_type": "deepseek_v3", "hidden_size": 1024, "num_hidden_layers": 8,
            "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 4096,
            "moe_intermediate_size": 512, "n_routed_experts": 64, "num_experts_per_tok": 4,
            "n_shared_experts": 1, "first_k_dense_replace": 3, "kv_lora_rank": 128,
            "q_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
            "vocab_size": 1024, "max_position_embeddings": 128, "num_nextn_predict_layers": 0}"#;
        let facts = crate::read::config(config, None).unwrap();
        let two = crate::Parallelism { pipeline: 2, ..crate::Parallelism::SINGLE };
        let stages: Vec<Bytes> =
            two.stages(facts.layers).map(|stage| stage_share(&facts, 1, &stage)).collect();
        // Experts in one of the first four layers, and in all of the last.
        assert!(stages[0] < stages[1] / 2, "{stages:?}");
        // The table of rotations is in both.
        let sum = stages[0] + stages[1];
        assert_eq!(sum, tensor_parallel_share(&facts, 1) + rotary_cache(&facts));
    }

    #[test]
    fn stretched_positions_have_a_table_of_their_own() {
        // 8.58 and 23.31 GiB in the logs of one H100, from checkpoints of 8.01 and 22.70.
        assert_gib(tensor_parallel_share(&facts("google/gemma-3-4b-it", None), 1), 8.58, 0.005);
        assert_gib(tensor_parallel_share(&facts("google/gemma-3-12b-it", None), 1), 23.31, 0.005);
    }

    #[test]
    fn a_share_repeats_what_cannot_be_divided() {
        let qwen = facts("Qwen/Qwen3-30B-A3B", None);
        let eighth = tensor_parallel_share(&qwen, 8);
        // Four key-value heads on eight GPUs, and routers whole on each.
        assert!(eighth > weights(&qwen).div_ceil(8));
        assert_gib(eighth, 7.16, 0.01);
        // 79.7 GiB in the logs of eight H200.
        assert_gib(tensor_parallel_share(&facts("deepseek-ai/DeepSeek-R1", None), 8), 79.7, 0.01);
    }
}
