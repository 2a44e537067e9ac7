//! llama.cpp's server, from the source of build b11434: `common/arg.cpp`, `src/llama.cpp` and
//! `src/llama-model.cpp`. All but the warning needs `--log-verbosity 4`.

use super::{Accelerator, CPU, Layers, Startup, between};

pub(in crate::engine) fn startup(log: &str) -> Startup {
    Startup { accelerator: accelerator(log) }
}

fn accelerator(log: &str) -> Option<Accelerator> {
    let mut devices: Vec<&str> = Vec::new();
    let (mut without, mut layers, mut all) = (false, None, None);
    for line in log.lines() {
        // Said of a program without GPU support, and of one that finds no GPU.
        without |= line.starts_with("warning: no usable GPU found, --gpu-layers option");
        // A second model in the same server, such as a draft, says the same once more.
        let device = between(line, ": using device ", " ");
        devices.extend(device.filter(|device| !devices.contains(device)));
        layers = layers.or_else(|| offloaded(line));
        all = all
            .or_else(|| line.split_once("n_layer_all")?.1.split_once('=')?.1.trim().parse().ok());
    }
    // The output layer is one more.
    let none = all.map(|all: u32| Layers { on_gpu: 0, of: all + 1 });
    let on_gpu = layers.is_none_or(|layers| layers.on_gpu > 0);
    match (without, devices.is_empty()) {
        (true, _) => Some(Accelerator { device: CPU.to_owned(), layers: none }),
        (false, false) if on_gpu => Some(Accelerator { device: devices.join(", "), layers }),
        (false, false) => Some(Accelerator { device: CPU.to_owned(), layers }),
        (false, true) => None,
    }
}

/// `load_tensors: offloaded 33/33 layers to GPU`
fn offloaded(line: &str) -> Option<Layers> {
    let (on_gpu, of) = between(line, ": offloaded ", " layers to GPU")?.split_once('/')?;
    Some(Layers { on_gpu: on_gpu.parse().ok()?, of: of.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server without GPU support wrote it.
    const ON_CPU: &str = include_str!("../../../tests/said/llama-server-b11434-cpu.log");
    /// The same without `--log-verbosity`.
    const SHORT: &str = include_str!("../../../tests/said/llama-server-b11434-cpu-short.log");

    /// What a server with GPUs writes in place of that, by the format strings of its source.
    fn on_gpus(devices: &[&str], layers: &str) -> String {
        let warnings = ON_CPU.lines().filter(|line| !line.starts_with("warning: "));
        let devices = devices.iter().enumerate().map(|(index, device)| {
            format!(
                "0.00.010.{index}00 I llama_prepare_model_devices: using device {device} (NVIDIA H100 \
                 80GB HBM3) (0000:0{index}:00.0) - 80559 MiB free\n"
            )
        });
        let log: String = devices.chain(warnings.map(|line| format!("{line}\n"))).collect();
        log.replace(
            "load_tensors:   CPU_Mapped",
            &format!(
                "load_tensors: offloading output layer to GPU\n\
                 0.00.011.597 I load_tensors: offloaded {layers} layers to GPU\n\
                 0.00.011.598 I load_tensors:        CUDA0"
            ),
        )
    }

    fn on(device: &str, layers: Option<(u32, u32)>) -> Accelerator {
        let layers = layers.map(|(on_gpu, of)| Layers { on_gpu, of });
        Accelerator { device: device.to_owned(), layers }
    }

    #[test]
    fn a_server_that_fell_back_to_the_cpu_says_so() {
        assert_eq!(accelerator(ON_CPU), Some(on("CPU", Some((0, 3)))));
        assert_eq!(accelerator(SHORT), Some(on("CPU", None)));
    }

    #[test]
    fn a_server_on_gpus_names_them() {
        assert_eq!(accelerator(&on_gpus(&["CUDA0"], "3/3")), Some(on("CUDA0", Some((3, 3)))));
        let two = on_gpus(&["ROCm0", "ROCm1"], "81/81");
        assert_eq!(accelerator(&two), Some(on("ROCm0, ROCm1", Some((81, 81)))));
        assert_eq!(accelerator(&on_gpus(&["CUDA0"], "1/3")), Some(on("CUDA0", Some((1, 3)))));
        assert_eq!(accelerator(&on_gpus(&["CUDA0"], "0/3")), Some(on("CPU", Some((0, 3)))));
        let draft = format!("{0}{0}", on_gpus(&["CUDA0"], "3/3"));
        assert_eq!(accelerator(&draft), Some(on("CUDA0", Some((3, 3)))));
    }

    #[test]
    fn a_log_that_does_not_tell_tells_nothing() {
        let silent: String = SHORT.lines().filter(|line| !line.starts_with("warning: ")).collect();
        for log in ["", "\u{fffd}\0 no log\n: using device", silent.as_str()] {
            assert_eq!(accelerator(log), None, "{log}");
        }
    }
}
