//! The process: an init container's step, a pod that keeps a node's cache, or one that looks at a
//! model.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    process::exit,
    sync::Arc,
};

use berth_fetch::{
    args::{Args, Command, HubArgs, KeepArgs},
    error::Error,
    fetch::{Outcome, fetch},
    inspect::inspect,
    keep::{Deed, keep},
    metrics,
    progress::Progress,
    transfer::blocking,
    verify::verify,
};
use berth_inspect::InspectError;
use clap::Parser;
use rustix::{fs::Mode, process::umask};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        // The container runtime notes the time.
        .without_time()
        .init();
    // Pods that share a volume share a group; what a token opened is for nobody else.
    umask(Mode::RWXO);
    let done = tokio::select! {
        done = run(args.command) => done,
        () = stopped() => Err(Error::Stopped),
    };
    let code = match done {
        Ok(Word::Done(word)) => {
            eprintln!("{word}");
            0
        }
        Ok(Word::Learnt(line)) => {
            // Whoever closed the pipe still gets the exit code.
            let _ = writeln!(io::stdout(), "{line}");
            0
        }
        Err(error) => {
            let word = one_line(&error.to_string());
            eprintln!("{word}");
            leave(&args.termination_message, &word);
            error.exit_code()
        }
    };
    // Not by returning: that would wait for threads that wait for a disk.
    exit(code.into());
}

/// What there is to say at the end.
enum Word {
    /// That it is done, to people.
    Done(String),
    /// What a model is, to programs.
    Learnt(String),
}

async fn run(command: Command) -> Result<Word, Error> {
    Ok(Word::Done(match command {
        Command::Inspect(asked) => return Ok(Word::Learnt(inspect(&asked).await?)),
        Command::Hub(args) => download(&args).await?,
        Command::Keep(args) => blocking(move || kept(&args)).await?,
        Command::Verify { into } => blocking(move || check(&into)).await?,
    }))
}

async fn download(args: &HubArgs) -> Result<String, Error> {
    let request = args.request()?;
    let unusable =
        |error: prometheus::Error| -> Error { InspectError::Usage(error.to_string()).into() };
    let progress = Arc::new(Progress::new().map_err(unusable)?);
    if let Some(address) = args.listen {
        tokio::spawn(metrics::serve(address, Arc::clone(&progress)));
    }
    let reported = Arc::clone(&progress);
    tokio::spawn(async move { reported.report().await });
    let (manifest, how) = match fetch(&request, &progress).await? {
        Outcome::Cached(manifest) => (manifest, "was there already"),
        Outcome::Fetched(manifest) => (manifest, "is there"),
    };
    let directory = request.directory.display();
    Ok(format!("{} at commit {} {how}: {directory}", manifest.repository, manifest.commit))
}

fn kept(args: &KeepArgs) -> Result<String, Error> {
    let mut out = io::stdout().lock();
    keep(&args.work(), |deed| {
        let line = match deed {
            Deed::Removed { place, freed, leftover: false } => {
                format!("removed {place}, {} bytes", freed.0)
            }
            Deed::Removed { place, freed, leftover: true } => {
                format!("removed what was left of {place}, {} bytes", freed.0)
            }
            Deed::Prepared(folder) => format!("prepared {folder}"),
        };
        // The work goes on without anybody to tell.
        let _ = writeln!(out, "{}", one_line(&line));
    })?;
    Ok(format!("{} is as it should be", args.root.display()))
}

/// A signal to stop. As the first process of a container it would be ignored otherwise.
async fn stopped() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn check(directory: &Path) -> Result<String, Error> {
    let report = verify(directory)?;
    let kinds =
        [("damaged", &report.damaged), ("missing", &report.missing), ("extra", &report.extra)];
    let mut out = io::stdout().lock();
    for (kind, names) in kinds {
        for name in names {
            // Whoever closed the pipe still gets the exit code.
            let _ = writeln!(out, "{kind}: {}", one_line(name));
        }
    }
    if report.is_good() {
        return Ok(format!(
            "{} is as it was downloaded: {} files",
            directory.display(),
            report.whole
        ));
    }
    let counts: Vec<_> = kinds
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{} {kind}", names.len()))
        .collect();
    Err(Error::Damaged { directory: directory.to_owned(), damage: counts.join(", ") })
}

/// Names and texts of others may hold anything.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}

/// Leaves the last word where the kubelet reads it.
fn leave(path: &Path, word: &str) {
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(word.as_bytes()))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot write {}: {error}", path.display());
    }
}
