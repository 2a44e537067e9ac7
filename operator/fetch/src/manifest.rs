//! The manifest: what a directory holds, whole and checked. It is written last and atomically, so
//! where it is, the files are.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    layout::Layout,
    name::{Commit, FileName, Repository},
};

/// The largest manifest that is read.
const LARGEST: u64 = 64 << 20;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `ORG/NAME`.
    pub repository: String,
    /// The commit that all files are from.
    pub commit: Commit,
    /// What was asked for and is here: a look at this is enough to know that nothing is missing.
    pub selections: Vec<Selection>,
    /// Every file, by name.
    pub files: Vec<Entry>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Branch, tag or commit.
    pub revision: String,
    /// Name or pattern of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Where there is none: whether only GGUF files counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gguf: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path in the directory.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// What is in the directory; `None` where there is no manifest, or none that can be read as
    /// one.
    pub fn read(layout: &Layout) -> Result<Option<Self>, Error> {
        let path = layout.manifest();
        let failed = |source| layout.failed("read", &path, Bytes::ZERO, source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).map_err(failed)?;
        match serde_json::from_slice(&text) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) => {
                tracing::warn!("{} is no manifest and counts as absent: {error}", path.display());
                Ok(None)
            }
        }
    }

    /// Puts it into the directory.
    pub fn write(&self, layout: &Layout) -> Result<(), Error> {
        let path = layout.manifest();
        let fresh = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let needed = Bytes(text.len() as u64);
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|source| layout.failed("write", &path, needed, source))?;
        sync_directory(&layout.own());
        Ok(())
    }

    /// Whether it answers a request: of this repository, the same revision (or the commit itself)
    /// and the same files.
    pub fn answers(&self, repository: &Repository, wanted: &Selection) -> bool {
        self.repository == repository.to_string()
            && self.selections.iter().any(|selection| {
                (selection.revision == wanted.revision || self.commit.as_str() == wanted.revision)
                    && selection.files == wanted.files
                    && selection.gguf == wanted.gguf
            })
    }

    /// The first file that is not there with its size.
    pub fn first_missing(&self, layout: &Layout) -> Option<&FileName> {
        let there = |entry: &Entry| has_size(&layout.file(&entry.name), entry.size);
        self.files.iter().find(|entry| !there(entry)).map(|entry| &entry.name)
    }

    /// The entry of a file.
    pub fn entry(&self, name: &FileName) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.name == *name)
    }

    /// Adds what another download into the same directory brought.
    pub fn merge(&mut self, selection: Selection, files: Vec<Entry>) {
        if !self.selections.contains(&selection) {
            self.selections.push(selection);
        }
        self.files.retain(|old| files.iter().all(|new| new.name != old.name));
        self.files.extend(files);
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// What is there, for people.
    pub fn describe(&self) -> String {
        format!("holds {} at commit {}", self.repository, self.commit)
    }
}

/// Whether there is a file of that size.
pub fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Makes names last over a power cut, where the file system can do that for directories.
pub fn sync_directory(path: &Path) {
    if let Ok(directory) = File::open(path) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size: u64) -> Entry {
        let name = FileName::try_from(name.to_owned()).unwrap();
        Entry { name, size, sha256: "00".repeat(32) }
    }

    fn manifest() -> Manifest {
        let mut manifest = Manifest {
            repository: "org/name".to_owned(),
            commit: Commit::try_from("0a".repeat(20)).unwrap(),
            selections: vec![],
            files: vec![],
        };
        let selection = Selection { revision: "main".to_owned(), files: None, gguf: false };
        manifest.merge(selection, vec![entry("b", 2), entry("a/c", 1)]);
        manifest
    }

    #[test]
    fn a_request_is_answered_by_revision_or_commit() {
        let manifest = manifest();
        let answers = |repository: &str, revision: &str, files: Option<&str>| {
            let (revision, files) = (revision.to_owned(), files.map(ToOwned::to_owned));
            let wanted = Selection { revision, files, gguf: false };
            let gguf = Selection { gguf: true, ..wanted.clone() };
            assert!(!manifest.answers(&repository.parse().unwrap(), &gguf));
            manifest.answers(&repository.parse().unwrap(), &wanted)
        };
        assert!(answers("org/name", "main", None));
        assert!(answers("org/name", &"0a".repeat(20), None));
        assert!(!answers("org/other", "main", None));
        assert!(!answers("org/name", "v2", None));
        assert!(!answers("org/name", "main", Some("*.gguf")));
    }

    #[test]
    fn files_and_selections_add_up() {
        let mut manifest = manifest();
        let selection =
            Selection { revision: "v1".to_owned(), files: Some("*".to_owned()), gguf: false };
        manifest.merge(selection.clone(), vec![entry("b", 3)]);
        manifest.merge(selection, vec![]);
        let files: Vec<_> = manifest.files.iter().map(|f| (f.name.as_str(), f.size)).collect();
        assert_eq!(files, [("a/c", 1), ("b", 3)]);
        assert_eq!(manifest.selections.len(), 2);
    }

    #[test]
    fn what_is_written_is_read_and_names_in_it_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        assert_eq!(Manifest::read(&layout).unwrap(), None);
        fs::create_dir(layout.own()).unwrap();
        let manifest = manifest();
        manifest.write(&layout).unwrap();
        assert_eq!(Manifest::read(&layout).unwrap().as_ref(), Some(&manifest));
        assert_eq!(manifest.first_missing(&layout).unwrap().as_str(), "a/c");

        let text = fs::read_to_string(layout.manifest()).unwrap().replace("a/c", "../c");
        fs::write(layout.manifest(), text).unwrap();
        assert_eq!(Manifest::read(&layout).unwrap(), None);
    }
}
