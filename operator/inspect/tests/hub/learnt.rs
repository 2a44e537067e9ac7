//! Models of real shapes and sizes: what is learnt, with how many requests and bytes.

use berth_inspect::{InspectError, Selection};

use crate::{
    models::{EIGHT, FOUR_HUNDRED, Llama},
    server::{COMMIT, File, Server},
};

fn say(what: &str, server: &Server) {
    eprintln!("{what}: {} requests, {} bytes", server.requests().len(), server.served());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_billion_parameters_in_four_files() {
    let server = Server::of(EIGHT.repository(4)).await;
    let inspection = server.inspect().await.unwrap();
    say("8B in 4 files", &server);
    assert!(inspection.exact);
    assert_eq!(inspection.commit.as_deref(), Some(COMMIT));
    assert_eq!(inspection.licence.as_deref(), Some("apache-2.0"));
    assert_eq!(inspection.facts.weight_bytes, Some(EIGHT.bytes()));
    assert_eq!(inspection.facts.layers, 32);
    assert_eq!(inspection.bytes_read, server.served());
    assert!(server.served() < 100_000, "{}", server.served());
    assert_eq!(server.requests().len(), 7, "list, config, index and four headers");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_files_that_their_sizes_must_do() {
    let server = Server::of(FOUR_HUNDRED.repository(191)).await;
    let inspection = server.inspect().await.unwrap();
    say("405B in 191 files", &server);
    assert!(!inspection.exact);
    let (size, truth) = (inspection.facts.weight_bytes.unwrap(), FOUR_HUNDRED.bytes());
    assert!(size > truth && size - truth < truth / 100_000, "{size} {truth}");
    assert_eq!(server.requests().len(), 2);
    assert!(server.served() < 100_000, "{}", server.served());
    // Where the list tells no sizes, the architecture alone says it.
    let server = Server::start(FOUR_HUNDRED.repository(191), false).await;
    let inspection = server.inspect().await.unwrap();
    assert_eq!((inspection.exact, inspection.facts.weight_bytes), (false, None));
    let counted = berth_vram::weights(&inspection.facts).get();
    assert!(counted.abs_diff(truth) < truth / 1000, "{counted} {truth}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_gguf() {
    let server = Server::of(EIGHT.gguf(5)).await;
    let inspection = server.inspect().await.unwrap();
    say("8B GGUF in 5 files", &server);
    let header: u64 = EIGHT.gguf(5).iter().map(|(_, file)| file.start.len() as u64).sum();
    eprintln!("headers: {header} bytes");
    assert!(inspection.exact);
    // Its norms are in 32 bits.
    let norms = (2 * 32 + 1) * 4096 * 2;
    assert_eq!(inspection.facts.weight_bytes, Some(EIGHT.bytes() + norms));
    assert_eq!(inspection.bytes_read, server.served());
    assert!(server.served() < header + (3 << 20), "{} of {header}", server.served());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_sizes_is_enough() {
    let server = Server::start(EIGHT.repository(4), false).await;
    let inspection = server.inspect().await.unwrap();
    assert!(inspection.exact);
    assert_eq!(inspection.facts.weight_bytes, Some(EIGHT.bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_by_its_name() {
    let mut files = EIGHT.repository(2);
    files.extend(Llama { layers: 2, ..EIGHT }.gguf(1));
    let server = Server::of(files).await;
    let settings = server.settings();
    let selection = Selection { files: Some("*F16*"), gguf: false };
    let named = server.ask(settings.clone(), selection).await.unwrap();
    assert_eq!(named.facts.layers, 2);
    let selection = Selection { files: None, gguf: true };
    assert_eq!(server.ask(settings.clone(), selection).await.unwrap().facts.layers, 2);
    assert_eq!(server.ask(settings.clone(), Selection::default()).await.unwrap().facts.layers, 32);
    let selection = Selection { files: Some("*.json"), gguf: false };
    let error = server.ask(settings, selection).await.unwrap_err();
    let told = server.told(&error, "not_a_model", true);
    assert_eq!(
        told,
        "org/name at commit 0a0a0a0a0a0a on HUB has no weights among the files \"*.json\" that an \
         engine can load; name them in spec.model.files"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_named() {
    for (names, label, part) in [
        (
            &["adapter_config.json", "adapter_model.safetensors"][..],
            "not_a_model",
            "is an adapter (LoRA)",
        ),
        (&["params.json", "consolidated.safetensors"], "not_a_model", "in Mistral's own format"),
        (&["model_index.json", "unet/x.safetensors"], "not_a_model", "a pipeline for images"),
        (&["model.safetensors"], "not_a_model", "has no config.json beside its weights"),
        (&["README.md"], "not_found", "holds no weights that an engine can load"),
        (&["a.gguf", "b.gguf"], "not_found", "holds several GGUF models"),
    ] {
        let server =
            Server::of(names.iter().map(|name| ((*name).to_owned(), File::of("{}")))).await;
        let error: InspectError = server.inspect().await.unwrap_err();
        let told = server.told(&error, label, true);
        assert!(told.starts_with("org/name at commit 0a0a0a0a0a0a on HUB "), "{told}");
        assert!(told.contains(part), "{told}");
    }
}
