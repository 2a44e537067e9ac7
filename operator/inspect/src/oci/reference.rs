//! The name of an artifact: `registry/repository:tag@digest`. Pure.

use std::{fmt, str::FromStr};

/// Where an artifact is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, perhaps with a port.
    pub registry: String,
    /// Path in the registry.
    pub repository: String,
    /// A tag, or a digest.
    pub version: String,
}

impl Reference {
    /// The digest, if the reference has one.
    pub fn digest(&self) -> Option<&str> {
        self.version.contains(':').then_some(&self.version)
    }
}

/// Whether a text is a digest that can be checked.
pub(super) fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no reference such as registry.example/models/qwen:v1");
        let text = text.strip_prefix("oci://").unwrap_or(text);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            // As container engines have it.
            Some(_) => ("docker.io", rest),
            None => return Err(wrong()),
        };
        let (path, tag) = path.split_once(':').unwrap_or((path, "latest"));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| plain(b) && !b.is_ascii_uppercase())
        };
        let host = registry.bytes().all(|b| plain(b) || b":[]".contains(&b));
        let tagged = !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(plain);
        if !host || !tagged || path.len() > 255 || !path.split('/').all(part) {
            return Err(wrong());
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: path.to_owned(),
            version: digest.unwrap_or(tag).to_owned(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.digest().is_some() { '@' } else { ':' };
        write!(f, "{}/{}{sign}{}", self.registry, self.repository, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, parts) in [
            ("oci://r.example/a/b:v1", ["r.example", "a/b", "v1"]),
            ("localhost:5000/a", ["localhost:5000", "a", "latest"]),
            ("ai/qwen", ["docker.io", "ai/qwen", "latest"]),
            (&format!("r.example/a:v1@{digest}"), ["r.example", "a", &digest]),
        ] {
            let found: Reference = text.parse().unwrap();
            assert_eq!([&*found.registry, &found.repository, &found.version], parts, "{text}");
        }
        for wrong in [
            "",
            "a",
            "r.example/",
            "r.example/A",
            "r.example/../a",
            "r.example/a:",
            "r.example/a@x",
            "u@r.example/a",
            "r.example/a?b",
            "r.example/a b",
            "r.example//a",
            "r.example/a:b/c",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
