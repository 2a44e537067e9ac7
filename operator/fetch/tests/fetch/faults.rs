//! Mirrors that refuse, lie, dawdle and break off. Each ends with one sentence and a code of its
//! own, or with the model.

use std::time::{Duration, Instant};

use crate::{
    mirror::{Fault, Mirror, Setup, model},
    run::{Node, TOKEN},
};

const WEIGHTS: &str = "model.safetensors";

async fn fails(path: &str, fault: Fault, code: i32, parts: &[&str]) -> (Node, Mirror) {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.always(path, fault);
    node.get(&mirror, &[]).await.fails(code, parts);
    assert!(!node.path(".berth/manifest.json").exists());
    (node, mirror)
}

async fn recovers(path: &str, fault: Fault) -> (Node, Mirror) {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.once(path, fault);
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &["config.json", WEIGHTS, "tokenizer.json"]);
    (node, mirror)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_at_once_with_the_remedy() {
    let setup = || Setup { files: model(), token: Some(TOKEN), ..Setup::default() };
    let (node, mirror) = (Node::new(), Mirror::start(setup()).await);
    let parts = ["(401)", "gated or private", "spec.model.secretRef"];
    node.get(&mirror, &[]).await.fails(11, &parts);
    assert_eq!(mirror.seen().len(), 1);
    node.get_with_token(&mirror, &[]).await.succeeds();

    let (node, mirror) = (Node::new(), Mirror::start(setup()).await);
    mirror.always("list", Fault::Status(403, None));
    let parts = ["(403)", "the token in spec.model.secretRef may not read it"];
    node.get_with_token(&mirror, &[]).await.fails(11, &parts);
    assert_eq!(mirror.seen().len(), 1);

    let (_, mirror) = fails(WEIGHTS, Fault::Status(403, None), 11, &[WEIGHTS, "(403)"]).await;
    assert_eq!(mirror.asked_for("storage"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let parts = ["no revision v9 of org/name"];
    node.get(&mirror, &["--revision", "v9"]).await.fails(12, &parts);
    let parts = ["org/name at revision main has no file \"*.gguf\"", "config.json"];
    node.get(&mirror, &["--files", "*.gguf"]).await.fails(12, &parts);
    fails("list", Fault::Code(404, "RepoNotFound"), 12, &["no repository org/name"]).await;
    let (_, mirror) = fails("list", Fault::Status(404, None), 12, &["org/name"]).await;
    assert_eq!(mirror.seen().len(), 1);
    fails(WEIGHTS, Fault::Status(404, None), 12, &["does not have it", WEIGHTS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_repeated_when_the_server_says() {
    let started = Instant::now();
    recovers("list", Fault::Status(429, Some("1"))).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    recovers(WEIGHTS, Fault::Status(429, None)).await;
    let (_, mirror) =
        fails("list", Fault::Status(429, None), 15, &["3 attempts", "too many requests"]).await;
    assert_eq!(mirror.asked_for("revision"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_are_repeated() {
    for status in [500, 502, 503, 504] {
        recovers("list", Fault::Status(status, None)).await;
        recovers(WEIGHTS, Fault::Status(status, None)).await;
    }
    fails(WEIGHTS, Fault::Status(503, None), 15, &["3 attempts", "it answered 503"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let endpoint = mirror.endpoint();
    mirror.stop();
    let done = node.fetch(&endpoint, &[]).end().await;
    done.fails(15, &["no connection (", "refused"]);
    let done = node.fetch("http://no-such-host.invalid", &[]).end().await;
    done.fails(15, &["no-such-host.invalid", "no connection ("]);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_are_no_answers() {
    fails("list", Fault::Html, 16, &["web page (HTML)", "HF_ENDPOINT"]).await;
    let (_, mirror) = fails(WEIGHTS, Fault::Html, 16, &["web page (HTML)"]).await;
    assert_eq!(mirror.asked_for("storage"), 1);
    fails("list", Fault::Says("[]".to_owned()), 16, &["does not answer as a hub does"]).await;
    fails("list", Fault::Says("{\"sha\": 7".to_owned()), 16, &["does not answer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_cannot_be() {
    let two_to_63 = 1 << 63;
    fails(WEIGHTS, Fault::Length(two_to_63), 16, &["9223372036854775808 bytes", WEIGHTS]).await;
    fails(WEIGHTS, Fault::Short(1000), 16, &["1000 bytes", "3145728 bytes"]).await;
    let list = |size: &str| {
        let sha = "0a".repeat(20);
        format!(r#"{{"sha":"{sha}","siblings":[{{"rfilename":"a.gguf","size":{size}}}]}}"#)
    };
    let parts = ["9223372036854775808 bytes, which no model has"];
    fails("list", Fault::Says(list("9223372036854775808")), 16, &parts).await;
    fails("list", Fault::Says(list("-5")), 16, &["does not answer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere() {
    for name in ["../evil", "/tmp/evil", "a/../../evil", ".berth/manifest.json"] {
        let sha = "0a".repeat(20);
        let list = format!(r#"{{"sha":"{sha}","siblings":[{{"rfilename":"{name}","size":1}}]}}"#);
        let (node, _) = fails("list", Fault::Says(list), 16, &["leads out", name]).await;
        assert!(!node.beside("evil").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_mirrors_are_given_up() {
    recovers("list", Fault::Status(503, None)).await;
    recovers(WEIGHTS, Fault::Stall(1 << 20)).await;
    fails(WEIGHTS, Fault::Stall(0), 15, &["too slow", "not one byte came for 1 s"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_never_end() {
    let here = "/org/name/resolve/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/config.json";
    let circle = Fault::Redirect(here.to_owned());
    let (_, mirror) = fails("config.json", circle, 16, &["redirects in a circle"]).await;
    assert_eq!(mirror.asked_for("config.json"), 11);
    fails("list", Fault::Redirect("ftp://x/y".to_owned()), 16, &["not http"]).await;
    fails("list", Fault::Redirect("http://".to_owned()), 16, &["leads nowhere"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_stays_with_the_hub() {
    let storage = Mirror::of(model()).await;
    let mirror = Mirror::start(Setup {
        files: model(),
        token: Some(TOKEN),
        storage: Some(storage.endpoint()),
        ..Setup::default()
    })
    .await;
    let node = Node::new();
    node.get_with_token(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &[WEIGHTS]);
    assert!(mirror.seen().iter().all(|seen| seen.authorization));
    assert_eq!(storage.served(), 3 << 20);
    assert!(storage.seen().iter().all(|seen| !seen.authorization));

    // Not even when the way leads back.
    let node = Node::new();
    storage.always(WEIGHTS, Fault::Redirect(format!("{}/storage/{WEIGHTS}", mirror.endpoint())));
    node.get_with_token(&mirror, &[]).await.succeeds();
    let back: Vec<_> =
        mirror.seen().into_iter().filter(|seen| seen.path.starts_with("/storage")).collect();
    assert_eq!(back.len(), 1);
    assert!(!back[0].authorization);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_checksums() {
    let (_, mirror) = recovers(WEIGHTS, Fault::Corrupt).await;
    assert_eq!(mirror.served_of(WEIGHTS), 2 * (3 << 20));
    recovers("config.json", Fault::Corrupt).await;
    let parts = [WEIGHTS, "wrong checksum, twice", "sha256"];
    let (node, mirror) = fails(WEIGHTS, Fault::Corrupt, 14, &parts).await;
    assert_eq!(mirror.asked_for("storage"), 2);
    assert!(!node.path(WEIGHTS).exists());
    assert_eq!(node.partial().map(|(path, _)| path), None);
    fails("config.json", Fault::Corrupt, 14, &["config.json", "git blob"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_are_of_one_commit() {
    let parts = ["config.json of commit", "was asked for"];
    fails("config.json", Fault::OtherCommit, 16, &parts).await;
}
