//! The estimate beside what a real llama-server prints: `berth-bench llama`.
//!
//! Files of several shapes are written (`llama-shapes.py`, all weights zero), a llama-server for the
//! CPU loads each, says how large its buffers are, and is stopped by its process. The facts come from
//! the files' own headers. On a GPU the same buffers are allocated there, but for the input table.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use berth_units::{Bytes, MIB};
use berth_vram::{
    Engine, KvDtype, ModelFacts, Workload, buffers,
    read::{gguf, with_gguf},
    weights,
};
use serde::{Deserialize, Serialize};

/// The shape of a model, as arguments of `llama-shapes.py`.
struct Shape {
    name: &'static str,
    arguments: &'static str,
}

/// Small relatives of what people run: every ratio of theirs, few layers.
const SHAPES: [Shape; 9] = [
    Shape {
        name: "dense, 4 queries a key (Llama 3), F16",
        arguments: "--arch llama --layers 4 --hidden 1024 --heads 16 --kv-heads 4 --head-dim 64 \
                    --ffn 3584 --vocab 32000 --type F16",
    },
    Shape {
        name: "dense with biases, 7 queries a key (Qwen 2.5), Q8_0",
        arguments: "--arch qwen2 --layers 4 --hidden 896 --heads 14 --kv-heads 2 --head-dim 64 \
                    --ffn 4736 --vocab 38016 --type Q8_0",
    },
    Shape {
        name: "dense, wide heads (Qwen 3), Q4_K and Q6_K",
        arguments: "--arch qwen3 --layers 4 --hidden 1024 --heads 16 --kv-heads 8 --head-dim 128 \
                    --ffn 3072 --vocab 37984 --type Q4_K --output-type Q6_K",
    },
    Shape {
        name: "multi-head, F32",
        arguments: "--arch llama --layers 2 --hidden 1024 --heads 16 --kv-heads 16 --head-dim 64 \
                    --ffn 2816 --vocab 32000 --type F32",
    },
    Shape {
        name: "tied table, window of 512 (Gemma 3), Q4_0",
        arguments: "--arch gemma3 --layers 6 --hidden 1152 --heads 4 --kv-heads 1 --head-dim 256 \
                    --ffn 6912 --vocab 65536 --tied --window 512 --type Q4_0 --embedding-type Q8_0",
    },
    Shape {
        name: "8 experts, 2 used (Mixtral), Q5_K",
        arguments: "--arch llama --layers 2 --hidden 1024 --heads 16 --kv-heads 4 --head-dim 64 \
                    --ffn 3584 --vocab 32000 --experts 8 --experts-used 2 --type Q5_K",
    },
    Shape {
        name: "64 narrow experts, 8 used (Qwen 3 MoE), Q4_K",
        arguments: "--arch qwen3moe --layers 2 --hidden 1024 --heads 16 --kv-heads 2 --head-dim 128 \
                    --ffn 3072 --vocab 37984 --experts 64 --experts-used 8 --expert-ffn 256 --type Q4_K",
    },
    Shape {
        name: "experts in MXFP4, every second layer a window of 128 (gpt-oss)",
        arguments: "--arch gpt-oss --layers 4 --hidden 768 --heads 16 --kv-heads 2 --head-dim 64 \
                    --ffn 768 --vocab 50272 --experts 16 --experts-used 4 --expert-ffn 768 \
                    --window 128 --type Q8_0 --expert-type MXFP4",
    },
    Shape {
        name: "latent attention and a shared expert (DeepSeek V3), Q4_0",
        arguments: "--arch deepseek2 --layers 3 --hidden 1792 --heads 32 --kv-lora 512 --q-lora 384 \
                    --rope-dim 64 --nope-dim 128 --value-dim 128 --ffn 4608 --vocab 32320 \
                    --experts 8 --experts-used 8 --expert-ffn 512 --shared-ffn 512 --dense-layers 1 \
                    --type Q4_0",
    },
];

/// How a file is served.
struct Serving {
    name: &'static str,
    /// Tokens of a slot, and slots.
    context: u32,
    slots: u32,
    keys: KvDtype,
    values: KvDtype,
    ubatch: u32,
}

