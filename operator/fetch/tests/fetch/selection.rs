//! Which files come, and from mirrors that tell less than the hub.

use std::fs;

use axum::body::Bytes;

use crate::{
    mirror::{COMMIT, Fault, Mirror, Setup, model, noise},
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
    mirror.once("model.safetensors", Fault::Corrupt);
    mirror.once("config.json", Fault::Corrupt);
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

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_found_by_a_name_that_is_known_before() {
    let files = vec![
        ("config.json", small("{}")),
        ("model.safetensors", noise(4, 5000)),
        ("q4/x-Q4_K_M.gguf", noise(5, 10_000)),
        ("q4/mmproj-x-Q4_K_M.gguf", noise(6, 1000)),
    ];
    let link = ".berth/model.gguf";
    let (node, mirror) = (Node::new(), Mirror::of(files).await);
    let of_pattern = ["--files", "*Q4_K_M.gguf", "--one-file"];
    node.get(&mirror, &of_pattern).await.succeeds();
    node.holds(&mirror, &["q4/mmproj-x-Q4_K_M.gguf"]);
    assert_eq!(fs::read_link(node.path(link)).unwrap().to_str(), Some("../q4/x-Q4_K_M.gguf"));
    assert!(fs::read(node.path(link)).unwrap() == mirror.content("q4/x-Q4_K_M.gguf"));
    node.verify().await.succeeds();

    // What an older run left has no link, or not any more.
    fs::remove_file(node.path(link)).unwrap();
    let asked = mirror.seen().len();
    node.get(&mirror, &of_pattern).await.succeeds();
    assert!(node.path(link).is_file());
    fs::remove_file(node.path(link)).unwrap();
    node.get(&mirror, &of_pattern[..2]).await.succeeds();
    assert!(node.path(link).is_file());
    assert_eq!(mirror.seen().len(), asked);

    // Without a pattern, an engine for GGUF and one for all formats need different files.
    let node = Node::new();
    node.get(&mirror, &["--one-file"]).await.succeeds();
    assert!(node.path(link).is_file() && !node.path("model.safetensors").exists());
    node.get(&mirror, &["--offline"]).await.fails(10, &["the files are not in the cache"]);
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &["model.safetensors"]);
    node.get(&mirror, &["--offline", "--one-file"]).await.succeeds();
    node.get(&mirror, &["--offline"]).await.succeeds();
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_where_one_is_needed_are_refused_before_the_download() {
    let files = vec![
        ("q4.gguf", noise(5, 10_000)),
        ("x-Q8_0-00001-of-00002.gguf", noise(6, 10_000)),
        ("x-Q8_0-00002-of-00002.gguf", noise(7, 10_000)),
        ("config.json", small("{}")),
    ];
    let (node, mirror) = (Node::new(), Mirror::of(files).await);
    let one = |files: &'static str| ["--one-file", "--files", files];
    let parts =
        ["org/name at revision main (files *Q8*) is a model in 2 files; name its first file, \
         x-Q8_0-00001-of-00002.gguf, in spec.model.files"];
    node.get(&mirror, &one("*Q8*")).await.fails(19, &parts);
    let parts = ["matches 2 models", "such as q4.gguf, in spec.model.files"];
    node.get(&mirror, &one("*.gguf")).await.fails(19, &parts);
    node.get(&mirror, &["--one-file"]).await.fails(19, &["several GGUF models", "q4.gguf"]);
    node.get(&mirror, &one("*.json")).await.fails(12, &["has no GGUF file; it has config.json"]);
    assert_eq!(mirror.served(), 0);

    // The first part by its name needs no link, and gets none.
    node.get(&mirror, &["--files", "x-Q8_0-00001-of-00002.gguf"]).await.succeeds();
    assert!(fs::read_link(node.path(".berth/model.gguf")).is_err());
    node.get(&mirror, &one("x-Q8_0-00001-of-00002.gguf")).await.fails(19, &["in 2 files"]);

    // One directory, one link: another choice of files needs a directory of its own.
    node.get(&mirror, &one("q4.gguf")).await.succeeds();
    let node = Node::new();
    node.get(&mirror, &one("q4*")).await.succeeds();
    let another = Fault::Says(format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"q5.gguf","size":7}}]}}"#
    ));
    mirror.once("list", another);
    let parts = ["has q4.gguf as its model, not q5.gguf", "directory of its own"];
    node.get(&mirror, &one("q5*")).await.fails(17, &parts);
}
