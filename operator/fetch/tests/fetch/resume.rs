//! What was downloaded is not downloaded again: the mirror counts.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    mirror::{Fault, Mirror, noise},
    run::{Node, Running, until},
};

const SIZE: usize = 4 << 20;
const HALF: usize = 2 << 20;
const NAME: &str = "m.gguf";

async fn mirror() -> Mirror {
    Mirror::of(vec![(NAME, noise(3, SIZE))]).await
}

/// Starts a download that is held in the middle, with all that was sent on the volume.
async fn held(node: &Node, mirror: &Mirror, more: &[&str]) -> Running {
    mirror.once(NAME, Fault::Hold(HALF));
    let more: Vec<_> = ["--timeout", "60s"].iter().chain(more).copied().collect();
    let running = node.fetch(&mirror.endpoint(), &more);
    until(|| node.partial().is_some_and(|(_, length)| length == HALF as u64)).await;
    running
}

fn signal(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_goes_on_where_it_was_cut() {
    let (node, mirror) = (Node::new(), mirror().await);
    // More cuts than attempts: each brought something.
    for _ in 0..3 {
        mirror.once(NAME, Fault::Cut(1 << 20));
    }
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &[NAME]);
    assert_eq!(mirror.served(), SIZE as u64);
    let ranges: Vec<_> = mirror.seen().into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.contains(&"bytes=3145728-".to_owned()), "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_always_cuts_is_given_up_and_the_rest_kept() {
    let (node, mirror) = (Node::new(), mirror().await);
    mirror.always(NAME, Fault::Cut(1000));
    node.get(&mirror, &[]).await.fails(15, &["cut after 3000 of 4194304 bytes"]);
    assert_eq!(node.partial().unwrap().1, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle() {
    let (node, mirror) = (Node::new(), mirror().await);
    let running = held(&node, &mirror, &[]).await;
    signal(&running, Signal::KILL);
    assert_eq!(running.end().await.code, -1);
    assert!(!node.path(NAME).exists() && !node.path(".berth/manifest.json").exists());
    // The lock is free, and the second half is all that comes.
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &[NAME]);
    assert_eq!(mirror.served(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_at_once() {
    let (node, mirror) = (Node::new(), mirror().await);
    let running = held(&node, &mirror, &[]).await;
    signal(&running, Signal::TERM);
    running.end().await.fails(143, &["stopped by a signal", "goes on from there"]);
    node.get(&mirror, &[]).await.succeeds();
    assert_eq!(mirror.served(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_go_on_starts_anew() {
    let (node, mirror) = (Node::new(), mirror().await);
    mirror.once(NAME, Fault::Cut(HALF));
    mirror.once(NAME, Fault::Whole);
    node.get(&mirror, &[]).await.succeeds();
    node.holds(&mirror, &[NAME]);
    assert_eq!(mirror.served(), (HALF + SIZE) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_half_is_found_out() {
    let (node, mirror) = (Node::new(), mirror().await);
    let running = held(&node, &mirror, &[]).await;
    signal(&running, Signal::KILL);
    running.end().await;
    let (path, _) = node.partial().unwrap();
    fs::write(&path, vec![0; HALF]).unwrap();
    let done = node.get(&mirror, &[]).await;
    done.succeeds();
    assert!(done.said.contains("wrong checksum; fetching it once more"), "{done:?}");
    node.holds(&mirror, &[NAME]);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_while_it_runs() {
    let (node, mirror) = (Node::new(), mirror().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let running = held(&node, &mirror, &["--listen", &free.to_string()]).await;
    let page = read_page(free).await;
    for line in [
        "berth_fetch_bytes 2097152",
        "berth_fetch_bytes_expected 4194304",
        "berth_fetch_received_bytes_total 2097152",
        "berth_fetch_files 0",
        "berth_fetch_files_expected 1",
        "berth_fetch_waiting 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    until(|| running.said().contains("2 MiB of 4 MiB (50 %), 0 of 1 files")).await;
    mirror.release();
    running.end().await.succeeds();
}

/// A page, without a client.
async fn read_page(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
