//! The weights: bytes of the whole checkpoint, and of the share that one GPU loads.

use berth_units::Bytes;

use crate::{ModelFacts, Quantization, parameters::Counts, parameters::product};

/// The checkpoint, in bytes: what is downloaded, cached and read.
///
/// Exact where the facts give `weight_bytes`, else counted from the architecture with the bits of
/// each part. Published `parameters` beyond the counted ones (vision towers, prediction heads)
/// count in 16 bits.
pub fn weights(facts: &ModelFacts) -> Bytes {
    facts.weight_bytes.map_or_else(|| Parts::of(facts).total(), Bytes)
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
        let counts = Counts::of(facts);
        let stored = facts.quantization;
        let linear = stored.bits();
        let attention = stored.attention_bits(facts.moe.is_some());
        // What the architecture does not tell: more than counted is taken as not quantised, less
        // as missing from the layers.
        let published = facts.parameters.unwrap_or_else(|| counts.total());
        let unknown = published.saturating_sub(counts.total());
        let missing = counts.total().saturating_sub(published);

        Self {
            embedding: bytes(counts.embedding, stored.embedding_bits(facts.tied_embeddings)),
            output: bytes(counts.output, stored.output_bits()),
            divided: bytes(counts.attention, attention)
                + bytes(counts.dense, attention)
                + bytes(counts.other.saturating_add(unknown), crate::quantization::PLAIN_BITS)
                - bytes(missing, linear),
            experts: bytes(counts.experts, linear),
            kv_projection: bytes(counts.kv_projection, attention),
            replicated: bytes(counts.latent_projection, attention)
                + bytes(counts.replicated, stored.other_bits()),
        }
        .exact(facts.weight_bytes)
    }

    /// The same parts, scaled so that they add up to the exact size where it is known.
    fn exact(self, weight_bytes: Option<u64>) -> Self {
        let counted = self.total().get();
        match weight_bytes {
            Some(exact) if counted > 0 => {
                let factor = exact as f64 / counted as f64;
                Self {
                    embedding: self.embedding.scale(factor),
                    output: self.output.scale(factor),
                    divided: self.divided.scale(factor),
                    experts: self.experts.scale(factor),
                    kv_projection: self.kv_projection.scale(factor),
                    replicated: self.replicated.scale(factor),
                }
            }
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

/// Weights of one GPU of `gpus` under tensor parallelism, as vLLM loads them.
///
/// Beyond the share of the checkpoint: projections to keys and values repeat where there are more
/// GPUs than heads; routers, norms and MLA's down-projections are whole on each.
/// Loaded ÷ checkpoint is 0.99–1.02 for most models in the logs; the two terms below explain the
/// larger ones.
pub(crate) fn tensor_parallel_share(facts: &ModelFacts, gpus: u32) -> Bytes {
    let parts = Parts::of(facts);
    let each = u64::from(gpus);
    let kv_parts = u64::from(gpus.min(facts.kv_heads));
    (parts.embedding + parts.output + parts.divided).div_ceil(each)
        + padded_experts(facts, parts.experts, gpus).div_ceil(each)
        + parts.kv_projection.div_ceil(kv_parts)
        + parts.replicated
        + rotary_cache(facts)
        + absorbed_projections(facts, gpus)
}

/// The table of rotations for every position: `max_context · head_dim` values of 16 bits, whole on
/// each GPU. It is why Llama-3.1-8B loads 0.03 GiB and Llama-4-Scout (10 M positions) 2.5 GiB more
/// than its share of the checkpoint.
fn rotary_cache(facts: &ModelFacts) -> Bytes {
    let width = facts.mla.map_or(facts.head_dim, |mla| mla.qk_rope_head_dim);
    Bytes(product(&[facts.max_context, width, 2]))
}

/// MLA's up-projections, which vLLM keeps a second time in 16 bits for decoding.
fn absorbed_projections(facts: &ModelFacts, gpus: u32) -> Bytes {
    facts.mla.map_or(Bytes::ZERO, |mla| {
        let width = mla.qk_nope_head_dim.saturating_add(mla.v_head_dim);
        let layer = product(&[mla.kv_lora_rank, facts.attention_heads, width, 2]);
        Bytes(layer.saturating_mul(u64::from(facts.layers))).div_ceil(u64::from(gpus))
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
