//! llama.cpp's server, from the source of build b11434: `common/arg.cpp`, and in `src` `llama.cpp`,
//! `llama-model.cpp`, `llama-context.cpp`, `llama-kv-cache.cpp` and `llama-memory-recurrent.cpp`.
//! All but the warning needs `--log-verbosity 4`.

use std::collections::BTreeMap;

use berth_units::Bytes;

use super::{Accelerator, CPU, Layers, Measured, Startup, between};

pub(in crate::engine) fn startup(log: &str) -> Startup {
    let accelerator = accelerator(log);
    let measured = accelerator.as_ref().and_then(|on| measured(log, &on.device));
    Startup { accelerator, measured }
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

/// Buffers on one device.
#[derive(Clone, Debug, Default)]
struct Buffers {
    weights: Option<Bytes>,
    kv_cache: Option<Bytes>,
    /// By the context that they are of: a context that reserves anew replaces its own.
    compute: BTreeMap<usize, Bytes>,
}

impl Buffers {
    fn compute(&self) -> Option<Bytes> {
        (!self.compute.is_empty()).then(|| self.compute.values().copied().sum())
    }

    fn total(&self) -> Bytes {
        [self.weights, self.kv_cache, self.compute()].into_iter().flatten().sum()
    }
}

/// What the fullest of the devices in use holds; all that is outside of GPUs counts as one.
fn measured(log: &str, devices: &str) -> Option<Measured> {
    let mut all: BTreeMap<&str, Buffers> = BTreeMap::new();
    // A draft has its own context, and its cache is beside the model's.
    let (mut contexts, mut kv_tokens) = (0, None);
    for line in log.lines() {
        contexts += usize::from(line.contains(": constructing llama_context"));
        kv_tokens = kv_tokens.or_else(|| {
            line.split_once("llama_context: n_ctx ")?.1.split_once('=')?.1.trim().parse().ok()
        });
        let Some((device, kind, size)) = buffer(line) else { continue };
        let device = match devices {
            CPU => CPU,
            _ if devices.split(", ").any(|used| used == device) => device,
            _ => continue,
        };
        let buffers = all.entry(device).or_default();
        let add = |part: &mut Option<Bytes>| *part = Some(part.unwrap_or_default() + size);
        match kind {
            // A file in parts has a buffer for each.
            "model" => add(&mut buffers.weights),
            // A model with windowed layers has two caches, one with recurrent layers another.
            "KV" | "RS" => add(&mut buffers.kv_cache),
            "compute" => drop(buffers.compute.insert(contexts, size)),
            _ => {}
        }
    }
    let fullest = all.into_values().max_by_key(Buffers::total)?;
    let (weights, kv_cache) = (fullest.weights, fullest.kv_cache);
    Measured { weights, kv_cache, compute: fullest.compute(), kv_tokens }.told()
}

/// `load_tensors:   CPU_Mapped model buffer size =     0.42 MiB`: device, kind and size.
fn buffer(line: &str) -> Option<(&str, &str, Bytes)> {
    let (name, size) = line.split_once(" buffer size = ")?;
    let (device, kind) = name.split_once(": ")?.1.trim().rsplit_once(' ')?;
    let mebibytes: f64 = size.trim().strip_suffix(" MiB")?.parse().ok()?;
    Some((device.trim_end(), kind, Bytes::from_gib_f64(mebibytes / 1024.0)))
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

    /// The buffers of a model with windowed and recurrent layers and a draft, on two GPUs, by the
    /// format strings of the source.
    const BUFFERS: &str = "\
0.01.227.100 I load_tensors:   CPU_Mapped model buffer size =   763.78 MiB
0.01.227.101 I load_tensors:        CUDA0 model buffer size =  7605.33 MiB
0.01.227.102 I load_tensors:        CUDA1 model buffer size =  8000.00 MiB
0.01.227.300 I llama_context: constructing llama_context
0.01.227.301 I llama_context: n_ctx                 = 32768
0.01.227.302 I llama_context: n_ctx_seq             = 8192
0.01.227.385 I llama_context:  CUDA_Host  output buffer size =     3.79 MiB
0.01.227.601 I llama_kv_cache_iswa: creating non-SWA KV cache, size = 32768 cells
0.01.227.601 I llama_kv_cache:      CUDA0 KV buffer size =  2048.00 MiB
0.01.227.602 I llama_kv_cache:      CUDA1 KV buffer size =  1024.00 MiB
0.01.227.603 I llama_kv_cache: size = 3072.00 MiB ( 32768 cells,  24 layers,  4/4 seqs), K (f16): 1536.00 MiB, V (f16): 1536.00 MiB
0.01.228.601 I llama_kv_cache:      CUDA0 KV buffer size =   128.00 MiB
0.01.230.153 I llama_memory_recurrent:      CUDA0 RS buffer size =    77.06 MiB
0.01.236.046 I sched_reserve: reserving ...
0.01.236.047 I sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
0.01.236.048 I sched_reserve:      CUDA1 compute buffer size =   495.00 MiB
0.01.236.051 I sched_reserve:  CUDA_Host compute buffer size =    72.01 MiB
0.01.237.046 I sched_reserve: reserving ...
0.01.237.047 I sched_reserve:      CUDA0 compute buffer size =   304.00 MiB
0.02.227.300 I llama_context: constructing llama_context
0.02.227.301 I llama_context: n_ctx                 = 4096
0.02.236.047 I sched_reserve:      CUDA0 compute buffer size =    40.50 MiB
";

    #[test]
    fn a_server_on_the_cpu_says_what_it_takes_of_the_host() {
        let hundredths = |hundredths: f64| Some(Bytes::from_gib_f64(hundredths / 102_400.0));
        assert_eq!(
            startup(ON_CPU).measured,
            Some(Measured {
                weights: hundredths(42.0),
                kv_cache: Some(Bytes(512 << 10)),
                compute: hundredths(314.0),
                kv_tokens: Some(2048),
            })
        );
        assert_eq!(startup(SHORT).measured, None, "it runs on the CPU, and says no more");
    }

    #[test]
    fn a_server_on_gpus_says_what_the_fullest_holds() {
        let log = on_gpus(&["CUDA0", "CUDA1"], "25/25");
        let none = log.lines().filter(|line| !line.contains("size") && !line.contains("n_ctx"));
        let none = none.fold(String::new(), |log, line| log + line + "\n");
        assert_eq!(startup(&none).measured, None);
        let mib = |mib: f64| Some(Bytes::from_gib_f64(mib / 1024.0));
        let first = Measured {
            weights: mib(7605.33),
            kv_cache: mib(2048.0 + 128.0 + 77.06),
            compute: mib(304.0 + 40.5),
            kv_tokens: Some(32_768),
        };
        assert_eq!(startup(&format!("{none}{BUFFERS}")).measured, Some(first));
        let fuller = BUFFERS.replace("8000.00", "9000.00");
        let second = Measured {
            weights: mib(9000.0),
            kv_cache: mib(1024.0),
            compute: mib(495.0),
            kv_tokens: Some(32_768),
        };
        assert_eq!(startup(&format!("{none}{fuller}")).measured, Some(second));
        assert_eq!(startup(BUFFERS).measured, None, "on what it runs is not told");
    }

    #[test]
    fn a_log_that_does_not_tell_tells_nothing() {
        let silent: String = SHORT.lines().filter(|line| !line.starts_with("warning: ")).collect();
        for log in ["", "\u{fffd}\0 no log\n: using device", silent.as_str()] {
            assert_eq!(accelerator(log), None, "{log}");
        }
    }
}
