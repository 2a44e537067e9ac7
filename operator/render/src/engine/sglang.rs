//! `SGLang`. Facts from the source of version 0.5.21 and the Dockerfiles of its releases.

use berth_crds::llm_deployment::{KvCacheDtype, Vendor};
use berth_units::Bytes;

use super::{
    Directory, Engine, Format, HOME, Metrics, PORT, Reserved, Startup, TMP, USER, directory, log,
    memory, metrics, pair, python, words,
};
use crate::{Claim, EngineTemplate, ModelSource, Template};

pub(super) struct Sglang;

/// Seconds that the server takes to end once it has no requests: it looks every 5 s whether it was
/// told to, every 5 s whether a request runs, and gives its schedulers 15 s to let go. Until then it
/// still takes requests, and waits for them too.
const TEARDOWN: u32 = 30;

impl Engine for Sglang {
    fn name(&self) -> &'static str {
        "SGLang"
    }

    fn image(&self, vendor: Vendor) -> Option<&'static str> {
        Some(match vendor {
            // Built on CUDA 13: needs driver 580 or newer.
            Vendor::NVIDIA => "docker.io/lmsysorg/sglang:v0.5.21",
            // For MI300X and MI325X. MI350X and MI355X take the suffix -mi35x.
            Vendor::AMD => "docker.io/lmsysorg/sglang:v0.5.21-rocm10-mi30x",
        })
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Safetensors)
    }

    fn command(&self, _: &EngineTemplate) -> Vec<String> {
        words(&["python3", "-m", "sglang.launch_server"])
    }

    fn no_work(&self) -> &'static [&'static str] {
        &["python3", "-c", ""]
    }

    fn args(&self, template: &Template, claim: &Claim) -> Vec<String> {
        let engine = &template.engine;
        let mut args = Vec::new();
        pair(&mut args, "--model-path", template.source.location().directory);
        pair(&mut args, "--served-model-name", &template.served_name);
        if template.trust_remote_code {
            args.push("--trust-remote-code".to_owned());
        }
        pair(&mut args, "--host", "0.0.0.0");
        pair(&mut args, "--port", PORT);
        pair(&mut args, "--tensor-parallel-size", template.tensor);
        args.extend(memory::args(template, claim));
        pair(&mut args, "--context-length", template.context_length);
        pair(&mut args, "--max-running-requests", engine.max_num_seqs);
        // By itself it would follow from the GPU's size, and the reserve with it.
        pair(&mut args, "--chunked-prefill-size", engine.max_num_batched_tokens);
        match engine.kv_cache_dtype {
            KvCacheDtype::FP8 => pair(&mut args, "--kv-cache-dtype", "fp8_e4m3"),
            KvCacheDtype::FP8_E5M2 => pair(&mut args, "--kv-cache-dtype", "fp8_e5m2"),
            _ => {}
        }
        args.push("--enable-metrics".to_owned());
        args
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let caches = vec![("SGLANG_CACHE_DIR", python::cache("/sglang"))];
        // A probe of health would otherwise generate a token, every few seconds, and wait for it; a
        // server that hangs ends itself (--watchdog-timeout).
        let probed = vec![("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "false".to_owned())];
        [python::user(), caches, python::kernels(), probed, python::quiet()].concat()
    }

    fn overridable(&self) -> Vec<&'static str> {
        [&["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"], &python::QUIET[..]].concat()
    }

    /// The image has no user of its own (it runs as root), and its files can be read by all.
    fn user(&self, _: &EngineTemplate) -> i64 {
        USER
    }

    /// Compiled kernels and graphs, as for vLLM.
    fn directories(&self, _: &EngineTemplate) -> Vec<Directory> {
        vec![directory("home", HOME, Bytes::gib(10)), TMP]
    }

    fn metrics(&self) -> Option<&'static Metrics> {
        Some(&metrics::SGLANG)
    }

    fn startup(&self, log: &str) -> Startup {
        log::sglang::startup(log)
    }

    /// It ends once no request runs, however long that takes: the pod's grace is what ends it.
    fn stop_seconds(&self, shutdown_grace: u32) -> u32 {
        shutdown_grace.saturating_add(TEARDOWN)
    }

    fn reserved_arguments(&self) -> &'static [Reserved] {
        RESERVED_ARGUMENTS
    }

    /// Python's argparse takes any unambiguous beginning of an option.
    fn abbreviates(&self) -> bool {
        true
    }

    fn reserved_environment(&self) -> &'static [Reserved] {
        RESERVED_ENVIRONMENT
    }

    fn refused_source(&self, source: &ModelSource) -> Option<String> {
        source.files().map(|files| {
            format!(
                "model.files {files:?} picks one GGUF file of many, and SGLang serves whole \
                 repositories of safetensors here; remove model.files, or use engine.type LlamaCpp"
            )
        })
    }
}

