//! Counting a model's parameters from its architecture.
//!
//! The counts are kept apart by what becomes of them: what is quantised and what is not, what
//! tensor parallelism divides and what it repeats. Biases are left out (under 0.01 %).

use crate::{Mla, ModelFacts, read::Classes};

/// Parameters by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The input embedding table.
    pub embedding: u64,
    /// The output layer; zero if it shares the table.
    pub output: u64,
    /// Attention, without what stands in the next two.
    pub attention: u64,
    /// Projections to keys and values: repeated where there are more GPUs than heads.
    pub kv_projection: u64,
    /// MLA's projections to the compressed vectors: the same on every GPU.
    pub latent_projection: u64,
    /// Dense feed-forward layers and shared experts.
    pub dense: u64,
    /// Routed experts.
    pub experts: u64,
    /// Routers and norms: the same on every GPU, never quantised.
    pub replicated: u64,
    /// Vision towers and the like.
    pub other: u64,
}

impl Counts {
    /// Counts `facts`, tensor by tensor where they are known. Saturates: validated facts never get
    /// near.
    pub(crate) fn of(facts: &ModelFacts) -> Self {
        if let Some(tensors) = &facts.tensors {
            return Self::from(tensors.parameters());
        }
        let hidden = facts.hidden_size;
        let table = product(&[facts.vocab_size, hidden]);
        let layers = u64::from(facts.layers);
        let matrices = if facts.gated { 3 } else { 2 };
        let expert_layers = u64::from(facts.expert_layers());
        let dense_layers = layers - expert_layers;

        let mut counts = Self {
            embedding: table,
            output: if facts.tied_embeddings { 0 } else { table },
            dense: product(&[matrices, hidden, facts.intermediate_size])
                .saturating_mul(dense_layers),
            // Two norms a layer and one at the end.
            replicated: product(&[2, hidden])
                .saturating_mul(layers)
                .saturating_add(u64::from(hidden)),
            other: facts.other_parameters,
            ..Self::default()
        };
        counts.add_attention(facts, layers);
        if let Some(moe) = facts.moe {
            let expert = product(&[matrices, hidden, moe.expert_intermediate_size]);
            let shared = product(&[matrices, hidden]).saturating_mul(moe.shared_width());
            counts.experts =
                expert.saturating_mul(u64::from(moe.experts)).saturating_mul(expert_layers);
            counts.dense = counts.dense.saturating_add(shared.saturating_mul(expert_layers));
            counts.replicated = counts
                .replicated
                .saturating_add(product(&[hidden, moe.experts]).saturating_mul(expert_layers));
        }
        counts
    }

    fn add_attention(&mut self, facts: &ModelFacts, layers: u64) {
        let (hidden, heads) = (facts.hidden_size, facts.attention_heads);
        if let Some(mla) = facts.mla {
            let (attention, latent) = mla_layer(hidden, heads, &mla);
            self.attention = attention.saturating_mul(layers);
            self.latent_projection = latent.saturating_mul(layers);
        } else {
            let head_dim = facts.head_dim;
            self.attention = product(&[2, hidden, heads, head_dim]).saturating_mul(layers);
            self.kv_projection =
                product(&[2, hidden, facts.kv_heads, head_dim]).saturating_mul(layers);
        }
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        [
            self.embedding,
            self.output,
            self.attention,
            self.kv_projection,
            self.latent_projection,
            self.dense,
            self.experts,
            self.replicated,
            self.other,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

impl From<Classes> for Counts {
    fn from(classes: Classes) -> Self {
        let Classes {
            embedding,
            output,
            attention,
            kv_projection,
            latent_projection,
            dense,
            experts,
            replicated,
            other,
        } = classes;
        Self {
            embedding,
            output,
            attention,
            kv_projection,
            latent_projection,
            dense,
            experts,
            replicated,
            other,
        }
    }
}

/// One layer of MLA: what is divided among GPUs, and what is the same on all.
fn mla_layer(hidden: u32, heads: u32, mla: &Mla) -> (u64, u64) {
    let query = mla.qk_nope_head_dim.saturating_add(mla.qk_rope_head_dim);
    let key_value = mla.qk_nope_head_dim.saturating_add(mla.v_head_dim);
    let compressed = mla.kv_lora_rank.saturating_add(mla.qk_rope_head_dim);
    let (query_up, query_down) = match mla.q_lora_rank {
        Some(rank) => (product(&[rank, heads, query]), product(&[hidden, rank])),
        None => (product(&[hidden, heads, query]), 0),
    };
    let divided = query_up
        .saturating_add(product(&[mla.kv_lora_rank, heads, key_value]))
        .saturating_add(product(&[heads, mla.v_head_dim, hidden]));
    (divided, query_down.saturating_add(product(&[hidden, compressed])))
}

/// A product that saturates.
pub(crate) fn product(factors: &[u32]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(u64::from(factor)))
}

/// All parameters of the model: as published where the facts say so, else counted.
pub fn parameters(facts: &ModelFacts) -> u64 {
    facts.parameters.unwrap_or_else(|| counted_parameters(facts))
}

/// All parameters, counted from the tensors or the architecture whatever the facts say. Without
/// tensors recurrent layers are counted as if they were attention: give `parameters` then.
pub fn counted_parameters(facts: &ModelFacts) -> u64 {
    Counts::of(facts).total()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn the_architecture_counts_to_the_published_total() {
        let mut checked = 0;
        for entry in catalogue().iter() {
            let Some(published) = entry.facts.parameters else { continue };
            let ratio = counted_parameters(&entry.facts) as f64 / published as f64;
            assert!((ratio - 1.0).abs() < 0.005, "{}: counted ÷ published {ratio:.4}", entry.id);
            checked += 1;
        }
        assert!(checked >= 100, "{checked}");
    }

    #[test]
    fn totals_in_billions_are_those_that_people_know() {
        for (id, billions) in [
            ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
            ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7),
            ("deepseek-ai/DeepSeek-R1", 671.0),
            ("deepseek-ai/DeepSeek-V2-Lite", 15.7),
            ("openai/gpt-oss-120b", 116.8),
            ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 108.6),
            ("Qwen/Qwen3-235B-A22B", 235.1),
            ("moonshotai/Kimi-K2-Instruct", 1026.0),
            ("microsoft/phi-2", 2.78),
        ] {
            let facts = &catalogue().find(id, None).unwrap().facts;
            let counted = counted_parameters(facts) as f64 / 1e9;
            assert!((counted / billions - 1.0).abs() < 0.005, "{id}: {counted}");
        }
    }
}