const PLAIN: Serving = Serving {
    name: "-c 4096",
    context: 4096,
    slots: 1,
    keys: KvDtype::F16,
    values: KvDtype::F16,
    ubatch: 512,
};

const SERVINGS: [Serving; 5] = [
    PLAIN,
    Serving { name: "-c 32768 -np 4", context: 8192, slots: 4, ..PLAIN },
    Serving { name: "-c 15000 -np 3", context: 5000, slots: 3, ..PLAIN },
    Serving {
        name: "-c 16384 -ctk q8_0 -ctv q8_0",
        context: 16_384,
        keys: KvDtype::Q8_0,
        values: KvDtype::Q8_0,
        ..PLAIN
    },
    Serving {
        name: "-c 8192 -ctk q8_0 -ub 256",
        context: 8192,
        keys: KvDtype::Q8_0,
        ubatch: 256,
        ..PLAIN
    },
];

/// A buffer: ours and what the server prints, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Ours.
    pub ours: f64,
    /// The server's.
    pub server: f64,
}

impl Pair {
    /// Ours, as far from the server's, as a part of it.
    pub fn error(&self) -> f64 {
        if self.server > 0.0 { self.ours / self.server - 1.0 } else { 0.0 }
    }

    /// The size of the error, none where it is less than the server's digits can tell.
    pub fn shown_error(&self) -> f64 {
        if (self.ours - self.server).abs() <= 0.011 { 0.0 } else { self.error().abs() }
    }

    /// Within 1 %, or within what the server's two digits behind the point can tell.
    pub fn agrees(&self) -> bool {
        self.shown_error() <= 0.01
    }
}

/// A file served in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The shape.
    pub shape: String,
    /// How it is served.
    pub serving: String,
    /// The file's tensors.
    pub model: Pair,
    /// The KV cache.
    pub kv: Pair,
    /// The compute buffer.
    pub compute: Pair,
    /// The output buffer.
    pub output: Pair,
}

impl Measured {
    /// Its buffers by name.
    pub fn buffers(&self) -> [(&'static str, Pair); 4] {
        [("model", self.model), ("KV", self.kv), ("compute", self.compute), ("output", self.output)]
    }
}

/// Where `e2e/engines/llama-server.sh` leaves the server, if it was built.
pub fn cached_server() -> Option<PathBuf> {
    let cache = std::env::var_os("BERTH_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        home.map(|home| home.join("berth"))
    })?;
    let mut found: Vec<PathBuf> = fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("llama-server-"))
        })
        .map(|path| path.join("llama-server"))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

