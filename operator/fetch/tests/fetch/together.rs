//! Several pods, one volume.

use crate::{
    mirror::{Fault, Mirror, model},
    run::{Node, until},
};

const WEIGHTS: &str = "model.safetensors";

#[tokio::test(flavor = "multi_thread")]
async fn one_downloads_and_the_other_waits() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.once(WEIGHTS, Fault::Hold(1 << 20));
    let first = node.fetch(&mirror.endpoint(), &["--attempts", "9"]);
    until(|| mirror.served_of(WEIGHTS) >= 1 << 20).await;
    let second = node.fetch(&mirror.endpoint(), &[]);
    until(|| second.said().contains("is downloading; waiting for it")).await;
    mirror.release();
    let (first, second) = (first.end().await, second.end().await);
    first.succeeds();
    second.succeeds();
    assert!(second.word().contains("was there already"), "{second:?}");
    assert_eq!(mirror.served(), mirror.total());
    assert_eq!(mirror.asked_for("revision"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_download_once() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let all: Vec<_> = (0..6).map(|_| node.fetch(&mirror.endpoint(), &[])).collect();
    for running in all {
        running.end().await.succeeds();
    }
    assert_eq!(mirror.served(), mirror.total());
    node.holds(&mirror, &["config.json", WEIGHTS, "tokenizer.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_waits_takes_over_from_one_that_is_killed() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.once(WEIGHTS, Fault::Hold(1 << 20));
    let mut first = node.fetch(&mirror.endpoint(), &["--attempts", "9"]);
    until(|| mirror.served_of(WEIGHTS) >= 1 << 20).await;
    let second = node.fetch(&mirror.endpoint(), &[]);
    until(|| second.said().contains("waiting for it")).await;
    first.child.kill().await.unwrap();
    second.end().await.succeeds();
    node.holds(&mirror, &["config.json", WEIGHTS, "tokenizer.json"]);
}
