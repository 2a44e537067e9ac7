//! Where things are in the model's directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use berth_units::Bytes;

use crate::{
    disk,
    error::Error,
    name::{FileName, OWN_FOLDER},
};

/// A model's directory: the files as the hub names them, and `.berth` for what is Berth's own.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// In `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file is once it is whole and checked.
    pub fn file(&self, name: &FileName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Where a file grows. `content` (its checksum, or the commit) is part of the name, so that
    /// what is left of one version of a file is never continued with another.
    pub fn partial(&self, name: &FileName, content: &str) -> PathBuf {
        self.partials().join(format!("{name}.{content}"))
    }

    /// Where all files grow.
    pub fn partials(&self) -> PathBuf {
        self.own().join("partial")
    }

    /// What is here; written last.
    pub fn manifest(&self) -> PathBuf {
        self.own().join("manifest.json")
    }

    /// The link to the model's only GGUF file.
    pub fn model(&self) -> PathBuf {
        self.own().join("model.gguf")
    }

    /// Held by the one that downloads.
    pub fn lock(&self) -> PathBuf {
        self.own().join("lock")
    }

    /// Berth's own folder.
    pub fn own(&self) -> PathBuf {
        self.root.join(OWN_FOLDER)
    }

    /// What an error of the kernel means, where `needed` more bytes were to come.
    pub fn failed(
        &self,
        action: &'static str,
        path: &Path,
        needed: Bytes,
        source: io::Error,
    ) -> Error {
        disk::failed(&self.root, action, path, needed, source)
    }
}
