//! The whole step: look, wait, ask, choose, make sure of room, bring, write down.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_inspect::{
    InspectError,
    listing::{Listed, Snapshot},
    remote::Remote,
};
use berth_units::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    disk,
    error::Error,
    http::Http,
    hub::Hub,
    layout::Layout,
    link, lock,
    manifest::{Entry, Manifest, Selection, has_size, sync_directory},
    name::{Commit, FileName, Repository, Revision},
    partial::Wanted,
    progress::Progress,
    retry::Policy,
    select::{self, SelectError},
    settings::Settings,
    transfer::Transfer,
    wait::Patience,
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
    /// Whether the model must be one GGUF file.
    pub one_file: bool,
    /// Where the files go.
    pub directory: PathBuf,
    /// How long to wait for the folder that the directory is in, and for room.
    pub wait: Duration,
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
    let mut patience = Patience::new(request.wait);
    // Without the lock: the volume may be read-only, and a manifest is never half written.
    let found = loop {
        match cached(request, &layout) {
            Ok(Ok(manifest)) => return already_there(request, &layout, manifest, progress),
            Ok(Err(found)) => break found,
            Err(error) => prepared(request, error, &mut patience).await?,
        }
    };
    if request.offline {
        let (directory, wanted) = (request.directory.clone(), request.describe());
        return Err(Error::Offline { directory, found, wanted });
    }
    let lock = loop {
        while let Err(error) = make_root(request, &layout) {
            prepared(request, error, &mut patience).await?;
        }
        make_own(&layout)?;
        let lock = lock::acquire(&layout, progress).await?;
        if lock.is_of(&layout) {
            break lock;
        }
        tracing::info!("{} was removed meanwhile", layout.root().display());
    };
    if let Ok(manifest) = cached(request, &layout)? {
        return already_there(request, &layout, manifest, progress);
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

    fn selection(&self) -> Selection {
        let (revision, files) = (self.revision.to_string(), self.files.clone());
        Selection { revision, gguf: self.one_file && files.is_none(), files }
    }

    /// Of these names those that are wanted, and the one file of the model if it is one.
    fn choose<'a>(&self, names: &[&'a str]) -> Result<(Vec<&'a str>, Option<&'a str>), Error> {
        let refused = |error: SelectError| {
            let what = match error {
                // It names them itself.
                SelectError::NoMatch { .. } => {
                    format!("{} at revision {}", self.repository, self.revision)
                }
                _ => self.describe(),
            };
            let text = format!("{what} {error}");
            match error {
                SelectError::Parts { .. } | SelectError::Several { .. } => Error::NotOneFile(text),
                SelectError::Ambiguous { .. } if self.one_file => Error::NotOneFile(text),
                _ => InspectError::NotFound(text).into(),
            }
        };
        let chosen =
            select::select(names, self.files.as_deref(), self.one_file).map_err(refused)?;
        match select::one_file(&chosen) {
            Ok(model) => Ok((chosen, Some(model))),
            Err(error) if self.one_file => Err(refused(error)),
            Err(_) => Ok((chosen, None)),
        }
    }

    /// Leaves the link to the model. Where nobody said that it is needed, a link that is there
    /// already or cannot be made is no error.
    fn link(&self, layout: &Layout, model: Option<&FileName>) -> Result<(), Error> {
        match model.map(|model| link::leave(layout, model)) {
            Some(Err(error)) if self.one_file => Err(error),
            Some(Err(error)) => {
                tracing::debug!("{error}");
                Ok(())
            }
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// The manifest, if all that is asked for is there; if not, what is there.
fn cached(request: &Request, layout: &Layout) -> Result<Result<Manifest, String>, Error> {
    let Some(manifest) = Manifest::read(layout)? else {
        return Ok(Err("holds no complete model".to_owned()));
    };
    if !manifest.answers(&request.repository, &request.selection()) {
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

fn already_there(
    request: &Request,
    layout: &Layout,
    manifest: Manifest,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let (_, model) = request.choose(&names)?;
    let model = manifest.files.iter().map(|file| &file.name).find(|f| Some(f.as_str()) == model);
    request.link(layout, model)?;
    progress.expect(manifest.files.iter().map(|file| file.size).sum(), manifest.files.len());
    manifest.files.iter().for_each(|file| progress.found(file.size));
    Ok(Outcome::Cached(manifest))
}

/// Waits before another look at a folder that was not there or not ours; the error if it will
/// never be.
async fn prepared(request: &Request, error: Error, patience: &mut Patience) -> Result<(), Error> {
    let (action, path, source) = match error {
        Error::NotWritable { action, path, source } | Error::Io { action, path, source }
            if !request.wait.is_zero()
                && matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
                ) =>
        {
            (action, path, source)
        }
        other => return Err(other),
    };
    let why = format!(
        "the cache on this node is not prepared yet (cannot {action} {}: {source})",
        path.display()
    );
    if patience.look_again(why).await {
        return Ok(());
    }
    Err(Error::NotPrepared { waited: request.wait, action, path, source })
}

/// Makes the directory, and never the folder that it is in where somebody else prepares that: it
/// would have the wrong owner.
fn make_root(request: &Request, layout: &Layout) -> Result<(), Error> {
    let root = layout.root();
    let made = if request.wait.is_zero() { fs::create_dir_all(root) } else { make(root) };
    made.map_err(|source| layout.failed("create", root, Bytes::ZERO, source))
}

fn make_own(layout: &Layout) -> Result<(), Error> {
    let own = layout.own();
    make(&own).map_err(|source| layout.failed("create", &own, Bytes::ZERO, source))
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

async fn download(
    request: &Request,
    layout: &Layout,
    progress: &Progress,
) -> Result<Manifest, Error> {
    let http = Http::new(request.settings.clone())?;
    let retried = || progress.retried();
    let (repository, policy) = (&request.repository, request.policy);
    let remote = Remote { http: &http, repository, policy, retried: &retried };
    let hub = Hub { remote, progress };
    let snapshot = hub.snapshot(&request.revision).await?;
    let mut manifest = compatible(request, layout, &snapshot)?;
    tracing::info!(
        "{} at revision {} is commit {}",
        request.repository,
        request.revision,
        snapshot.commit
    );
    let (chosen, model) = choose(request, layout, &snapshot)?;
    let wanted = describe(request, &hub, &snapshot.commit, chosen).await?;
    let transfer =
        Transfer { hub: &hub, commit: &snapshot.commit, layout, policy: request.policy, progress };
    let missing = expect(&manifest, layout, wanted, progress)?;
    room(&transfer, &missing, request.wait).await?;
    // The largest first, or it would be waited for alone at the end.
    let transfers = missing.iter().map(|wanted| transfer.bring(wanted));
    let entries: Vec<Entry> =
        stream::iter(transfers).buffer_unordered(request.parallel.max(1)).try_collect().await?;
    sync_directory(layout.root());
    manifest.merge(request.selection(), entries);
    request.link(layout, model)?;
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

/// The files that are needed, and the one that is the model.
fn choose<'a>(
    request: &Request,
    layout: &Layout,
    snapshot: &'a Snapshot,
) -> Result<(Vec<&'a Listed>, Option<&'a FileName>), Error> {
    let names: Vec<_> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    let (chosen, model) = request.choose(&names)?;
    let is_chosen = |file: &&Listed| chosen.contains(&file.name.as_str());
    let model = snapshot.files.iter().map(|file| &file.name).find(|f| Some(f.as_str()) == model);
    if let Some(model) = model.filter(|_| request.one_file) {
        link::is_free(layout, model)?;
    }
    Ok((snapshot.files.iter().filter(is_chosen).collect(), model))
}

/// The files with sizes and checksums.
async fn describe(
    request: &Request,
    hub: &Hub<'_>,
    commit: &Commit,
    chosen: Vec<&Listed>,
) -> Result<Vec<Wanted>, Error> {
    stream::iter(chosen.into_iter().map(|file| hub.describe(commit, file)))
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
    let total = total
        .ok_or_else(|| InspectError::Nonsense("all files together are too large".to_owned()))?;
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

/// Makes sure that the volume has room for what is missing; others may be making it.
async fn room(transfer: &Transfer<'_>, missing: &[Wanted], wait: Duration) -> Result<(), Error> {
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
    let look = || {
        disk::free(layout.root())
            .map_err(|source| layout.failed("look at", layout.root(), needed, source))
    };
    let mut patience = Patience::new(wait);
    let mut free = look()?;
    while needed > free {
        let why = format!("there is no room yet: {needed} are needed and {free} are free");
        if !patience.look_again(why).await {
            return Err(Error::DiskFull { directory: layout.root().to_owned(), needed, free });
        }
        free = look()?;
    }
    tracing::info!("{} files to bring, {needed}; {free} are free", missing.len());
    Ok(())
}
