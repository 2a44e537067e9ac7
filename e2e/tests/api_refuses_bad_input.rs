//! Bad input is refused by the API server itself, with words that say what to do; what is unusual
//! but right is accepted; and what people see of the API is what they expect. No operator runs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use berth_crds::{CostProfile, LLMDeployment};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE,
    apply::objects,
    cluster::root,
    llm::{facts_8b, merge},
    verdict::{of_llm, of_profile, of_text},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Resource as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, json};

async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(&Fleet::without_gpus()).await?;
    // Were a CEL rule over the API server's budget, this would fail.
    cluster.install_definitions().await?;
    Ok(cluster)
}

/// A spec with this merged into the smallest one.
fn spec(patch: Value) -> Value {
    let mut spec = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    merge(&mut spec, patch);
    spec
}

fn facts(patch: Value) -> Value {
    let mut facts = facts_8b();
    merge(&mut facts, patch);
    json!({"model": {"facts": facts}})
}

fn uri(uri: &str) -> Value {
    json!({"model": {"uri": uri}})
}

fn engine(patch: Value) -> Value {
    let mut spec = json!({});
    spec["engine"] = patch;
    spec
}

/// A custom engine with this merged in.
fn custom(patch: Value) -> Value {
    let mut engine = json!({"type": "Custom", "image": {"nvidia": "registry.local/server:v1"}});
    merge(&mut engine, patch);
    engine
}

