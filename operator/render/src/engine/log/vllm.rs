//! vLLM, from the source of 0.33.0: `vllm/v1/engine/core.py` and `vllm/config/vllm.py`; what it
//! takes, also as 0.9 to 0.32 word it: `vllm/v1/worker/gpu_worker.py`, its model runners, and
//! `vllm/v1/core/kv_cache_utils.py`.
//!
//! An image for GPUs does not start without one; but another image, or a variable, may make it run
//! on the CPU.

use berth_units::Bytes;

use super::{Accelerator, CPU, GPU, Measured, Startup, between};

pub(in crate::engine) fn startup(log: &str) -> Startup {
    Startup { accelerator: accelerator(log), measured: measured(log) }
}

/// `Initializing a V1 LLM engine (v0.33.0) with config: model=…, device_config=cuda, …`: `cuda`
/// stands for `ROCm` too.
fn accelerator(log: &str) -> Option<Accelerator> {
    let config = log.lines().find_map(|line| Some(line.split_once(" LLM engine (v")?.1))?;
    let device = match between(config, "device_config=", ",")? {
        "cpu" => CPU,
        "cuda" | "xpu" => GPU,
        _ => return None,
    };
    Some(Accelerator { device: device.to_owned(), layers: None })
}

/// Some is said once for each rank: the fullest GPU has the most weights and the least room for the
/// KV cache. What a step takes is said nowhere by itself.
fn measured(log: &str) -> Option<Measured> {
    let said = |before: &'static str, unit: &'static str| {
        log.lines().filter_map(move |line| between(line.split_once(before)?.1, " ", unit))
    };
    let gibibytes = |text: &str| text.parse().ok().map(Bytes::from_gib_f64);
    let tokens = |text: &str| text.replace(',', "").parse().ok();
    Measured {
        weights: said("Model loading took", " GiB").filter_map(gibibytes).max(),
        kv_cache: said("Available KV cache memory:", " GiB").filter_map(gibibytes).min(),
        compute: None,
        kv_tokens: said("GPU KV cache size:", " tokens").filter_map(tokens).min(),
    }
    .told()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(device: &str) -> String {
        format!(
            "(APIServer pid=1) INFO 11-24 20:01:02 [utils.py:233] non-default args: {{'model': \
             '/model/m', 'device_config': 'x'}}\n\
             (EngineCore pid=77) INFO 11-24 20:01:09 [core.py:139] Initializing a V1 LLM engine \
             (v0.33.0) with config: model='/model/m', dtype=torch.bfloat16, kv_cache_dtype=auto, \
             device_config={device}, seed=0\n"
        )
    }

    #[test]
    fn vllm_says_what_it_runs_on() {
        for (device, told) in [("cuda", Some(GPU)), ("cpu", Some(CPU)), ("None", None)] {
            let accelerator = accelerator(&log(device)).map(|accelerator| accelerator.device);
            assert_eq!(accelerator.as_deref(), told, "{device}");
        }
        assert_eq!(accelerator("INFO: device_config=cuda, \n"), None);
    }

    #[test]
    fn vllm_says_what_the_fullest_rank_takes() {
        let old = "INFO 06-11 10:00:01 [gpu_model_runner.py:1600] Model loading took 14.2488 GiB and \
                   3.104512 seconds\n\
                   INFO 06-11 10:00:31 [gpu_worker.py:232] Available KV cache memory: 55.42 GiB\n\
                   INFO 06-11 10:00:31 [kv_cache_utils.py:715] GPU KV cache size: 1,037,632 tokens\n\
                   INFO 06-11 10:00:31 [kv_cache_utils.py:719] Maximum concurrency for 32,768 tokens \
                   per request: 31.67x\n";
        let gib = |gib| Some(Bytes::from_gib_f64(gib));
        assert_eq!(
            startup(old).measured,
            Some(Measured {
                weights: gib(14.2488),
                kv_cache: gib(55.42),
                compute: None,
                kv_tokens: Some(1_037_632),
            })
        );
        let ranks = "(Worker_TP0 pid=9) INFO 11-24 20:02:09 [model_runner.py:407] Model loading took \
                     66.01 GiB memory and 31.104512 seconds\n\
                     (Worker_TP1 pid=10) INFO 11-24 20:02:09 [model_runner.py:407] Model loading took \
                     65.9 GiB memory and 31.204512 seconds\n\
                     (Worker_TP0 pid=9) INFO 11-24 20:03:00 [gpu_worker.py:721] Available KV cache \
                     memory: 6.5 GiB\n\
                     (Worker_TP1 pid=10) INFO 11-24 20:03:00 [gpu_worker.py:721] Available KV cache \
                     memory: 7.01 GiB\n\
                     (EngineCore pid=7) INFO 11-24 20:03:00 [kv_cache_utils.py:2481] GPU KV cache \
                     size: 42,592 tokens, Maximum concurrency for 4,096 tokens per request: 10.40x\n";
        assert_eq!(
            startup(ranks).measured,
            Some(Measured {
                weights: gib(66.01),
                kv_cache: gib(6.5),
                compute: None,
                kv_tokens: Some(42_592),
            })
        );
        assert_eq!(
            startup("Model loading took a GiB\nGPU KV cache size: many tokens").measured,
            None
        );
    }
}
