//! An artifact in a registry: its manifest, and parts of those layers that are files as they are.
//!
//! Known are `ModelPack`, Docker's and Ollama's GGUF artifacts, and what ORAS pushes with titles.
//! Layers in which files are packed (tar) are not read: their headers lie anywhere in them.
//!
//! The registry's API is asked with this crate's own client, for its bounds on every answer and its
//! rules on redirects.

mod auth;
mod manifest;
mod reference;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::Url;
use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use self::reference::Reference;
use self::{
    auth::Challenge,
    manifest::{Blob, FORMATS, Manifest},
};
use crate::{
    error::{Failure, InspectError},
    http::{Answer, Ask, Http, Refused},
    inspection::Inspection,
    listing,
    meter::Meter,
    model::{self, Files, Item, Piece, Selection},
    redirects::Redirects,
    remote::{as_it_is, in_time, pause},
    retry::{Attempts, Policy},
    settings::{Authorities, Settings, Token},
};

/// The largest manifest that is read: registries take no larger ones.
const MANIFEST: usize = 4 << 20;

/// The largest answer with a token.
const TOKEN: usize = 1 << 20;

/// How a registry is asked.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The text of a `.dockerconfigjson`.
    pub passwords: Option<String>,
    /// Whether it speaks http and no https.
    pub plain_http: bool,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whom to trust.
    pub authorities: Authorities,
    /// When to try again.
    pub policy: Policy,
    /// How long all of it may take.
    pub deadline: Duration,
}

/// Learns what a model in a registry is.
pub async fn inspect(
    registry: &Registry,
    reference: &Reference,
    selection: Selection<'_>,
) -> Result<Inspection, InspectError> {
    let all = look(registry, reference, selection);
    in_time(registry.deadline, &reference.to_string(), &reference.registry, all).await
}

async fn look(
    registry: &Registry,
    reference: &Reference,
    selection: Selection<'_>,
) -> Result<Inspection, InspectError> {
    let meter = Meter::new(model::MOST);
    let mut artifact = Artifact::new(registry, reference, &meter)?;
    artifact.open().await?;
    let (mut digest, mut manifest) = artifact.manifest(&reference.version).await?;
    if let Some(first) = manifest.first().map(ToOwned::to_owned) {
        (digest, manifest) = artifact.manifest(&first).await?;
    }
    artifact.blobs = manifest.blobs();
    let items: Vec<Item> = artifact.blobs.iter().map(|blob| blob.item.clone()).collect();
    let weights =
        |item: &Item| [".gguf", ".safetensors"].iter().any(|end| item.name.ends_with(end));
    if manifest.packed() > 0 && !items.iter().any(weights) {
        let why = "keeps its files in packed layers (tar), which are not read in part; say in \
                   spec.model.facts what the model is";
        return Err(InspectError::NotAModel { what: artifact.whole(), why: why.to_owned() });
    }
    let model::Learnt { facts, exact } = model::learn(&artifact, &items, selection).await?;
    let (commit, licence) = (Some(digest), manifest.licence());
    Ok(Inspection { commit, facts, licence, exact, bytes_read: meter.total() })
}

struct Artifact<'a> {
    http: Http,
    registry: &'a Registry,
    reference: &'a Reference,
    meter: &'a Meter,
    blobs: Vec<Blob>,
}

