//! One request: redirects followed with care, failures sorted into those worth another attempt and
//! those that are not, no more of an answer held than is asked for.

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{self, HeaderMap},
    redirect::Policy,
};

use crate::{
    checksum::Checksum,
    error::{Cause, Failure, InspectError},
    meter::Meter,
    model::Piece,
    redirects::{Guard, Inside},
    settings::{Settings, Token},
    tls,
};

/// Redirects that are followed; the hub itself needs two or three.
const MAX_REDIRECTS: usize = 10;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// A client of one hub.
#[derive(Clone)]
pub struct Http {
    client: Client,
    settings: Settings,
    guard: Option<Guard>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// The content, from this byte on.
    Content(u64),
    /// Of the content, the bytes from the first to before the second.
    Range(u64, u64),
    /// A document in one of these formats.
    Document(&'static str),
    /// Headers only.
    Headers,
}

/// An answer with a status of success; for [`Ask::Headers`] it may be a redirect to elsewhere.
pub struct Answer {
    /// The answer.
    pub response: Response,
    /// Who gave it.
    pub host: String,
    /// What the hub said about the file on the way.
    pub linked: Linked,
}

/// What the hub's headers say about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// The commit it is from.
    pub commit: Option<String>,
    /// The checksum, said on purpose (`X-Linked-Etag`).
    pub checksum: Option<Checksum>,
    /// Where that is not there: what the `ETag` looks like.
    pub etag: Option<Checksum>,
    /// Bytes.
    pub size: Option<u64>,
}

impl Linked {
    fn learn(&mut self, headers: &HeaderMap, status: StatusCode) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let checksum = |name: &str| text(name).and_then(Checksum::parse);
        let fill = |place: &mut Option<Checksum>, value| *place = place.take().or(value);
        fill(
            &mut self.checksum,
            checksum("x-linked-etag").or_else(|| checksum("x-checksum-sha256")),
        );
        self.size = self.size.or_else(|| text("x-linked-size").and_then(|size| size.parse().ok()));
        if self.commit.is_none() {
            self.commit = text("x-repo-commit").map(|commit| commit.chars().take(64).collect());
        }
        if status == StatusCode::OK {
            fill(&mut self.etag, checksum("etag"));
            self.size = self.size.or_else(|| text("content-length").and_then(|s| s.parse().ok()));
        }
    }
}

/// A refusal, for the caller to put into words.
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// Who refuses.
    pub host: String,
    /// The hub's own word for it.
    pub code: Option<String>,
    /// Whether the token was sent.
    pub token: bool,
    /// What a registry asks for (`WWW-Authenticate`).
    pub challenge: Option<String>,
}

