//! From a spec to what would run, and what an edit or a newer operator changes about it.

mod common;

use berth_crds::llm_deployment::{EngineType, Vendor};
use berth_operator::reconcile::{
    canonical::canonical,
    problem::Problem,
    resolve::{Serving, resolve},
    wish::Wish,
};
use berth_render::Template;
use common::{defaults, deployment};
use serde_json::{Value, json};

fn wish(spec: Value) -> Wish {
    resolve(&deployment(spec), &defaults(), None).unwrap()
}

fn problem(spec: Value) -> Problem {
    resolve(&deployment(spec), &defaults(), None).unwrap_err()
}

/// Freezes the first choice of a wish.
fn freeze(wish: &Wish) -> Template {
    wish.template(wish.contexts[0], wish.degrees[0], wish.vendors[0]).unwrap()
}

#[test]
fn the_smallest_manifest_is_enough() {
    let wish = wish(json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}}));
    assert_eq!(wish.contexts, [32768, 16384, 8192, 4096]);
    assert_eq!(wish.degrees[..2], [1, 2]);
    assert_eq!(wish.vendors, [Vendor::NVIDIA, Vendor::AMD]);
    let template = freeze(&wish);
    assert_eq!(template.engine.type_, EngineType::VLLM);
    assert_eq!(template.served_name, "Qwen2.5-7B-Instruct");
    assert_eq!(template.priority_class, "berth-default");
    assert_eq!((template.gpus, template.tensor), (1, 1));
}

#[test]
fn gguf_files_are_served_by_llama_cpp_which_splits_by_layers() {
    let wish = wish(json!({
        "model": {"uri": "hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "files": "*Q4_K_M.gguf"},
        "gpu": {"count": 3},
    }));
    let template = freeze(&wish);
    assert_eq!(template.engine.type_, EngineType::LlamaCpp);
    assert_eq!((template.gpus, template.tensor), (3, 1));
}

#[test]
fn what_the_spec_says_is_taken_as_it_is() {
    let wish = wish(json!({
        "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "servedName": "chat"},
        "engine": {"contextLength": 65536, "maxConcurrency": 4, "shutdownGrace": "5m",
                   "image": {"nvidia": "registry.local/vllm:1"}, "kvCacheDtype": "FP8"},
        "gpu": {"vendor": "NVIDIA", "products": ["NVIDIA-H200"], "parallelism": {"tensor": 2},
                "memory": "30Gi"},
        "resources": {"cpu": 8, "sharedMemory": "1Gi", "memory": "16Gi"},
    }));
    let template = freeze(&wish);
    assert_eq!(wish.contexts, [65536]);
    assert_eq!((template.gpus, template.max_concurrency), (2, 4));
    assert_eq!(template.engine.image, "registry.local/vllm:1");
    assert_eq!(template.estimate.total.to_string(), "30.0 GiB");
    assert_eq!(template.estimate.basis, "spec.gpu.memory");
    assert_eq!(template.resources.memory.to_string(), "17.0 GiB", "shared memory comes on top");
    assert_eq!(template.shutdown_grace_seconds, 300);
    assert_eq!(template.served_name, "chat");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    for (spec, reason, parts) in [
        (
            json!({"model": {"uri": "hf://acme/secret-7b"}}),
            "UnknownModel",
            vec!["hf://acme/secret-7b", "hiddenSize", "spec.model.facts", "config.json"],
        ),
        (
            json!({"model": {"uri": "hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"}}),
            "UnknownModel",
            vec!["spec.model.files", "Q4_K_M"],
        ),
        (
            json!({"model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}, "gpu": {"count": 3}}),
            "InvalidParallelism",
            vec!["3", "32 attention heads", "1, 2, 4"],
        ),
        (
            json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
                   "engine": {"contextLength": 1_000_000}}),
            "ContextTooLong",
            vec!["1000000", "32768"],
        ),
        (
            json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
                   "engine": {"type": "LlamaCpp"}}),
            "UnsupportedFormat",
            vec!["LlamaCpp", "VLLM"],
        ),
        (
            json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
                   "engine": {"args": ["--tensor-parallel-size=8"]}}),
            "ReservedArgument",
            vec!["--tensor-parallel-size"],
        ),
    ] {
        let problem = problem(spec);
        assert_eq!(problem.reason().to_string(), reason, "{problem}");
        for part in parts {
            assert!(problem.to_string().contains(part), "{part:?} is not in {problem}");
        }
    }
}

#[test]
fn facts_in_the_manifest_make_a_private_model_known() {
    let facts = json!({
        "layers": 32, "hiddenSize": 4096, "intermediateSize": 14336, "attentionHeads": 32,
        "kvHeads": 8, "vocabSize": 128_256, "maxContext": 8192,
    });
    let wish = wish(json!({"model": {"uri": "pvc://models/ours", "facts": facts}}));
    assert_eq!(wish.model.facts, "Manifest");
    assert_eq!(wish.model.name, "ours");
    let parameters = wish.model.parameters.unwrap();
    assert!((7_900_000_000..8_200_000_000).contains(&parameters), "{parameters}");
    assert_eq!(wish.contexts, [8192, 4096]);
}

