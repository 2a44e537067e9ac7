//! Why a model is not there, in one sentence for people, with an exit code for the operator.

use std::{io, path::PathBuf, time::Duration};

use berth_inspect::InspectError;
use berth_units::Bytes;

use crate::wait::Span;

/// A reason that ends the step. Its text is one sentence: what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hub, or what was asked of it.
    #[error(transparent)]
    Source(#[from] InspectError),
    /// No network is allowed, and the files are not there.
    #[error(
        "--offline is set and the files are not in the cache: {directory} {found}, not {wanted}"
    )]
    Offline {
        /// Where the files should be.
        directory: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        wanted: String,
    },
    /// No room.
    #[error(
        "the volume of {directory} is full: {needed} more are needed and {free} are free; give it \
         more room, or remove models from it"
    )]
    DiskFull {
        /// Where the files should go.
        directory: PathBuf,
        /// What is still to be written.
        needed: Bytes,
        /// What is free.
        free: Bytes,
    },
    /// The bytes are not those that the hub promised.
    #[error(
        "{file} from {host} has a wrong checksum, twice: {actual} instead of {expected}; the \
         mirror is damaged, or something on the way changes the files"
    )]
    Checksum {
        /// The file.
        file: String,
        /// Who sent it.
        host: String,
        /// What it should have been.
        expected: String,
        /// What came.
        actual: String,
    },
    /// The directory belongs to another model.
    #[error("{directory} {found}, not {wanted}; give each of them a directory of its own")]
    Occupied {
        /// The directory.
        directory: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        wanted: String,
    },
    /// One file is needed, and the model has several.
    #[error("{0}")]
    NotOneFile(String),
    /// The directory cannot be written.
    #[error(
        "cannot {action} {path}: {source}; the volume must be writable for the user or a group \
         of this pod (fsGroup or supplementalGroups)"
    )]
    NotWritable {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody made the folder that the directory is in, or gave it to us.
    #[error(
        "the cache on this node was not prepared within {}: cannot {action} {path}: {source}; the \
         pod that prepares it has failed or has not run",
        Span(*waited)
    )]
    NotPrepared {
        /// How long it was waited for.
        waited: Duration,
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else about files.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Links are not followed on a node.
    #[error("{path} is a link or a file where a folder should be; it is left as it is")]
    NoFolder {
        /// Where.
        path: PathBuf,
    },
    /// Models that are being downloaded cannot be removed.
    #[error("in use, and left: {0}; everything else is done")]
    InUse(String),
    /// The files are not what the manifest says.
    #[error("{directory} is not as it was downloaded: {damage}")]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// Counts of files.
        damage: String,
    },
    /// A signal.
    #[error(
        "stopped by a signal; what was downloaded is kept, and the next run goes on from there"
    )]
    Stopped,
}

impl Error {
    /// The exit code of the process, by which the operator knows the kind of error. A code, once
    /// used, keeps its meaning.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. }
            | Self::NotWritable { .. }
            | Self::NoFolder { .. }
            | Self::Damaged { .. } => 1,
            Self::Source(error) => source(error),
            Self::Offline { .. } => 10,
            Self::DiskFull { .. } => 13,
            Self::Checksum { .. } => 14,
            Self::Occupied { .. } => 17,
            Self::NotOneFile(_) => 19,
            Self::NotPrepared { .. } => 20,
            Self::InUse(_) => 21,
            // 128 + SIGTERM, as a shell has it.
            Self::Stopped => 143,
        }
    }
}

fn source(error: &InspectError) -> u8 {
    match error {
        InspectError::Io { .. } => 1,
        InspectError::Usage(_) => 2,
        InspectError::Denied { .. } | InspectError::Locked { .. } => 11,
        InspectError::NotFound(_) => 12,
        InspectError::GaveUp { .. } => 15,
        InspectError::Nonsense(_) | InspectError::Redirected { .. } => 16,
        InspectError::Untrusted { .. } => 18,
        InspectError::NotAModel { .. } => 22,
        InspectError::Unreadable { .. } | InspectError::TooMuch { .. } => 23,
    }
}
