//! Checksums as the hub gives them: SHA-256 for large files, git's blob SHA-1 for small ones.

use std::fmt::{self, Write};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Of the content.
    Sha256([u8; 32]),
    /// Of git's header and the content.
    GitBlob([u8; 20]),
}

impl Checksum {
    /// From hexadecimal digits: 64 are a SHA-256, 40 a SHA-1. Quotes, and the mark of a weak
    /// `ETag`, are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
        match digits.len() {
            64 => decode(digits).map(Self::Sha256),
            40 => decode(digits).map(Self::GitBlob),
            _ => None,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "sha256 {}", encode(digest)),
            Self::GitBlob(digest) => write!(f, "git blob {}", encode(digest)),
        }
    }
}

/// Digests of a file, bytes as they come.
pub struct Hasher {
    sha256: Sha256,
    /// Large files are never named by it, so it is computed only where it is asked for.
    blob: Option<Sha1>,
}

impl Hasher {
    /// For a file of `size` bytes that should be `expected`.
    pub fn new(size: u64, expected: Option<Checksum>) -> Self {
        let blob = matches!(expected, Some(Checksum::GitBlob(_)))
            .then(|| Sha1::new_with_prefix(format!("blob {size}\0")));
        Self { sha256: Sha256::new(), blob }
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(blob) = &mut self.blob {
            blob.update(bytes);
        }
    }

    /// No more bytes.
    pub fn finish(self) -> Digests {
        Digests {
            sha256: self.sha256.finalize().into(),
            blob: self.blob.map(|blob| blob.finalize().into()),
        }
    }
}

/// Digests of a whole file.
pub struct Digests {
    sha256: [u8; 32],
    blob: Option<[u8; 20]>,
}

impl Digests {
    /// Hexadecimal digits of the SHA-256.
    pub fn sha256(&self) -> String {
        encode(&self.sha256)
    }

    /// What the file is, where it is not what was expected.
    pub fn mismatch(&self, expected: Checksum) -> Option<Checksum> {
        let actual = match (expected, self.blob) {
            (Checksum::GitBlob(_), Some(blob)) => Checksum::GitBlob(blob),
            _ => Checksum::Sha256(self.sha256),
        };
        (actual != expected).then_some(actual)
    }
}

/// Hexadecimal digits.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_git_and_sha256sum_say() {
        // echo hello | git hash-object --stdin; echo hello | sha256sum
        let blob = Checksum::parse("\"ce013625030ba8dba906f756967f9e9ca394464a\"").unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let mut hasher = Hasher::new(6, Some(blob));
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let digests = hasher.finish();
        assert_eq!(digests.mismatch(blob), None);
        assert_eq!(digests.sha256(), sha256);
        assert_eq!(digests.mismatch(Checksum::parse(sha256).unwrap()), None);
        let other = Checksum::Sha256([7; 32]);
        assert_eq!(digests.mismatch(other), Checksum::parse(sha256));
    }

    #[test]
    fn what_is_no_checksum() {
        for text in ["", "\"5f3-abc\"", &"g".repeat(40), &"ä".repeat(20), &"a".repeat(41)] {
            assert_eq!(Checksum::parse(text), None, "{text}");
        }
        let weak = format!("W/\"{}\"", "ab".repeat(20));
        assert_eq!(Checksum::parse(&weak), Some(Checksum::GitBlob([0xab; 20])));
    }
}
