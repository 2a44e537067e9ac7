//! The estimate: all parts added up, with how good they are.

use std::fmt;

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    EstimateError, ModelFacts, Parallelism, Workload,
    engine::{self, Constants, Gap},
    margin::{Risk, margin},
};

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
    /// What weights would take more on AMD.
    #[serde(skip)]
    repacked: Bytes,
    /// What the margin is made for.
    #[serde(skip)]
    risk: Risk,
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
    /// Constants fitted to complete logs of the same kind: vLLM 0.17 to 0.20 on NVIDIA.
    Fitted,
    /// Little or no data of this kind: the margin is wider.
    Extrapolated {
        /// What there is no data of.
        gaps: Vec<Gap>,
    },
}

/// Who made the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Vendor {
    /// NVIDIA, which the constants were fitted on.
    #[default]
    Nvidia,
    /// AMD.
    Amd,
}

/// Estimates what one replica needs on each of its GPUs.
pub fn estimate(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Estimate, EstimateError> {
    let stages = stages(facts, workload, parallelism)?;
    Ok(Estimate {
        per_gpu: stages.into_iter().max_by_key(Breakdown::total).unwrap_or_default(),
        kv_bytes_per_token: engine::kv_bytes_per_token(facts, workload, parallelism),
        gpus: parallelism.gpus(),
        basis: basis(facts, workload, parallelism),
        repacked: engine::repacked(facts, parallelism),
        risk: workload.risk,
    })
}

/// What a GPU of each pipeline stage needs, from the first to the last: the first has the input
/// table, the last has the output layer and samples. One entry where there is no pipeline.
pub fn stages(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Vec<Breakdown>, EstimateError> {
    stages_with(&Constants::FITTED, facts, workload, parallelism)
}

/// The same with other constants, to find out which are best.
pub fn stages_with(
    constants: &Constants,
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Vec<Breakdown>, EstimateError> {
    /// Beyond any GPU; sums stay far from overflow below it.
    const LIMIT_TIB: u64 = 1 << 10;
    engine::check(facts, workload, parallelism)?;
    let basis = basis(facts, workload, parallelism);
    let mut stages = engine::stages(constants, facts, workload, parallelism);
    for stage in &mut stages {
        for (what, part) in [
            ("the weights", stage.weights),
            ("the KV cache", stage.kv_cache),
            ("the activation", stage.activation),
        ] {
            if part > Bytes::gib(LIMIT_TIB << 10) {
                return Err(EstimateError::TooLarge { what, limit_tib: LIMIT_TIB });
            }
        }
        stage.margin = margin(constants, stage, &basis, workload.risk);
    }
    Ok(stages)
}

/// What the engine's log counts for a token of its KV cache: the size that it prints, divided by the
/// tokens that it prints. For models that mix kinds of layers that is not what a token takes.
pub fn logged_kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Result<Bytes, EstimateError> {
    engine::check(facts, workload, parallelism)?;
    Ok(engine::logged_kv_bytes_per_token(facts, workload, parallelism))
}

fn basis(facts: &ModelFacts, workload: &Workload, parallelism: Parallelism) -> Basis {
    match engine::gaps(facts, workload, parallelism) {
        gaps if gaps.is_empty() => Basis::Fitted,
        gaps => Basis::Extrapolated { gaps },
    }
}

impl Estimate {
    /// The same estimate on GPUs of this vendor; equal to one that was asked for it
    /// ([`Workload::vendor`]).
    #[must_use]
    pub fn on(mut self, vendor: Vendor) -> Self {
        let mut gaps = match &self.basis {
            Basis::Fitted => Vec::new(),
            Basis::Extrapolated { gaps } => gaps.clone(),
        };
        if vendor == Vendor::Amd && !gaps.contains(&Gap::Amd) {
            engine::on_amd(&Constants::FITTED, self.repacked, &mut self.per_gpu, &mut gaps);
            self.basis = Basis::Extrapolated { gaps };
            self.per_gpu.margin = margin(&Constants::FITTED, &self.per_gpu, &self.basis, self.risk);
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
            Self::Extrapolated { gaps } => {
                f.write_str("extrapolated")?;
                gaps.iter().enumerate().try_for_each(|(index, gap)| {
                    write!(f, "{} {gap}", if index == 0 { ":" } else { ";" })
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, KvDtype, Version, catalogue};

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
            "needs 18.9 GiB (weights 15.0, KV cache 1.0, overheads 2.0, margin 0.9)"
        );
        assert_eq!(llama.kv_bytes_per_token, Bytes(131_072));
        assert_eq!(needs("meta-llama/Llama-3.1-8B-Instruct", None, 8192, 2).gpus, 2);
    }

    #[test]
    fn weak_data_is_said_and_has_a_wider_margin() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-70B-Instruct", None).unwrap().facts;
        let on = |version, vendor| {
            let workload =
                Workload { version: Some(version), vendor, ..Workload::new(Engine::Vllm, 8192, 1) };
            estimate(facts, &workload, Parallelism::tensor(4)).unwrap()
        };
        let logged = on(Version::new(0, 19), Vendor::Nvidia);
        assert_eq!(logged.basis, Basis::Fitted);
        let rendered = on(Version::new(0, 33), Vendor::Nvidia);
        assert_eq!(
            rendered.basis.to_string(),
            "extrapolated: no log of vLLM 0.33, 0.20 is the newest"
        );
        assert!(rendered.per_gpu.margin > logged.per_gpu.margin);
        let amd = on(Version::new(0, 33), Vendor::Amd);
        assert!(amd.basis.to_string().contains("AMD"));
        assert!(amd.per_gpu.margin > rendered.per_gpu.margin);
        assert!(amd.per_gpu.graphs > rendered.per_gpu.graphs);
        assert_eq!(rendered.clone().on(Vendor::Amd), amd);
        assert_eq!(rendered.clone().on(Vendor::Nvidia), rendered);
        // The sampler sorted, and NCCL took less.
        let older = on(Version::new(0, 16), Vendor::Nvidia);
        assert!(older.per_gpu.activation > logged.per_gpu.activation);
        assert!(older.per_gpu.non_torch < logged.per_gpu.non_torch);
    }

    #[test]
    fn experts_load_larger_on_amd() {
        let on = |id: &str, gpus| {
            let facts = &catalogue().find(id, None).unwrap().facts;
            let workload = Workload::new(Engine::Vllm, 8192, 1);
            let estimate = estimate(facts, &workload, Parallelism::tensor(gpus)).unwrap();
            estimate.on(Vendor::Amd).per_gpu.weights.as_gib_f64()
        };
        // As logged on MI300X.
        for (id, gpus, gib) in [
            ("Qwen/Qwen3-VL-30B-A3B-Instruct", 1, 79.29),
            ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 8, 126.73),
            ("Qwen/Qwen3-235B-A22B-Instruct-2507", 4, 112.61),
        ] {
            let ours = on(id, gpus);
            assert!((ours / gib - 1.0).abs() < 0.01, "{id}: {ours:.2}");
        }
    }

    #[test]
    fn stages_of_a_pipeline_have_their_part() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let workload = Workload {
            version: Some(Version::new(0, 19)),
            max_num_seqs: 1024,
            ..Workload::new(Engine::Vllm, 8192, 1)
        };
        let two = Parallelism { pipeline: 2, ..Parallelism::SINGLE };
        let both = stages(facts, &workload, two).unwrap();
        // 7.51 GiB and an activation of 1.10 in the log of the first; the last one samples.
        assert!((both[0].weights.as_gib_f64() - 7.51).abs() < 0.05, "{:?}", both[0]);
        assert!((both[0].activation.as_gib_f64() - 1.10).abs() < 0.10, "{:?}", both[0]);
        assert!(both[1].activation > both[0].activation);
        let estimate = estimate(facts, &workload, two).unwrap();
        assert_eq!((estimate.per_gpu, estimate.gpus), (both[1], 2));
        assert_eq!(estimate.kv_bytes_per_token, Bytes(65_536));
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
        // 11, 11, and 10 with the output layer, which is larger than another layer and its cache.
        assert_eq!(three.kv_cache, Bytes::gib(1) / 32 * 10);
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
