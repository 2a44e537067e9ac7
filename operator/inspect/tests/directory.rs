//! Models on volumes: read as on a hub, links followed inside only, nothing waited for.

#[path = "../../vram/tests/files/mod.rs"]
mod files;

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use berth_inspect::{InspectError, Inspection, Selection, directory};

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
    "max_position_embeddings": 256, "tie_word_embeddings": true}"#;

/// A model whose layer is in one tensor, 16 KiB long.
fn put(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight".to_owned();
    let mut weights = files::safetensors(&[(name, "BF16", vec![128, 64], 16_384)]);
    weights.resize(weights.len() + 16_384, 0);
    fs::write(directory.join("model.safetensors"), weights).unwrap();
}

async fn inspect(path: &Path, within: &Path) -> Result<Inspection, InspectError> {
    directory::inspect(path, within, Selection::default(), Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_model_by_the_headers_alone() {
    let root = tempfile::tempdir().unwrap();
    put(root.path());
    let found = inspect(root.path(), root.path()).await.unwrap();
    assert_eq!((found.exact, found.facts.weight_bytes), (true, Some(16_384)));
    assert_eq!((found.commit, found.licence), (None, None));
    fs::create_dir(root.path().join(".berth")).unwrap();
    let manifest = format!(r#"{{"commit": "{}", "repository": "org/name"}}"#, "0a".repeat(20));
    fs::write(root.path().join(".berth/manifest.json"), manifest).unwrap();
    let found = inspect(root.path(), root.path()).await.unwrap();
    assert_eq!(found.commit, Some("0a".repeat(20)));
}

#[tokio::test]
async fn links_are_followed_inside_only() {
    let root = tempfile::tempdir().unwrap();
    // As the hub's own tools lay their cache out.
    let (blobs, snapshot) = (root.path().join("blobs"), root.path().join("snapshots/0a"));
    put(&blobs);
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "model.safetensors"] {
        symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    assert!(inspect(&snapshot, root.path()).await.unwrap().exact);
    let error = inspect(&snapshot, &snapshot).await.unwrap_err();
    let (path, within) = (snapshot.display(), fs::canonicalize(&snapshot).unwrap());
    assert_eq!(
        error.to_string(),
        format!("{path} has a link that leads out of {}, which is not followed", within.display())
    );
    assert!(error.is_final());
    // Nor is a directory outside taken for one inside.
    let other = tempfile::tempdir().unwrap();
    put(other.path());
    symlink(other.path(), root.path().join("model")).unwrap();
    assert!(inspect(&root.path().join("model"), root.path()).await.is_err());
}

#[tokio::test]
async fn pipes_are_no_files_and_circles_end() {
    let root = tempfile::tempdir().unwrap();
    put(root.path());
    symlink(".", root.path().join("again")).unwrap();
    assert!(inspect(root.path(), root.path()).await.unwrap().exact);
    fs::remove_file(root.path().join("model.safetensors")).unwrap();
    let pipe = root.path().join("model.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let error = inspect(root.path(), root.path()).await.unwrap_err().to_string();
    assert!(
        error.ends_with("holds no weights that an engine can load; it has config.json"),
        "{error}"
    );
}
