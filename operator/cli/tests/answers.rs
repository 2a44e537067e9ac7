//! Exit codes, errors, and the shape of the JSON that others read.

mod common;

use std::{fs, process::Output};

use common::{berth, repository};
use serde_json::Value;

fn error(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = berth(arguments);
    assert!(stdout.is_empty(), "{arguments:?}");
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

fn json(arguments: &[&str]) -> Value {
    let output = berth(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The paths of all fields; those of a list's first element stand for the list.
fn fields(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                fields(value, &format!("{path}.{name}"), into);
            }
        }
        Value::Array(list) => match list.first() {
            Some(first) => fields(first, &format!("{path}[]"), into),
            None => into.push(format!("{path}[]")),
        },
        _ => into.push(path.to_owned()),
    }
}

fn shape(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    fields(value, "", &mut found);
    found.sort();
    found
}

const LLAMA: &str = "meta-llama/Llama-3.1-8B-Instruct";

#[test]
fn what_cannot_be_answered_says_what_to_do() {
    for (arguments, code, words) in [
        (&["estimate", "--model", "llama-3.1-8b-instruct"][..], 1, LLAMA),
        (&["estimate", "--model", "nobody/zzqq"], 1, "--config FILE"),
        (&["estimate", "--model", LLAMA, "--gpu", "H1000"], 1, "use one of B300, GB300"),
        (&["estimate", "--model", LLAMA, "--context", "200000"], 1, "131072 or less"),
        (&["estimate", "--model", LLAMA, "--gpu", "L4", "--tp", "3"], 1, "use 1, 2, 4"),
        (&["estimate", "--model", LLAMA, "--kv-dtype", "q8_0"], 1, "use Auto or Fp8"),
        (&["estimate", "--model", "Qwen/Qwen3-8B-GGUF"], 1, "--file '*Q4_K_M.gguf'"),
        (&["estimate", "--config", "/nowhere/config.json"], 1, "cannot read"),
        (&["estimate", "--config", "Cargo.toml"], 1, "not JSON"),
        (&["estimate", "-f", "docs/examples/cost-profile.yaml"], 1, "no LLMDeployment"),
        (&["advise", "--model", LLAMA, "--price", "L4"], 1, "L40S=0.90"),
        (&["advise", "--model", LLAMA, "--gpu", "L4", "--price", "T4=1"], 1, "add --gpu T4"),
        (&["estimate"], 2, "--model"),
        (&["estimate", "--model", LLAMA, "--config", "x"], 2, "cannot be used with"),
        (&["estimate", "--model", LLAMA, "--tp", "some"], 2, "auto, or a number"),
        (&["estimate", "--model", LLAMA, "--context", "0"], 2, "0"),
        (&["guess"], 2, "unrecognized"),
    ] {
        let (got, text) = error(arguments);
        assert_eq!(got, code, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn a_misfit_is_an_answer() {
    let answer = json(&["estimate", "--model", "Qwen/Qwen3-32B", "--gpu", "L4", "--tp", "1"]);
    assert_eq!(answer["fit"]["fits"], false);
    assert!(!answer["fit"]["changes"].as_array().unwrap().is_empty());
    // Taken word for word, the first change fits.
    let gpus = answer["fit"]["changes"][0]["gpus"].as_u64().unwrap().to_string();
    let again = json(&["estimate", "--model", "Qwen/Qwen3-32B", "--gpu", "L4", "--tp", &gpus]);
    assert_eq!(again["fit"]["fits"], true);
}

#[test]
fn what_a_gpu_cannot_compute_does_not_fit() {
    let answer = json(&["estimate", "--model", "Qwen/Qwen3-8B-FP8", "--gpu", "T4"]);
    assert_eq!(answer["fit"]["fits"], false);
    assert!(answer["fit"]["obstacle"].as_str().unwrap().contains("T4"));
    let fp8 = ["estimate", "--model", LLAMA, "--gpu", "A100", "--kv-dtype", "fp8"];
    assert!(json(&fp8)["fit"]["obstacle"].as_str().unwrap().contains("fp8"));
}

#[test]
fn the_shape_of_the_json_stays() {
    let estimate =
        json(&["estimate", "--model", LLAMA, "--gpu", "NVIDIA-L4", "--concurrency", "9"]);
    let expected = "
        .basis.kind .basis.text .engine
        .fit.changes[].contextLength .fit.changes[].kvDtype .fit.changes[].text
        .fit.fits .fit.freeBytes .fit.longestContext .fit.mostSequences
        .gpu.label .gpu.name .gpu.usableBytes .gpu.vramBytes .gpus .kvBytesPerToken
        .model.facts .model.licence .model.maxContext .model.name .model.parameters
        .model.quantization .model.weightBytes
        .perGpu.activation .perGpu.graphs .perGpu.kvCache .perGpu.margin .perGpu.nonTorch
        .perGpu.total .perGpu.totalFromManifest .perGpu.weights
        .workload.contextLength .workload.kvDtype .workload.maxConcurrency";
    let mut shape_of_it = shape(&estimate);
    // Which change is the smallest, and so which fields it has, follows from the figures.
    shape_of_it.retain(|field| !field.contains("changes"));
    let expected: Vec<&str> =
        expected.split_whitespace().filter(|field| !field.contains("changes")).collect();
    assert_eq!(shape_of_it, expected);

    let advice = json(&["advise", "--model", LLAMA, "--gpu", "H100", "--price", "H100=2.50"]);
    let expected = "
        .fitting .misfits[] .model
        .offers[].basis .offers[].contextLength .offers[].costPerHour .offers[].engine
        .offers[].freeBytes .offers[].gpu .offers[].gpus .offers[].kvDtype
        .offers[].longestContext .offers[].maxConcurrency .offers[].model .offers[].mostSequences
        .offers[].neededBytes .offers[].quantization .offers[].roofline.decodeAll
        .offers[].roofline.decodeOne .offers[].roofline.prefill .offers[].unpacked .unserved[]";
    assert_eq!(shape(&advice), expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(advice["offers"][0]["costPerHour"], "2.50");
}

#[test]
fn yaml_and_json_say_the_same() {
    let arguments = ["estimate", "--model", LLAMA, "--gpu", "L4"];
    let yaml = berth(&[&arguments[..], &["-o", "yaml"]].concat()).stdout;
    let yaml: Value = serde_saphyr::from_str(&String::from_utf8(yaml).unwrap()).unwrap();
    assert_eq!(yaml, json(&arguments));
}

#[test]
fn every_example_manifest_is_estimated() {
    let mut seen = 0;
    for file in fs::read_dir(repository().join("docs/examples")).unwrap() {
        let path = file.unwrap().path();
        if !fs::read_to_string(&path).unwrap().contains("kind: LLMDeployment") {
            continue;
        }
        let answer = json(&["estimate", "-f", path.to_str().unwrap(), "--gpu", "H200"]);
        assert!(answer["perGpu"]["total"].as_u64().unwrap() > 0, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn a_manifest_is_estimated_as_the_model_that_it_names() {
    let manifest = json(&["estimate", "-f", "docs/examples/llama-3.1-8b.yaml", "--gpu", "L40S"]);
    let model = json(&["estimate", "--model", LLAMA, "--gpu", "L40S"]);
    assert_eq!(manifest, model);
}

#[test]
fn a_config_is_estimated_like_the_catalogue() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let config = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16"}"#;
    fs::write(&path, config).unwrap();
    let arguments = ["--gpu", "L40S"];
    let read = json(&[&["estimate", "--config", path.to_str().unwrap()], &arguments[..]].concat());
    let known = json(&[&["estimate", "--model", LLAMA], &arguments[..]].concat());
    assert_eq!(read["model"]["parameters"], known["model"]["parameters"]);
    assert_eq!(read["perGpu"]["kvCache"], known["perGpu"]["kvCache"]);
    let gib = |answer: &Value| answer["perGpu"]["total"].as_f64().unwrap() / f64::from(1 << 30);
    assert!((gib(&read) - gib(&known)).abs() < 0.2, "{} {}", gib(&read), gib(&known));
}
