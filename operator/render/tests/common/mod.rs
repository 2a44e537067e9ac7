//! Templates and replicas of the golden pods, resolved as the controller resolves them.

#![allow(dead_code, reason = "each test crate uses its own part")]

use std::collections::BTreeMap;

use berth_crds::llm_deployment::{
    Effect, EngineType, EnvSource, EnvVar, KvCacheDtype, Model, Operator, PullPolicy, SecretKey,
    Toleration, Vendor,
};
use berth_render::{
    CacheSite, Claim, CustomServer, EngineTemplate, Estimate, ModelSource, OwnDirectory, Owner,
    Replica, Site, Template, engine, resources, startup_timeout, vendor::GpuResources,
};
use berth_units::Bytes;

/// A model as its spec names it.
pub fn model(uri: &str) -> Model {
    Model {
        uri: uri.to_owned(),
        revision: None,
        files: None,
        served_name: None,
        secret_ref: None,
        facts: None,
        trust_remote_code: false,
    }
}

/// The template of a model on so many GPUs.
pub fn template(
    model: &Model,
    type_: EngineType,
    vendor: Vendor,
    gpus: u32,
    weights: Bytes,
) -> Template {
    let source = ModelSource::parse(model).unwrap();
    assert_eq!(engine::refused_source(type_, &source), None);
    let image = engine::default_image(type_, vendor).unwrap_or("registry.example.com/server:v1");
    let server = EngineTemplate {
        type_,
        image: image.to_owned(),
        image_pull_policy: PullPolicy::IfNotPresent,
        args: vec![],
        env: vec![],
        kv_cache_dtype: KvCacheDtype::Auto,
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        version: engine::version(type_, image),
        custom: (type_ == EngineType::Custom).then(custom_server),
    };
    let resources = resources(None, &server, &source, weights, gpus).unwrap();
    Template {
        source_secret: None,
        served_name: model.uri.rsplit('/').next().unwrap().to_owned(),
        trust_remote_code: model.trust_remote_code,
        engine: server,
        vendor,
        products: vec![],
        gpus,
        tensor: gpus,
        context_length: 32768,
        max_concurrency: 1,
        weight_bytes: weights,
        estimate: Estimate {
            weights: weights.div_ceil(u64::from(gpus)),
            kv_cache: Bytes::gib(4),
            activation: Bytes::gib(1),
            non_torch: Bytes::mib(270),
            graphs: Bytes::gib(1),
            margin: Bytes::gib(1),
            total: weights.div_ceil(u64::from(gpus)) + Bytes::gib(7) + Bytes::mib(270),
            kv_bytes_per_token: Bytes(131_072),
            basis: "catalogue".to_owned(),
        },
        measured: BTreeMap::new(),
        resources,
        startup_timeout_seconds: startup_timeout(weights, &source),
        shutdown_grace_seconds: 60,
        node_selector: BTreeMap::new(),
        tolerations: vec![],
        priority_class: "berth-default".to_owned(),
        runtime_class: None,
        image_pull_secrets: vec![],
        pod_labels: BTreeMap::new(),
        pod_annotations: BTreeMap::new(),
        source,
    }
}

/// A server as a user describes it.
fn custom_server() -> CustomServer {
    CustomServer {
        command: vec![],
        port: 8080,
        health_path: "/healthz".to_owned(),
        user: 1000,
        directories: vec![
            OwnDirectory { path: "/data".to_owned(), size: Bytes::gib(5) },
            OwnDirectory { path: "/tmp".to_owned(), size: Bytes::gib(4) },
        ],
    }
}

/// The owner of a name.
pub fn owner(name: &str) -> Owner {
    Owner {
        namespace: "team-a".to_owned(),
        name: name.to_owned(),
        uid: "6f6e9d3c-2a55-4c1b-9d55-0d6f8c1b7a10".to_owned(),
    }
}

/// A replica of it.
pub fn replica(name: &str, template: &Template, product: &str, bytes_per_gpu: Bytes) -> Replica {
    Replica {
        deployment: owner(name),
        revision: berth_render::revision::hash(template),
        replica: 2,
        rank: 0,
        attempt: 1,
        node: "gpu-017".to_owned(),
        claim: Claim {
            gpus: template.gpus,
            bytes_per_gpu,
            // As the planner has it: 5 % are nobody's.
            total_per_gpu: bytes_per_gpu * 100 / 95,
            product: product.to_owned(),
            cache: None,
        },
    }
}

