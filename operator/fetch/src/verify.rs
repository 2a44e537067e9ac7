//! Whether a directory is as it was downloaded: every file read and hashed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use berth_units::Bytes;

use crate::{
    checksum::Hasher, error::Error, layout::Layout, manifest::Manifest, name::OWN_FOLDER,
    partial::read_all,
};

/// What is wrong with a directory, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that are whole.
    pub whole: usize,
    /// Files with another content.
    pub damaged: Vec<String>,
    /// Files that are not there.
    pub missing: Vec<String>,
    /// Files that nobody downloaded.
    pub extra: Vec<String>,
}

impl Report {
    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.extra.is_empty()
    }
}

/// Compares a directory with its manifest. Blocking.
pub fn verify(directory: &Path) -> Result<Report, Error> {
    let layout = Layout::new(directory);
    let Some(manifest) = Manifest::read(&layout)? else {
        let damage = "it has no manifest, so nothing was downloaded to the end".to_owned();
        return Err(Error::Damaged { directory: directory.to_owned(), damage });
    };
    let mut report = Report::default();
    for entry in &manifest.files {
        let path = layout.file(&entry.name);
        let failed = |source| layout.failed("read", &path, Bytes::ZERO, source);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                report.missing.push(entry.name.to_string());
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let same_size = file.metadata().map_err(failed)?.len() == entry.size;
        let mut sha256 = || -> io::Result<String> {
            Ok(read_all(&mut file, Hasher::new(entry.size, None))?.1.finish().sha256())
        };
        if same_size && sha256().map_err(failed)? == entry.sha256 {
            report.whole += 1;
        } else {
            report.damaged.push(entry.name.to_string());
        }
    }
    let mut found = Vec::new();
    walk(directory, "", &mut found)
        .map_err(|source| layout.failed("read", directory, Bytes::ZERO, source))?;
    let known = |name: &String| manifest.files.iter().any(|entry| entry.name.as_str() == name);
    report.extra = found.into_iter().filter(|name| !known(name)).collect();
    report.extra.sort();
    Ok(report)
}

/// All files below a directory, without following links.
fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // A file system of its own has this one at its root.
        if name == OWN_FOLDER || name == "lost+found" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}