const RESERVED_ARGUMENTS: &[Reserved] = &[
    Reserved {
        names: &["--model-path", "--model"],
        instead: "Berth passes the model; use model.uri",
    },
    Reserved {
        names: &["--revision"],
        instead: "the commit is frozen with the revision; use model.revision",
    },
    Reserved {
        names: &["--served-model-name"],
        instead: "Berth sets the name that clients use; use model.servedName",
    },
    Reserved {
        names: &["--trust-remote-code"],
        instead: "whether code of the model may run is decided in the spec; use \
                  model.trustRemoteCode",
    },
    Reserved {
        names: &["--tensor-parallel-size", "--tp-size"],
        instead: "the planner counts GPUs by it; use gpu.parallelism.tensor",
    },
    Reserved {
        names: &[
            "--pipeline-parallel-size",
            "--pp-size",
            "--data-parallel-size",
            "--dp-size",
            "--nnodes",
            "--node-rank",
            "--dist-init-addr",
            "--base-gpu-id",
            "--gpu-id-step",
            "--use-ray",
        ],
        instead: "the planner counts GPUs by it, and places one node's tensor parallelism only; \
                  use gpu.parallelism.tensor",
    },
    Reserved {
        names: &["--device"],
        instead: "Berth plans GPUs, and gives the container those; leave it out",
    },
    Reserved {
        names: &["--mem-fraction-static", "--max-total-tokens"],
        instead: "the memory follows from the claim on the GPU; to change what Berth plans with, \
                  use gpu.memory",
    },
    Reserved {
        names: &["--context-length"],
        instead: "the estimate holds the context; use engine.contextLength",
    },
    Reserved {
        names: &["--max-running-requests", "--chunked-prefill-size"],
        instead: "the estimate of activations rests on it; to make room for more requests, use \
                  engine.maxConcurrency",
    },
    Reserved {
        names: &["--kv-cache-dtype"],
        instead: "the estimate holds the KV cache; use engine.kvCacheDtype",
    },
    Reserved {
        names: &["--host", "--port", "--fastapi-root-path", "--grpc-mode", "--smg-grpc-mode"],
        instead: "Service and probes expect the engine where Berth puts it; use endpoint.port for \
                  the port that clients see",
    },
    Reserved {
        names: &["--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password"],
        instead: "the probes and the Service speak plain HTTP to the engine; end TLS in front of \
                  the Service",
    },
    Reserved {
        names: &["--enable-priority-scheduling"],
        instead: "its metrics would count each request twice, and Berth knows by them whether the \
                  engine is busy; leave it out",
    },
    Reserved {
        names: &["--disaggregation-mode", "--encoder-only"],
        instead: "a replica serves whole requests by itself; leave it out",
    },
    Reserved {
        names: &["--download-dir"],
        instead: "the engine is given the model's files; leave it out",
    },
    Reserved {
        names: &["--config"],
        instead: "a file could set what Berth computes; write its options into engine.args",
    },
];

const RESERVED_ENVIRONMENT: &[Reserved] = &[
    Reserved {
        names: &["SGLANG_GRPC_PORT", "SGLANG_HOST_IP", "SGLANG_PORT"],
        instead: "it moves the engine's ports; leave it out",
    },
    Reserved {
        names: &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"],
        instead: "only the directories that Berth mounts can be written to; leave it out",
    },
];
