//! A hub with one repository, `org/name`, whose files of weights are as large as real ones and have
//! nothing but a header. It counts what it is asked and sends, and does wrong when told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_inspect::{
    InspectError, Inspection, Selection,
    hub::{self, Hub},
    redirects::Redirects,
    retry::Policy,
    settings::{Authorities, Settings, Token},
};
use futures::stream;
use tokio::net::TcpListener;

pub const COMMIT: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

/// A file: how it begins, and how large it is; zeros follow.
#[derive(Clone, Debug)]
pub struct File {
    pub start: Vec<u8>,
    pub size: u64,
}

impl File {
    pub fn of(text: impl Into<Vec<u8>>) -> Self {
        let start = text.into();
        Self { size: start.len() as u64, start }
    }

    fn part(&self, from: u64, to: u64) -> Vec<u8> {
        let at = |at: u64| usize::try_from(at).unwrap();
        let mut part = vec![0; at(to - from)];
        let held = self.start.get(at(from)..).unwrap_or_default();
        let held = &held[..held.len().min(part.len())];
        part[..held.len()].copy_from_slice(held);
        part
    }
}

/// What the hub does wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status, with a header.
    Status(u16, &'static str, &'static str),
    /// A body of its own, of this type.
    Says(&'static str, String),
    /// Bytes without end, whatever was asked for.
    Endless(&'static str),
    /// One byte from time to time.
    Drip,
    /// The whole file in place of a part.
    Whole,
    /// The body ends before its time.
    Cut,
    /// To some other place.
    Redirect(String),
    /// What is sent is said to be compressed.
    Gzip,
    /// Another part than was asked for.
    WrongPart,
}

pub struct Server {
    pub address: SocketAddr,
    state: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    files: BTreeMap<String, File>,
    sizes: bool,
    faults: Mutex<HashMap<String, (usize, Fault)>>,
    asked: Mutex<Vec<(String, HeaderMap)>>,
    served: Arc<AtomicU64>,
}

impl Server {
    pub async fn of(files: impl IntoIterator<Item = (String, File)>) -> Self {
        Self::start(files, true).await
    }

    pub async fn start(files: impl IntoIterator<Item = (String, File)>, sizes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Inner {
            files: files.into_iter().collect(),
            sizes,
            faults: Mutex::default(),
            asked: Mutex::default(),
            served: Arc::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, task }
    }

    /// Does wrong with a file (or `list`), so many times.
    pub fn wrong(&self, path: &str, times: usize, fault: Fault) {
        self.state.faults.lock().unwrap().insert(path.to_owned(), (times, fault));
    }

    pub fn served(&self) -> u64 {
        self.state.served.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> Vec<(String, HeaderMap)> {
        self.state.asked.lock().unwrap().clone()
    }

    pub fn settings(&self) -> Settings {
        Settings {
            endpoint: format!("http://{}", self.address).parse().unwrap(),
            token: Token::new("hf_averysecrettoken").unwrap(),
            timeout: Duration::from_millis(500),
            authorities: Authorities::default(),
            redirects: Redirects::Anywhere,
        }
    }

    pub async fn inspect(&self) -> Result<Inspection, InspectError> {
        self.ask(self.settings(), Selection::default()).await
    }

    pub async fn ask(
        &self,
        settings: Settings,
        selection: Selection<'_>,
    ) -> Result<Inspection, InspectError> {
        let policy = Policy { attempts: 2, pause: Duration::from_millis(10) };
        let hub = Hub::new(settings, policy, Duration::from_secs(5)).unwrap();
        let (repository, revision) = ("org/name".parse().unwrap(), "main".parse().unwrap());
        let done = hub::inspect(&hub, &repository, &revision, selection).await;
        if let Err(error) = &done {
            assert!(!error.to_string().contains("averysecret"), "{error}");
        }
        done
    }

    /// The text of the error, with `HUB` for the address.
    pub async fn fails(&self, label: &str, is_final: bool) -> String {
        self.told(&self.inspect().await.unwrap_err(), label, is_final)
    }

    pub fn told(&self, error: &InspectError, label: &str, is_final: bool) -> String {
        assert_eq!((error.label(), error.is_final()), (label, is_final), "{error}");
        error.to_string().replace(&self.address.to_string(), "HUB")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(state): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    state.asked.lock().unwrap().push((path.clone(), request.headers().clone()));
    let name = if path == "/api/models/org/name/revision/main" {
        "list".to_owned()
    } else if let Some(name) = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) {
        name.to_owned()
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let file = if name == "list" {
        File::of(state.list())
    } else if let Some(file) = state.files.get(&name) {
        file.clone()
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = request.headers().get(header::RANGE).map(|range| {
        let (from, last) =
            range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let last: u64 = last.parse().unwrap();
        (from.parse::<u64>().unwrap(), (last + 1).min(file.size))
    });
    let fault = {
        let mut faults = state.faults.lock().unwrap();
        faults.get_mut(&name).filter(|(times, _)| *times > 0).map(|(times, fault)| {
            *times -= 1;
            fault.clone()
        })
    };
    match (fault, range) {
        (Some(fault), range) => state.wrong(&file, range, fault),
        (None, Some((from, to))) if from < file.size => state.part(&file, from, to, from),
        (None, Some(_)) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        (None, None) => state.whole(&file),
    }
}

impl Inner {
    fn list(&self) -> String {
        let siblings = self.files.iter().map(|(name, file)| {
            let size = if self.sizes { format!(r#","size":{}"#, file.size) } else { String::new() };
            format!(r#"{{"rfilename":"{name}"{size},"blobId":"{}"}}"#, "ab".repeat(20))
        });
        let siblings = siblings.collect::<Vec<_>>().join(",");
        let card = r#""cardData":{"license":"apache-2.0"}"#;
        format!(r#"{{"sha":"{COMMIT}","gated":false,{card},"siblings":[{siblings}]}}"#)
    }

    fn part(&self, file: &File, from: u64, to: u64, said: u64) -> Response {
        self.served.fetch_add(to - from, Ordering::Relaxed);
        let range = format!("bytes {said}-{}/{}", to - 1, file.size);
        let headers = [(header::CONTENT_RANGE, range)];
        (StatusCode::PARTIAL_CONTENT, headers, file.part(from, to)).into_response()
    }

    /// All of it, as it is taken.
    fn whole(&self, file: &File) -> Response {
        const PIECE: u64 = 64 << 10;
        let (file, served) = (file.clone(), Arc::clone(&self.served));
        let length = file.size.to_string();
        let body = stream::unfold(0, move |from| {
            let to = (from + PIECE).min(file.size);
            let piece = (from < to).then(|| {
                served.fetch_add(to - from, Ordering::Relaxed);
                (Ok::<_, std::io::Error>(Bytes::from(file.part(from, to))), to)
            });
            async { piece }
        });
        ([(header::CONTENT_LENGTH, length)], Body::from_stream(body)).into_response()
    }

    fn wrong(&self, file: &File, range: Option<(u64, u64)>, fault: Fault) -> Response {
        match fault {
            Fault::Status(status, name, value) => {
                (StatusCode::from_u16(status).unwrap(), [(name, value)]).into_response()
            }
            Fault::Says(kind, text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
            Fault::Whole => self.whole(file),
            Fault::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
            Fault::Gzip => ([(header::CONTENT_ENCODING, "gzip")], vec![0x1f, 0x8b]).into_response(),
            Fault::WrongPart => self.part(file, 0, range.unwrap().1, 7),
            Fault::Endless(text) => {
                let (piece, served) = (Bytes::from(text.repeat(4096)), Arc::clone(&self.served));
                Body::from_stream(stream::repeat_with(move || {
                    served.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Ok::<_, std::io::Error>(piece.clone())
                }))
                .into_response()
            }
            Fault::Drip => Body::from_stream(stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
            }))
            .into_response(),
            Fault::Cut => {
                let length = file.size.to_string();
                let pieces =
                    stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("cut"))]);
                ([(header::CONTENT_LENGTH, length)], Body::from_stream(pieces)).into_response()
            }
        }
    }
}