#[test]
fn newer_defaults_change_nothing_about_what_serves() {
    let before = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    let old = wish(before.clone());
    let serving = freeze(&old);

    let mut newer = defaults();
    for vendor in [Vendor::NVIDIA, Vendor::AMD] {
        newer.images.insert((EngineType::VLLM, vendor), "registry.local/vllm:newer".to_owned());
    }
    newer.runtime_classes.clear();
    // An edit that pods show: the image of before goes on with it.
    let mut after = before;
    after["engine"] = json!({"args": ["--enable-prefix-caching"]});
    let spec = canonical(&deployment(after.clone()).spec);
    let kept = Serving { spec: &old.canonical, template: &serving };
    let edited = resolve(&deployment(after.clone()), &newer, Some(&kept)).unwrap();
    assert_eq!(edited.canonical, spec);
    assert!(!edited.comes_to(&serving));
    let template = freeze(&edited);
    assert_eq!(template.engine.image, serving.engine.image);
    assert_eq!(template.engine.args, ["--enable-prefix-caching"]);
    assert_eq!(template.estimate, serving.estimate);

    // A first revision takes the newer image.
    let fresh = resolve(&deployment(after), &newer, None).unwrap();
    assert_eq!(freeze(&fresh).engine.image, "registry.local/vllm:newer");
}

#[test]
fn a_revision_without_a_version_goes_on_without_one() {
    let before = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    let old = wish(before.clone());
    let mut serving = freeze(&old);
    assert_eq!(serving.engine.version, Some(berth_vram::RENDERED_VLLM));
    // As a Berth made it whose fractions did not follow from claims.
    serving.engine.version = None;
    let kept = Serving { spec: &old.canonical, template: &serving };
    let same = resolve(&deployment(before.clone()), &defaults(), Some(&kept)).unwrap();
    assert!(same.comes_to(&serving));
    let mut after = before;
    after["engine"] = json!({"image": {"nvidia": "a/vllm-openai:v0.19.1"}});
    let other = resolve(&deployment(after), &defaults(), Some(&kept)).unwrap();
    let template = freeze(&other);
    assert_eq!(template.engine.version, Some(berth_vram::Version::new(0, 19)));
}

#[test]
fn a_version_that_no_tag_states_is_said() {
    let tagged = |tag: &str| {
        let wish = wish(json!({
            "model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
            "engine": {"image": {"nvidia": format!("registry.local:5000/vllm:{tag}")}},
        }));
        freeze(&wish)
    };
    let (logged, unknown) = (tagged("v0.19.1"), tagged("latest"));
    assert_eq!(logged.estimate.basis, "fitted to vLLM on NVIDIA H100");
    assert!(unknown.estimate.basis.ends_with("states no version, taken for 0.33"));
    assert!(unknown.estimate.margin > logged.estimate.margin);
}

#[test]
fn a_custom_engine_runs_where_it_has_an_image_and_serves_what_it_is_given() {
    let spec = |uri: &str, files: Option<&str>, engine: Value| {
        let mut own = json!({"type": "Custom", "image": {"amd": "a/server:v1"}});
        own.as_object_mut().unwrap().extend(engine.as_object().unwrap().clone());
        let mut model = json!({"uri": uri});
        if let Some(files) = files {
            model["files"] = files.into();
        }
        json!({"model": model, "engine": own, "gpu": {"count": 2}})
    };
    let llama = "hf://meta-llama/Llama-3.1-8B-Instruct";
    let whole = wish(spec(llama, None, json!({"runAsUser": 1000})));
    assert_eq!(whole.vendors, [Vendor::AMD]);
    let template = freeze(&whole);
    let server = template.engine.custom.as_ref().unwrap();
    assert_eq!((server.port, server.user, server.health_path.as_str()), (8000, 1000, "/health"));
    assert_eq!((template.gpus, template.tensor), (2, 2));
    assert!(template.estimate.basis.contains("a custom engine, of which nothing is known"));
    let gguf = "hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF";
    let layers = freeze(&wish(spec(gguf, Some("*Q4_K_M.gguf"), json!({"kvCacheDtype": "Q8_0"}))));
    assert_eq!((layers.gpus, layers.tensor), (2, 1));
    let typo = problem(spec(llama, None, json!({"args": ["--model=$(BERTH_MODEL)"]})));
    assert!(matches!(typo, Problem::ReservedArgument(_)), "{typo}");
    let size = json!({"writableDirectories": [{"path": "/data", "size": "much"}]});
    assert!(problem(spec(llama, None, size)).to_string().contains("writableDirectories[/data]"));
}

#[test]
fn an_edit_that_says_what_was_chosen_makes_no_revision() {
    let before = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    let old = wish(before.clone());
    let serving = freeze(&old);
    let mut after = before;
    after["engine"] = json!({"contextLength": 32768, "maxConcurrency": 1, "type": "VLLM"});
    after["gpu"] = json!({"count": 1});
    let kept = Serving { spec: &old.canonical, template: &serving };
    let edited = resolve(&deployment(after), &defaults(), Some(&kept)).unwrap();
    assert!(edited.comes_to(&serving));
}

#[test]
fn the_choices_of_the_serving_revision_are_tried_first() {
    let before = json!({"model": {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct"}});
    let old = wish(before.clone());
    let serving = old.template(16384, 4, Vendor::NVIDIA).unwrap();
    let mut after = before;
    after["podTemplate"] = json!({"labels": {"team": "a"}});
    let kept = Serving { spec: &old.canonical, template: &serving };
    let edited = resolve(&deployment(after), &defaults(), Some(&kept)).unwrap();
    assert_eq!(edited.contexts, [16384]);
    assert_eq!(edited.degrees[0], 4);
    assert_eq!(edited.vendors, [Vendor::NVIDIA]);
}
