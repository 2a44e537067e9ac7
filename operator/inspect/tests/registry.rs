//! Artifacts in registries: what their manifests name is read in part, and opened with the password
//! for that registry alone.

#[path = "../../vram/tests/files/mod.rs"]
mod files;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_inspect::{
    InspectError, Inspection, Selection,
    oci::{self, Registry},
    retry::Policy,
    settings::Authorities,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
    "max_position_embeddings": 256, "tie_word_embeddings": true}"#;

/// `u:hunter2`.
const PASSWORD: &str = "Basic dTpodW50ZXIy";

struct Inner {
    manifest: Mutex<String>,
    blobs: Vec<Vec<u8>>,
    private: bool,
    address: SocketAddr,
    asked: Mutex<Vec<String>>,
}

struct Server(Arc<Inner>, tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.1.abort();
    }
}

fn digest(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes).iter().fold(String::new(), |all, b| format!("{all}{b:02x}"));
    format!("sha256:{digits}")
}

/// A layer with a type and annotations.
fn layer(blob: &[u8], kind: &str, annotations: &str) -> String {
    let (digest, size) = (digest(blob), blob.len());
    format!(
        r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size},"annotations":{annotations}}}"#
    )
}

async fn serve(blobs: Vec<Vec<u8>>, layers: &[String], private: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let manifest = format!(
        r#"{{"layers":[{}],"annotations":{{"org.opencontainers.image.licenses":"MIT"}}}}"#,
        layers.join(",")
    );
    let manifest = Mutex::new(manifest);
    let inner = Arc::new(Inner { manifest, blobs, private, address, asked: Mutex::default() });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
    Server(inner, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

async fn answer(State(state): State<Arc<Inner>>, request: Request) -> Response {
    let uri = request.uri().to_string();
    state.asked.lock().unwrap().push(uri.clone());
    let text = |name| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let authorization = text(header::AUTHORIZATION);
    if uri.starts_with("/token") {
        assert_eq!(uri, "/token?service=reg&scope=repository%3Aa%2Fmodel%3Apull");
        return match authorization.as_deref() {
            Some(PASSWORD) => r#"{"token": "given"}"#.into_response(),
            _ => StatusCode::UNAUTHORIZED.into_response(),
        };
    }
    if state.private && authorization.as_deref() != Some("Bearer given") {
        let asks = format!(r#"Bearer realm="http://{}/token",service="reg""#, state.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, asks)]).into_response();
    }
    if uri.starts_with("/v2/a/model/manifests/") {
        return state.manifest.lock().unwrap().clone().into_response();
    }
    let wanted = uri.strip_prefix("/v2/a/model/blobs/").unwrap_or_default();
    let Some(blob) = state.blobs.iter().find(|blob| digest(blob) == wanted) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = text(header::RANGE).expect("a layer is never asked for as a whole");
    let (from, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (from, last): (usize, usize) = (from.parse().unwrap(), last.parse().unwrap());
    let to = blob.len().min(last + 1);
    let range = format!("bytes {from}-{}/{}", to - 1, blob.len());
    let part = blob[from..to].to_vec();
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], part).into_response()
}

impl Server {
    async fn ask(&self, version: &str, password: bool) -> Result<Inspection, InspectError> {
        let address = self.0.address;
        let secret = format!(r#"{{"auths": {{"{address}": {{"auth": "dTpodW50ZXIy"}}}}}}"#);
        let registry = Registry {
            passwords: password.then_some(secret),
            plain_http: true,
            timeout: Duration::from_millis(500),
            authorities: Authorities::default(),
            policy: Policy { attempts: 2, pause: Duration::from_millis(10) },
            deadline: Duration::from_secs(5),
        };
        let reference = format!("{address}/a/model{version}").parse().unwrap();
        oci::inspect(&registry, &reference, Selection::default()).await
    }

    fn told(&self, error: &InspectError, label: &str) -> String {
        assert_eq!(error.label(), label, "{error}");
        error.to_string().replace(&self.0.address.to_string(), "REGISTRY")
    }
}

/// A model whose layer is in one tensor, with weights that are never asked for.
fn weights() -> Vec<u8> {
    let name = "model.layers.0.mlp.up_proj.weight".to_owned();
    let mut weights = files::safetensors(&[(name, "BF16", vec![1024, 1024], 2 << 20)]);
    weights.resize(weights.len() + (2 << 20), 0);
    weights
}

fn modelpack() -> (Vec<Vec<u8>>, Vec<String>) {
    let blobs = vec![CONFIG.as_bytes().to_vec(), weights()];
    let file = |name: &str| format!(r#"{{"org.cncf.model.filepath":"{name}"}}"#);
    let config = "application/vnd.cncf.model.weight.config.v1.raw";
    let layers = vec![
        layer(&blobs[0], config, &file("config.json")),
        layer(&blobs[1], "application/vnd.cncf.model.weight.v1.raw", &file("model.safetensors")),
    ];
    (blobs, layers)
}

#[tokio::test]
async fn a_modelpack_by_the_headers_alone() {
    let (blobs, layers) = modelpack();
    let server = serve(blobs, &layers, false).await;
    let found = server.ask(":v1", false).await.unwrap();
    let manifest = digest(server.0.manifest.lock().unwrap().as_bytes());
    assert_eq!((found.exact, found.commit), (true, Some(manifest.clone())));
    assert_eq!((found.facts.weight_bytes, found.licence.as_deref()), (Some(2 << 20), Some("MIT")));
    assert!(found.bytes_read < 32 << 10, "{}", found.bytes_read);

    assert!(server.ask(&format!("@{manifest}"), false).await.is_ok());
    let other = digest(b"other");
    let error = server.ask(&format!("@{other}"), false).await.unwrap_err();
    assert_eq!(
        server.told(&error, "nonsense"),
        format!("REGISTRY sends another manifest than {other}, which was asked for: {manifest}")
    );
}

#[tokio::test]
async fn a_private_one_with_the_password_for_its_registry() {
    let (blobs, layers) = modelpack();
    let server = serve(blobs, &layers, true).await;
    assert!(server.ask(":v1", true).await.unwrap().exact);
    let error = server.ask(":v1", false).await.unwrap_err();
    assert_eq!(
        server.told(&error, "denied"),
        "REGISTRY refuses a token for REGISTRY/a/model:v1 (401): it is private, or does not exist; \
         give the deployment an imagePullSecret with a password for that registry"
    );
}

#[tokio::test]
async fn ggufs_are_known_by_their_type() {
    let pairs = [
        ("general.architecture", files::Meta::Text("llama")),
        ("llama.block_count", files::Meta::U32(1)),
        ("llama.context_length", files::Meta::U32(256)),
        ("llama.embedding_length", files::Meta::U32(64)),
        ("llama.feed_forward_length", files::Meta::U32(128)),
        ("llama.attention.head_count", files::Meta::U32(4)),
        ("llama.vocab_size", files::Meta::U32(96)),
    ];
    let tensors = [("token_embd.weight", [64, 96]), ("blk.0.ffn_up.weight", [64, 128])]
        .map(|(name, shape)| (name.to_owned(), shape.to_vec(), 1));
    let mut file = files::gguf(&pairs, &tensors);
    file.resize(file.len().next_multiple_of(32) + (96 + 128) * 64 * 2, 0);
    for kind in ["application/vnd.docker.ai.gguf.v3", "application/vnd.ollama.image.model"] {
        let layers = [layer(&file, kind, "null")];
        let server = serve(vec![file.clone()], &layers, false).await;
        let found = server.ask(":latest", false).await.unwrap();
        assert_eq!(found.facts.weight_bytes, Some((96 + 128) * 64 * 2), "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_says_what_to_do() {
    let blob = vec![7; 100];
    let layers = [layer(&blob, "application/vnd.oci.image.layer.v1.tar+gzip", "null")];
    let server = serve(vec![blob], &layers, false).await;
    let error = server.ask(":v1", false).await.unwrap_err();
    assert_eq!(
        server.told(&error, "not_a_model"),
        "REGISTRY/a/model:v1 keeps its files in packed layers (tar), which are not read in part; \
         say in spec.model.facts what the model is"
    );
    for (text, part) in [("<html>", "web page (HTML)"), ("[", "sends what is no manifest")] {
        text.clone_into(&mut server.0.manifest.lock().unwrap());
        let error = server.ask(":v1", false).await.unwrap_err();
        let told = server.told(&error, "nonsense");
        assert!(told.starts_with("REGISTRY ") && told.contains(part), "{told}");
    }
    assert!(server.0.asked.lock().unwrap().iter().all(|uri| !uri.contains("/blobs/")));
    // A layer that the registry lost.
    let (_, layers) = modelpack();
    let server = serve(vec![], &layers, false).await;
    let error = server.ask(":v1", false).await.unwrap_err();
    assert_eq!(
        server.told(&error, "not_found"),
        "REGISTRY does not have config.json of REGISTRY/a/model:v1 (404)"
    );
}
