//! vLLM, from the source of 0.33.0: `vllm/v1/engine/core.py` and `vllm/config/vllm.py`.
//!
//! An image for GPUs does not start without one; but another image, or a variable, may make it run
//! on the CPU.

use super::{Accelerator, CPU, GPU, Startup, between};

pub(in crate::engine) fn startup(log: &str) -> Startup {
    Startup { accelerator: accelerator(log) }
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
}