impl<'a> Artifact<'a> {
    fn new(
        registry: &'a Registry,
        reference: &'a Reference,
        meter: &'a Meter,
    ) -> Result<Self, InspectError> {
        let host = match &*reference.registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = if registry.plain_http { "http" } else { "https" };
        let endpoint = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| InspectError::Usage(format!("{host} is no host: {error}")))?;
        let http = Http::new(settings(registry, endpoint, None))?;
        Ok(Self { http, registry, reference, meter, blobs: Vec::new() })
    }

    /// Asks for the manifest once, to learn what the registry wants to see.
    async fn open(&mut self) -> Result<(), InspectError> {
        let challenge = Mutex::new(None);
        let refused = |refused: Refused| {
            let asked = refused.challenge.as_deref().filter(|_| refused.status == 401);
            *challenge.lock().unwrap_or_else(PoisonError::into_inner) =
                asked.and_then(auth::challenge);
            why(&refused, &self.reference.to_string())
        };
        let url = self.url("manifests", &self.reference.version);
        let asked = self.http.ask(url, Ask::Document(FORMATS), refused).await;
        let challenge = challenge.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (asked, challenge) {
            // What else is wrong will be so the next time, or not.
            (Ok(_) | Err(Failure::Transient { .. }), _) => Ok(()),
            (Err(Failure::Permanent(error)), None) => Err(error),
            (Err(Failure::Permanent(error)), Some(challenge)) => {
                let Some(token) = self.token(challenge).await? else { return Err(error) };
                self.http = self.http.with_token(token);
                Ok(())
            }
        }
    }

    /// What answers a challenge.
    async fn token(&self, challenge: Challenge) -> Result<Option<Token>, InspectError> {
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let passwords = self.registry.passwords.as_deref();
        let password = passwords.map(|text| auth::password(text, &self.reference.registry));
        let password = password.transpose()?.flatten();
        let Challenge::Bearer { realm, service } = challenge else { return Ok(password) };
        let wrong = |what: &str| {
            InspectError::Nonsense(format!("{} sends for a token {what}", self.reference.registry))
        };
        let mut url = Url::parse(&realm).map_err(|_| wrong("to what is no address"))?;
        if url.scheme() != "https" && !(self.registry.plain_http && url.scheme() == "http") {
            return Err(wrong("to an address without https, which is refused"));
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut()
            .extend_pairs(service.iter().map(|service| ("service", service)))
            .append_pair("scope", &scope);
        let http = Http::new(settings(self.registry, url.clone(), password))?;
        let what = format!("a token for {}", self.reference);
        let text = self.persistently(&http, &url, "application/json", &what, TOKEN).await?;
        let given: Given = serde_json::from_slice(&text)
            .map_err(|_| wrong("to where none is given: the answer is no JSON with a token"))?;
        match given.token.or(given.access_token) {
            Some(token) => Token::new(&token),
            None => Ok(None),
        }
    }

    /// A manifest and its digest.
    async fn manifest(&self, version: &str) -> Result<(String, Manifest), InspectError> {
        let (what, host) = (format!("the manifest of {}", self.reference), self.http.host());
        let url = self.url("manifests", version);
        let text = self.persistently(&self.http, &url, FORMATS, &what, MANIFEST).await?;
        if listing::looks_like_html(&text) {
            return Err(listing::html(&host));
        }
        let digest = digest(&text);
        if version.contains(':') && version != digest {
            return Err(InspectError::Nonsense(format!(
                "{host} sends another manifest than {version}, which was asked for: {digest}"
            )));
        }
        let manifest = serde_json::from_slice(&text).map_err(|error| {
            InspectError::Nonsense(format!("{host} sends what is no manifest: {error}"))
        })?;
        Ok((digest, manifest))
    }

    async fn persistently(
        &self,
        http: &Http,
        url: &Url,
        formats: &'static str,
        what: &str,
        limit: usize,
    ) -> Result<Vec<u8>, InspectError> {
        let mut attempts = Attempts::new(self.registry.policy);
        loop {
            let refused = |refused: Refused| why(&refused, what);
            let done = match http.ask(url.clone(), Ask::Document(formats), refused).await {
                Ok(answer) => self.whole_of(http, answer, what, limit).await,
                Err(failure) => Err(failure),
            };
            match done {
                Ok(text) => return Ok(text),
                Err(failure) => pause(failure, &mut attempts, 0, what, &http.host()).await?,
            }
        }
    }

    async fn whole_of(
        &self,
        http: &Http,
        answer: Answer,
        what: &str,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        as_it_is(&answer, what)?;
        http.content(answer, limit, what, self.meter).await
    }

    async fn part(&self, blob: &Blob, from: u64, to: u64, what: &str) -> Result<Piece, Failure> {
        let refused = |refused: Refused| why(&refused, what);
        let url = self.url("blobs", &blob.digest);
        let answer = self.http.ask(url, Ask::Range(from, to), refused).await?;
        as_it_is(&answer, &blob.item.name)?;
        self.http.part(answer, from, to, what, self.meter).await
    }

    fn url(&self, kind: &str, version: &str) -> Url {
        let repository = self.reference.repository.split('/');
        self.http.url(std::iter::once("v2").chain(repository).chain([kind, version]))
    }
}

impl Files for Artifact<'_> {
    fn whole(&self) -> String {
        self.reference.to_string()
    }

    async fn read(&self, item: &Item, from: u64, to: u64) -> Result<Piece, InspectError> {
        let what = self.what(&item.name);
        let Some(blob) = self.blobs.iter().find(|blob| blob.item == *item) else {
            return Err(InspectError::NotFound(format!("there is no {what}")));
        };
        let mut attempts = Attempts::new(self.registry.policy);
        loop {
            match self.part(blob, from, to, &what).await {
                Ok(piece) => return Ok(piece),
                Err(failure) => {
                    pause(failure, &mut attempts, 0, &what, &self.http.host()).await?;
                }
            }
        }
    }
}

fn settings(registry: &Registry, endpoint: Url, token: Option<Token>) -> Settings {
    let (timeout, authorities) = (registry.timeout, registry.authorities.clone());
    Settings { endpoint, token, timeout, authorities, redirects: Redirects::Anywhere }
}

fn digest(text: &[u8]) -> String {
    use std::fmt::Write;
    let mut digest = "sha256:".to_owned();
    for byte in Sha256::digest(text) {
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

fn why(refused: &Refused, what: &str) -> InspectError {
    let Refused { status, host, token, .. } = refused;
    let (host, what, status) = (host.clone(), what.to_owned(), status.as_u16());
    match status {
        401 | 403 => InspectError::Locked { host, what, status, password: *token },
        404 => InspectError::NotFound(format!("{host} does not have {what} (404)")),
        _ => InspectError::Nonsense(format!("{host} answers {status} when asked for {what}")),
    }
}
