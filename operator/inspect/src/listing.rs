//! The hub's answer about a revision. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    checksum::Checksum,
    error::InspectError,
    name::{Commit, FileName},
};

/// The largest file that is believed: no model has one of a hundredth of it.
pub const LARGEST_FILE: u64 = 1 << 46;

/// Longest name of a licence that is kept.
const LONGEST_LICENCE: usize = 100;

/// A commit and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub commit: Commit,
    /// Its files.
    pub files: Vec<Listed>,
    /// The licence that the model's card names.
    pub licence: Option<String>,
}

/// What the listing says about a file. Mirrors leave out sizes and checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: FileName,
    /// Bytes.
    pub size: Option<u64>,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
    /// Of any form: people write it.
    #[serde(default)]
    card_data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

/// Reads the answer of `host`.
pub fn parse(host: &str, text: &[u8]) -> Result<Snapshot, InspectError> {
    if looks_like_html(text) {
        return Err(html(host));
    }
    let wrong =
        |why: &str| InspectError::Nonsense(format!("{host} does not answer as a hub does: {why}"));
    let answer: Answer = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
    let commit = Commit::try_from(answer.sha).map_err(|error| wrong(&error))?;
    let listed = |sibling: Sibling| {
        let name = FileName::try_from(sibling.rfilename).map_err(|error| wrong(&error))?;
        let (size, checksum) = match sibling.lfs {
            Some(lfs) => (lfs.size.or(sibling.size), lfs.sha256),
            None => (sibling.size, sibling.blob_id),
        };
        if let Some(size) = size {
            believable(host, &name, size)?;
        }
        let checksum = checksum.as_deref().and_then(Checksum::parse);
        Ok(Listed { name, size, checksum })
    };
    let mut files =
        answer.siblings.into_iter().map(listed).collect::<Result<Vec<_>, InspectError>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    let licence = answer.card_data.and_then(|card| licence(&card));
    Ok(Snapshot { commit, files, licence })
}

fn licence(card: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Card {
        license: String,
        license_name: Option<String>,
    }
    let card: Card = serde_json::from_str(card.get()).ok()?;
    let name = Some(card.license).filter(|name| name != "other").or(card.license_name)?;
    let short = name.chars().filter(|c| !c.is_control()).take(LONGEST_LICENCE).collect::<String>();
    Some(short).filter(|name| !name.is_empty())
}

/// Refuses sizes that no file has.
pub fn believable(host: &str, name: &FileName, size: u64) -> Result<(), InspectError> {
    if size <= LARGEST_FILE {
        return Ok(());
    }
    Err(InspectError::Nonsense(format!(
        "{host} says that {name} has {size} bytes, which no model has"
    )))
}

/// What to say about a web page in place of an answer.
pub fn html(host: &str) -> InspectError {
    InspectError::Nonsense(format!(
        "{host} answers with a web page (HTML) in place of what a hub gives; is HF_ENDPOINT \
         right, or is there a proxy or a login page in between?"
    ))
}

/// Whether a text begins as a web page does.
pub fn looks_like_html(text: &[u8]) -> bool {
    text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

    fn answer(siblings: &str) -> Result<Snapshot, InspectError> {
        parse("hub", format!(r#"{{"sha": "{COMMIT}", "siblings": [{siblings}]}}"#).as_bytes())
    }

    #[test]
    fn sizes_and_checksums_are_taken_where_they_are() {
        let (sha1, sha256) = ("ab".repeat(20), "cd".repeat(32));
        let snapshot = answer(&format!(
            r#"{{"rfilename": "w", "size": 9, "blobId": "{sha1}",
                 "lfs": {{"sha256": "{sha256}", "size": 9, "pointerSize": 135}}}},
               {{"rfilename": "c", "size": 3, "blobId": "{sha1}"}},
               {{"rfilename": "b"}}, {{"rfilename": "b"}}"#
        ));
        let files = snapshot.unwrap().files;
        let found: Vec<_> =
            files.iter().map(|file| (file.name.as_str(), file.size, file.checksum)).collect();
        assert_eq!(
            found,
            [
                ("b", None, None),
                ("c", Some(3), Some(Checksum::GitBlob([0xab; 20]))),
                ("w", Some(9), Some(Checksum::Sha256([0xcd; 32]))),
            ]
        );
    }

    #[test]
    fn licences_are_those_of_the_card() {
        let licence = |card: &str| {
            let text = format!(r#"{{"sha": "{COMMIT}", "siblings": [], "cardData": {card}}}"#);
            parse("hub", text.as_bytes()).unwrap().licence
        };
        assert_eq!(licence(r#"{"license": "apache-2.0"}"#).as_deref(), Some("apache-2.0"));
        let named = r#"{"license": "other", "license_name": "qwen", "tags": [1]}"#;
        assert_eq!(licence(named).as_deref(), Some("qwen"));
        for none in ["null", "7", "{}", r#"{"license": ["mit"]}"#, r#"{"license": "other"}"#] {
            assert_eq!(licence(none), None, "{none}");
        }
    }

    #[test]
    fn what_no_hub_says_is_refused() {
        for (siblings, part) in [
            (r#"{"rfilename": "../x"}"#, "leads out"),
            (r#"{"rfilename": "/etc/passwd"}"#, "leads out"),
            (r#"{"rfilename": ".berth/manifest.json"}"#, "leads out"),
            (r#"{"rfilename": "x", "size": 9223372036854775808}"#, "which no model has"),
            (r#"{"rfilename": "x", "size": -1}"#, "does not answer as a hub does"),
            (r#"{"rfilename": "x", "size": 1e300}"#, "does not answer as a hub does"),
            (r#"{"name": "x"}"#, "does not answer as a hub does"),
        ] {
            let error = answer(siblings).unwrap_err();
            assert!(error.to_string().contains(part), "{siblings}: {error}");
            assert_eq!(error.label(), "nonsense");
        }
        let page = parse("hub", b" \n<!doctype html><html>").unwrap_err().to_string();
        assert!(page.contains("HTML"), "{page}");
        assert!(parse("hub", br#"{"sha": "main", "siblings": []}"#).is_err());
        assert!(parse("hub", &b"[".repeat(100_000)).is_err());
    }
}