/// A cluster whose nodes keep no models.
pub fn site() -> Site {
    Site {
        gpu_resources: GpuResources::default(),
        fetch_image: "registry.example.com/berth-fetch:0.1.0".to_owned(),
        hub: None,
        hub_ca: None,
        offline: false,
        cache: None,
    }
}

/// A cluster whose nodes keep models, from a mirror with a certificate of its own.
pub fn cached_site() -> Site {
    Site {
        hub: Some("https://hub.example.com".to_owned()),
        hub_ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        cache: Some(CacheSite {
            path: "/var/lib/berth".to_owned(),
            size: Bytes::gib(500),
            group: 2001,
            namespace: "berth-system".to_owned(),
            pull_secrets: vec!["registry".to_owned()],
        }),
        ..site()
    }
}

/// One golden pod.
pub struct Case {
    pub name: &'static str,
    pub template: Template,
    pub replica: Replica,
    pub site: Site,
}

/// All golden pods.
pub fn cases() -> Vec<Case> {
    vec![
        vllm_hub_token(),
        vllm_amd_tensor_8(),
        vllm_s3(),
        vllm_oci_pull_secret(),
        vllm_users_own(),
        llama_cpp_hub(),
        llama_cpp_hub_commit(),
        llama_cpp_pvc(),
        llama_cpp_s3(),
        llama_cpp_cache(),
        vllm_hub_cached(),
        vllm_renamed_gpu(),
        vllm_older_image(),
        sglang_hub(),
        sglang_amd(),
        custom_safetensors(),
        custom_gguf(),
    ]
}

fn case(
    name: &'static str,
    deployment: &str,
    template: Template,
    product: &str,
    bytes: Bytes,
) -> Case {
    let replica = replica(deployment, &template, product, bytes);
    Case { name, template, replica, site: site() }
}

/// One H100, a gated model, a commit.
fn vllm_hub_token() -> Case {
    let model = Model {
        revision: Some("0e9e39f249a16976918f6564b8830bc894c89659".to_owned()),
        ..model("hf://meta-llama/Llama-3.1-8B-Instruct")
    };
    let mut template = template(&model, EngineType::VLLM, Vendor::NVIDIA, 1, Bytes(16_060_556_376));
    template.source_secret = Some("hugging-face".to_owned());
    case("vllm-hub-token", "llama-8b", template, "NVIDIA-H100-80GB-HBM3", Bytes::mib(77_481))
}

/// Eight MI300X, code of the model, an fp8 cache.
fn vllm_amd_tensor_8() -> Case {
    let model = Model { trust_remote_code: true, ..model("hf://deepseek-ai/DeepSeek-R1") };
    let mut template = template(&model, EngineType::VLLM, Vendor::AMD, 8, Bytes(688_586_727_753));
    template.engine.kv_cache_dtype = KvCacheDtype::FP8;
    template.shutdown_grace_seconds = 600;
    case("vllm-amd-tensor-8", "deepseek-r1", template, "AMD_Instinct_MI300X_OAM", Bytes::gib(182))
}

/// A bucket of one's own, with credentials.
fn vllm_s3() -> Case {
    let model = model("s3://models/qwen/Qwen2.5-72B-Instruct-AWQ/");
    let mut template = template(&model, EngineType::VLLM, Vendor::NVIDIA, 2, Bytes(41_600_000_000));
    template.served_name = String::from("qwen-72b");
    template.source_secret = Some("object-store".to_owned());
    case("vllm-s3", "qwen-72b", template, "NVIDIA-L40S", Bytes::mib(43_743))
}

/// An OCI artifact in a private registry.
fn vllm_oci_pull_secret() -> Case {
    let model = model("oci://registry.example.com/models/qwen3-30b-a3b:v1");
    let mut template = template(&model, EngineType::VLLM, Vendor::NVIDIA, 1, Bytes(61_064_245_248));
    template.image_pull_secrets = vec!["registry".to_owned()];
    template.runtime_class = Some("nvidia".to_owned());
    case("vllm-oci-pull-secret", "qwen3", template, "NVIDIA-A100-SXM4-80GB", Bytes::mib(77_824))
}

