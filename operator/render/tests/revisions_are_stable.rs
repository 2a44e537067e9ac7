//! A revision outlives the operator that made it: what it holds is read back unchanged, and its
//! hash is the same in every version.

mod common;

use berth_render::{Template, pod, revision};
use berth_units::Bytes;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;

#[test]
fn templates_survive_json() {
    for case in common::cases() {
        let made = revision::revision(&case.replica.deployment, &case.template, 1, "{}");
        let text = serde_json::to_string(&made).unwrap();
        let read = serde_json::from_str(&text).unwrap();
        assert_eq!(revision::parse(&read).unwrap(), case.template, "{}", case.name);
    }
}

/// A changed hash would make a new name for every template there is: a conscious act, or a
/// mistake. The template is written out here, so that no newer default can change it.
#[test]
fn the_hash_is_what_it_was() {
    let template: Template = serde_json::from_str(TEMPLATE).unwrap();
    assert_eq!(revision::hash(&template), "vjjwrz4k");
}

/// A revision that an earlier Berth made renders what it rendered then, whatever this one would do:
/// its engine is told the same part of the GPU.
#[test]
fn an_older_revision_renders_as_it_did() {
    let template: Template = serde_json::from_str(TEMPLATE).unwrap();
    let replica = common::replica("model", &template, "NVIDIA-L40S", Bytes::mib(43_764));
    let pod = pod(&template, &replica, &common::site());
    let engine = &pod.spec.unwrap().containers[0];
    assert_eq!(engine.command.as_ref().unwrap(), &["vllm", "serve"]);
    let location = template.source.location().directory;
    let then = [
        &location,
        "--served-model-name",
        "model",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--tensor-parallel-size",
        "1",
        "--gpu-memory-utilization",
        "0.95",
        "--max-model-len",
        "32768",
        "--max-num-seqs",
        "256",
        "--max-num-batched-tokens",
        "8192",
        "--shutdown-timeout",
        "60",
        "--enable-prefix-caching",
    ];
    assert_eq!(engine.args.as_ref().unwrap(), &then);
}

const TEMPLATE: &str = r#"{
    "source": {"type": "hub", "repository": "org/model", "revision": "main"},
    "servedName": "model",
    "engine": {
        "type": "VLLM",
        "image": "registry.example.com/vllm:v1",
        "imagePullPolicy": "IfNotPresent",
        "args": ["--enable-prefix-caching"],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "kvCacheDtype": "Auto",
        "maxNumSeqs": 256,
        "maxNumBatchedTokens": 8192
    },
    "vendor": "NVIDIA",
    "gpus": 1,
    "tensor": 1,
    "contextLength": 32768,
    "maxConcurrency": 1,
    "weightBytes": 16060556376,
    "estimate": {
        "weights": 16060556376,
        "kvCache": 4294967296,
        "activation": 805306368,
        "nonTorch": 279172874,
        "graphs": 1181116006,
        "margin": 1073741824,
        "total": 23694860744,
        "kvBytesPerToken": 131072,
        "basis": "catalogue"
    },
    "resources": {
        "cpu": 6000,
        "memory": 11811160064,
        "sharedMemory": 1073741824,
        "ephemeralStorage": 32212254720
    },
    "startupTimeoutSeconds": 600,
    "shutdownGraceSeconds": 60,
    "priorityClass": "berth-default"
}"#;

#[test]
fn the_hash_does_not_depend_on_the_order_of_keys() {
    let template = common::cases().remove(4).template;
    let text = serde_json::to_string_pretty(&template).unwrap();
    // Read as the API server may hand it back, every object in another order.
    let turned: Template =
        serde_json::from_value(turn(serde_json::from_str(&text).unwrap())).unwrap();
    assert_eq!(revision::hash(&turned), revision::hash(&template));
}

fn turn(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => {
            fields.into_iter().rev().map(|(key, value)| (key, turn(value))).collect()
        }
        other => other,
    }
}

#[test]
fn what_is_no_template_is_an_error_with_the_name() {
    let case = common::cases().remove(0);
    let mut made = revision::revision(&case.replica.deployment, &case.template, 1, "{}");
    let name = made.metadata.name.clone().unwrap();
    made.data = RawExtension(serde_json::Value::Null);
    assert!(revision::parse(&made).unwrap_err().to_string().contains(&name));
    made.data = RawExtension(serde_json::json!({"replicas": 3}));
    assert!(revision::parse(&made).unwrap_err().to_string().contains(&name));
}
