//! A directory: a volume of the tenant's, or a model in a node's cache.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    error::InspectError,
    inspection::Inspection,
    meter::Meter,
    model::{self, Files, Item, Piece, Selection},
    name::{Commit, OWN_FOLDER},
    remote::in_time,
};

/// The most files that are looked at, and how deep.
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 4;

/// The longest manifest of a download that is read.
const MANIFEST: u64 = 4 << 20;

/// Learns what a model in a directory is. Links are followed as far as they stay in `within` (the
/// volume, where the directory is a part of it). `deadline` bounds it: a network's disk may hang.
pub async fn inspect(
    path: &Path,
    within: &Path,
    selection: Selection<'_>,
    deadline: Duration,
) -> Result<Inspection, InspectError> {
    let all = look(path, within, selection);
    in_time(deadline, "the model", &path.display().to_string(), all).await
}

async fn look(
    path: &Path,
    within: &Path,
    selection: Selection<'_>,
) -> Result<Inspection, InspectError> {
    let meter = Meter::new(model::MOST);
    let (asked, within) = (path.to_owned(), within.to_owned());
    let (directory, items, commit) = blocking(move || {
        let real =
            |path: &Path| fs::canonicalize(path).map_err(|source| failed("open", path, source));
        let within = real(&within)?;
        let root = real(&asked)?;
        let directory = Directory { asked, root, within };
        directory.inside(&directory.root)?;
        let mut items = Vec::new();
        directory.list(&directory.root, "", 0, &mut items)?;
        items.sort_by(|a, b| a.name.cmp(&b.name));
        let commit = directory.commit();
        Ok((directory, items, commit))
    })
    .await?;
    let files = OnDisk { directory: &directory, meter: &meter };
    let learnt = model::learn(&files, &items, selection).await?;
    let model::Learnt { facts, exact } = learnt;
    Ok(Inspection { commit, facts, licence: None, exact, bytes_read: meter.total() })
}

#[derive(Clone, Debug)]
struct Directory {
    /// As it was named.
    asked: PathBuf,
    /// Without links.
    root: PathBuf,
    /// What nothing leads out of.
    within: PathBuf,
}

impl Directory {
    fn inside(&self, real: &Path) -> Result<(), InspectError> {
        if real.starts_with(&self.within) {
            return Ok(());
        }
        let why = format!(
            "has a link that leads out of {}, which is not followed",
            self.within.display()
        );
        Err(InspectError::NotAModel { what: self.asked.display().to_string(), why })
    }

    /// The files below a folder.
    fn list(
        &self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        items: &mut Vec<Item>,
    ) -> Result<(), InspectError> {
        let entries = fs::read_dir(folder).map_err(|source| failed("read", folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| failed("read", folder, source))?;
            // A model's files have names that are text; the others are left alone.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if depth == 0 && (name == OWN_FOLDER || name == "lost+found") {
                continue;
            }
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            // A link that leads nowhere, or a file that is gone, is none.
            let Ok(found) = fs::metadata(&path) else { continue };
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if found.is_dir() && !linked && depth < DEEPEST {
                self.list(&path, &format!("{name}/"), depth + 1, items)?;
            } else if found.is_file() {
                items.push(Item { name, size: Some(found.len()) });
            }
            if items.len() > MOST_FILES {
                let why =
                    format!("has more than {MOST_FILES} files; name the model's own directory");
                return Err(InspectError::NotAModel {
                    what: self.asked.display().to_string(),
                    why,
                });
            }
        }
        Ok(())
    }

    /// The commit that a download left word of.
    fn commit(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Manifest {
            commit: Commit,
        }
        let path = fs::canonicalize(self.root.join(OWN_FOLDER).join("manifest.json")).ok()?;
        self.inside(&path).ok()?;
        let found = fs::metadata(&path).ok()?;
        let text = (found.is_file() && found.len() <= MANIFEST).then(|| fs::read(&path).ok())??;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        Some(manifest.commit.as_str().to_owned())
    }

    fn part(&self, name: &str, from: u64, to: u64) -> Result<Vec<u8>, InspectError> {
        let path = self.root.join(name);
        let failed = |source| failed("read", &path, source);
        let real = fs::canonicalize(&path).map_err(failed)?;
        self.inside(&real)?;
        // Opening a pipe would wait for somebody to write.
        if !fs::metadata(&real).map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no file")));
        }
        let mut file = File::open(&real).map_err(failed)?;
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(to.saturating_sub(from)).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

struct OnDisk<'a> {
    directory: &'a Directory,
    meter: &'a Meter,
}

impl Files for OnDisk<'_> {
    fn whole(&self) -> String {
        self.directory.asked.display().to_string()
    }

    async fn read(&self, item: &Item, from: u64, to: u64) -> Result<Piece, InspectError> {
        let (directory, name) = (self.directory.clone(), item.name.clone());
        let bytes = blocking(move || directory.part(&name, from, to)).await?;
        self.meter.add(bytes.len(), &self.what(&item.name))?;
        Ok(Piece { bytes, size: item.size })
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> InspectError {
    InspectError::Io { action, path: path.to_owned(), source }
}

/// Work for a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InspectError> + Send + 'static,
) -> Result<T, InspectError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(failed("read", Path::new("the directory"), io::Error::other(error))),
    }
}