/// Everything that a user may add.
fn vllm_users_own() -> Case {
    let mut template = template(
        &model("hf://Qwen/Qwen2.5-7B-Instruct"),
        EngineType::VLLM,
        Vendor::NVIDIA,
        1,
        Bytes(15_231_233_024),
    );
    template.engine.args =
        ["--enable-auto-tool-choice", "--tool-call-parser=hermes"].map(ToOwned::to_owned).into();
    template.engine.env = vec![
        EnvVar { name: "NCCL_DEBUG".to_owned(), value: Some("INFO".to_owned()), value_from: None },
        EnvVar {
            name: "VLLM_API_KEY".to_owned(),
            value: None,
            value_from: Some(EnvSource {
                secret_key_ref: SecretKey { name: "mirror".to_owned(), key: "password".to_owned() },
            }),
        },
        EnvVar {
            name: "VLLM_NO_USAGE_STATS".to_owned(),
            value: Some("0".to_owned()),
            value_from: None,
        },
    ];
    template.engine.image_pull_policy = PullPolicy::Always;
    template.pod_labels = BTreeMap::from([("team".to_owned(), "search".to_owned())]);
    template.pod_annotations = BTreeMap::from([
        ("example.com/contact".to_owned(), "search@example.com".to_owned()),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "true".to_owned()),
    ]);
    template.node_selector =
        BTreeMap::from([("topology.kubernetes.io/region".to_owned(), "eu-1".to_owned())]);
    template.tolerations = vec![
        Toleration {
            key: Some("dedicated".to_owned()),
            operator: Operator::Equal,
            value: Some("inference".to_owned()),
            effect: Some(Effect::NoSchedule),
        },
        Toleration {
            key: Some("nvidia.com/gpu".to_owned()),
            operator: Operator::Exists,
            value: None,
            effect: None,
        },
    ];
    template.shutdown_grace_seconds = 0;
    case("vllm-users-own", "qwen-7b", template, "NVIDIA-GeForce-RTX-4090", Bytes::mib(23_335))
}

/// A quantisation of many in a repository, four slots.
fn llama_cpp_hub() -> Case {
    let model = Model {
        files: Some("*Q4_K_M.gguf".to_owned()),
        ..model("hf://bartowski/Llama-3.3-70B-Instruct-GGUF")
    };
    let mut template =
        template(&model, EngineType::LlamaCpp, Vendor::NVIDIA, 2, Bytes(42_520_395_584));
    template.context_length = 16384;
    template.max_concurrency = 4;
    template.engine.kv_cache_dtype = KvCacheDtype::Q8_0;
    case("llama-cpp-hub", "llama-70b-gguf", template, "NVIDIA-L40S", Bytes::mib(43_743))
}

/// One file at a commit, on AMD.
fn llama_cpp_hub_commit() -> Case {
    let model = Model {
        revision: Some("f9e6b7d0b2c44ad2ae5f0b8c1a9a3a4f5bd0c111".to_owned()),
        files: Some("qwen2.5-7b-instruct-q8_0.gguf".to_owned()),
        ..model("hf://Qwen/Qwen2.5-7B-Instruct-GGUF")
    };
    let mut template = template(&model, EngineType::LlamaCpp, Vendor::AMD, 1, Bytes(8_098_525_440));
    template.source_secret = Some("hugging-face".to_owned());
    template.engine.kv_cache_dtype = KvCacheDtype::F16;
    case("llama-cpp-hub-commit", "qwen-q8", template, "AMD_Instinct_MI210", Bytes::gib(60))
}

/// A file on a claim.
fn llama_cpp_pvc() -> Case {
    let mut template = template(
        &model("pvc://models/gguf/qwen2.5-0.5b-instruct-q4_k_m.gguf"),
        EngineType::LlamaCpp,
        Vendor::NVIDIA,
        1,
        Bytes(491_400_032),
    );
    template.served_name = String::from("qwen-tiny");
    template.engine.kv_cache_dtype = KvCacheDtype::Q4_0;
    case("llama-cpp-pvc", "qwen-tiny", template, "NVIDIA-L40S", Bytes::mib(43_743))
}

/// A file that the administrator put onto nodes.
fn llama_cpp_cache() -> Case {
    let template = template(
        &model("cache://qwen/qwen2.5-0.5b-instruct-q4_k_m.gguf"),
        EngineType::LlamaCpp,
        Vendor::NVIDIA,
        1,
        Bytes(491_400_032),
    );
    let case = case("llama-cpp-cache", "qwen-tiny", template, "NVIDIA-L40S", Bytes::mib(43_743));
    Case { site: cached_site(), ..case }
}

