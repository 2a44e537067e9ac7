//! What can be wrong with a spec that the API server cannot see. Each is shown as a condition, with
//! what to do.

use super::reason::Reason;
use crate::models::Failure;

/// Something that only the user can put right. What runs goes on untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The model is neither in the catalogue nor described.
    #[error(
        "nothing is known about the model {model}: {missing}; give spec.model.facts (the numbers \
         stand in the model's config.json)"
    )]
    UnknownModel {
        /// The model's uri.
        model: String,
        /// What is missing.
        missing: String,
    },
    /// The model's own files are being read. It passes by itself.
    #[error("the configuration and the headers of {0} are being read")]
    ReadingModel(String),
    /// The model's own files could not be read, and nobody else knows it.
    #[error(
        "what {model} is could not be read: {}; without it spec.model.facts is needed", failure.message
    )]
    NotRead {
        /// The model's uri.
        model: String,
        /// Why not.
        failure: Failure,
    },
    /// The facts contradict each other.
    #[error("spec.model.facts cannot be right: {0}")]
    InvalidFacts(String),
    /// The uri cannot be read.
    #[error("spec.model.uri: {0}")]
    InvalidModelUri(String),
    /// The engine does not serve files of that format.
    #[error("{0}")]
    UnsupportedFormat(String),
    /// The model cannot be split as asked.
    #[error("spec.gpu: {0}")]
    InvalidParallelism(String),
    /// The context is longer than the model allows.
    #[error("spec.engine.contextLength: {0}")]
    ContextTooLong(String),
    /// An amount cannot be read.
    #[error("{field}: {problem}")]
    InvalidAmount {
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// An argument or a variable that Berth sets itself.
    #[error("spec.engine: {0}")]
    ReservedArgument(String),
    /// The priority class is not there.
    #[error(
        "spec.priorityClassName: there is no PriorityClass {0}; create it with preemptionPolicy \
         Never, or leave the field out"
    )]
    PriorityClassNotFound(String),
    /// The priority class lets kube-scheduler preempt.
    #[error(
        "spec.priorityClassName: the PriorityClass {0} preempts; Berth plans preemption itself, so \
         it must have preemptionPolicy Never"
    )]
    PriorityClassPreempts(String),
    /// A claim that holds the model is not there.
    #[error(
        "spec.model.uri: there is no PersistentVolumeClaim {0} in this namespace; create it, or \
         correct the name"
    )]
    ClaimNotFound(String),
    /// Downloads are switched off.
    #[error(
        "spec.model.uri: downloads are switched off in this cluster, and {0} is one without a cache \
         on the nodes; use pvc://, oci:// or cache://, or ask the administrator (hub.offline in \
         Berth's chart)"
    )]
    Offline(&'static str),
    /// There is no cache to find models in.
    #[error(
        "spec.model.uri: nodes keep no models in this cluster; ask the administrator for a cache \
         (cache.path in Berth's chart), or use another source"
    )]
    NoCache,
    /// The API server refused an object for good.
    #[error("{0}")]
    Refused(String),
}

impl Problem {
    /// Whether it passes by itself.
    pub fn passes(&self) -> bool {
        matches!(self, Self::ReadingModel(_))
    }

    /// The reason in conditions and events.
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownModel { .. } => Reason::UnknownModel,
            Self::ReadingModel(_) => Reason::ReadingModel,
            Self::NotRead { failure, .. } => failure.reason.clone(),
            Self::InvalidFacts(_) => Reason::InvalidFacts,
            Self::InvalidModelUri(_) => Reason::InvalidModelUri,
            Self::UnsupportedFormat(_) => Reason::UnsupportedFormat,
            Self::InvalidParallelism(_) => Reason::InvalidParallelism,
            Self::ContextTooLong(_) => Reason::ContextTooLong,
            Self::InvalidAmount { .. } => Reason::InvalidAmount,
            Self::ReservedArgument(_) => Reason::ReservedArgument,
            Self::PriorityClassNotFound(_) => Reason::PriorityClassNotFound,
            Self::PriorityClassPreempts(_) => Reason::PriorityClassPreempts,
            Self::ClaimNotFound(_) => Reason::ClaimNotFound,
            Self::Offline(_) => Reason::Offline,
            Self::NoCache => Reason::NoCache,
            Self::Refused(_) => Reason::Refused,
        }
    }
}
