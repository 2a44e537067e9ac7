//! Names that come from outside, checked before anything is done with them. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest part of a path: less than file systems take, for partial files have longer names.
const LONGEST_PART: usize = 200;

/// Longest path.
const LONGEST_PATH: usize = 1024;

/// Folder for what is Berth's own.
pub const OWN_FOLDER: &str = ".berth";

/// `ORG/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository(String);

impl Repository {
    /// The two parts.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match text.split_once('/') {
            Some((organisation, name)) if part(organisation) && part(name) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!("repository {text:?} must be ORG/NAME")),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Revision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_graphic() && !b"\\?#%~^:*[".contains(&b))
        };
        if text.len() <= LONGEST_PART && text.split('/').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("revision {text:?} is no name of a branch, a tag or a commit"))
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The commit that all files are taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Commit(String);

impl Commit {
    /// In hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Commit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && matches!(text.len(), 40 | 64) {
            Ok(Self(text))
        } else {
            Err(format!("{:?} is no commit", shortened(&text)))
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a path on a node: a namespace's folder, or a model's in it. None is hidden: such names
/// are Berth's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component(String);

impl Component {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Component {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let hidden = text.is_empty() || text.starts_with('.');
        if !hidden && text.len() <= LONGEST_PART && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{:?} is no plain name of a folder", shortened(text)))
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model's folder in a namespace's: `FOLDER/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace's.
    pub folder: Component,
    /// The model's.
    pub key: Component,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (folder, key) = text
            .split_once('/')
            .ok_or_else(|| format!("{:?} is not FOLDER/KEY", shortened(text)))?;
        Ok(Self { folder: folder.parse()?, key: key.parse()? })
    }
}

/// A file of a model: a relative path that stays where it should.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct FileName(String);

impl FileName {
    /// As the hub has it, with slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts of the path.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl TryFrom<String> for FileName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.len() <= LONGEST_PART
                && !part.contains('\\')
                && !part.chars().any(char::is_control)
        };
        let own = text.split('/').next() == Some(OWN_FOLDER);
        if !own && text.len() <= LONGEST_PATH && text.split('/').all(part) {
            Ok(Self(text))
        } else {
            Err(format!("the file name {:?} leads out of the model's directory", shortened(&text)))
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_directory() {
        for good in
            ["config.json", "a/b/model-00001-of-00002.gguf", "..a", "a..b", ".gitattributes"]
        {
            assert!(FileName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let long = "x".repeat(LONGEST_PART + 1);
        let deep = "a/".repeat(LONGEST_PATH / 2) + "b";
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a/..",
            ".",
            "./x",
            "a//b",
            "a/",
            "a\\..\\b",
            "a\nb",
            "a\0b",
            ".berth/manifest.json",
            ".berth",
            &long,
            &deep,
        ] {
            assert!(FileName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_are_two_plain_names() {
        let place: Place = "team-a/hf--org--Name-0.5B_x--0123456789abc".parse().unwrap();
        assert_eq!((place.folder.as_str(), &place.key.as_str()[..4]), ("team-a", "hf--"));
        let long = format!("a/{}", "x".repeat(LONGEST_PART + 1));
        for bad in [
            "", "a", "/", "a/", "/b", "a/b/c", "a//b", "../b", "a/..", "a/.", "./b", "a/.b",
            ".a/b", "a/b c", "a/b\n", "a/b\0", "a/ä", &long,
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repositories_and_revisions_are_names() {
        assert!("Qwen/Qwen2.5-0.5B_x".parse::<Repository>().is_ok());
        for bad in ["", "a", "a/", "/b", "a/b/c", "a/..", "../b", "a/b?c", "a/b c", "ä/b"] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
        for good in ["main", "v1.0", "refs/pr/1", &"0a".repeat(20)] {
            assert!(good.parse::<Revision>().is_ok(), "{good}");
        }
        for bad in ["", "a/../b", "..", "a b", "a?b", "a/", "a\nb", "a%2e"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad}");
        }
        assert!(Commit::try_from("0a".repeat(20)).is_ok());
        for bad in ["main".to_owned(), "0A".repeat(20), "0a".repeat(19)] {
            assert!(Commit::try_from(bad).is_err());
        }
    }
}
