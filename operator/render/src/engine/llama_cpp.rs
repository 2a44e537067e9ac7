//! llama.cpp's server. Facts from the source of build b11434 and its Dockerfiles.

use berth_crds::llm_deployment::{KvCacheDtype, Vendor};
use berth_units::Bytes;

use super::{
    Directory, Engine, Format, HOME, Metrics, PORT, Reserved, Startup, TMP, USER, directory,
    grace_first, log, metrics, pair, words,
};
use crate::{
    Claim, EngineTemplate, ModelSource, Template,
    source::{Location, is_pattern},
};

pub(super) struct LlamaCpp;

/// Seconds that the server takes to end: it may sit in a large batch.
const TEARDOWN: u32 = 15;

impl Engine for LlamaCpp {
    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn image(&self, vendor: Vendor) -> Option<&'static str> {
        Some(match vendor {
            Vendor::NVIDIA => "ghcr.io/ggml-org/llama.cpp:server-cuda-b11459",
            // Not every build is published, and fewer for ROCm than for CUDA.
            Vendor::AMD => "ghcr.io/ggml-org/llama.cpp:server-rocm-b11277",
        })
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Gguf)
    }

    fn command(&self, _: &EngineTemplate) -> Vec<String> {
        words(&["/app/llama-server"])
    }

    fn no_work(&self) -> &'static [&'static str] {
        &["/app/llama-server", "--version"]
    }

    fn args(&self, template: &Template, _: &Claim) -> Vec<String> {
        let Location { directory, file } = template.source.location();
        let mut args = Vec::new();
        pair(&mut args, "--model", format!("{directory}/{}", file.unwrap_or_default()));
        args.push("--offline".to_owned());
        pair(&mut args, "--alias", &template.served_name);
        pair(&mut args, "--host", "0.0.0.0");
        pair(&mut args, "--port", PORT);
        // The context is shared out among the slots, each of which must hold a full one.
        let tokens = u64::from(template.context_length) * u64::from(template.max_concurrency);
        pair(&mut args, "--ctx-size", tokens);
        pair(&mut args, "--parallel", template.max_concurrency);
        pair(&mut args, "--n-gpu-layers", "all");
        pair(&mut args, "--split-mode", if template.gpus > 1 { "layer" } else { "none" });
        // Everything is set: nothing to adjust to the memory that happens to be free, and no
        // quiet start with a shorter context.
        pair(&mut args, "--fit", "off");
        if let Some(dtype) = cache_type(template.engine.kv_cache_dtype) {
            pair(&mut args, "--cache-type-k", dtype);
            pair(&mut args, "--cache-type-v", dtype);
        }
        // It counts the machine's cores, not those that the pod may use.
        pair(&mut args, "--threads", (template.resources.cpu.get() / 1000).max(1));
        args.push("--metrics".to_owned());
        // Which devices it uses and what it puts there is said from level 4 on (level 3 is the
        // default). It still says nothing of what is in a request.
        pair(&mut args, "--log-verbosity", 4);
        // A stream that is cut by the end of the server holds that end up until the next ping
        // (30 s by default; measured on b11434).
        pair(&mut args, "--sse-ping-interval", 5);
        args
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HOME", HOME.to_owned()),
            ("XDG_CACHE_HOME", format!("{HOME}/.cache")),
            ("HF_HOME", format!("{HOME}/.cache/huggingface")),
        ]
    }

    fn overridable(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Any user will do: the image has none of its own (it runs as root), and its files can be
    /// read by all.
    fn user(&self, _: &EngineTemplate) -> i64 {
        USER
    }

    /// The driver's cache of compiled kernels.
    fn directories(&self, _: &EngineTemplate) -> Vec<Directory> {
        vec![directory("home", HOME, Bytes::gib(2)), TMP]
    }

    fn metrics(&self) -> Option<&'static Metrics> {
        Some(&metrics::LLAMA_CPP)
    }

    fn startup(&self, log: &str) -> Startup {
        log::llama_cpp::startup(log)
    }

    /// A signal ends the server at once, with whatever it is doing. So the grace is spent before
    /// the signal, while the server goes on; it gets no new requests by then.
    fn pre_stop_seconds(&self, shutdown_grace: u32) -> u32 {
        grace_first(shutdown_grace)
    }

    fn stop_seconds(&self, _: u32) -> u32 {
        TEARDOWN
    }

    fn reserved_arguments(&self) -> &'static [Reserved] {
        RESERVED_ARGUMENTS
    }

    fn abbreviates(&self) -> bool {
        false
    }

    fn reserved_environment(&self) -> &'static [Reserved] {
        RESERVED_ENVIRONMENT
    }

    fn refused_source(&self, source: &ModelSource) -> Option<String> {
        match source.location().file {
            None => Some(
                "llama.cpp must be told which file to load; give it in model.files, or let \
                 model.uri end in the file's name"
                    .to_owned(),
            ),
            Some(file) if is_pattern(&file) => Some(format!(
                "model.files {file:?} is a pattern, and llama.cpp must be told the exact file to \
                 load; for a model in several files that is the first of them"
            )),
            Some(_) => None,
        }
    }
}

