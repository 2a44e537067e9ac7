//! The part of a GPU's memory that an engine is told to take: what the claim gives it, so that the
//! KV cache gets all of it that weights and activations leave.
//!
//! Engines count from the total that the driver reports, which is less than the node's label: what
//! they take is never more than the claim.

use berth_units::Bytes;
use berth_vram::{Engine, Workload, memory_flags};

use super::{estimated, pair};
use crate::{Claim, Template};

/// What revisions told vLLM that were made before fractions followed from claims, and what is told
/// where the total is not known: an exclusive claim is the total − 5 %.
const UTILIZATION: &str = "0.95";

/// The arguments. An engine for which the claim is too small by the estimate goes by its own rule:
/// the user said that it is enough (`gpu.memory`).
pub(super) fn args(template: &Template, claim: &Claim) -> Vec<String> {
    let engine = estimated(template.engine.type_);
    let mut args = Vec::new();
    let version = template.engine.version.filter(|_| claim.total_per_gpu > Bytes::ZERO);
    if let Some(version) = version {
        let workload = Workload {
            version: Some(version),
            ..Workload::new(engine, template.context_length, template.max_concurrency)
        };
        let parts = template.estimate_on(&claim.product).parts();
        let total = claim.total_per_gpu;
        let flags = memory_flags(&workload, &parts, claim.bytes_per_gpu, total);
        for (name, value) in flags.unwrap_or_default() {
            pair(&mut args, name, value);
        }
    } else if engine == Engine::Vllm {
        pair(&mut args, "--gpu-memory-utilization", UTILIZATION);
    }
    args
}
