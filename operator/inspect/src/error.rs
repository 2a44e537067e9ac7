//! Why nothing was learnt about a model, in one sentence for people: what, where, and what to do.
//! Pure.

use std::{io, path::PathBuf, time::Duration};

use berth_vram::read::ReadError;

/// A reason that ends an inspection, or a download.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A wrong argument.
    #[error("{0}")]
    Usage(String),
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
    /// 401 or 403 of a registry.
    #[error(
        "{host} refuses {what} ({status}): {}",
        if *password {
            "the pull secret may not read it, or has expired"
        } else {
            "it is private, or does not exist; give the deployment an imagePullSecret with a \
             password for that registry"
        }
    )]
    Locked {
        /// Who refuses.
        host: String,
        /// The artifact or the layer.
        what: String,
        /// The status.
        status: u16,
        /// Whether a password, or a token for one, was sent.
        password: bool,
    },
    /// 404, or no file that is wanted.
    #[error("{0}")]
    NotFound(String),
    /// An answer that no hub gives.
    #[error("{0}")]
    Nonsense(String),
    /// A redirect to where nobody may be asked.
    #[error(
        "{host} redirects to {target}, which {why}; nothing is asked there, and an administrator \
         can allow it"
    )]
    Redirected {
        /// Who redirects.
        host: String,
        /// Where to.
        target: String,
        /// Why not.
        why: String,
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
    /// Files that are no model, or none whose needs could be told.
    #[error("{what} {why}")]
    NotAModel {
        /// The repository, the directory or the artifact.
        what: String,
        /// What it is instead and what to do, to be read after it.
        why: String,
    },
    /// A file that is broken, hostile, or of a kind that is not read.
    #[error("{what} cannot be used: {source}{}", remedy(source))]
    Unreadable {
        /// The file and where it is.
        what: String,
        /// What is wrong with it.
        source: ReadError,
    },
    /// More bytes than a look at a model takes.
    #[error(
        "{what} would take more than the {limit} bytes that are read of it; say in \
         spec.model.facts what the model is"
    )]
    TooMuch {
        /// The file or the model, and where it is.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// A file on this machine.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network or the server failed again and again.
    #[error(
        "gave up on {what} from {host} after {attempts} attempt{}: {cause}",
        if *attempts == 1 { "" } else { "s" }
    )]
    GaveUp {
        /// The repository or the file.
        what: String,
        /// Who should have sent it.
        host: String,
        /// How often it was tried in a row.
        attempts: u32,
        /// What was wrong the last time.
        cause: Cause,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl InspectError {
    /// The kind of error in one word, for metrics. A word, once used, keeps its meaning.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Denied { .. } | Self::Locked { .. } => "denied",
            Self::NotFound(_) => "not_found",
            Self::Nonsense(_) => "nonsense",
            Self::Redirected { .. } => "redirected",
            Self::Untrusted { .. } => "untrusted",
            Self::NotAModel { .. } => "not_a_model",
            Self::Unreadable { source: ReadError::Unsupported { .. }, .. } => "unsupported",
            Self::Unreadable { .. } => "unreadable",
            Self::TooMuch { .. } => "too_much",
            Self::Io { .. } => "io",
            Self::GaveUp { cause: Cause::Throttled, .. } => "throttled",
            Self::GaveUp { .. } => "unavailable",
        }
    }

    /// Whether asking again brings nothing else, until somebody changes something.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::GaveUp { .. } | Self::Io { .. })
    }

    /// How long the server asks to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::GaveUp { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What to do about a file that cannot be used.
fn remedy(source: &ReadError) -> &'static str {
    match source {
        // It says so itself.
        ReadError::Unsupported { .. } => "",
        ReadError::Missing { .. } | ReadError::TooLarge { .. } => {
            "; say in spec.model.facts what the model is"
        }
        _ => "; if the file is right, say in spec.model.facts what the model is",
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
    /// Something came, and not all of it in time.
    #[error("the mirror is too slow, the answer was not there after {} s", .0.as_secs_f64())]
    Slow(Duration),
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
    Permanent(InspectError),
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        Self::Permanent(error)
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::Transient { cause, retry_after: None }
    }
}