/// The engine's name for a type of KV cache; `None` where it is the engine's own choice.
fn cache_type(dtype: KvCacheDtype) -> Option<&'static str> {
    match dtype {
        KvCacheDtype::F16 => Some("f16"),
        KvCacheDtype::Q8_0 => Some("q8_0"),
        KvCacheDtype::Q4_0 => Some("q4_0"),
        KvCacheDtype::Auto | KvCacheDtype::FP8 | KvCacheDtype::FP8_E5M2 => None,
    }
}

const RESERVED_ARGUMENTS: &[Reserved] = &[
    Reserved {
        names: &[
            "-m",
            "--model",
            "-mu",
            "--model-url",
            "-dr",
            "--docker-repo",
            "-hf",
            "-hfr",
            "--hf-repo",
            "-hff",
            "--hf-file",
            "--models-dir",
            "--models-preset",
            "--models-max",
        ],
        instead: "Berth passes the model; use model.uri and model.files",
    },
    Reserved {
        names: &["-hft", "--hf-token"],
        instead: "a token does not belong in a manifest; use model.secretRef",
    },
    Reserved {
        names: &["-a", "--alias"],
        instead: "Berth sets the name that clients use; use model.servedName",
    },
    Reserved {
        names: &["-c", "--ctx-size"],
        instead: "the estimate holds the context; use engine.contextLength",
    },
    Reserved {
        names: &["-np", "--parallel"],
        instead: "the estimate holds the slots; use engine.maxConcurrency",
    },
    Reserved {
        names: &["-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"],
        instead: "every slot must hold a full context; use engine.contextLength and \
                  engine.maxConcurrency",
    },
    Reserved {
        names: &[
            "-ngl",
            "--gpu-layers",
            "--n-gpu-layers",
            "-sm",
            "--split-mode",
            "-ts",
            "--tensor-split",
            "-mg",
            "--main-gpu",
            "-dev",
            "--device",
            "-fit",
            "--fit",
            "--rpc",
        ],
        instead: "Berth plans which GPUs hold the model, all of it; use gpu.count",
    },
    Reserved {
        names: &["-ctk", "--cache-type-k", "-ctv", "--cache-type-v"],
        instead: "the estimate holds the KV cache; use engine.kvCacheDtype",
    },
    Reserved {
        names: &["--host", "--port", "--reuse-port", "--api-prefix"],
        instead: "Service and probes expect the engine where Berth puts it; use endpoint.port for \
                  the port that clients see",
    },
    Reserved {
        names: &["--ssl-key-file", "--ssl-cert-file"],
        instead: "the probes and the Service speak plain HTTP to the engine; end TLS in front of \
                  the Service",
    },
];

const RESERVED_ENVIRONMENT: &[Reserved] = &[
    Reserved {
        names: &["LLAMA_ARG_*"],
        instead: "it sets an argument behind those that Berth computes; write it into engine.args",
    },
    Reserved {
        names: &["AIP_*"],
        instead: "it moves the server to another port and other paths; leave it out",
    },
    Reserved {
        names: &["LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"],
        instead: "only the directories that Berth mounts can be written to; leave it out",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, files: Option<&str>) -> ModelSource {
        ModelSource::parse(&berth_crds::llm_deployment::Model {
            uri: uri.to_owned(),
            revision: None,
            files: files.map(ToOwned::to_owned),
            served_name: None,
            secret_ref: None,
            facts: None,
            trust_remote_code: false,
        })
        .unwrap()
    }

    #[test]
    fn a_source_that_names_no_file_is_refused_with_the_way_out() {
        for (uri, files) in [
            ("hf://org/model-GGUF", None),
            ("hf://org/model", Some("*Q4_K_M.gguf")),
            ("hf://org/model", Some("q4/m.gguf")),
            ("pvc://models/m.gguf", None),
            ("cache://model", Some("m.gguf")),
        ] {
            assert_eq!(LlamaCpp.refused_source(&source(uri, files)), None, "{uri} {files:?}");
        }
        for (uri, files) in [
            ("hf://org/model", None),
            ("pvc://models", None),
            ("pvc://models", Some("*.gguf")),
            ("s3://models/a", Some("*.gguf")),
        ] {
            let message = LlamaCpp.refused_source(&source(uri, files)).unwrap_or_default();
            assert!(message.contains("model.files"), "{uri} {files:?}: {message}");
        }
    }
}
