//! The estimate beside the buffers of the real llama-server, where that was built.

use berth_bench::llama::{cached_server, measure};

#[test]
fn buffers_of_a_real_server_are_as_estimated() {
    let Some(server) = cached_server() else {
        eprintln!("SKIPPED: no llama-server; e2e/engines/llama-server.sh builds one");
        return;
    };
    let measured = measure(&server).unwrap();
    assert!(measured.len() >= 40);
    for one in measured {
        for (name, pair) in one.buffers() {
            assert!(
                pair.agrees(),
                "{}, {}: {name} buffer {:.2} MiB, {:.2} by the server",
                one.shape,
                one.serving,
                pair.ours,
                pair.server
            );
        }
    }
}
