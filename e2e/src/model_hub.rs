//! A hub on this machine that operators in tests ask about models. It notes every request, and has no
//! weights: only how their files begin.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// What it says when it is asked about a repository.
#[derive(Clone, Debug)]
pub enum Says {
    /// It has the small Llama, at this commit.
    Model(String),
    /// A status, with a header.
    Status(u16, &'static str, &'static str),
    /// A page for people.
    Page,
    /// That it is somewhere else.
    Elsewhere(String),
}

/// A running hub. It ends when dropped.
#[derive(Debug)]
pub struct ModelHub {
    /// Where it is.
    pub address: SocketAddr,
    state: Arc<Hub>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Hub {
    repositories: Mutex<BTreeMap<String, Says>>,
    asked: Mutex<Vec<String>>,
}

impl ModelHub {
    /// Starts one without any model.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::<Hub>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, state, task })
    }

    /// Its address, as operators take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says of a repository from now on. Of all others it says that they are not there.
    pub fn say(&self, repository: &str, says: Says) {
        lock(&self.state.repositories).insert(repository.to_owned(), says);
    }

    /// What was asked, by path.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state.asked).clone()
    }
}

impl Drop for ModelHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    lock(&hub.asked).push(path.clone());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (repository, rest) = match parts.as_slice() {
        ["api", "models", organisation, name, rest @ ..] | [organisation, name, rest @ ..] => {
            (format!("{organisation}/{name}"), rest)
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let says = lock(&hub.repositories).get(&repository).cloned();
    let commit = match says {
        Some(Says::Model(commit)) => commit,
        Some(Says::Status(status, name, value)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
            return (status, [(name, value)]).into_response();
        }
        Some(Says::Page) => {
            let page = "<!doctype html><title>Sign in</title>";
            return ([(header::CONTENT_TYPE, "text/html")], page).into_response();
        }
        Some(Says::Elsewhere(to)) => {
            return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
        }
        None => {
            return (StatusCode::NOT_FOUND, [("x-error-code", "RepoNotFound")]).into_response();
        }
    };
    let (start, size) = weights();
    let config = config();
    let file = match rest {
        ["revision", _] => {
            return json!({
                "sha": commit, "cardData": {"license": "apache-2.0"},
                "siblings": [
                    {"rfilename": "config.json", "size": config.len()},
                    {"rfilename": "model.safetensors", "size": size},
                ],
            })
            .to_string()
            .into_response();
        }
        ["resolve", _, "config.json"] => (config.into_bytes(), None),
        ["resolve", _, "model.safetensors"] => (start, Some(size)),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    part(&request, &file.0, file.1)
}

/// A part of a file that begins with `start`, zeros up to its size.
fn part(request: &Request, start: &[u8], size: Option<u64>) -> Response {
    let size = size.unwrap_or(start.len() as u64);
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<u64>().ok();
    let Some((from, last)) = range.and_then(|(from, last)| Some((number(from)?, number(last)?)))
    else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let to = (last + 1).min(size);
    let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(start.len());
    let mut bytes = start[at(from)..at(to)].to_vec();
    bytes.resize(usize::try_from(to.saturating_sub(from)).unwrap_or(0), 0);
    let said = format!("bytes {from}-{}/{size}", to - 1);
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, said)], bytes).into_response()
}

const LAYERS: u64 = 4;
const HIDDEN: u64 = 1024;
const INNER: u64 = 2048;
const KV: u64 = 256;
const VOCABULARY: u64 = 32_000;

fn config() -> String {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    })
    .to_string()
}

/// Bytes of the small Llama's weights.
pub fn weight_bytes() -> u64 {
    shapes().iter().map(|(_, shape)| 2 * shape.iter().product::<u64>()).sum()
}

/// How its file of weights begins, and how large that is.
fn weights() -> (Vec<u8>, u64) {
    let (mut tensors, mut at) = (Map::new(), 0);
    for (name, shape) in shapes() {
        let end = at + 2 * shape.iter().product::<u64>();
        tensors.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = serde_json::Value::Object(tensors).to_string();
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.as_bytes());
    let size = start.len() as u64 + at;
    (start, size)
}

fn shapes() -> Vec<(String, Vec<u64>)> {
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.k_proj", vec![KV, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.v_proj", vec![KV, HIDDEN]),
        ] {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    all.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    all.push(("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]));
    all
}