impl Http {
    /// A client; reads certificates.
    pub fn new(settings: Settings) -> Result<Self, InspectError> {
        let tls = tls::config(&settings.authorities)?;
        let guard = Guard::new(&settings.endpoint, &settings.redirects);
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT.min(settings.timeout))
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")));
        if let Some(guard) = &guard {
            // A proxy would resolve names by itself, and they would not be those that were checked.
            client = client.dns_resolver(guard.clone()).no_proxy();
        }
        let client = client.build().map_err(|error| {
            InspectError::Usage(format!("no HTTP client: {}", error.without_url()))
        })?;
        Ok(Self { client, settings, guard })
    }

    /// Who the hub is, for people.
    pub fn host(&self) -> String {
        host(&self.settings.endpoint)
    }

    /// The same, with another token.
    #[must_use]
    pub fn with_token(&self, token: Token) -> Self {
        let settings = Settings { token: Some(token), ..self.settings.clone() };
        Self { settings, ..self.clone() }
    }

    /// How long nothing may come.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// An address at the hub.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.settings.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Asks once, follows redirects, and leaves refusals to `refused`.
    pub async fn ask(
        &self,
        mut url: Url,
        ask: Ask,
        refused: impl Fn(Refused) -> InspectError,
    ) -> Result<Answer, Failure> {
        let home = self.settings.endpoint.origin();
        // Once away from the hub the token stays behind, even if the way leads back.
        let mut at_home = true;
        let mut linked = Linked::default();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, ask, at_home).await?;
            let (status, host) = (response.status(), host(&url));
            if at_home {
                linked.learn(response.headers(), status);
            }
            if status.is_success() {
                return Ok(Answer { response, host, linked });
            }
            if !status.is_redirection() {
                let token = at_home && self.settings.token.is_some();
                return Err(refusal(&response, host, token, refused));
            }
            url = target(&url, &response)?;
            if let Some(why) = self.guard.as_ref().and_then(|guard| guard.refuses(&url)) {
                let target = self::host(&url);
                return Err(InspectError::Redirected { host, target, why }.into());
            }
            at_home &= url.origin() == home;
            // Signed addresses are signed for one method.
            if matches!(ask, Ask::Headers) && !at_home {
                return Ok(Answer { response, host, linked });
            }
        }
        Err(InspectError::Nonsense(format!(
            "{} redirects in a circle, or more than {MAX_REDIRECTS} times",
            self.host()
        ))
        .into())
    }

    async fn send(&self, url: &Url, ask: Ask, at_home: bool) -> Result<Response, Failure> {
        let method = match ask {
            Ask::Headers => Method::HEAD,
            Ask::Content(_) | Ask::Range(..) | Ask::Document(_) => Method::GET,
        };
        let mut request = self
            .client
            .request(method, url.clone())
            // Compressed, no byte would be where it is asked for.
            .header(header::ACCEPT_ENCODING, "identity");
        match ask {
            Ask::Content(from @ 1..) => {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            Ask::Range(from, to) => {
                let last = to.saturating_sub(1);
                request = request.header(header::RANGE, format!("bytes={from}-{last}"));
            }
            Ask::Document(formats) => request = request.header(header::ACCEPT, formats),
            Ask::Content(_) | Ask::Headers => {}
        }
        if let Some(Token(token)) = self.settings.token.as_ref().filter(|_| at_home) {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        match tokio::time::timeout(self.settings.timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&error, url)),
            Err(_) => Err(Cause::Stalled(self.settings.timeout).into()),
        }
    }

    /// The whole content, which must not be larger than `limit`; `what` is meant for people.
    pub async fn content(
        &self,
        answer: Answer,
        limit: usize,
        what: &str,
        meter: &Meter,
    ) -> Result<Vec<u8>, Failure> {
        let host = answer.host.clone();
        let content = self.beginning(answer, limit.saturating_add(1), what, meter).await?;
        if content.len() <= limit {
            return Ok(content);
        }
        Err(InspectError::Nonsense(format!(
            "{host} answers with more than {limit} bytes where {what} was asked for"
        ))
        .into())
    }

    /// The first `most` bytes of the content, or all where it has fewer. What comes after them is
    /// not waited for.
    pub async fn beginning(
        &self,
        mut answer: Answer,
        most: usize,
        what: &str,
        meter: &Meter,
    ) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        let all = async {
            while content.len() < most {
                let next = answer.response.chunk().await;
                let Some(chunk) = next.map_err(|error| Cause::Connection(last_cause(&error)))?
                else {
                    break;
                };
                meter.add(chunk.len(), what)?;
                let room = most - content.len();
                content.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(())
        };
        let done = tokio::time::timeout(self.settings.timeout, all).await;
        match done {
            Ok(done) => done.map(|()| content),
            Err(_) if content.is_empty() => Err(Cause::Stalled(self.settings.timeout).into()),
            Err(_) => Err(Cause::Slow(self.settings.timeout).into()),
        }
    }

    /// The part of a content that was asked for by [`Ask::Range`]. A server that sends it from its
    /// beginning is read as far as needed, and no further.
    pub(crate) async fn part(
        &self,
        answer: Answer,
        from: u64,
        to: u64,
        what: &str,
        meter: &Meter,
    ) -> Result<Piece, Failure> {
        let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let text = |name| answer.response.headers().get(name).and_then(|v| v.to_str().ok());
        let (start, size) = if partial {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            let (start, size) =
                content_range(range).filter(|(start, _)| *start == from).ok_or_else(|| {
                    let range: String = range.chars().take(80).collect();
                    InspectError::Nonsense(format!(
                        "{} answers with the range {range:?} where {what} was asked for from byte \
                         {from}",
                        answer.host
                    ))
                })?;
            (start, size)
        } else {
            (0, answer.response.content_length())
        };
        let least = usize::try_from(to.saturating_sub(start)).unwrap_or(usize::MAX);
        let expected = answer.response.content_length();
        let mut bytes = self.beginning(answer, least, what, meter).await?;
        if let Some(of) = expected.filter(|of| (bytes.len() as u64) < (*of).min(least as u64)) {
            return Err(Cause::Cut { at: bytes.len() as u64, of }.into());
        }
        bytes.drain(..bytes.len().min(usize::try_from(from - start).unwrap_or(usize::MAX)));
        Ok(Piece { bytes, size })
    }

    fn unreachable(&self, error: &reqwest::Error, url: &Url) -> Failure {
        let host = host(url);
        if let Some(inside) = inside(error) {
            let (target, why) = (host, inside.why());
            return InspectError::Redirected { host: self.host(), target, why }.into();
        }
        match tls::untrusted(error) {
            Some(why) => InspectError::Untrusted { host, why }.into(),
            None => Cause::Connection(last_cause(error)).into(),
        }
    }
}

