//! The whole step: look, wait, ask, choose, make sure of room, bring, write down.

use std::{fs, io, path::PathBuf};

use berth_units::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    disk,
    error::Error,
    http::Http,
    hub::Hub,
    layout::Layout,
    listing::Snapshot,
    lock,
    manifest::{Entry, Manifest, Selection, has_size, sync_directory},
    name::{Repository, Revision},
    partial::Wanted,
    progress::Progress,
    retry::Policy,
    select,
    settings::Settings,
    transfer::Transfer,
};

/// What is wanted, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// `ORG/NAME`.
    pub repository: Repository,
    /// Branch, tag or commit.
    pub revision: Revision,
    /// Name or pattern of the files; absent for what an engine needs.
    pub files: Option<String>,
    /// Where the files go.
    pub directory: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Files at once.
    pub parallel: usize,
    /// How to reach the hub.
    pub settings: Settings,
    /// When to try again.
    pub policy: Policy,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All files were there; the network was not touched.
    Cached(Manifest),
    /// The files are there now.
    Fetched(Manifest),
}

/// Brings the files into the directory.
pub async fn fetch(request: &Request, progress: &Progress) -> Result<Outcome, Error> {
    let layout = Layout::new(&request.directory);
    // Without the lock: the volume may be read-only, and a manifest is never half written.
    let found = match cached(request, &layout)? {
        Ok(manifest) => return Ok(already_there(manifest, progress)),
        Err(found) => found,
    };
    if request.offline {
        let (directory, wanted) = (request.directory.clone(), request.describe());
        return Err(Error::Offline { directory, found, wanted });
    }
    prepare(&layout)?;
    let lock = lock::acquire(&layout, progress).await?;
    if let Ok(manifest) = cached(request, &layout)? {
        return Ok(already_there(manifest, progress));
    }
    let manifest = download(request, &layout, progress).await?;
    drop(lock);
    Ok(Outcome::Fetched(manifest))
}

impl Request {
    fn describe(&self) -> String {
        let files = self.files.as_deref().map(|files| format!(" (files {files})"));
        let files = files.unwrap_or_default();
        format!("{} at revision {}{files}", self.repository, self.revision)
    }
}

/// The manifest, if all that is asked for is there; if not, what is there.
fn cached(request: &Request, layout: &Layout) -> Result<Result<Manifest, String>, Error> {
    let Some(manifest) = Manifest::read(layout)? else {
        return Ok(Err("holds no complete model".to_owned()));
    };
    if !manifest.answers(&request.repository, &request.revision, request.files.as_deref()) {
        return Ok(Err(manifest.describe()));
    }
    match manifest.first_missing(layout) {
        None => Ok(Ok(manifest)),
        Some(name) => {
            tracing::warn!("{name} is missing or has another size than it was downloaded with");
            Ok(Err(format!("{} without {name}", manifest.describe())))
        }
    }
}

fn already_there(manifest: Manifest, progress: &Progress) -> Outcome {
    progress.expect(manifest.files.iter().map(|file| file.size).sum(), manifest.files.len());
    manifest.files.iter().for_each(|file| progress.found(file.size));
    Outcome::Cached(manifest)
}

fn prepare(layout: &Layout) -> Result<(), Error> {
    let own = layout.own();
    let make = || {
        fs::create_dir_all(layout.root())?;
        match fs::create_dir(&own) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    };
    make().map_err(|source| layout.failed("create", &own, Bytes::ZERO, source))
}

