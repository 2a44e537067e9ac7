//! What explains a miss, as far as the data and the engines' code tell.

use crate::compare::{Gib, Part, Row};

/// An error of everything beside the KV cache from which on a case is listed, in GiB.
pub const FULL_MISS: f64 = 0.3;

/// The likely cause of an error of the whole.
pub fn full(row: &Row) -> String {
    let (Some(ours), Some(truth)) = (row.estimate, row.truth) else { return String::new() };
    let (part, by) = largest(&ours, &truth);
    let old = row.basis.contains("few logs");
    let why = match (part, old, by > 0.0) {
        ("activation", true, true) => {
            "others of the version sort the logits of 1,024 sequences; this one seems to have run with \
             fewer, its flags are not stated"
        }
        ("activation", true, false) => "the flags of the run are not stated",
        ("activation", false, false) if row.model.to_lowercase().contains("llama-3.1-8b") => {
            "weights in fp32 (dtype float32): attention has no fused kernel for it"
        }
        ("activation", false, _) => "an image encoder or a kernel that is not counted",
        ("graphs", true, _) => {
            "before 0.17 the figure is what is left when capture has given memory back: from −0.9 to +1.0 \
             GiB for like models"
        }
        ("graphs", false, true) => {
            "fewer graphs, or a newer driver: the same model takes 0.5 to 1.4 GiB"
        }
        ("graphs", false, false) => "more kernels a layer than models of the fit have",
        ("non-torch", ..) => "memory outside of PyTorch that only this architecture takes",
        _ => "weights: see there",
    };
    format!("{part} {by:+.2} GiB: {why}")
}

/// The part that is furthest off, and by how much.
fn largest(ours: &Gib, truth: &Gib) -> (&'static str, f64) {
    let parts = [
        ("weights", ours.weights - truth.weights),
        ("activation", ours.activation - truth.activation),
        ("non-torch", ours.non_torch - truth.non_torch),
        ("graphs", ours.graphs - truth.graphs.max(0.0)),
    ];
    parts.into_iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap_or(("weights", 0.0))
}

/// The likely cause of an error of the weights.
pub fn weights(row: &Row) -> &'static str {
    let name = row.model.to_lowercase();
    if row.gpu.starts_with("MI") {
        "memory that ROCm's allocator does not give back when rows are padded"
    } else if name.contains("nvfp4") || name.contains("mixed") {
        "which modules the checkpoint leaves in 16 bits is not in the facts"
    } else if name.contains("gpt-oss") {
        "the kernels for MXFP4 of this version (Marlin) pad experts otherwise"
    } else if row.engine != "vLLM" {
        "another engine"
    } else if row.gpus > 1 {
        "parts that are whole on each GPU"
    } else {
        "parts of the checkpoint that the facts do not tell"
    }
}

/// The likely cause of an error of the KV cache.
pub fn kv(row: &Row) -> &'static str {
    if row.gpus > 1 {
        "the log's size is one GPU's, its tokens are those of the GPU with the least"
    } else {
        "unknown"
    }
}

/// The likely cause of an error of a budget, for those beyond 1 GiB.
pub fn budget(row: &Row) -> &'static str {
    let version = row.version.as_str();
    let name = row.model.to_lowercase();
    if row.gpu.starts_with("MI") {
        if version.contains("dev") {
            "a build between versions"
        } else {
            "AMD's kernels for experts"
        }
    } else if name.contains("deepseek") {
        "which kernels serve the experts: some keep a workspace of 1.8 GiB, some none"
    } else if name.contains("nemotron") {
        "FlashInfer's kernels for fp8 experts keep no workspace"
    } else {
        "unknown"
    }
}

/// Whether a part was compared.
pub fn compared(part: &Part) -> bool {
    part.error().is_some()
}
