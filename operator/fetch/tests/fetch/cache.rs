//! What is there is not fetched again, and is never mixed with something else.

use std::fs;

use berth_fetch::{layout::Layout, manifest::Manifest};

use crate::{
    mirror::{COMMIT, Fault, Mirror, model},
    run::Node,
};

const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_cache_needs_no_network() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let done = node.get(&mirror, &[]).await;
    done.succeeds();
    assert!(done.word().contains(COMMIT), "{done:?}");
    node.holds(&mirror, &FILES);
    let manifest = Manifest::read(&Layout::new(&node.model())).unwrap().unwrap();
    assert_eq!((manifest.repository.as_str(), manifest.commit.as_str()), ("org/name", COMMIT));
    assert_eq!(manifest.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), FILES);
    assert!(!node.path(".berth/partial").exists());

    let asked = mirror.seen().len();
    node.get(&mirror, &[]).await.succeeds();
    assert_eq!(mirror.seen().len(), asked);
    let endpoint = mirror.endpoint();
    mirror.stop();
    for more in [&[][..], &["--offline"], &["--revision", COMMIT]] {
        let done = node.fetch(&endpoint, more).end().await;
        done.succeeds();
        assert!(done.word().contains("was there already"), "{done:?}");
    }
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_says_what_is_missing() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let parts = ["--offline is set and the files are not in the cache", "org/name"];
    node.get(&mirror, &["--offline"]).await.fails(10, &parts);
    assert!(!node.model().exists());
    node.get(&mirror, &[]).await.succeeds();
    let parts = ["--offline", COMMIT, "revision v2"];
    node.get(&mirror, &["--offline", "--revision", "v2"]).await.fails(10, &parts);
    fs::remove_file(node.path("config.json")).unwrap();
    node.get(&mirror, &["--offline"]).await.fails(10, &["without config.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_is_fetched() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    node.get(&mirror, &[]).await.succeeds();
    fs::remove_file(node.path("tokenizer.json")).unwrap();
    fs::write(node.path("config.json"), "{").unwrap();
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &FILES);
    assert_eq!(mirror.served_of("model.safetensors"), 3 << 20);
    assert_eq!(mirror.served_of("tokenizer.json"), 2 * 40_000);
}

/// A crash after the files and before the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_manifest_are_checked_and_kept() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    node.get(&mirror, &[]).await.succeeds();
    fs::write(node.path(".berth/manifest.json"), "{\"half\": ").unwrap();
    let wrong = vec![7; 40_000];
    fs::write(node.path("tokenizer.json"), wrong).unwrap();
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &FILES);
    assert_eq!(mirror.served_of("model.safetensors"), 3 << 20);
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_never_changes_its_commit() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    node.get(&mirror, &[]).await.succeeds();
    let other = format!(r#"{{"sha":"{}","siblings":[{{"rfilename":"a.gguf"}}]}}"#, "0b".repeat(20));
    mirror.always("list", Fault::Says(other));
    let done = node.get(&mirror, &["--revision", "v2"]).await;
    done.fails(17, &[COMMIT, &"0b".repeat(20), "directory of its own"]);
    node.holds(&mirror, &FILES);
    node.verify().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    node.verify().await.fails(1, &["no manifest"]);
    node.get(&mirror, &[]).await.succeeds();
    let done = node.verify().await;
    done.succeeds();
    assert!(done.word().contains("3 files"), "{done:?}");
    let mut weights = fs::read(node.path("model.safetensors")).unwrap();
    weights[1 << 20] ^= 1;
    fs::write(node.path("model.safetensors"), weights).unwrap();
    fs::remove_file(node.path("config.json")).unwrap();
    fs::create_dir(node.path("sub")).unwrap();
    fs::write(node.path("sub/new"), "").unwrap();
    let done = node.verify().await;
    done.fails(1, &["1 damaged, 1 missing, 1 extra"]);
    assert_eq!(done.out, "damaged: model.safetensors\nmissing: config.json\nextra: sub/new\n");
}