/// The first byte and the whole size in a `Content-Range`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()))
}

/// The address that was not connected to, if that is what is wrong.
fn inside(error: &reqwest::Error) -> Option<&Inside> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(inside) = error.downcast_ref() {
            return Some(inside);
        }
        next = error.source();
    }
    None
}

fn refusal(
    response: &Response,
    host: String,
    token: bool,
    refused: impl Fn(Refused) -> InspectError,
) -> Failure {
    let status = response.status();
    let cause = match status.as_u16() {
        429 => Cause::Throttled,
        code @ (408 | 416 | 425 | 500..) => Cause::Status(code),
        _ => {
            let text = |name| {
                let value = response.headers().get(name).and_then(|value| value.to_str().ok());
                value.map(ToOwned::to_owned)
            };
            let (code, challenge) = (text("x-error-code"), text("www-authenticate"));
            return refused(Refused { status, host, code, token, challenge }).into();
        }
    };
    Failure::Transient { cause, retry_after: retry_after(response.headers(), SystemTime::now()) }
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

/// Where a redirect leads.
fn target(from: &Url, response: &Response) -> Result<Url, InspectError> {
    let wrong =
        |why: &str| InspectError::Nonsense(format!("{} answers with a redirect {why}", host(from)));
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| wrong("that leads nowhere"))?;
    let mut url = from.join(location).map_err(|_| wrong("that leads nowhere"))?;
    match (from.scheme(), url.scheme()) {
        ("https", "https") | ("http", "http" | "https") => {}
        ("https", "http") => return Err(wrong("from https to http, which is refused")),
        _ => return Err(wrong("to something that is not http")),
    }
    // They would be sent.
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(wrong("that leads nowhere"));
    }
    Ok(url)
}

/// Host and port; the rest of an address may hold secrets.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What is at the bottom of an error.
pub fn last_cause(error: &reqwest::Error) -> String {
    let mut last: &dyn StdError = error;
    while let Some(source) = last.source() {
        last = source;
    }
    // The outermost text alone holds the address.
    let text = if last.source().is_none() && last.is::<reqwest::Error>() {
        "the request failed".to_owned()
    } else {
        last.to_string()
    };
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_when_to_come_back() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
            retry_after(&headers, now).map(|asked| asked.as_secs())
        };
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sun, 06 Nov 1994 08:48:37 GMT"), None);
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    #[test]
    fn headers_of_the_hub() {
        let sha256 = "cd".repeat(32);
        let mut headers = HeaderMap::new();
        headers.insert("x-linked-etag", format!("\"{sha256}\"").parse().unwrap());
        headers.insert("x-linked-size", "9".parse().unwrap());
        headers.insert("x-repo-commit", "abc".parse().unwrap());
        headers.insert("content-length", "1".parse().unwrap());
        let mut linked = Linked::default();
        linked.learn(&headers, StatusCode::FOUND);
        assert_eq!(linked.checksum, Some(Checksum::Sha256([0xcd; 32])));
        assert_eq!((linked.size, linked.commit.as_deref()), (Some(9), Some("abc")));
        assert_eq!(linked.etag, None);
    }
}
