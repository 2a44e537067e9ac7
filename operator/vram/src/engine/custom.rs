//! Any other server: nothing is known of it, so it is counted as the engine that serves weights of
//! the same kind, with the widest margin ([`Gap::Custom`](super::Gap::Custom)).

use berth_units::Bytes;

use super::{Constants, llama_cpp, vllm};
use crate::{
    Breakdown, EstimateError, ModelFacts, Parallelism, Quantization, Vendor, Workload,
    parallelism::{check_layer_split, check_tensor},
};

/// Whether layers are dealt out over the GPUs, as every server of GGUF files does that is known.
fn deals_out_layers(facts: &ModelFacts) -> bool {
    matches!(facts.quantization, Quantization::Gguf(_))
}

pub(super) fn check(facts: &ModelFacts, parallelism: Parallelism) -> Result<(), EstimateError> {
    if deals_out_layers(facts) {
        check_layer_split(facts, parallelism.gpus())
    } else {
        check_tensor(facts, parallelism)
    }
}

/// What a GPU of each stage needs, without a margin.
pub(super) fn stages(
    constants: &Constants,
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Vec<Breakdown> {
    if deals_out_layers(facts) {
        return vec![llama_cpp::fullest(facts, workload, parallelism)];
    }
    // What vLLM's builds for AMD take more says nothing of another engine.
    let workload = Workload { vendor: Vendor::Nvidia, version: None, ..workload.clone() };
    vllm::stages(constants, facts, &workload, parallelism)
}

pub(super) fn kv_bytes_per_token(
    facts: &ModelFacts,
    workload: &Workload,
    parallelism: Parallelism,
) -> Bytes {
    if deals_out_layers(facts) {
        llama_cpp::kv_bytes_per_token(facts, workload, parallelism)
    } else {
        vllm::kv_bytes_per_token(facts, workload, parallelism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, catalogue, estimate};

    #[test]
    fn it_is_counted_as_its_like_with_a_wider_margin() {
        for (id, file, like) in [
            ("meta-llama/Llama-3.1-8B-Instruct", None, Engine::Vllm),
            ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", Some("*Q4_K_M.gguf"), Engine::LlamaCpp),
        ] {
            let facts = &catalogue().find(id, file).unwrap().facts;
            let of = |engine| {
                let workload = Workload::new(engine, 8192, 2);
                estimate(facts, &workload, Parallelism::tensor(2)).unwrap()
            };
            let (ours, like) = (of(Engine::Custom), of(like));
            assert_eq!(ours.per_gpu.weights, like.per_gpu.weights);
            assert_eq!(ours.per_gpu.kv_cache, like.per_gpu.kv_cache);
            assert_eq!(ours.kv_bytes_per_token, like.kv_bytes_per_token);
            assert!(ours.per_gpu.margin > like.per_gpu.margin);
            assert!(ours.basis.to_string().contains("custom engine"));
        }
    }

    #[test]
    fn amd_changes_only_what_is_known_of_it() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let workload = Workload::new(Engine::Custom, 8192, 1);
        let asked = Workload { vendor: Vendor::Amd, ..workload.clone() };
        let later = estimate(facts, &workload, Parallelism::SINGLE).unwrap().on(Vendor::Amd);
        assert_eq!(later, estimate(facts, &asked, Parallelism::SINGLE).unwrap());
    }
}
