//! What an engine was asked, by a case's columns: the rest is the engine's own default.

use berth_units::Bytes;
use berth_vram::{Engine, KvDtype, ModelFacts, Parallelism, Risk, Vendor, Version, Workload};

use crate::cases::{Case, gib};

/// What a case ran.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was asked of the engine.
    pub workload: Workload,
    /// Over how many GPUs.
    pub parallelism: Parallelism,
}

/// From this size on vLLM takes larger steps by itself (but for the A100).
const LARGE_GPU: f64 = 70.0;

/// What a case of vLLM or `SGLang` ran with.
pub fn of(case: &Case, facts: &ModelFacts, risk: Risk) -> Result<Run, String> {
    let engine = match case.text("engine") {
        "vLLM" => Engine::Vllm,
        "SGLang" => Engine::Sglang,
        other => return Err(format!("engine {other:?} has no safetensors")),
    };
    let memory = case.gpu_memory();
    let large = memory.unwrap_or(80.0) >= LARGE_GPU && !case.text("gpu").contains("A100");
    let stated = tokens_of_a_step(case);
    let version = case.versions().into_iter().max().unwrap_or(ASSUMED);
    let context = case.context().unwrap_or(8192).min(facts.max_context);
    let workload = Workload {
        version: Some(version),
        vendor: if case.is_amd() { Vendor::Amd } else { Vendor::Nvidia },
        gpu_memory: memory.map(gib),
        kv_dtype: kv_dtype(case)?,
        max_num_seqs: if large { 1024 } else { 256 },
        max_num_batched_tokens: stated.unwrap_or(if large { 8192 } else { 2048 }),
        risk,
        ..Workload::new(engine, context, 1)
    };
    let parallelism =
        Parallelism { tensor: case.count("tp"), pipeline: case.count("pp"), expert: false };
    Ok(Run { workload, parallelism })
}

/// The version that is taken where none is stated: that of most cases.
const ASSUMED: Version = Version::new(0, 19);

/// `max_num_batched_tokens` where the note has it.
fn tokens_of_a_step(case: &Case) -> Option<u32> {
    let note = case.text("note").replace("--max-num-batched-tokens ", "max_num_batched_tokens=");
    let (_, after) = note.split_once("max_num_batched_tokens=")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn kv_dtype(case: &Case) -> Result<KvDtype, String> {
    Ok(match case.text("kv_cache_dtype") {
        "auto" | "" => KvDtype::Auto,
        "fp8_e4m3" => KvDtype::Fp8E4m3,
        other if other.starts_with("fp8") => KvDtype::Fp8,
        "bfloat16" | "bf16" => KvDtype::Bf16,
        "float16" | "f16" => KvDtype::F16,
        other => return Err(format!("KV cache type {other:?} is unknown")),
    })
}

/// What a case of llama.cpp's family ran with: the context of its one slot.
pub fn of_llama(case: &Case, facts: &ModelFacts, keys: KvDtype, values: KvDtype) -> Workload {
    let context = case.count("n_ctx");
    Workload {
        kv_dtype: keys,
        value_dtype: Some(values),
        ..Workload::new(Engine::LlamaCpp, context.min(facts.max_context), 1)
    }
}

/// A type of llama.cpp's KV cache by its name.
pub fn llama_dtype(name: &str) -> Option<KvDtype> {
    Some(match name {
        "f32" => KvDtype::F32,
        "f16" | "" => KvDtype::F16,
        "bf16" => KvDtype::Bf16,
        "q8_0" => KvDtype::Q8_0,
        "q5_1" => KvDtype::Q5_1,
        "q5_0" => KvDtype::Q5_0,
        "q4_1" => KvDtype::Q4_1,
        "q4_0" | "iq4_nl" => KvDtype::Q4_0,
        _ => return None,
    })
}

/// The margin's part of an estimate is shown for this.
pub fn mib(mib: f64) -> Bytes {
    gib(mib / 1024.0)
}
