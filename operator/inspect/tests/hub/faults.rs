//! Hubs that refuse, lie, dawdle and break off: one sentence each, a bound for each, and no panic.

use std::time::{Duration, Instant};

use crate::{
    models::EIGHT,
    server::{Fault, File, Server},
};

const SHARD: &str = "model-00001-of-00004.safetensors";
const WHERE: &str = "of org/name at commit 0a0a0a0a0a0a on HUB";

async fn hub() -> Server {
    Server::of(EIGHT.repository(4)).await
}

async fn with(path: &str, fault: Fault) -> Server {
    let server = hub().await;
    server.wrong(path, usize::MAX, fault);
    server
}

/// A hub whose first file of weights is another.
async fn shard(start: Vec<u8>, size: u64) -> Server {
    let files = EIGHT.repository(4).into_iter().map(move |(name, file)| {
        let other = File { start: start.clone(), size };
        if name == SHARD { (name, other) } else { (name, file) }
    });
    Server::of(files).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    for status in [401, 403] {
        let server = with("config.json", Fault::Status(status, "x", "y")).await;
        assert_eq!(
            server.fails("denied", true).await,
            format!(
                "HUB refuses config.json of org/name ({status}): the token in \
                 spec.model.secretRef may not read it, has expired, or its owner has not accepted \
                 the model's licence"
            )
        );
    }
    let server = hub().await;
    server.wrong("list", 9, Fault::Status(401, "x", "y"));
    let settings = berth_inspect::settings::Settings { token: None, ..server.settings() };
    let error = server.ask(settings, berth_inspect::Selection::default()).await.unwrap_err();
    assert_eq!(
        server.told(&error, "denied", true),
        "HUB refuses org/name (401): it is gated or private, or does not exist; give \
         spec.model.secretRef a secret with a token that may read it"
    );
    let server = with("list", Fault::Status(404, "x-error-code", "RepoNotFound")).await;
    assert_eq!(server.fails("not_found", true).await, "HUB has no repository org/name (404)");
    let server = with(SHARD, Fault::Status(404, "x", "y")).await;
    assert_eq!(
        server.fails("not_found", true).await,
        format!("HUB lists {SHARD} of org/name and does not have it (404)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_better_later_is_told_apart() {
    let server = with("list", Fault::Status(429, "retry-after", "1")).await;
    let error = server.inspect().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(
        server.told(&error, "throttled", false),
        "gave up on the list of files of org/name from HUB after 2 attempts: there were too many \
         requests for its liking (429)"
    );
    let server = with(SHARD, Fault::Status(503, "x", "y")).await;
    assert_eq!(
        server.fails("unavailable", false).await,
        format!("gave up on {SHARD} of org/name from HUB after 2 attempts: it answered 503")
    );
    let server = with("config.json", Fault::Cut).await;
    let told = server.fails("unavailable", false).await;
    assert!(
        told.contains("config.json of org/name from HUB after 2 attempts: no connection"),
        "{told}"
    );
    // Once is no failure.
    for fault in [Fault::Status(503, "x", "y"), Fault::Cut, Fault::Drip] {
        let server = hub().await;
        server.wrong(SHARD, 1, fault);
        assert!(server.inspect().await.unwrap().exact);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_hubs_are_given_up() {
    for path in ["list", "config.json", SHARD] {
        let started = Instant::now();
        let server = with(path, Fault::Drip).await;
        let told = server.fails("unavailable", false).await;
        assert!(told.ends_with("is too slow, the answer was not there after 0.5 s"), "{told}");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_and_packed_answers() {
    let page = || Fault::Says("text/html", "<html>Log in</html>".to_owned());
    for path in ["list", "config.json", SHARD] {
        assert_eq!(
            with(path, page()).await.fails("nonsense", true).await,
            "HUB answers with a web page (HTML) in place of what a hub gives; is HF_ENDPOINT \
             right, or is there a proxy or a login page in between?"
        );
    }
    let hidden = Fault::Says("application/json", "  <html>Log in</html>".to_owned());
    let server = with("config.json", hidden).await;
    assert_eq!(
        server.fails("unreadable", true).await,
        format!(
            "config.json {WHERE} cannot be used: not JSON: it is a web page (HTML) in place of the \
             file; if the file is right, say in spec.model.facts what the model is"
        )
    );
    let server = with("config.json", Fault::Gzip).await;
    assert_eq!(
        server.fails("nonsense", true).await,
        "HUB sends config.json compressed (\"gzip\"), which was not asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_are_cut_off() {
    // What the system holds on the way is sent and not read.
    const BUFFERS: u64 = 8 << 20;
    let server = with("list", Fault::Endless(" ")).await;
    assert_eq!(
        server.fails("nonsense", true).await,
        "HUB answers with more than 33554432 bytes where a list of files was asked for"
    );
    assert!(server.served() < (32 << 20) + BUFFERS, "{}", server.served());
    let server = with("config.json", Fault::Endless("[")).await;
    assert_eq!(
        server.fails("too_much", true).await,
        format!(
            "config.json {WHERE} would take more than the 4194304 bytes that are read of it; say in \
             spec.model.facts what the model is"
        )
    );
    assert!(server.served() < (4 << 20) + BUFFERS, "{}", server.served());
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_files_in_place_of_parts_are_read_as_far_as_needed() {
    let server = hub().await;
    for number in 1..=4 {
        server.wrong(&format!("model-0000{number}-of-00004.safetensors"), 99, Fault::Whole);
    }
    let inspection = server.inspect().await.unwrap();
    assert_eq!(inspection.facts.weight_bytes, Some(EIGHT.bytes()));
    // 16 GB are there.
    assert!(inspection.bytes_read < 1 << 20, "{}", inspection.bytes_read);
    assert!(server.served() < 64 << 20, "{}", server.served());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_headers() {
    let length = |length: u64| length.to_le_bytes().to_vec();
    let server = shard(length(1 << 63), 1 << 40).await;
    assert_eq!(
        server.fails("unreadable", true).await,
        format!(
            "{SHARD} {WHERE} cannot be used: a safetensors header of 9223372036854775808 bytes is \
             larger than the 100000000 that are read; say in spec.model.facts what the model is"
        )
    );
    let server = shard(length(90_000_000), 1 << 40).await;
    assert_eq!(
        server.fails("too_much", true).await,
        format!(
            "{SHARD} {WHERE} would take more than the 16777216 bytes that are read of it; say in \
             spec.model.facts what the model is"
        )
    );
    let mut deep = length(1 << 20);
    deep.extend(b"{\"a\":".repeat(200_000));
    let told = shard(deep, 1 << 40).await.fails("unreadable", true).await;
    assert!(told.contains("not a safetensors file: "), "{told}");
    // Ends in the middle of its header.
    let server = shard(length(5000), 900).await;
    let told = server.fails("unreadable", true).await;
    assert!(told.contains("its header of 5000 bytes is longer than the file"), "{told}");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n".to_vec();
    let size = pointer.len() as u64;
    let told = shard(pointer, size).await.fails("unreadable", true).await;
    assert!(told.contains("it is a pointer of Git LFS in place of the file"), "{told}");
    let told = shard(length(0), 8).await.fails("unreadable", true).await;
    assert!(told.contains("not a safetensors file"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_others() {
    let server = with(SHARD, Fault::WrongPart).await;
    assert_eq!(
        server.fails("nonsense", true).await,
        format!(
            "HUB answers with the range \"bytes 7-16383/5028973776\" where {SHARD} {WHERE} was asked \
             for from byte 0"
        )
        .replace("5028973776", &EIGHT.repository(4)[0].1.size.to_string())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_configs() {
    for (text, part) in [
        ("{", "not JSON: EOF"),
        ("[]", "not a config.json: it is no object"),
        ("{}", "lacks"),
        (&"[".repeat(100_000), "not JSON: recursion limit"),
    ] {
        let server = with("config.json", Fault::Says("text/plain", text.to_owned())).await;
        let told = server.fails("unreadable", true).await;
        assert!(told.starts_with(&format!("config.json {WHERE} cannot be used: ")), "{told}");
        assert!(told.contains(part) && told.contains("spec.model.facts"), "{told}");
    }
}
