//! Why a model is not there, in one sentence for people, with an exit code for the operator.

use std::{io, path::PathBuf, time::Duration};

use berth_units::Bytes;

use crate::wait::Span;

/// A reason that ends the step. Its text is one sentence: what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong argument.
    #[error("{0}")]
    Usage(String),
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
    /// 401 or 403.
    #[error(
        "{host} refuses {what} ({status}): {}",
        if *token {
            "the token in spec.model.secretRef may not read it, has expired, or its owner has not \
             accepted the model's licence"
        } else {
            "it is gated or private, or does not exist; give spec.model.secretRef a secret with a \
             token that may read it"
        }
    )]
    Denied {
        /// Who refuses.
        host: String,
        /// The repository or the file.
        what: String,
        /// The status.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// 404, or no file that is wanted.
    #[error("{0}")]
    NotFound(String),
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
    /// The network or the mirror failed again and again.
    #[error("gave up on {what} from {host} after {attempts} attempt{}: {cause}", if *attempts == 1 { "" } else { "s" })]
    GaveUp {
        /// The repository or the file.
        what: String,
        /// Who should have sent it.
        host: String,
        /// How often it was tried in a row.
        attempts: u32,
        /// What was wrong the last time.
        cause: Cause,
    },
    /// A certificate that nobody vouches for.
    #[error(
        "the certificate of {host} is not trusted ({why}); give the authority that signed it with \
         --ca-file or in HUB_CA_PEM"
    )]
    Untrusted {
        /// Whose certificate.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// An answer that no hub gives.
    #[error("{0}")]
    Nonsense(String),
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
            Self::Usage(_) => 2,
            Self::Offline { .. } => 10,
            Self::Denied { .. } => 11,
            Self::NotFound(_) => 12,
            Self::DiskFull { .. } => 13,
            Self::Checksum { .. } => 14,
            Self::GaveUp { .. } => 15,
            Self::Nonsense(_) => 16,
            Self::Occupied { .. } => 17,
            Self::Untrusted { .. } => 18,
            Self::NotOneFile(_) => 19,
            Self::NotPrepared { .. } => 20,
            Self::InUse(_) => 21,
            // 128 + SIGTERM, as a shell has it.
            Self::Stopped => 143,
        }
    }
}

/// What may be better the next time.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No connection, or none that holds until an answer.
    #[error("no connection ({0})")]
    Connection(String),
    /// Nothing came for too long.
    #[error("the mirror is too slow, not one byte came for {} s", .0.as_secs_f64())]
    Stalled(Duration),
    /// The answer ended early.
    #[error("the connection was cut after {at} of {of} bytes")]
    Cut {
        /// Bytes that are there.
        at: u64,
        /// Bytes of the whole file.
        of: u64,
    },
    /// 429.
    #[error("there were too many requests for its liking (429)")]
    Throttled,
    /// 5xx and their like.
    #[error("it answered {0}")]
    Status(u16),
}

/// Why one attempt failed: what may be better the next time, and what will not.
#[derive(Debug)]
pub enum Failure {
    /// Worth another attempt.
    Transient {
        /// What was wrong.
        cause: Cause,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Not worth another attempt.
    Permanent(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Permanent(error)
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::Transient { cause, retry_after: None }
    }
}