async fn download(
    request: &Request,
    layout: &Layout,
    progress: &Progress,
) -> Result<Manifest, Error> {
    let http = Http::new(request.settings.clone())?;
    let hub =
        Hub { http: &http, repository: &request.repository, policy: request.policy, progress };
    let snapshot = hub.snapshot(&request.revision).await?;
    let mut manifest = compatible(request, layout, &snapshot)?;
    tracing::info!(
        "{} at revision {} is commit {}",
        request.repository,
        request.revision,
        snapshot.commit
    );
    let wanted = describe(request, &hub, &snapshot).await?;
    let transfer =
        Transfer { hub: &hub, commit: &snapshot.commit, layout, policy: request.policy, progress };
    let missing = expect(&manifest, layout, wanted, progress)?;
    room(&transfer, &missing)?;
    // The largest first, or it would be waited for alone at the end.
    let transfers = missing.iter().map(|wanted| transfer.bring(wanted));
    let entries: Vec<Entry> =
        stream::iter(transfers).buffer_unordered(request.parallel.max(1)).try_collect().await?;
    sync_directory(layout.root());
    let selection =
        Selection { revision: request.revision.to_string(), files: request.files.clone() };
    manifest.merge(selection, entries);
    manifest.write(layout)?;
    // What is left of files that are no longer wanted.
    let _ = fs::remove_dir_all(layout.partials());
    Ok(manifest)
}

/// The manifest to add to. Files of another model or commit are never replaced: engines may be
/// running on them.
fn compatible(request: &Request, layout: &Layout, snapshot: &Snapshot) -> Result<Manifest, Error> {
    let repository = request.repository.to_string();
    let commit = snapshot.commit.clone();
    match Manifest::read(layout)? {
        Some(manifest) if manifest.repository == repository && manifest.commit == commit => {
            Ok(manifest)
        }
        Some(manifest) => Err(Error::Occupied {
            directory: request.directory.clone(),
            found: manifest.describe(),
            wanted: format!("{repository} at commit {commit}"),
        }),
        None => Ok(Manifest { repository, commit, selections: vec![], files: vec![] }),
    }
}

/// The files that are needed, with sizes and checksums.
async fn describe(
    request: &Request,
    hub: &Hub<'_>,
    snapshot: &Snapshot,
) -> Result<Vec<Wanted>, Error> {
    let names: Vec<_> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    let chosen = select::select(&names, request.files.as_deref()).map_err(|error| {
        let Request { repository, revision, .. } = request;
        Error::NotFound(format!("{repository} at revision {revision} {error}"))
    })?;
    let chosen = snapshot.files.iter().filter(|file| chosen.contains(&file.name.as_str()));
    stream::iter(chosen.map(|file| hub.describe(&snapshot.commit, file)))
        .buffer_unordered(request.parallel.max(1))
        .try_collect()
        .await
}

/// Says what there is to bring; returns what is missing, the largest first.
fn expect(
    manifest: &Manifest,
    layout: &Layout,
    mut wanted: Vec<Wanted>,
    progress: &Progress,
) -> Result<Vec<Wanted>, Error> {
    let total = wanted.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    let total =
        total.ok_or_else(|| Error::Nonsense("all files together are too large".to_owned()))?;
    progress.expect(total, wanted.len());
    wanted.retain(|file| {
        let there = manifest.entry(&file.name).is_some_and(|entry| {
            entry.size == file.size && has_size(&layout.file(&file.name), file.size)
        });
        if there {
            progress.found(file.size);
        }
        !there
    });
    wanted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    Ok(wanted)
}

/// Makes sure that the volume has room for what is missing.
fn room(transfer: &Transfer<'_>, missing: &[Wanted]) -> Result<(), Error> {
    let layout = transfer.layout;
    let to_come = |wanted: &Wanted| {
        let paths = transfer.paths(wanted);
        if has_size(&paths.target, wanted.size) {
            return 0;
        }
        let partial = fs::metadata(&paths.partial).map_or(0, |found| found.len());
        wanted.size.saturating_sub(partial)
    };
    let needed = Bytes(missing.iter().map(to_come).sum());
    let free = disk::free(layout.root())
        .map_err(|source| layout.failed("look at", layout.root(), needed, source))?;
    if needed > free {
        return Err(Error::DiskFull { directory: layout.root().to_owned(), needed, free });
    }
    tracing::info!("{} files to bring, {needed}; {free} are free", missing.len());
    Ok(())
}
