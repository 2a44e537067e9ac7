//! vLLM. Facts from the source of version 0.33.0 and its Dockerfiles.

use berth_crds::llm_deployment::{KvCacheDtype, Vendor};
use berth_units::Bytes;

use super::{
    Directory, Engine, Format, HOME, Metrics, PORT, Reserved, Startup, TMP, USER, directory, log,
    memory, metrics, pair, python, words,
};
use crate::{Claim, EngineTemplate, ModelSource, Template};

pub(super) struct Vllm;

/// Seconds that the engine takes to end once it has no requests.
const TEARDOWN: u32 = 10;

impl Engine for Vllm {
    fn name(&self) -> &'static str {
        "vLLM"
    }

    fn image(&self, vendor: Vendor) -> Option<&'static str> {
        Some(match vendor {
            // Built on CUDA 13: needs driver 580 or newer. For older drivers the same version is
            // published with the suffix -cu129.
            Vendor::NVIDIA => "docker.io/vllm/vllm-openai:v0.33.0",
            Vendor::AMD => "docker.io/vllm/vllm-openai-rocm:v0.33.0",
        })
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Safetensors)
    }

    fn command(&self, _: &EngineTemplate) -> Vec<String> {
        words(&["vllm", "serve"])
    }

    fn no_work(&self) -> &'static [&'static str] {
        &["python3", "-c", ""]
    }

    fn args(&self, template: &Template, claim: &Claim) -> Vec<String> {
        let engine = &template.engine;
        let mut args = vec![template.source.location().directory];
        pair(&mut args, "--served-model-name", &template.served_name);
        if template.trust_remote_code {
            args.push("--trust-remote-code".to_owned());
        }
        pair(&mut args, "--host", "0.0.0.0");
        pair(&mut args, "--port", PORT);
        pair(&mut args, "--tensor-parallel-size", template.tensor);
        args.extend(memory::args(template, claim));
        pair(&mut args, "--max-model-len", template.context_length);
        pair(&mut args, "--max-num-seqs", engine.max_num_seqs);
        pair(&mut args, "--max-num-batched-tokens", engine.max_num_batched_tokens);
        if engine.kv_cache_dtype == KvCacheDtype::FP8 {
            pair(&mut args, "--kv-cache-dtype", "fp8");
        }
        // The default is 0: a signal aborts the requests in progress.
        pair(&mut args, "--shutdown-timeout", template.shutdown_grace_seconds);
        args
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let caches = vec![
            ("VLLM_CACHE_ROOT", python::cache("/vllm")),
            ("VLLM_CONFIG_ROOT", format!("{HOME}/.config/vllm")),
        ];
        let silent = vec![("VLLM_NO_USAGE_STATS", "1".to_owned())];
        [python::user(), caches, python::kernels(), silent, python::quiet()].concat()
    }

    fn overridable(&self) -> Vec<&'static str> {
        [&["VLLM_NO_USAGE_STATS"], &python::QUIET[..]].concat()
    }

    /// The user `vllm` of the CUDA image (2000). The `ROCm` image has no such user and does not need
    /// one: everything that is looked up by it stands in the environment.
    fn user(&self, _: &EngineTemplate) -> i64 {
        USER
    }

    /// Compiled graphs and kernels are some hundred MiB a model; on `ROCm`, and for large models,
    /// several GiB.
    fn directories(&self, _: &EngineTemplate) -> Vec<Directory> {
        vec![directory("home", HOME, Bytes::gib(10)), TMP]
    }

    fn metrics(&self) -> Option<&'static Metrics> {
        Some(&metrics::VLLM)
    }

    fn startup(&self, log: &str) -> Startup {
        log::vllm::startup(log)
    }

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
                "model.files {files:?} picks one GGUF file of many, and vLLM serves whole \
                 repositories of safetensors; remove model.files, or use engine.type LlamaCpp"
            )
        })
    }
}

const RESERVED_ARGUMENTS: &[Reserved] = &[
    Reserved { names: &["--model"], instead: "Berth passes the model; use model.uri" },
    Reserved {
        names: &["--revision", "--code-revision"],
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
        names: &["--hf-token"],
        instead: "a token does not belong in a manifest; use model.secretRef",
    },
    Reserved {
        names: &["--tensor-parallel-size", "-tp"],
        instead: "the planner counts GPUs by it; use gpu.parallelism.tensor",
    },
    Reserved {
        names: &[
            "--pipeline-parallel-size",
            "-pp",
            "--data-parallel-size",
            "-dp",
            "--data-parallel-size-local",
            "-dpl",
            "--nnodes",
            "-n",
            "--node-rank",
            "-r",
            "--headless",
        ],
        instead: "the planner counts GPUs by it, and places one node's tensor parallelism only; \
                  use gpu.parallelism.tensor",
    },
    Reserved {
        names: &[
            "--gpu-memory-utilization",
            "--device-memory-utilization",
            "--kv-cache-memory-bytes",
            "--num-gpu-blocks-override",
        ],
        instead: "the memory follows from the claim on the GPU; to change what Berth plans with, \
                  use gpu.memory",
    },
    Reserved {
        names: &["--max-model-len"],
        instead: "the estimate holds the context; use engine.contextLength",
    },
    Reserved {
        names: &["--max-num-seqs", "--max-num-batched-tokens"],
        instead: "the estimate of activations rests on it; to make room for more requests, use \
                  engine.maxConcurrency",
    },
    Reserved {
        names: &["--kv-cache-dtype"],
        instead: "the estimate holds the KV cache; use engine.kvCacheDtype",
    },
    Reserved {
        names: &["--shutdown-timeout"],
        instead: "the pod's grace has to match it; use engine.shutdownGrace",
    },
    Reserved {
        names: &["--host", "--port", "--uds", "--grpc"],
        instead: "Service and probes expect the engine where Berth puts it; use endpoint.port for \
                  the port that clients see",
    },
    Reserved {
        names: &["--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs"],
        instead: "the probes and the Service speak plain HTTP to the engine; end TLS in front of \
                  the Service",
    },
    Reserved {
        names: &["--disable-log-stats"],
        instead: "it turns the metrics off by which Berth knows whether the engine is busy; leave \
                  it out",
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
        names: &["VLLM_PORT", "VLLM_HOST_IP"],
        instead: "it moves the engine's internal ports; leave it out",
    },
    Reserved {
        names: &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"],
        instead: "only the directories that Berth mounts can be written to; leave it out",
    },
];