/// Serves every shape in every way.
pub fn measure(server: &Path) -> Result<Vec<Measured>> {
    let folder = std::env::temp_dir().join(format!("berth-bench-llama-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = measure_in(server, &folder);
    let _ = fs::remove_dir_all(&folder);
    measured
}

fn measure_in(server: &Path, folder: &Path) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for shape in &SHAPES {
        let file = folder.join("shape.gguf");
        write(shape, &file)?;
        let facts = facts(&file)?;
        // Latent attention has no values of their own to store otherwise.
        let possible = |serving: &&Serving| facts.mla.is_none() || serving.keys == serving.values;
        for serving in SERVINGS.iter().filter(possible) {
            let log = serve(server, &file, serving, folder)
                .with_context(|| format!("{} served with {}", shape.name, serving.name))?;
            all.push(compare(shape, serving, &facts, &log)?);
        }
        fs::remove_file(&file)?;
    }
    Ok(all)
}

fn write(shape: &Shape, file: &Path) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/llama-shapes.py");
    let output = Command::new("python3")
        .arg(script)
        .arg("--output")
        .arg(file)
        .args(shape.arguments.split_whitespace())
        .output()
        .context("python3 cannot be run")?;
    if !output.status.success() {
        bail!("{}: {}", shape.name, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn facts(file: &Path) -> Result<ModelFacts> {
    let bytes = fs::read(file)?;
    let header = gguf::header(&bytes, Some(bytes.len() as u64))?;
    Ok(with_gguf(&[header])?)
}

/// The name of a cache type as the server takes it.
fn flag(dtype: KvDtype) -> &'static str {
    if dtype == KvDtype::Q8_0 { "q8_0" } else { "f16" }
}

/// Starts the server, waits until it has said how large its buffers are, and stops it.
fn serve(server: &Path, file: &Path, serving: &Serving, folder: &Path) -> Result<String> {
    const PATIENCE: Duration = Duration::from_mins(1);
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let log = folder.join("log");
    let mut child = Command::new(server)
        .arg("--model")
        .arg(file)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--log-verbosity", "4", "--no-warmup", "--no-repack", "--offline"])
        .args(["--ctx-size", &(serving.context * serving.slots).to_string()])
        .args(["--parallel", &serving.slots.to_string()])
        .args(["--ubatch-size", &serving.ubatch.to_string()])
        .args(["--cache-type-k", flag(serving.keys), "--cache-type-v", flag(serving.values)])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()
        .with_context(|| format!("{} cannot be run", server.display()))?;
    let said = wait(&mut child, &log, PATIENCE);
    // Its own process and no other.
    let _ = child.kill();
    let _ = child.wait();
    said
}

fn wait(child: &mut Child, log: &Path, patience: Duration) -> Result<String> {
    let start = Instant::now();
    loop {
        let ended = child.try_wait()?;
        let said = fs::read_to_string(log).unwrap_or_default();
        if said.contains("compute buffer size") && said.contains("reserve took") {
            return Ok(said);
        }
        if let Some(status) = ended {
            let tail: Vec<&str> = said.lines().rev().take(5).collect();
            bail!("llama-server ended with {status}: {}", tail.join(" | "));
        }
        if start.elapsed() > patience {
            bail!("llama-server said nothing of its buffers in {} s", patience.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
}

/// The sum of all lines `… KIND buffer size = N MiB`.
fn printed(log: &str, kind: &str) -> Option<f64> {
    let marker = format!(" {kind} buffer size =");
    let sizes: Vec<f64> = log
        .lines()
        .filter_map(|line| line.split_once(&marker))
        .filter_map(|(_, after)| after.trim().strip_suffix("MiB")?.trim().parse().ok())
        .collect();
    (!sizes.is_empty()).then(|| sizes.iter().sum())
}

fn compare(shape: &Shape, serving: &Serving, facts: &ModelFacts, log: &str) -> Result<Measured> {
    let workload = Workload {
        kv_dtype: serving.keys,
        value_dtype: Some(serving.values),
        ubatch: serving.ubatch,
        ..Workload::new(Engine::LlamaCpp, serving.context, serving.slots)
    };
    let ours = buffers(facts, &workload);
    let pair = |ours: Bytes, kind: &str| -> Result<Pair> {
        let server = printed(log, kind).with_context(|| format!("no {kind} buffer in the log"))?;
        Ok(Pair { ours: ours.get() as f64 / MIB as f64, server })
    };
    Ok(Measured {
        shape: shape.name.to_owned(),
        serving: serving.name.to_owned(),
        model: pair(weights(facts), "model")?,
        kv: pair(ours.kv, "KV")?,
        compute: pair(ours.compute, "compute")?,
        output: pair(ours.output, "output")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_read_from_a_log() {
        let log = "0.1 I llama_kv_cache:        CPU KV buffer size =     8.00 MiB\n\
                   0.1 I llama_kv_cache:        CPU KV buffer size =     2.50 MiB\n\
                   0.1 I sched_reserve:        CPU compute buffer size =    18.02 MiB\n";
        assert_eq!(printed(log, "KV"), Some(10.5));
        assert_eq!(printed(log, "compute"), Some(18.02));
        assert_eq!(printed(log, "output"), None);
    }

    #[test]
    fn two_digits_are_all_that_is_asked_of_small_buffers() {
        assert!(Pair { ours: 0.004, server: 0.0 }.agrees());
        assert!(Pair { ours: 100.9, server: 100.0 }.agrees());
        assert!(!Pair { ours: 102.0, server: 100.0 }.agrees());
    }
}