/// What must be refused, and the words that the refusal must contain.
fn bad_specs() -> Vec<(Value, &'static [&'static str])> {
    let long = "x".repeat(1025);
    let many: Vec<String> = (0..65).map(|n| format!("--flag-{n}")).collect();
    let labels: serde_json::Map<_, _> = (0..33).map(|n| (format!("l{n}"), json!("x"))).collect();
    vec![
        // Unknown fields and values.
        (json!({"modle": {}}), &["unknown field", "spec.modle"]),
        (engine(json!({"contextLenght": 4096})), &["unknown field", "spec.engine.contextLenght"]),
        (json!({"gpu": {"sharing": "Shared"}}), &["unknown field", "spec.gpu.sharing"]),
        (engine(json!({"type": "Ollama"})), &["spec.engine.type", "\"VLLM\"", "\"LlamaCpp\""]),
        (engine(json!({"type": "vllm"})), &["spec.engine.type", "\"VLLM\""]),
        (engine(json!({"imagePullPolicy": "Sometimes"})), &["imagePullPolicy", "\"IfNotPresent\""]),
        (engine(json!({"kvCacheDtype": "FP4"})), &["kvCacheDtype", "\"FP8\""]),
        (json!({"gpu": {"vendor": "Nvidia"}}), &["spec.gpu.vendor", "\"NVIDIA\"", "\"AMD\""]),
        (json!({"placement": {"strategy": "Random"}}), &["placement.strategy", "\"Pack\""]),
        (
            json!({"placement": {"tolerations": [{"key": "a", "effect": "Never"}]}}),
            &["tolerations[0].effect", "\"NoSchedule\""],
        ),
        (facts(json!({"quantization": "EXL2"})), &["facts.quantization", "\"AWQ\""]),
        // Wrong types.
        (json!({"replicas": "3"}), &["spec.replicas", "integer"]),
        (json!({"suspend": "yes"}), &["spec.suspend", "boolean"]),
        (json!({"model": "hf://Qwen/Qwen2.5-7B-Instruct"}), &["spec.model", "object"]),
        // Negative and absurd sizes.
        (json!({"replicas": -1}), &["spec.replicas", "greater than or equal to 0"]),
        (json!({"replicas": 1001}), &["spec.replicas", "less than or equal to 1000"]),
        (json!({"gpu": {"count": 0}}), &["spec.gpu.count", "greater than or equal to 1"]),
        (json!({"gpu": {"count": -8}}), &["spec.gpu.count", "greater than or equal to 1"]),
        (json!({"gpu": {"count": 65}}), &["spec.gpu.count", "less than or equal to 64"]),
        (json!({"gpu": {"memory": "-1Gi"}}), &["spec.gpu.memory"]),
        (json!({"gpu": {"memory": -1}}), &["spec.gpu.memory"]),
        (json!({"gpu": {"memory": "lots"}}), &["spec.gpu.memory"]),
        (json!({"gpu": {"memory": ""}}), &["spec.gpu.memory"]),
        (json!({"gpu": {"memory": "99999999999999999999Gi"}}), &["spec.gpu.memory"]),
        (json!({"resources": {"cpu": -2}}), &["spec.resources.cpu"]),
        (json!({"resources": {"cpu": "-2"}}), &["spec.resources.cpu"]),
        (json!({"resources": {"memory": "1e99"}}), &["spec.resources.memory"]),
        (json!({"resources": {"sharedMemory": "16 Gi"}}), &["spec.resources.sharedMemory"]),
        (json!({"resources": {"ephemeralStorage": true}}), &["spec.resources.ephemeralStorage"]),
        (engine(json!({"contextLength": 0})), &["contextLength", "greater than or equal to 256"]),
        (engine(json!({"contextLength": -4096})), &["contextLength"]),
        (
            engine(json!({"contextLength": 100_000_001})),
            &["contextLength", "less than or equal to"],
        ),
        (engine(json!({"maxConcurrency": 0})), &["maxConcurrency", "greater than or equal to 1"]),
        (engine(json!({"maxConcurrency": 10_001})), &["maxConcurrency"]),
        (engine(json!({"startupTimeout": "10s"})), &["startupTimeout", "between 30s and 24h"]),
        (engine(json!({"startupTimeout": "25h"})), &["startupTimeout", "between 30s and 24h"]),
        (engine(json!({"startupTimeout": "-90s"})), &["startupTimeout"]),
        (engine(json!({"startupTimeout": "2 days"})), &["startupTimeout"]),
        (engine(json!({"startupTimeout": ""})), &["startupTimeout"]),
        (engine(json!({"shutdownGrace": "25h"})), &["shutdownGrace", "at most 24h"]),
        (json!({"endpoint": {"port": 0}}), &["spec.endpoint.port"]),
        (json!({"endpoint": {"port": 65536}}), &["spec.endpoint.port"]),
        (facts(json!({"layers": 0})), &["facts.layers"]),
        (facts(json!({"layers": 1001})), &["facts.layers"]),
        (facts(json!({"hiddenSize": -4096})), &["facts.hiddenSize"]),
        (facts(json!({"weightBytes": -1})), &["facts.weightBytes"]),
        (facts(json!({"parameters": 5})), &["facts.parameters"]),
        // The model.
        (json!({"model": null}), &["spec.model", "Required"]),
        (uri(""), &["spec.model.uri"]),
        (uri("Qwen/Qwen2.5-7B-Instruct"), &["spec.model.uri", "hf://ORG/NAME", "pvc://CLAIM"]),
        (uri("https://huggingface.co/Qwen/Qwen2.5-7B"), &["model.uri must be one of"]),
        (uri("hf://Qwen"), &["model.uri must be one of"]),
        (uri("hf://Qwen/Qwen2.5/7B"), &["model.uri must be one of"]),
        (uri("hf://Qwen/Qwen2.5-7B\n"), &["model.uri must be one of"]),
        (uri("hf://Qwen/Qwen2.5-7B; rm -rf /"), &["model.uri must be one of"]),
        (uri("HF://Qwen/Qwen2.5-7B"), &["model.uri must be one of"]),
        (uri("s3://bucket"), &["model.uri must be one of"]),
        (uri("s3://Bucket/model"), &["model.uri must be one of"]),
        (uri("oci://registry.example.org"), &["model.uri must be one of"]),
        (uri("oci://registry.example.org/m@sha256:abc"), &["model.uri must be one of"]),
        (uri("pvc://"), &["model.uri must be one of"]),
        (uri("pvc://models/../other"), &["must not contain '..'"]),
        (uri("pvc://models/a/.."), &["must not contain '..'"]),
        (uri(&format!("hf://a/{}", "b".repeat(600))), &["spec.model.uri", "512"]),
        (json!({"model": {"servedName": "a b"}}), &["spec.model.servedName"]),
        (json!({"model": {"revision": "--evil"}}), &["spec.model.revision"]),
        (json!({"model": {"files": "$(id)"}}), &["spec.model.files"]),
        (json!({"model": {"files": "../*.gguf"}}), &["spec.model.files"]),
        (json!({"model": {"files": "a/../../b"}}), &["model.files must not contain '..'"]),
        (
            json!({"model": {"files": "m-Q4_K_M.gguf"}, "engine": {"type": "VLLM"}}),
            &["VLLM and SGLang do not serve GGUF"],
        ),
        (
            json!({"model": {"uri": "s3://bucket/m", "revision": "main"}}),
            &["model.revision is only for hf://"],
        ),
        (
            json!({"model": {"uri": "pvc://m/p", "secretRef": {"name": "s"}}}),
            &["model.secretRef is only for hf:// and s3://"],
        ),
        (json!({"model": {"secretRef": {}}}), &["spec.model.secretRef.name", "Required"]),
        // Facts that cannot be.
        (facts(json!({"kvHeads": 64})), &["kvHeads must not be larger"]),
        (facts(json!({"intermediateSize": null})), &["one of intermediateSize, moe, parameters"]),
        (facts(json!({"layers": null})), &["facts.layers", "Required"]),
        (
            facts(json!({"slidingWindow": {"tokens": 4096, "layers": 33}})),
            &["slidingWindow.layers must not be larger"],
        ),
        (
            facts(json!({"recurrent": {"attentionLayers": 33, "stateBytesPerSequence": 1}})),
            &["recurrent.attentionLayers must not be larger"],
        ),
        // What excludes each other.
        (
            json!({"model": {"uri": "hf://bartowski/Qwen-GGUF"}, "engine": {"type": "VLLM"}}),
            &["VLLM and SGLang do not serve GGUF"],
        ),
        (
            engine(json!({"type": "LlamaCpp", "kvCacheDtype": "FP8"})),
            &["kvCacheDtype must be Auto or FP8 for VLLM"],
        ),
        (
            engine(json!({"type": "SGLang", "kvCacheDtype": "Q8_0"})),
            &["FP8 or FP8_E5M2 for SGLang"],
        ),
        (engine(json!({"type": "VLLM", "kvCacheDtype": "FP8_E5M2"})), &["Auto or FP8 for VLLM"]),
        (
            json!({"model": {"files": "m-Q4_K_M.gguf"}, "engine": {"type": "SGLang"}}),
            &["VLLM and SGLang do not serve GGUF"],
        ),
        // A custom engine, and what only that has.
        (engine(json!({"type": "Custom"})), &["Custom needs an image", "engine.image.nvidia"]),
        (engine(json!({"type": "Custom", "image": {}})), &["Custom needs an image"]),
        (
            json!({"engine": custom(json!({})), "gpu": {"vendor": "AMD"}}),
            &["needs an image for gpu.vendor"],
        ),
        (engine(json!({"type": "VLLM", "port": 8080})), &["for engine.type Custom only"]),
        (engine(json!({"command": ["serve"]})), &["for engine.type Custom only"]),
        (engine(json!({"type": "SGLang", "healthPath": "/"})), &["for engine.type Custom only"]),
        (engine(json!({"type": "LlamaCpp", "runAsUser": 1})), &["for engine.type Custom only"]),
        (
            engine(json!({"writableDirectories": [{"path": "/data"}]})),
            &["for engine.type Custom only"],
        ),
        (engine(custom(json!({"port": 80}))), &["engine.port", "greater than or equal to 1024"]),
        (engine(custom(json!({"healthPath": "health"}))), &["engine.healthPath"]),
        (engine(custom(json!({"runAsUser": 0}))), &["engine.runAsUser"]),
        (
            engine(custom(json!({"writableDirectories": [{"path": "data"}]}))),
            &["writableDirectories[0].path"],
        ),
        (
            engine(custom(json!({"writableDirectories": [{"path": "/a/../etc"}]}))),
            &["must not contain '..'"],
        ),
        (
            engine(custom(json!({"writableDirectories": [{"path": "/model/x"}]}))),
            &["nor be in /model"],
        ),
        (
            engine(custom(json!({"writableDirectories": [{"path": "/a"}, {"path": "/a"}]}))),
            &["Duplicate value"],
        ),
        (
            engine(json!({"type": "VLLM", "kvCacheDtype": "Q8_0"})),
            &["kvCacheDtype must be Auto or FP8 for VLLM"],
        ),
        (
            json!({"gpu": {"count": 4, "parallelism": {"tensor": 2}}}),
            &["gpu.count must equal gpu.parallelism.tensor"],
        ),
        (
            json!({"placement": {"tolerations": [{"operator": "Equal"}]}}),
            &["a toleration without a key needs operator Exists"],
        ),
        (
            json!({"placement": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}),
            &["operator Exists takes no value"],
        ),
        // The environment and the arguments.
        (
            engine(json!({"env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]})),
            &["env[0].name", "decided by Berth"],
        ),
        (
            engine(json!({"env": [{"name": "ROCR_VISIBLE_DEVICES", "value": "0"}]})),
            &["env[0].name", "decided by Berth"],
        ),
        (engine(json!({"env": [{"name": "A"}]})), &["exactly one of value and valueFrom"]),
        (
            engine(json!({"env": [{
                "name": "A", "value": "b",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
            }]})),
            &["exactly one of value and valueFrom"],
        ),
        (
            engine(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]})),
            &["env[1]", "Duplicate"],
        ),
        (engine(json!({"env": [{"name": "1A", "value": "b"}]})), &["env[0].name"]),
        (engine(json!({"args": [long]})), &["engine.args[0]", "1024"]),
        (engine(json!({"args": many})), &["engine.args", "64"]),
        (engine(json!({"image": {"nvidia": "a b"}})), &["engine.image.nvidia"]),
        (engine(json!({"image": {"nvidia": ""}})), &["engine.image.nvidia"]),
        // The pods.
        (
            json!({"podTemplate": {"labels": {"berth.dev/replica": "0"}}}),
            &["podTemplate.labels", "Berth sets those"],
        ),
        (
            json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}),
            &["podTemplate.labels", "Berth sets those"],
        ),
        (
            json!({"podTemplate": {"annotations": {"berth.dev/claim": "{}"}}}),
            &["podTemplate.annotations", "Berth sets those"],
        ),
        (json!({"podTemplate": {"labels": labels}}), &["podTemplate.labels", "32"]),
        (json!({"podTemplate": {"hostNetwork": true}}), &["unknown field"]),
        (json!({"priorityClassName": ""}), &["spec.priorityClassName"]),
        (json!({"gpu": {"products": ["A", "A"]}}), &["spec.gpu.products[1]", "Duplicate"]),
        (json!({"gpu": {"products": [""]}}), &["spec.gpu.products[0]"]),
        (json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}), &["Duplicate"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_llmdeployments_are_refused_with_a_reason() -> Result<()> {
    let cluster = cluster().await?;
    let mut wrong = Vec::new();
    for (patch, words) in bad_specs() {
        let verdict = of_llm(&cluster.client, "bad", spec(patch.clone())).await?;
        if let Err(error) = verdict.refused_with(words) {
            wrong.push(format!("{patch}: {error:#}"));
        }
    }
    let too_long = "a".repeat(41);
    for (name, words) in [
        (too_long.as_str(), "metadata.name must be 1 to 40"),
        ("7b", "metadata.name must be 1 to 40"),
        ("a.b", "metadata.name must be 1 to 40"),
        ("-a", "metadata.name"),
        ("Qwen", "metadata.name"),
        ("a_b", "metadata.name"),
    ] {
        let verdict = of_llm(&cluster.client, name, spec(json!({}))).await?;
        if let Err(error) = verdict.refused_with(&[words]) {
            wrong.push(format!("name {name}: {error:#}"));
        }
    }
    let no_spec = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "bad"},
    });
    let twice = r#"{"apiVersion": "berth.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": "bad"},
        "spec": {"model": {"uri": "hf://a/b"}, "replicas": 1, "replicas": 2}}"#;
    for (text, words) in [
        (no_spec.to_string(), ["spec", "Required"]),
        (twice.to_owned(), ["duplicate field", "spec.replicas"]),
    ] {
        let verdict = of_text::<LLMDeployment>(&cluster.client, Some(NAMESPACE), text).await?;
        if let Err(error) = verdict.refused_with(&words) {
            wrong.push(format!("{words:?}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of the bad specs:\n{}", wrong.len(), wrong.join("\n"));
    cluster.passed()
}

/// What must be accepted.
fn good_specs() -> Vec<Value> {
    let digest = "a".repeat(64);
    vec![
        spec(json!({})),
        spec(json!({"replicas": 0})),
        spec(json!({"replicas": 1000, "suspend": true})),
        spec(uri("hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF")),
        spec(json!({
            "model": {"uri": "hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "files": "*Q4_K_M.gguf"},
            "engine": {"type": "LlamaCpp", "kvCacheDtype": "Q8_0"},
        })),
        spec(uri("oci://registry.example.org:5000/models/llama:3.1-8b")),
        spec(uri(&format!("oci://registry.example.org/models/llama@sha256:{digest}"))),
        spec(uri(&format!("oci://registry.example.org/models/llama:3.1@sha256:{digest}"))),
        spec(json!({"model": {"uri": "s3://models/llama/8b/", "secretRef": {"name": "s3"}}})),
        spec(uri("pvc://models")),
        spec(uri("pvc://models/llama-3.1/8b..final")),
        spec(json!({"model": {"revision": "refs/pr/1", "secretRef": {"name": "hub"}}})),
        spec(json!({"model": {"servedName": "meta/llama-3.1:8b"}})),
        spec(json!({"gpu": {"count": 3}})),
        spec(json!({"gpu": {"count": 8, "parallelism": {"tensor": 8}, "vendor": "AMD"}})),
        spec(json!({"gpu": {"products": ["NVIDIA-H100-80GB-HBM3"], "memory": "70.5Gi"}})),
        spec(json!({"gpu": {"memory": 80_000_000_000_u64}})),
        spec(json!({"resources": {"cpu": 8, "memory": "64Gi"}})),
        spec(
            json!({"resources": {"cpu": "1500m", "sharedMemory": 0, "ephemeralStorage": "1.5Ti"}}),
        ),
        spec(engine(json!({"contextLength": 256, "maxConcurrency": 10_000}))),
        spec(engine(json!({"contextLength": 100_000_000}))),
        spec(engine(json!({"type": "VLLM", "kvCacheDtype": "FP8"}))),
        spec(engine(json!({"kvCacheDtype": "Auto"}))),
        spec(engine(json!({"type": "SGLang", "kvCacheDtype": "FP8_E5M2"}))),
        spec(engine(custom(json!({"kvCacheDtype": "Q8_0"})))),
        spec(json!({"model": {"files": "m-Q4_K_M.gguf"}, "engine": custom(json!({}))})),
        spec(engine(custom(json!({
            "command": ["/bin/sh", "-c"],
            "args": ["exec server --model $(BERTH_MODEL_PATH)"],
            "port": 11434, "healthPath": "/", "runAsUser": 65534,
            "writableDirectories": [{"path": "/data"}, {"path": "/models", "size": "20Gi"}],
        })))),
        spec(engine(json!({"startupTimeout": "1h30m", "shutdownGrace": "0s"}))),
        spec(engine(json!({"startupTimeout": "24h", "shutdownGrace": "24h"}))),
        spec(engine(
            json!({"args": ["--chat-template", "{{ \"ü\" | e }}; $(x) 'quoted' \"too\""]}),
        )),
        spec(engine(json!({"env": [
            {"name": "EMPTY", "value": ""},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}))),
        spec(engine(json!({"image": {
            "nvidia": format!("registry.example.org:5000/vllm/vllm-openai@sha256:{digest}"),
            "amd": "vllm-rocm:1",
        }}))),
        spec(json!({"placement": {
            "strategy": "Spread",
            "nodeSelector": {"topology.kubernetes.io/region": "eu-de-1"},
            "tolerations": [
                {"operator": "Exists"},
                {"key": "team", "value": "a", "effect": "NoExecute"},
                {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            ],
        }})),
        spec(json!({"endpoint": {"port": 65535}})),
        spec(json!({
            "priorityClassName": "berth-high",
            "runtimeClassName": "nvidia",
            "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
        })),
        spec(json!({"podTemplate": {
            "labels": {"team": "a", "empty": ""},
            "annotations": {"example.org/note": "Grüße, 世界"},
        }})),
        spec(facts(json!({}))),
        spec(facts(json!({"intermediateSize": null, "weightBytes": 16_000_000_000_u64}))),
        spec(facts(json!({
            "quantization": "AWQ", "grouped": {"bits": 4, "groupSize": 128}, "tiedEmbeddings": true,
        }))),
        spec(facts(json!({"kvHeads": 1, "slidingWindow": {"tokens": 4096, "layers": 32}}))),
        spec(facts(json!({
            "mla": {
                "kvLoraRank": 512, "qkRopeHeadDim": 64, "qkNopeHeadDim": 128, "vHeadDim": 128,
                "qLoraRank": 1536,
            },
            "moe": {
                "experts": 256, "expertsPerToken": 8, "expertIntermediateSize": 2048,
                "sharedExperts": 1, "denseLayers": 3,
            },
            "quantization": "FP8",
        }))),
        spec(facts(json!({
            "parameters": 9_000_000_000_u64,
            "recurrent": {"attentionLayers": 4, "stateBytesPerSequence": 50_000_000},
        }))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_but_right_llmdeployments_are_accepted() -> Result<()> {
    let cluster = cluster().await?;
    let mut wrong = Vec::new();
    for spec in good_specs() {
        let verdict = of_llm(&cluster.client, "good", spec.clone()).await?;
        match verdict.accepted() {
            // What the API server accepts, our own types must be able to read.
            Ok(object) => {
                if let Err(error) = serde_json::from_value::<LLMDeployment>(object) {
                    wrong.push(format!("{spec} cannot be read: {error}"));
                }
            }
            Err(error) => wrong.push(format!("{spec}: {error:#}")),
        }
    }
    let longest = "a".repeat(40);
    for name in ["a", "a-7b", longest.as_str()] {
        if let Err(error) = of_llm(&cluster.client, name, spec(json!({}))).await?.accepted() {
            wrong.push(format!("name {name}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of the good specs:\n{}", wrong.len(), wrong.join("\n"));
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted() -> Result<()> {
    let cluster = cluster().await?;
    let folder = root()?.join("docs/examples");
    let mut models = 0;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        for object in objects(&text).with_context(|| path.display().to_string())? {
            let text = object.to_string();
            let verdict = match object["kind"].as_str() {
                Some("LLMDeployment") => {
                    models += 1;
                    of_text::<LLMDeployment>(&cluster.client, Some(NAMESPACE), text).await?
                }
                Some("CostProfile") => of_text::<CostProfile>(&cluster.client, None, text).await?,
                other => anyhow::bail!("{} holds a {other:?}", path.display()),
            };
            verdict.accepted().with_context(|| path.display().to_string())?;
        }
    }
    ensure!(models >= 8, "{models} models");
    cluster.passed()
}

fn prices(patch: Value) -> Value {
    let mut entry = json!({
        "name": "h100",
        "products": ["NVIDIA-H100-80GB-HBM3"],
        "owned": {"price": "280000", "lifeMonths": 48},
    });
    merge(&mut entry, patch);
    json!({"currency": "EUR", "hardware": [entry]})
}

fn with(mut spec: Value, patch: Value) -> Value {
    merge(&mut spec, patch);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_profiles_without_usable_prices_are_refused() -> Result<()> {
    let cluster = cluster().await?;
    let plain = || prices(json!({}));
    let bad: [(Value, &[&str]); 25] = [
        (json!({}), &["Required"]),
        (with(plain(), json!({"hardware": null})), &["spec.hardware", "Required"]),
        (with(plain(), json!({"hardware": []})), &["spec.hardware", "at least 1"]),
        (with(plain(), json!({"currency": null})), &["spec.currency", "Required"]),
        (with(plain(), json!({"currency": "euro"})), &["spec.currency"]),
        (with(plain(), json!({"currency": "€"})), &["spec.currency"]),
        (prices(json!({"owned": null})), &["exactly one of owned", "rented"]),
        (prices(json!({"rented": {"perHour": "20"}})), &["exactly one of owned", "rented"]),
        (prices(json!({"products": null})), &["needs products or nodeSelector"]),
        (prices(json!({"products": []})), &["needs products or nodeSelector"]),
        (
            prices(json!({"products": null, "nodeSelector": {}})),
            &["needs products or nodeSelector"],
        ),
        (prices(json!({"owned": {"price": null}})), &["owned.price", "Required"]),
        (prices(json!({"owned": {"price": "-5"}})), &["owned.price"]),
        (prices(json!({"owned": {"price": ""}})), &["owned.price"]),
        (prices(json!({"owned": {"price": "1e6"}})), &["owned.price"]),
        (prices(json!({"owned": {"price": "280,000"}})), &["owned.price"]),
        (prices(json!({"owned": {"price": 280_000}})), &["owned.price", "string"]),
        (prices(json!({"owned": {"lifeMonths": 0}})), &["owned.lifeMonths"]),
        (prices(json!({"owned": {"lifeMonths": null}})), &["owned.lifeMonths", "Required"]),
        (prices(json!({"gpuPowerWatts": -700})), &["gpuPowerWatts"]),
        (prices(json!({"hostPowerWatts": 100_001})), &["hostPowerWatts"]),
        (prices(json!({"name": ""})), &["hardware[0].name"]),
        (with(plain(), json!({"energy": {}})), &["energy.perKilowattHour", "Required"]),
        (with(plain(), json!({"energie": {}})), &["unknown field", "spec.energie"]),
        (prices(json!({"owned": {"discount": "0.1"}})), &["unknown field", "discount"]),
    ];
    let mut wrong = Vec::new();
    for (spec, words) in bad {
        let verdict = of_profile(&cluster.client, spec.clone()).await?;
        if let Err(error) = verdict.refused_with(words) {
            wrong.push(format!("{spec}: {error:#}"));
        }
    }
    let mut double = plain();
    double["hardware"] = json!([double["hardware"][0], double["hardware"][0]]);
    let verdict = of_profile(&cluster.client, double).await?;
    if let Err(error) = verdict.refused_with(&["hardware[1]", "Duplicate"]) {
        wrong.push(format!("two entries of a name: {error:#}"));
    }
    let good = [
        plain(),
        prices(json!({"owned": null, "rented": {"perHour": "0"}})),
        prices(json!({"products": null, "nodeSelector": {"rack": "r1"}})),
        prices(json!({
            "owned": {
                "price": "280000.50", "residual": "20000", "capitalRate": "0.06",
                "maintenanceRate": "0.10",
            },
            "gpuPowerWatts": 700, "hostPowerWatts": 2500, "facilityPerMonth": "450",
            "staffPerMonth": "300",
        })),
        with(plain(), json!({"energy": {"perKilowattHour": "0.12", "pue": "1.54"}})),
    ];
    for spec in good {
        if let Err(error) = of_profile(&cluster.client, spec.clone()).await?.accepted() {
            wrong.push(format!("{spec}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of the profiles:\n{}", wrong.len(), wrong.join("\n"));
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_defaults_columns_scale_and_explanations() -> Result<()> {
    let cluster = cluster().await?;
    let llms: Api<LLMDeployment> = cluster.api();
    let plain: LLMDeployment = serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "plain"},
        "spec": {"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}, "engine": {}},
    }))?;
    llms.create(&PostParams::default(), &plain).await?;

    defaults_are_shown(&cluster).await?;
    spec_and_status_are_written_apart(&llms).await?;
    the_table_shows_what_a_person_wants(&cluster).await?;
    it_scales(&llms).await?;
    it_has_a_short_name(&cluster).await?;
    nothing_is_immutable(&llms).await?;
    every_field_is_explained(&cluster).await?;
    cluster.passed()
}

/// Static defaults stand in the object; what Berth chooses does not.
async fn defaults_are_shown(cluster: &Cluster) -> Result<()> {
    let seen: Value = {
        let url = format!("{}/plain", LLMDeployment::url_path(&(), Some(NAMESPACE)));
        let request = Request::new(url).list(&ListParams::default())?;
        cluster.client.request(request).await?
    };
    for (path, default) in [
        ("/spec/replicas", json!(1)),
        ("/spec/suspend", json!(false)),
        ("/spec/endpoint/port", json!(80)),
        ("/spec/placement/strategy", json!("Pack")),
        ("/spec/engine/imagePullPolicy", json!("IfNotPresent")),
        ("/spec/model/trustRemoteCode", json!(false)),
    ] {
        ensure!(seen.pointer(path) == Some(&default), "{path} is not {default}: {}", seen["spec"]);
    }
    for path in ["/spec/gpu", "/spec/resources", "/spec/engine/type", "/spec/engine/contextLength"]
    {
        ensure!(seen.pointer(path).is_none(), "{path} is set by nobody: {}", seen["spec"]);
    }
    Ok(())
}

async fn spec_and_status_are_written_apart(llms: &Api<LLMDeployment>) -> Result<()> {
    let untouched = Patch::Merge(json!({"status": {"readyReplicas": 7}}));
    llms.patch("plain", &PatchParams::default(), &untouched).await?;
    let status = Patch::Merge(json!({
        "spec": {"replicas": 9},
        "status": {
            "replicas": 2, "readyReplicas": 1, "ready": "1/3", "gpus": 2, "vram": "151.4 GiB",
            "selector": "berth.dev/deployment=plain,berth.dev/rank=0",
            "model": {"name": "Qwen2.5-7B-Instruct", "weightBytes": 15_231_233_024_u64, "facts": "x"},
            "cost": {"hourly": "2.34 EUR", "complete": true},
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "Loading", "message": "1 of 3 answers",
                "lastTransitionTime": "2026-11-01T00:00:00Z",
            }],
        },
    }));
    let written = llms.patch_status("plain", &PatchParams::default(), &status).await?;
    ensure!(written.spec.replicas == 1, "the status subresource changed the spec");
    ensure!(written.status.is_some_and(|s| s.ready_replicas == 1), "status was written elsewhere");
    Ok(())
}

/// `kubectl get llm`.
async fn the_table_shows_what_a_person_wants(cluster: &Cluster) -> Result<()> {
    let table = table(cluster).await?;
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .context("no columns")?
        .iter()
        .map(|c| (c["name"].as_str().unwrap_or_default(), c["priority"].as_i64().unwrap_or(-1)))
        .collect();
    let names = ["Name", "Model", "Engine", "Ready", "GPUs", "VRAM", "Cost/h", "Status", "Age"];
    let shown: Vec<&str> = columns.iter().filter(|(_, p)| *p == 0).map(|(name, _)| *name).collect();
    ensure!(shown == names, "columns are {columns:?}");
    let row = table["rows"][0]["cells"].as_array().context("no row")?;
    for (column, cell) in [
        (1, json!("Qwen2.5-7B-Instruct")),
        (3, json!("1/3")),
        (4, json!(2)),
        (5, json!("151.4 GiB")),
        (6, json!("2.34 EUR")),
        (7, json!("Loading")),
    ] {
        ensure!(row[column] == cell, "column {} shows {}, not {cell}", names[column], row[column]);
    }
    Ok(())
}

/// `kubectl scale`.
async fn it_scales(llms: &Api<LLMDeployment>) -> Result<()> {
    let scale = llms.get_scale("plain").await?;
    let (wanted, there) = (scale.spec.clone(), scale.status.clone());
    ensure!(wanted.and_then(|spec| spec.replicas) == Some(1), "scale shows {scale:?}");
    let there = there.context("scale without status")?;
    ensure!(there.replicas == 2, "scale shows {there:?}");
    ensure!(
        there.selector.as_deref() == Some("berth.dev/deployment=plain,berth.dev/rank=0"),
        "scale shows {there:?}"
    );
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    llms.patch_scale("plain", &PatchParams::default(), &three).await?;
    ensure!(llms.get("plain").await?.spec.replicas == 3, "scaling has no effect");
    Ok(())
}

async fn it_has_a_short_name(cluster: &Cluster) -> Result<()> {
    let resources = cluster.client.list_api_group_resources("berth.dev/v1alpha1").await?.resources;
    let llm = resources.iter().find(|r| r.name == "llmdeployments").context("not served")?;
    ensure!(llm.short_names.as_deref() == Some(&["llm".to_owned()]), "{:?}", llm.short_names);
    let categories = llm.categories.clone().unwrap_or_default();
    ensure!(categories.contains(&"berth".to_owned()), "categories are {categories:?}");
    ensure!(resources.iter().any(|r| r.name == "llmdeployments/scale"), "no scale subresource");
    ensure!(resources.iter().any(|r| r.name == "costprofiles/status"), "no status subresource");
    Ok(())
}

/// Everything in the spec may become something else.
async fn nothing_is_immutable(llms: &Api<LLMDeployment>) -> Result<()> {
    let other = Patch::Merge(json!({"spec": {
        "model": {"uri": "pvc://models/other", "facts": facts_8b(), "servedName": "other"},
        "engine": {"type": "LlamaCpp", "contextLength": 8192, "args": ["--x"]},
        "gpu": {"vendor": "AMD", "count": 2, "products": ["AMD_Instinct_MI300X_OAM"]},
        "resources": {"cpu": "4"},
        "replicas": 2,
        "placement": {"strategy": "Spread", "nodeSelector": {"a": "b"}},
        "endpoint": {"port": 8080},
        "priorityClassName": "berth-low",
        "runtimeClassName": "amd",
        "podTemplate": {"labels": {"a": "b"}},
    }}));
    llms.patch("plain", &PatchParams::default(), &other).await?;
    let back = Patch::Merge(json!({"spec": {
        "model": {"uri": "hf://a/b", "facts": null, "servedName": null},
        "engine": null, "gpu": null, "resources": null, "placement": null, "endpoint": null,
        "priorityClassName": null, "runtimeClassName": null, "podTemplate": null,
    }}));
    llms.patch("plain", &PatchParams::default(), &back).await?;
    Ok(())
}

/// `kubectl explain`: each field says what it is.
async fn every_field_is_explained(cluster: &Cluster) -> Result<()> {
    for definition in cluster.all::<CustomResourceDefinition>().list(&ListParams::default()).await?
    {
        let name = definition.metadata.name.clone().unwrap_or_default();
        for version in &definition.spec.versions {
            let schema = serde_json::to_value(&version.schema)?;
            let spec = schema.pointer("/openAPIV3Schema/properties/spec").context("no spec")?;
            let silent = without_description(spec, "spec");
            ensure!(silent.is_empty(), "{name}: no description of {silent:?}");
        }
    }
    Ok(())
}

/// The table that `kubectl get llm` prints.
async fn table(cluster: &Cluster) -> Result<Value> {
    let url = LLMDeployment::url_path(&(), Some(NAMESPACE));
    let mut request = Request::new(url).list(&ListParams::default())?;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    request.headers_mut().insert("accept", accept.parse()?);
    Ok(cluster.client.request(request).await?)
}

/// The fields of a schema that do not say what they are.
fn without_description(schema: &Value, path: &str) -> Vec<String> {
    let mut silent = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
            silent.push(path.clone());
        }
        silent.extend(without_description(field, &path));
    }
    if schema["items"].is_object() {
        silent.extend(without_description(&schema["items"], &format!("{path}[]")));
    }
    silent
}
