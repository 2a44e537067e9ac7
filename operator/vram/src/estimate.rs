//! The estimate: all parts added up, with how good they are.

use std::fmt;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{EstimateError, ModelFacts, Parallelism, Workload, engine, margin::margin};

/// What one replica needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// What the fullest of its GPUs needs.
    pub per_gpu: Breakdown,
    /// What a token more of context takes on that GPU, in the layers that look back over all of it.
    pub kv_bytes_per_token: Bytes,
    /// How many GPUs.
    pub gpus: u32,
    /// How good the data behind this is.
    pub basis: Basis,
}

/// The memory of one GPU, part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breakdown {
    /// Weights, as loaded.
    pub weights: Bytes,
    /// The KV cache that holds what is asked.
    pub kv_cache: Bytes,
    /// The peak of a step: activations, logits, the sampler.
    pub activation: Bytes,
    /// What is taken outside of the framework's allocator: contexts, NCCL, workspaces.
    pub non_torch: Bytes,
    /// Captured graphs.
    pub graphs: Bytes,
    /// What is added for safety.
    pub margin: Bytes,
}

/// How good the data behind an estimate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Basis {
    /// Constants fitted to logs of the same engine and kind of model (vLLM on NVIDIA H100).
    Fitted,
    /// Little or no data of this kind: the margin is wider.
    Extrapolated {
        /// What there is no data of.
        reason: String,
    },
}

/// Who made the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Vendor {
    /// NVIDIA, which the constants were fitted on.
    Nvidia,
    /// AMD.
    Amd,
}

/// Graphs of vLLM on MI300X: 3 to 9 GiB in 15 logs, where H100 takes 0.6 to 1.6.
const AMD_GRAPHS: Bytes = Bytes::gib(6);

/// Estimates what one replica needs on each of its GPUs, for NVIDIA; see [`Estimate::on`].
pub fn estimate(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Estimate, EstimateError> {
    /// Beyond any GPU; sums stay far from overflow below it.
    const LIMIT_TIB: u64 = 1 << 10;
    engine::check(facts, workload, parallelism)?;
    let overheads = engine::overheads(facts, workload, parallelism);
    let basis = engine::basis(facts, workload, parallelism);
    let mut per_gpu = Breakdown {
        weights: engine::weights(facts, workload.engine, parallelism),
        kv_cache: engine::kv_cache(facts, workload, parallelism),
        activation: overheads.activation,
        non_torch: overheads.non_torch,
        graphs: overheads.graphs,
        margin: Bytes::ZERO,
    };
    for (what, part) in [
        ("the weights", per_gpu.weights),
        ("the KV cache", per_gpu.kv_cache),
        ("the activation", per_gpu.activation),
    ] {
        if part > Bytes::gib(LIMIT_TIB << 10) {
            return Err(EstimateError::TooLarge { what, limit_tib: LIMIT_TIB });
        }
    }
    per_gpu.margin = margin(per_gpu.total(), &basis);
    Ok(Estimate {
        per_gpu,
        kv_bytes_per_token: engine::kv_bytes_per_token(facts, workload, parallelism),
        gpus: parallelism.gpus(),
        basis,
    })
}

impl Estimate {
    /// The same estimate on GPUs of this vendor.
    #[must_use]
    pub fn on(mut self, vendor: Vendor) -> Self {
        if vendor == Vendor::Amd {
            self.basis = Basis::Extrapolated {
                reason: "no complete log on AMD; its graphs take 3 to 9 GiB".to_owned(),
            };
            if self.per_gpu.graphs > Bytes::ZERO {
                self.per_gpu.graphs = AMD_GRAPHS;
            }
            self.per_gpu.margin = Bytes::ZERO;
            self.per_gpu.margin = margin(self.per_gpu.total(), &self.basis);
        }
        self
    }
}

impl Breakdown {
    /// All parts together.
    pub fn total(&self) -> Bytes {
        self.weights + self.kv_cache + self.overheads() + self.margin
    }

    /// What the engine takes beside weights and KV cache.
    pub fn overheads(&self) -> Bytes {
        self.activation + self.non_torch + self.graphs
    }
}

/// For people: `needs 38.2 GiB (weights 30.1, KV cache 5.0, overheads 2.3, margin 0.8)`.
impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "needs {:.1} GiB (weights {:.1}, KV cache {:.1}, overheads {:.1}, margin {:.1})",
            self.total().as_gib_f64(),
            self.weights.as_gib_f64(),
            self.kv_cache.as_gib_f64(),
            self.overheads().as_gib_f64(),
            self.margin.as_gib_f64(),
        )
    }
}

impl Basis {
    /// Whether the constants were fitted to data of this kind.
    pub fn is_fitted(&self) -> bool {
        matches!(self, Self::Fitted)
    }
}

/// For people: `fitted to vLLM on H100`, or `extrapolated: …`.
impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fitted => f.write_str("fitted to vLLM on NVIDIA H100"),
            Self::Extrapolated { reason } => write!(f, "extrapolated: {reason}"),
        }
    }
}
