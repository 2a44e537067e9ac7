//! The rules of others, on the same cases: what they would have claimed.
//!
//! Written from what their documentation and code say they compute, in our own words; none of their
//! code is here. All take the weights for known: that of the checkpoint, as ours does.

use berth_units::{Bytes, GIB};

/// A rule for the memory of one GPU beside its KV cache, in GiB.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Whose it is.
    pub name: &'static str,
    /// The rule, for people.
    pub rule: &'static str,
    /// GiB a GPU from the checkpoint's GiB and the number of GPUs.
    pub gib: fn(f64, f64) -> f64,
}

/// All rules.
pub const PEERS: [Peer; 3] = [
    // gpustack/gpustack, the vLLM candidate selector: weights with a fifth for activations, and 2 GiB
    // for the framework, spread over the GPUs.
    Peer {
        name: "GPUStack",
        rule: "(1.2 W + 2) / GPUs",
        gib: |weights, gpus| (1.2 * weights + 2.0) / gpus,
    },
    // kaito-project/kaito, the estimator of node counts: 2 % for loading, 2.3 GiB fixed and 5 % of the
    // weights a GPU.
    Peer {
        name: "KAITO",
        rule: "1.02 W/GPUs + 2.3 + 0.05 W/GPUs",
        gib: |weights, gpus| 1.07 * weights / gpus + 2.3,
    },
    // huggingface/accelerate, `accelerate estimate-memory`: the weights and nothing else.
    Peer { name: "accelerate", rule: "W / GPUs", gib: |weights, gpus| weights / gpus },
];

impl Peer {
    /// The claim on each of `gpus`.
    pub fn claim(&self, checkpoint: Bytes, gpus: u32) -> f64 {
        (self.gib)(checkpoint.as_gib_f64(), f64::from(gpus))
    }
}

/// The rule of gpustack/gguf-parser-go for a KV cache of plain heads: keys and values of every layer
/// and token in full. It is what the peer in `speed` computes too.
pub fn plain_kv_bytes(layers: u64, kv_heads: u64, head_dim: u64, tokens: u64) -> u64 {
    2 * 2 * layers * kv_heads * head_dim * tokens
}

/// `GPUStack`'s rule as a whole, for `speed`: weights and cache, in bytes.
pub fn rule_of_thumb(
    parameters: u64,
    layers: u64,
    kv_heads: u64,
    head_dim: u64,
    tokens: u64,
) -> u64 {
    parameters * 12 / 5 + 2 * GIB + plain_kv_bytes(layers, kv_heads, head_dim, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_as_published() {
        let claims = |gib, gpus| PEERS.map(|peer| peer.claim(Bytes::gib(gib), gpus));
        for (claim, rule) in claims(10, 1).into_iter().zip([14.0, 13.0, 10.0]) {
            assert!((claim - rule).abs() < 1e-9, "{claim}");
        }
        assert!((claims(10, 2)[0] - 7.0).abs() < 1e-9);
        assert_eq!(plain_kv_bytes(32, 8, 128, 1), 131_072);
    }
}
