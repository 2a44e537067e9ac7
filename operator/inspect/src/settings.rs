//! How to reach a hub: where it is, and what opens it.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{Url, header::HeaderValue};

use crate::{error::InspectError, redirects::Redirects};

/// A token that is sent and never shown.
#[derive(Clone)]
pub struct Token(pub(crate) HeaderValue);

impl Token {
    /// From the text of a secret, which often ends in a line feed. `None` if there is nothing.
    pub fn new(secret: &str) -> Result<Option<Self>, InspectError> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Ok(None);
        }
        Self::of(&format!("Bearer {secret}"))
    }

    /// From a user name and a password, in base64.
    pub fn basic(encoded: &str) -> Result<Option<Self>, InspectError> {
        Self::of(&format!("Basic {encoded}"))
    }

    fn of(text: &str) -> Result<Option<Self>, InspectError> {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            InspectError::Usage("the token holds characters that no token has".to_owned())
        })?;
        value.set_sensitive(true);
        Ok(Some(Self(value)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Certificates to trust besides those that come with the system, in PEM.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    /// In a file.
    pub file: Option<PathBuf>,
    /// As they are.
    pub pem: Option<String>,
}

/// How to reach a hub.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Url,
    /// What opens gated and private repositories.
    pub token: Option<Token>,
    /// How long nothing may come.
    pub timeout: Duration,
    /// Whom to trust.
    pub authorities: Authorities,
    /// Where it may redirect to.
    pub redirects: Redirects,
}

/// Reads an endpoint from the command line.
pub fn endpoint(text: &str) -> Result<Url, String> {
    // The text is not repeated: it may hold a password.
    let url = Url::parse(text).map_err(|error| format!("the endpoint is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("the endpoint must be http://HOST or https://HOST".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the endpoint must not hold a user name or password; use a token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the endpoint must not have a query or a fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_hold_no_secrets() {
        assert!(endpoint("https://hub.example").is_ok());
        assert!(endpoint("http://10.0.0.1:8080/api/hub/").is_ok());
        for bad in ["hub.example", "ftp://hub.example", "https://x?y=1", "https://u:hunter2@x"] {
            let error = endpoint(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new(" hf_secret\n").unwrap().unwrap();
        assert_eq!(token.0, "Bearer hf_secret");
        assert!(!format!("{token:?} {:?}", token.0).contains("hf_secret"));
        assert!(Token::new(" \n").unwrap().is_none());
        let error = Token::new("hf_sec\nret").unwrap_err().to_string();
        assert!(!error.contains("hf_sec"), "{error}");
    }
}
