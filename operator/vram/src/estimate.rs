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

/// Graphs of vLLM on MI300X: 3.1 to 8.9 GiB in 16 logs, where H100 takes 0.6 to 1.6.
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
    per_gpu.margin = margin(per_gpu.weights + per_gpu.overheads(), &basis);
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
            let fixed = self.per_gpu.weights + self.per_gpu.overheads();
            self.per_gpu.margin = margin(fixed, &self.basis);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, KvDtype, catalogue};

    /// Usable memory: an H100 80GB has 79.2 GiB, an H200 139.8.
    const H100: Bytes = Bytes::gib(79);
    const H200: Bytes = Bytes::gib(139);

    fn needs(id: &str, file: Option<&str>, context: u32, gpus: u32) -> Estimate {
        let facts = &catalogue().find(id, file).unwrap().facts;
        let engine = if file.is_some() { Engine::LlamaCpp } else { Engine::Vllm };
        let workload = Workload::new(engine, context, 1);
        estimate(facts, &workload, Parallelism::tensor(gpus)).unwrap()
    }

    fn fits(id: &str, context: u32, gpus: u32, gpu: Bytes) -> bool {
        let estimate = needs(id, None, context, gpus);
        println!("{id} on {gpus}: {}", estimate.per_gpu);
        estimate.per_gpu.total() <= gpu
    }

    #[test]
    fn large_models_fit_where_people_run_them() {
        assert!(fits("deepseek-ai/DeepSeek-R1", 32_768, 8, H200));
        assert!(!fits("deepseek-ai/DeepSeek-R1", 32_768, 8, H100));
        assert!(fits("openai/gpt-oss-120b", 32_768, 1, H100));
        assert!(!fits("mistralai/Mixtral-8x7B-Instruct-v0.1", 32_768, 1, H100));
        assert!(fits("mistralai/Mixtral-8x7B-Instruct-v0.1", 32_768, 2, H100));
        assert!(!fits("meta-llama/Llama-3.1-70B-Instruct", 32_768, 1, H200));
        assert!(fits("meta-llama/Llama-3.1-70B-Instruct", 32_768, 2, H200));
        assert!(fits("meta-llama/Llama-3.1-70B-Instruct", 32_768, 4, H100));
        assert!(fits("Qwen/Qwen2.5-72B-Instruct-AWQ", 32_768, 1, H100));
        assert!(fits("meta-llama/Llama-3.1-405B-Instruct-FP8", 32_768, 8, H100));
        assert!(!fits("meta-llama/Llama-3.1-405B-Instruct", 32_768, 8, H100));
    }

    #[test]
    fn a_breakdown_reads_well() {
        let llama = needs("meta-llama/Llama-3.1-8B-Instruct", None, 8192, 1);
        assert_eq!(
            llama.per_gpu.to_string(),
            "needs 18.8 GiB (weights 15.0, KV cache 1.0, overheads 2.1, margin 0.8)"
        );
        assert_eq!(llama.basis, Basis::Fitted);
        assert_eq!(llama.kv_bytes_per_token, Bytes(131_072));
        assert_eq!(needs("meta-llama/Llama-3.1-8B-Instruct", None, 8192, 2).gpus, 2);
    }

    #[test]
    fn weak_data_is_said_and_has_a_wider_margin() {
        let mixtral = needs("mistralai/Mixtral-8x7B-Instruct-v0.1", None, 8192, 2);
        assert!(!mixtral.basis.is_fitted());
        let llama = needs("meta-llama/Llama-3.1-70B-Instruct", None, 8192, 4);
        let amd = llama.clone().on(Vendor::Amd);
        assert!(amd.basis.to_string().contains("AMD"));
        assert!(amd.per_gpu.margin > llama.per_gpu.margin);
        assert!(amd.per_gpu.graphs > llama.per_gpu.graphs);
        assert_eq!(llama.clone().on(Vendor::Nvidia), llama);
    }

    #[test]
    fn llama_cpp_spreads_layers() {
        let repository = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF";
        let file = Some("*Q4_K_M.gguf");
        let one = needs(repository, file, 8192, 1).per_gpu;
        // 4,403 MiB: llama.cpp's own CUDA0 buffer for this file (the input table stays on the host).
        let mib = one.weights.mib_ceil();
        assert!((4380..=4425).contains(&mib), "{mib}");
        assert_eq!(one.kv_cache, Bytes::gib(1));
        let three = needs(repository, file, 8192, 3).per_gpu;
        // 11 of 32 layers.
        assert_eq!(three.kv_cache, Bytes::gib(1) / 32 * 11);
        assert!(three.weights < one.weights && three.weights > one.weights / 3);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_way_out() {
        let refuse = |id: &str, file: Option<&str>, workload: Workload| {
            let facts = &catalogue().find(id, file).unwrap().facts;
            estimate(facts, &workload, Parallelism::SINGLE).unwrap_err().to_string()
        };
        let llama = "meta-llama/Llama-3.1-8B-Instruct";
        let gguf = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF";
        assert_eq!(
            refuse(llama, None, Workload::new(Engine::Vllm, 200_000, 1)),
            "a context of 200000 tokens is more than the model's maximum of 131072; \
             use contextLength 131072 or less"
        );
        assert_eq!(
            refuse(llama, None, Workload::new(Engine::Vllm, 8192, 0)),
            "maxConcurrency is 0; use at least 1"
        );
        assert_eq!(
            refuse(gguf, Some("*Q8_0.gguf"), Workload::new(Engine::Vllm, 8192, 1)),
            "vLLM cannot serve GGUF Q8_0 weights: use engine LlamaCpp, or a safetensors \
             checkpoint of the model"
        );
        assert_eq!(
            refuse(llama, None, Workload::new(Engine::LlamaCpp, 8192, 1)),
            "llama.cpp cannot serve bf16 weights: use a GGUF file of the model, or engine Vllm"
        );
        let q8 = Workload { kv_dtype: KvDtype::Q8_0, ..Workload::new(Engine::Vllm, 8192, 1) };
        assert!(refuse(llama, None, q8).contains("use Auto or Fp8"));
        let huge = Workload::new(Engine::Vllm, 131_072, u32::MAX);
        assert!(refuse(llama, None, huge).starts_with("the KV cache would need over 1024 TiB"));
    }

    #[test]
    fn an_estimate_survives_json() {
        let estimate = needs("openai/gpt-oss-20b", None, 8192, 1);
        let json = serde_json::to_string(&estimate).unwrap();
        assert_eq!(serde_json::from_str::<Estimate>(&json).unwrap(), estimate);
        let facts = &catalogue().find("Qwen/Qwen2.5-7B-Instruct-AWQ", None).unwrap().facts;
        let json = serde_json::to_string(facts).unwrap();
        assert_eq!(&serde_json::from_str::<ModelFacts>(&json).unwrap(), facts);
    }
}
