//! What a model is, on a line of its own, or why not, where the kubelet reads it.

use axum::body::Bytes;
use serde_json::Value;

use crate::{
    files,
    mirror::{COMMIT, Fault, Mirror, Setup},
    run::{Done, Node, TOKEN},
};

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
    "max_position_embeddings": 256, "tie_word_embeddings": true}"#;

/// A whole model of one layer.
fn model() -> Vec<(&'static str, Bytes)> {
    let tensors = [
        ("embed_tokens.weight", [96, 64]),
        ("layers.0.self_attn.q_proj.weight", [64, 64]),
        ("layers.0.self_attn.k_proj.weight", [32, 64]),
        ("layers.0.self_attn.v_proj.weight", [32, 64]),
        ("layers.0.self_attn.o_proj.weight", [64, 64]),
        ("layers.0.mlp.gate_proj.weight", [128, 64]),
        ("layers.0.mlp.up_proj.weight", [128, 64]),
        ("layers.0.mlp.down_proj.weight", [64, 128]),
    ]
    .map(|(name, [rows, columns])| {
        (format!("model.{name}"), "BF16", vec![rows, columns], rows * columns * 2)
    });
    let mut weights = files::safetensors(&tensors);
    weights.resize(weights.len() + usize::try_from(BYTES).unwrap(), 0);
    vec![("config.json", CONFIG.into()), ("model.safetensors", weights.into())]
}

const BYTES: u64 = (96 + 64 + 32 + 32 + 64 + 128 + 128 + 128) * 64 * 2;

async fn ask(node: &Node, endpoint: &str, more: &[&str], token: Option<&str>) -> Done {
    let hub = ["inspect", "hub", "--repository", "org/name", "--timeout", "1s", "--attempts", "2"];
    let rest = ["--pause", "10ms", "--endpoint", endpoint];
    let all: Vec<_> = hub.iter().chain(&rest).chain(more).copied().collect();
    node.start(&[], &all, token).end().await
}

#[track_caller]
fn told(done: &Done) -> Value {
    done.succeeds();
    assert_eq!(done.out.lines().count(), 1, "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_on_a_hub_and_then_in_its_directory() {
    let setup = Setup { files: model(), token: Some(TOKEN), ..Setup::default() };
    let (node, mirror) = (Node::new(), Mirror::start(setup).await);
    let done = ask(&node, &mirror.endpoint(), &[], Some(TOKEN)).await;
    let value = told(&done);
    assert_eq!((&value["commit"], &value["exact"]), (&COMMIT.into(), &true.into()));
    assert_eq!(value["facts"]["weightBytes"], BYTES);
    assert_eq!(done.said, "", "nothing else is said");

    node.get_with_token(&mirror, &[]).await.succeeds();
    let directory = node.model();
    let args = ["inspect", "dir", directory.to_str().unwrap()];
    let here = told(&node.start(&[], &args, None).end().await);
    assert_eq!(here["facts"], value["facts"]);
    assert_eq!(here["commit"], COMMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_not_is_the_last_word() {
    let setup = Setup { files: model(), token: Some(TOKEN), ..Setup::default() };
    let (node, mirror) = (Node::new(), Mirror::start(setup).await);
    let endpoint = mirror.endpoint();
    let done = ask(&node, &endpoint, &[], None).await;
    done.fails(11, &["(401)", "spec.model.secretRef"]);
    assert_eq!(done.out, "");
    let ask = async |more: &[&str]| ask(&node, &endpoint, more, Some(TOKEN)).await;
    ask(&["--revision", "v9"]).await.fails(12, &["no revision v9 of org/name"]);
    ask(&["--gguf"]).await.fails(12, &["has no GGUF file"]);
    ask(&["--files", "*.json"]).await.fails(22, &["has no weights among the files"]);
    mirror.always("list", Fault::Status(503, None));
    ask(&[]).await.fails(15, &["2 attempts: it answered 503"]);
    let nowhere = node.beside("nowhere");
    let args = ["inspect", "dir", nowhere.to_str().unwrap()];
    node.start(&[], &args, None).end().await.fails(1, &["cannot open", "No such file"]);
}
