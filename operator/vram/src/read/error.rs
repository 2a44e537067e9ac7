//! Why a file could not be read, in words for the person whose model it is.

use crate::InvalidFact;

/// Why nothing, or not enough, can be learnt from a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Larger than any real file of its kind.
    #[error("{what} of {size} bytes is larger than the {limit} that are read")]
    TooLarge {
        /// The file, or the part of it.
        what: &'static str,
        /// Its size.
        size: u64,
        /// What is read at most.
        limit: u64,
    },
    /// The beginning of the file that was given ends too early: read on and try again.
    #[error("the first {needed} bytes of the file are needed")]
    NeedMore {
        /// How many of the file's first bytes to give: what is known to be missing, or more where
        /// little is known.
        needed: u64,
    },
    /// Not the format that it should be.
    #[error("not {format}: {problem}")]
    Format {
        /// The format.
        format: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A number that the estimate cannot do without.
    #[error("the config of a {model_type:?} model lacks {field}")]
    Missing {
        /// The model's own word for its architecture.
        model_type: String,
        /// The field, as config.json spells it.
        field: &'static str,
    },
    /// A number that cannot be.
    #[error("{field} {problem}")]
    Invalid {
        /// The field, as the file spells it.
        field: String,
        /// What is wrong with it, to be read after the field's name.
        problem: String,
    },
    /// A kind of model that no estimate is made for.
    #[error("{what} is not supported: {advice}")]
    Unsupported {
        /// What it is.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Facts that contradict each other.
    #[error(transparent)]
    Facts(#[from] InvalidFact),
}
