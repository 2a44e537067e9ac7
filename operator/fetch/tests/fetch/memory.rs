//! Whatever a server sends, memory stays small.

use std::fs;

use crate::{
    mirror::{Fault, Mirror, Setup, model, noise},
    run::{Node, Running},
};

/// The list may be 32 MiB, and the process itself takes some.
const MOST_KIB: u64 = 100 << 10;

async fn peak(running: Running) -> (crate::run::Done, u64) {
    let status = format!("/proc/{}/status", running.child.id().unwrap());
    let watcher = tokio::spawn(async move {
        let mut peak = 0;
        while let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(line) = line else { break };
            peak = line.trim().trim_end_matches(" kB").parse().unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        peak
    });
    let done = running.end().await;
    (done, watcher.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_end() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.always("list", Fault::Endless);
    let (done, peak) = peak(node.fetch(&mirror.endpoint(), &["--timeout=30s"])).await;
    done.fails(16, &["more than 33554432 bytes"]);
    assert!(peak > 0 && peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_end() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.always("model.safetensors", Fault::Endless);
    let (done, peak) = peak(node.fetch(&mirror.endpoint(), &[])).await;
    done.fails(16, &["more of model.safetensors than the 3145728 bytes"]);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_side_by_side() {
    let names = ["a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors"];
    let content = noise(8, 32 << 20);
    let files = names.map(|name| (name, content.clone())).to_vec();
    let mirror = Mirror::start(Setup { files, list_is_bare: true, ..Setup::default() }).await;
    let node = Node::new();
    let (done, peak) = peak(node.fetch(&mirror.endpoint(), &["--timeout=30s"])).await;
    done.succeeds();
    node.holds(&mirror, &names);
    assert!(peak < MOST_KIB, "{peak} KiB for 128 MiB");
}
