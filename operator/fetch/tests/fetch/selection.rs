//! Which files come, and from mirrors that tell less than the hub.

use axum::body::Bytes;

use crate::{
    mirror::{Mirror, Setup, model, noise},
    run::Node,
};

fn small(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_an_engine_needs() {
    let mut files = model();
    let other = [
        ("README.md", small("#")),
        ("pytorch_model.bin", noise(4, 5000)),
        ("onnx/model.onnx", small("x")),
        ("1_Pooling/config.json", small("{}")),
        ("empty.txt", small("")),
    ];
    files.extend(other);
    let (node, mirror) = (Node::new(), Mirror::of(files).await);
    node.get(&mirror, &["--revision", "refs/pr/1"]).await.succeeds();
    node.holds(
        &mirror,
        &["config.json", "model.safetensors", "1_Pooling/config.json", "empty.txt"],
    );
    for name in ["README.md", "pytorch_model.bin", "onnx"] {
        assert!(!node.path(name).exists(), "{name}");
        assert_eq!(mirror.asked_for(name), 0);
    }
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn quantisations_of_one_commit_share_a_directory() {
    let files = vec![
        ("q4/x-Q4_K_M.gguf", noise(5, 10_000)),
        ("q8/x-Q8_0-00001-of-00002.gguf", noise(6, 10_000)),
        ("q8/x-Q8_0-00002-of-00002.gguf", noise(7, 10_000)),
    ];
    let (node, mirror) = (Node::new(), Mirror::of(files).await);
    node.get(&mirror, &[]).await.fails(12, &["several GGUF models", "spec.model.files"]);
    node.get(&mirror, &["--files", "*Q4_K_M.gguf"]).await.succeeds();
    assert!(!node.path("q8").exists());
    node.get(&mirror, &["--files", "q8/x-Q8_0-00001-of-00002.gguf"]).await.succeeds();
    node.holds(&mirror, &["q4/x-Q4_K_M.gguf", "q8/x-Q8_0-00002-of-00002.gguf"]);
    assert_eq!(mirror.served(), mirror.total());
    node.get(&mirror, &["--offline", "--files", "*Q4_K_M.gguf"]).await.succeeds();
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_list_names_only() {
    let setup = Setup { files: model(), list_is_bare: true, ..Setup::default() };
    let (node, mirror) = (Node::new(), Mirror::start(setup).await);
    mirror.once("model.safetensors", crate::mirror::Fault::Corrupt);
    mirror.once("config.json", crate::mirror::Fault::Corrupt);
    let done = node.get(&mirror, &[]).await;
    done.succeeds();
    assert_eq!(done.said.matches("wrong checksum").count(), 2, "{done:?}");
    node.holds(&mirror, &["config.json", "model.safetensors", "tokenizer.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_without_any_checksum() {
    let setup =
        Setup { files: model(), list_is_bare: true, headers_are_bare: true, ..Setup::default() };
    let (node, mirror) = (Node::new(), Mirror::start(setup).await);
    let done = node.get(&mirror, &[]).await;
    done.succeeds();
    assert!(done.said.contains("gives no checksum of model.safetensors"), "{done:?}");
    node.holds(&mirror, &["config.json", "model.safetensors", "tokenizer.json"]);
}
