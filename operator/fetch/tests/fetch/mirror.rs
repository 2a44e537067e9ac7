//! A mirror with one repository, `org/name`. It counts what it serves, and does wrong when told to.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_fetch::checksum::{Checksum, Hasher};
use futures::stream;
use tokio::{net::TcpListener, sync::Semaphore};

pub const COMMIT: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

/// Pieces that bodies are sent in.
const PIECE: usize = 64 << 10;

/// What the mirror does wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with a status, and perhaps says when to come back.
    Status(u16, Option<&'static str>),
    /// Answers with a status and the hub's own word for it.
    Code(u16, &'static str),
    /// Answers with a page.
    Html,
    /// Ends the connection after so many bytes.
    Cut(usize),
    /// Sends so many bytes, then nothing more.
    Stall(usize),
    /// Sends so many bytes, then waits until it is let go on.
    Hold(usize),
    /// Sends so many bytes only, and says so.
    Short(usize),
    /// Says that there are so many bytes.
    Length(u64),
    /// Sends bytes without end.
    Endless,
    /// Flips a bit of the first byte.
    Corrupt,
    /// Ignores the range.
    Whole,
    /// Says that it is of another commit.
    OtherCommit,
    /// Sends to some other place.
    Redirect(String),
    /// Sends a body of its own.
    Says(String),
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub authorization: bool,
    pub range: Option<String>,
}

#[derive(Default)]
struct Faults {
    once: HashMap<String, VecDeque<Fault>>,
    always: HashMap<String, Fault>,
}

pub struct Mirror {
    pub address: SocketAddr,
    state: Arc<Inner>,
    server: tokio::task::JoinHandle<()>,
}

struct Inner {
    files: BTreeMap<String, Bytes>,
    /// SHA-256 and git's SHA-1 of each.
    digests: HashMap<String, (String, String)>,
    /// Where large files are sent from, if not from here.
    storage: Option<String>,
    token: Option<&'static str>,
    /// Whether the list tells sizes and checksums, and headers tell checksums.
    tells: (bool, bool),
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Seen>>,
    served: Arc<Mutex<HashMap<String, u64>>>,
    gate: Arc<Semaphore>,
}

/// How a mirror is set up.
#[derive(Default)]
pub struct Setup {
    pub files: Vec<(&'static str, Bytes)>,
    pub storage: Option<String>,
    pub token: Option<&'static str>,
    pub list_is_bare: bool,
    pub headers_are_bare: bool,
}

/// Bytes that look like weights.
pub fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// The files of a usual model: 3 MiB of weights in one file, and two small ones.
pub fn model() -> Vec<(&'static str, Bytes)> {
    vec![
        ("config.json", Bytes::from_static(b"{\"a\": 1}\n")),
        ("model.safetensors", noise(1, 3 << 20)),
        ("tokenizer.json", noise(2, 40_000)),
    ]
}

impl Mirror {
    pub async fn start(setup: Setup) -> Self {
        let digests = |(name, content): &(&str, Bytes)| {
            ((*name).to_owned(), (sha256(content), git_blob(content)))
        };
        let state = Arc::new(Inner {
            digests: setup.files.iter().map(digests).collect(),
            files: setup
                .files
                .into_iter()
                .map(|(name, content)| (name.to_owned(), content))
                .collect(),
            storage: setup.storage,
            token: setup.token,
            tells: (!setup.list_is_bare, !setup.headers_are_bare),
            faults: Mutex::default(),
            seen: Mutex::default(),
            served: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, server }
    }

    pub async fn of(files: Vec<(&'static str, Bytes)>) -> Self {
        Self::start(Setup { files, ..Setup::default() }).await
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does wrong the next time that `path` (a file's name, or `list`) is asked for.
    pub fn once(&self, path: &str, fault: Fault) {
        let mut faults = self.state.faults.lock().unwrap();
        faults.once.entry(path.to_owned()).or_default().push_back(fault);
    }

    /// Does wrong each time.
    pub fn always(&self, path: &str, fault: Fault) {
        self.state.faults.lock().unwrap().always.insert(path.to_owned(), fault);
    }

    /// Lets all go on that it holds.
    pub fn release(&self) {
        self.state.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Bytes of files that it sent.
    pub fn served(&self) -> u64 {
        self.state.served.lock().unwrap().values().sum()
    }

    pub fn served_of(&self, name: &str) -> u64 {
        self.state.served.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn asked_for(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }

    pub fn total(&self) -> u64 {
        self.state.files.values().map(|content| content.len() as u64).sum()
    }

    pub fn content(&self, name: &str) -> Bytes {
        self.state.files[name].clone()
    }

    /// No mirror any more.
    pub fn stop(self) {
        self.server.abort();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn is_large(name: &str) -> bool {
    [".safetensors", ".gguf", ".bin"].iter().any(|end| name.ends_with(end))
}

fn sha256(content: &[u8]) -> String {
    let mut hasher = Hasher::new(content.len() as u64, None);
    hasher.update(content);
    hasher.finish().sha256()
}

fn git_blob(content: &[u8]) -> String {
    let some = Checksum::GitBlob([0; 20]);
    let mut hasher = Hasher::new(content.len() as u64, Some(some));
    hasher.update(content);
    let blob = hasher.finish().mismatch(some).unwrap().to_string();
    blob.rsplit(' ').next().unwrap().to_owned()
}

async fn answer(State(state): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION);
    state.seen.lock().unwrap().push(Seen {
        path: request.uri().to_string(),
        authorization: authorization.is_some(),
        range: text(header::RANGE).map(ToOwned::to_owned),
    });
    let bearer = state.token.map(|token| format!("Bearer {token}"));
    if let Some(name) = path.strip_prefix("/storage/") {
        return state.file(name, request.method(), headers, false);
    }
    if bearer.is_some() && authorization != bearer.as_deref() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let revision = path.strip_prefix("/api/models/org/name/revision/");
    if let Some(revision) = revision {
        return state.list(revision);
    }
    match path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) {
        Some(name) => state.file(name, request.method(), headers, true),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Inner {
    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let once = faults.once.get_mut(path).and_then(VecDeque::pop_front);
        once.or_else(|| faults.always.get(path).cloned())
    }

    fn list(&self, revision: &str) -> Response {
        match self.fault("list") {
            Some(Fault::Endless) => {
                return endless(format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[")).into_response();
            }
            Some(Fault::Says(text)) => return text.into_response(),
            Some(fault) => return simple(&fault),
            None => {}
        }
        if !["main", COMMIT, "refs%2Fpr%2F1"].contains(&revision) {
            let code = [("x-error-code", "RevisionNotFound")];
            return (StatusCode::NOT_FOUND, code).into_response();
        }
        let mut siblings = String::new();
        for (name, content) in &self.files {
            if !siblings.is_empty() {
                siblings.push(',');
            }
            let ((sha256, blob), size) = (&self.digests[name], content.len());
            write!(siblings, r#"{{"rfilename":"{name}""#).unwrap();
            if self.tells.0 {
                write!(siblings, r#","size":{size},"blobId":"{blob}""#).unwrap();
            }
            if self.tells.0 && is_large(name) {
                write!(siblings, r#","lfs":{{"sha256":"{sha256}","size":{size}}}"#).unwrap();
            }
            siblings.push('}');
        }
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (kind, format!(r#"{{"sha":"{COMMIT}","siblings":[{siblings}]}}"#)).into_response()
    }

    fn file(&self, name: &str, method: &Method, headers: &HeaderMap, at_home: bool) -> Response {
        let Some(content) = self.files.get(name) else {
            let code = [("x-error-code", "EntryNotFound")];
            return (StatusCode::NOT_FOUND, code).into_response();
        };
        let head = *method == Method::HEAD;
        let redirects = at_home && is_large(name);
        // A file that is sent from elsewhere goes wrong there.
        let fault = if head || redirects { None } else { self.fault(name) };
        let mut response = if redirects {
            let storage = self.storage.as_deref().unwrap_or_default();
            let to = format!("{storage}/storage/{name}?Signature=verysecretsignature");
            (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        } else {
            self.content(name, content, headers, head, fault.as_ref())
        };
        if at_home {
            let mut put = |name: &'static str, value: String| {
                response.headers_mut().insert(name, value.parse().unwrap());
            };
            let commit = if matches!(fault, Some(Fault::OtherCommit)) { "0b" } else { "0a" };
            put("x-repo-commit", commit.repeat(20));
            if self.tells.1 && is_large(name) {
                put("x-linked-etag", format!("\"{}\"", self.digests[name].0));
                put("x-linked-size", content.len().to_string());
            } else if self.tells.1 {
                put("etag", format!("\"{}\"", self.digests[name].1));
            } else if is_large(name) {
                put("x-linked-size", content.len().to_string());
            }
        }
        response
    }

    fn content(
        &self,
        name: &str,
        content: &Bytes,
        headers: &HeaderMap,
        head: bool,
        fault: Option<&Fault>,
    ) -> Response {
        let size = content.len();
        let range = headers.get(header::RANGE).filter(|_| !matches!(fault, Some(Fault::Whole)));
        let (from, to) = range.map_or((0, size), |range| {
            let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
            let (from, last) = range.split_once('-').unwrap();
            let to = last.parse().map_or(size, |last: usize| size.min(last + 1));
            (from.parse().unwrap(), to)
        });
        if from >= size && size > 0 {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let mut rest = content.slice(from..to);
        let mut length = rest.len() as u64;
        let mut end = End::Whole;
        match fault {
            Some(Fault::Cut(at)) => (rest, end) = (rest.slice(..*at), End::Cut),
            Some(Fault::Stall(at)) => (rest, end) = (rest.slice(..*at), End::Stall),
            Some(Fault::Hold(at)) => end = End::Hold(*at),
            Some(Fault::Short(at)) => {
                rest = rest.slice(..*at);
                length = *at as u64;
            }
            Some(Fault::Length(claimed)) => (length, end) = (*claimed, End::Stall),
            Some(Fault::Corrupt) => {
                let mut changed = rest.to_vec();
                changed[0] ^= 1;
                rest = changed.into();
            }
            Some(Fault::Endless) => return endless(String::new()).into_response(),
            Some(Fault::Whole | Fault::OtherCommit) | None => {}
            Some(other) => return simple(other),
        }
        let mut response =
            if head { Body::empty() } else { self.body(name, &rest, end) }.into_response();
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        if range.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {from}-{}/{size}", to - 1);
            response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
        }
        response
    }

    /// A body that is counted as it is sent.
    fn body(&self, name: &str, content: &Bytes, end: End) -> Body {
        let pieces = split(content, &end);
        let (gate, served, name) =
            (Arc::clone(&self.gate), Arc::clone(&self.served), name.to_owned());
        let count = move |bytes: u64| {
            *served.lock().unwrap().entry(name.clone()).or_default() += bytes;
        };
        let start = (pieces, end, gate, count);
        let stream = stream::unfold(start, |(mut pieces, end, gate, count)| async move {
            match pieces.pop_front() {
                Some(Piece::Bytes(bytes)) => {
                    count(bytes.len() as u64);
                    Some((Ok(bytes), (pieces, end, gate, count)))
                }
                Some(Piece::Wait) => {
                    gate.acquire().await.unwrap().forget();
                    Some((Ok(Bytes::new()), (pieces, end, gate, count)))
                }
                None if matches!(end, End::Whole | End::Hold(_)) => None,
                None if matches!(end, End::Stall) => std::future::pending().await,
                None => {
                    // What was sent before should arrive before the end does.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Some((Err(std::io::Error::other("cut")), (pieces, End::Whole, gate, count)))
                }
            }
        });
        Body::from_stream(stream)
    }
}

enum End {
    Whole,
    Cut,
    Stall,
    Hold(usize),
}

enum Piece {
    Bytes(Bytes),
    Wait,
}

fn split(content: &Bytes, end: &End) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    let mut at = 0;
    while at < content.len() {
        let hold = if let End::Hold(hold) = end { *hold } else { 0 };
        let stop = if at < hold { hold } else { content.len() }.min(at + PIECE);
        pieces.push_back(Piece::Bytes(content.slice(at..stop)));
        at = stop;
        if at == hold {
            pieces.push_back(Piece::Wait);
        }
    }
    pieces
}

fn simple(fault: &Fault) -> Response {
    match fault {
        Fault::Status(status, after) => {
            let mut response = StatusCode::from_u16(*status).unwrap().into_response();
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            response
        }
        Fault::Code(status, code) => {
            (StatusCode::from_u16(*status).unwrap(), [("x-error-code", *code)]).into_response()
        }
        Fault::Html => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (kind, "<!doctype html><title>Log in</title>").into_response()
        }
        Fault::Redirect(to) => {
            (StatusCode::FOUND, [(header::LOCATION, to.as_str())]).into_response()
        }
        other => panic!("{other:?} is not for this"),
    }
}

fn endless(start: String) -> Body {
    let more = Bytes::from(vec![b' '; PIECE]);
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(start))]);
    Body::from_stream(futures::StreamExt::chain(
        first,
        stream::repeat_with(move || Ok(more.clone())),
    ))
}
