//! What opens a registry: the passwords of a `.dockerconfigjson`, and what a registry asks for. Pure.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use crate::{error::InspectError, settings::Token};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The password for a registry in the text of a `.dockerconfigjson`, as it is sent.
pub(super) fn password(config: &str, registry: &str) -> Result<Option<Token>, InspectError> {
    // What is wrong is not repeated: it holds passwords.
    let wrong = |what| InspectError::Usage(format!("the secret for {registry} {what}"));
    let config: Config =
        serde_json::from_str(config).map_err(|_| wrong("is no .dockerconfigjson"))?;
    let host = |key: &str| {
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    // Docker's own name for itself.
    let named = |key: &str| {
        host(key) == registry || registry == "docker.io" && host(key) == "index.docker.io"
    };
    let Some((_, entry)) = config.auths.iter().find(|(key, _)| named(key)) else {
        return Ok(None);
    };
    let auth = match (&entry.auth, &entry.username, &entry.password) {
        (Some(auth), ..) if !auth.is_empty() => {
            BASE64_STANDARD.decode(auth).map_err(|_| wrong("has an auth that is no base64"))?;
            auth.clone()
        }
        (_, Some(user), Some(password)) => BASE64_STANDARD.encode(format!("{user}:{password}")),
        _ => return Ok(None),
    };
    Token::basic(&auth)
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The password itself.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where it is to be had.
        realm: String,
        /// Who asks for it.
        service: Option<String>,
    },
}

/// Reads a challenge; none if it is of another kind.
pub(super) fn challenge(text: &str) -> Option<Challenge> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    if kind.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |name: &str| {
        let at = rest.find(&format!("{name}=\""))? + name.len() + 2;
        rest[at..].split('"').next().map(ToOwned::to_owned)
    };
    Some(Challenge::Bearer { realm: value("realm")?, service: value("service") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_by_host_and_never_shown() {
        let config = r#"{"auths": {"https://r.example/v2/": {"auth": "dTpodW50ZXIy"},
            "https://index.docker.io/v1/": {"username": "u", "password": "hunter2"},
            "bad.example": {"auth": "?"}}}"#;
        let of = |registry| password(config, registry).map(|found| found.map(|found| found.0));
        for registry in ["r.example", "docker.io"] {
            assert_eq!(of(registry).unwrap().unwrap(), "Basic dTpodW50ZXIy", "{registry}");
        }
        assert!(of("r.example:5000").unwrap().is_none());
        assert!(of("bad.example").is_err());
        assert!(!password("hunter2", "r").unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://auth.example/token",service="r",scope="x""#;
        let (realm, service) = ("https://auth.example/token".to_owned(), Some("r".to_owned()));
        assert_eq!(challenge(text), Some(Challenge::Bearer { realm, service }));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Bearer realm=x"), None);
        assert_eq!(challenge("Negotiate"), None);
    }
}