/// A gated model from a mirror, kept in the node's cache, with downloads switched off.
fn vllm_hub_cached() -> Case {
    let case = vllm_hub_token();
    let mut replica = case.replica;
    replica.claim.cache = case.template.source.cached(case.template.weight_bytes);
    let site = Site { offline: true, ..cached_site() };
    Case { name: "vllm-hub-cached", template: case.template, replica, site }
}

/// GPUs that the device plugin offers under a name of the cluster's own.
fn vllm_renamed_gpu() -> Case {
    let given = (Vendor::NVIDIA, "example.com/h100".parse().unwrap());
    let gpu_resources = GpuResources::new([given]).unwrap();
    let site = Site { gpu_resources, ..site() };
    Case { name: "vllm-renamed-gpu", site, ..vllm_hub_token() }
}

/// The first of several files in an open bucket.
fn llama_cpp_s3() -> Case {
    let model = Model {
        files: Some("big-Q4_K_M-00001-of-00003.gguf".to_owned()),
        ..model("s3://open-models/big")
    };
    let template =
        template(&model, EngineType::LlamaCpp, Vendor::NVIDIA, 4, Bytes(130_000_000_000));
    case("llama-cpp-s3", "big", template, "NVIDIA-L40S", Bytes::mib(43_743))
}

/// An image of one's own, of a version that captures graphs beside what it is given.
fn vllm_older_image() -> Case {
    let case = vllm_hub_token();
    let mut template = case.template;
    template.engine.image = String::from("registry.example.com/vllm/vllm-openai:v0.19.1");
    template.engine.version = engine::version(EngineType::VLLM, &template.engine.image);
    Case { name: "vllm-older-image", template, ..case }
}

/// Four H100, an fp8 cache.
fn sglang_hub() -> Case {
    let model = model("hf://meta-llama/Llama-3.1-70B-Instruct");
    let mut template =
        template(&model, EngineType::SGLang, Vendor::NVIDIA, 4, Bytes(141_107_412_992));
    template.engine.kv_cache_dtype = KvCacheDtype::FP8;
    template.engine.args = vec!["--enable-mixed-chunk".to_owned()];
    case("sglang-hub", "llama-70b", template, "NVIDIA-H100-80GB-HBM3", Bytes::mib(77_481))
}

/// One MI300X, code of the model.
fn sglang_amd() -> Case {
    let model = Model { trust_remote_code: true, ..model("pvc://models/qwen3-30b-a3b") };
    let mut template = template(&model, EngineType::SGLang, Vendor::AMD, 1, Bytes(61_064_245_248));
    template.engine.kv_cache_dtype = KvCacheDtype::FP8_E5M2;
    case("sglang-amd", "qwen3", template, "AMD_Instinct_MI300X_OAM", Bytes::gib(182))
}

/// A server of the user's, with its image's entrypoint.
fn custom_safetensors() -> Case {
    let model = model("hf://Qwen/Qwen2.5-7B-Instruct");
    let mut template =
        template(&model, EngineType::Custom, Vendor::NVIDIA, 2, Bytes(15_231_233_024));
    template.engine.args =
        ["--model=$(BERTH_MODEL_PATH)", "--shards=$(BERTH_TENSOR_PARALLEL_SIZE)"]
            .map(ToOwned::to_owned)
            .into();
    template.engine.env = vec![
        EnvVar { name: "HOME".to_owned(), value: Some("/data".to_owned()), value_from: None },
        EnvVar {
            name: "SERVER_NAME".to_owned(),
            value: Some("$(BERTH_MODEL_NAME)".to_owned()),
            value_from: None,
        },
    ];
    case("custom-safetensors", "qwen-7b", template, "NVIDIA-L40S", Bytes::mib(43_764))
}

/// A server of the user's for a GGUF file, with a command.
fn custom_gguf() -> Case {
    let model = Model {
        files: Some("*Q4_K_M.gguf".to_owned()),
        ..model("hf://bartowski/Llama-3.3-70B-Instruct-GGUF")
    };
    let mut template = template(&model, EngineType::Custom, Vendor::AMD, 2, Bytes(42_520_395_584));
    template.tensor = 1;
    template.engine.kv_cache_dtype = KvCacheDtype::Q8_0;
    if let Some(server) = &mut template.engine.custom {
        server.command = vec!["/usr/bin/server".to_owned(), "$(BERTH_MODEL_PATH)".to_owned()];
    }
    case("custom-gguf", "llama-70b-gguf", template, "AMD_Instinct_MI210", Bytes::gib(60))
}
