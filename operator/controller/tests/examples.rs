//! The custom engines of `docs/examples`: what is rendered for them is what their images take, by
//! the lists that they publish.

mod common;

use std::{collections::BTreeSet, fs, path::PathBuf};

use berth_crds::LLMDeployment;
use berth_operator::reconcile::resolve::resolve;
use berth_render::{Claim, Owner, Replica, pod, revision};
use berth_units::Bytes;
use common::{defaults, site};
use k8s_openapi::api::core::v1::Container;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The container that the first choice for an example comes to.
fn container(example: &str) -> Container {
    let path = repository().join("docs/examples").join(example);
    let deployment: LLMDeployment =
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let wish = resolve(&deployment, &defaults(), None).unwrap();
    let template = wish.template(wish.contexts[0], wish.degrees[0], wish.vendors[0]).unwrap();
    let replica = Replica {
        deployment: Owner {
            namespace: "team".to_owned(),
            name: deployment.metadata.name.unwrap(),
            uid: "uid".to_owned(),
        },
        revision: revision::hash(&template),
        replica: 0,
        rank: 0,
        attempt: 0,
        node: "gpu-1".to_owned(),
        claim: Claim {
            gpus: template.gpus,
            bytes_per_gpu: Bytes::gib(38),
            total_per_gpu: Bytes::gib(40),
            product: "NVIDIA-A100-SXM4-40GB".to_owned(),
            cache: None,
        },
    };
    pod(&template, &replica, &site()).spec.unwrap().containers.remove(0)
}

fn published(list: &str) -> BTreeSet<String> {
    let path = repository().join("operator/render/tests/published").join(list);
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

/// The version in an image's tag.
fn tag(container: &Container) -> String {
    container.image.as_ref().unwrap().rsplit_once(':').unwrap().1.to_owned()
}

/// A variable as Kubernetes would hand it over, variables before it put in.
fn value(container: &Container, name: &str) -> String {
    let env = container.env.as_ref().unwrap();
    let at = env.iter().position(|variable| variable.name == name).unwrap();
    let mut value = env[at].value.clone().unwrap();
    for earlier in &env[..at] {
        let told = earlier.value.as_deref().unwrap_or_default();
        value = value.replace(&format!("$({})", earlier.name), told);
    }
    assert!(!value.contains("$("), "{name}={value} refers to what is not set before it");
    value
}

#[test]
fn tgi_is_given_arguments_that_it_takes() {
    let engine = container("custom-tgi.yaml");
    let options = published(&format!("text-generation-launcher-{}.txt", tag(&engine)));
    for argument in engine.args.as_ref().unwrap() {
        let (option, told) = argument.split_once('=').unwrap();
        assert!(options.contains(option), "{option}");
        if let Some(name) = told.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')) {
            assert!(!value(&engine, name).is_empty(), "{name}");
        }
    }
    assert!(value(&engine, "BERTH_MODEL_PATH").starts_with("/model/hf--Qwen--Qwen2.5-7B-Instruct"));
    assert_eq!(value(&engine, "BERTH_GPU_MEMORY_FRACTION"), "0.95");
    assert_eq!(value(&engine, "BERTH_PORT"), "8000");
    assert_eq!(engine.command, None, "the image's own");
    assert_eq!(engine.working_dir, None, "the image's own");
}

#[test]
fn ollama_is_given_variables_that_it_reads() {
    let engine = container("custom-ollama.yaml");
    let known = published(&format!("ollama-{}-env.txt", tag(&engine)));
    let ours = engine.env.as_ref().unwrap().iter().map(|variable| variable.name.as_str());
    let ollamas: Vec<&str> = ours.filter(|name| name.starts_with("OLLAMA_")).collect();
    assert_eq!(ollamas.len(), 8);
    for name in ollamas {
        assert!(known.contains(name), "{name}");
    }
    assert_eq!(value(&engine, "OLLAMA_HOST"), "0.0.0.0:11434");
    assert_eq!(value(&engine, "OLLAMA_CONTEXT_LENGTH"), "8192");
    assert_eq!(value(&engine, "OLLAMA_NUM_PARALLEL"), "4");
    assert!(value(&engine, "BERTH_MODEL_PATH").ends_with("/.berth/model.gguf"));
    let store = value(&engine, "OLLAMA_MODELS");
    assert!(engine.volume_mounts.unwrap().iter().any(|mount| mount.mount_path == store));
    let probe = engine.readiness_probe.unwrap().http_get.unwrap();
    assert_eq!(probe.path.as_deref(), Some("/v1/models/llama-3.1-8b"));
    assert_eq!(engine.ports.unwrap()[0].container_port, 11434);
}
