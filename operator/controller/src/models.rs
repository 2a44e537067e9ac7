//! What is learnt about models that no manifest describes: what is asked, who may hear the answer,
//! and what is remembered of it. `run/learn.rs` does the asking.
//!
//! The operator itself asks the hub that the administrator configured, without any secret, and for
//! names that have passed [`berth_inspect::name`]. Such answers are public: every namespace uses them.

pub mod kept;
pub mod library;

use std::sync::Arc;

use berth_inspect::{
    InspectError, Inspection,
    name::{Repository, Revision},
};
use serde::{Deserialize, Serialize};

use crate::reconcile::reason::Reason;

/// A model whose facts are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// `ORG/NAME` on the hub.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// One file of many, by name or pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Whether only GGUF files count, where `files` names none.
    #[serde(default)]
    pub gguf: bool,
}

impl Question {
    /// The same about another revision.
    #[must_use]
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: revision.to_owned(), ..self.clone() }
    }

    /// Whether it is the other's question about whatever revision.
    pub fn is_about(&self, other: &Self) -> bool {
        (&self.repository, &self.files, self.gguf) == (&other.repository, &other.files, other.gguf)
    }

    /// Whether the revision names one commit, whose files never change.
    pub fn is_pinned(&self) -> bool {
        matches!(self.revision.len(), 40 | 64)
            && self.revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// The names, checked: nothing else of a tenant's ever becomes a part of an address.
    pub fn names(&self) -> Result<(Repository, Revision), InspectError> {
        let wrong = InspectError::Usage;
        Ok((self.repository.parse().map_err(wrong)?, self.revision.parse().map_err(wrong)?))
    }
}

/// What is known now.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nobody is asked.
    Unasked,
    /// This is.
    Known(Arc<Inspection>),
    /// Somebody is being asked; whoever wants to know is looked at again when the answer comes.
    Asking,
    /// Nothing: the answer was an error.
    Failed(Failure),
}

/// Why nothing was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word.
    pub reason: Reason,
    /// For people: what, where, and what to do.
    pub message: String,
}

impl From<&InspectError> for Failure {
    fn from(error: &InspectError) -> Self {
        let reason = match error {
            InspectError::Denied { .. } => Reason::Unauthorized,
            InspectError::NotFound(_) => Reason::ModelNotFound,
            InspectError::Nonsense(_) | InspectError::Redirected { .. } => Reason::InvalidAnswer,
            InspectError::Untrusted { .. } => Reason::UntrustedCertificate,
            InspectError::GaveUp { .. } => Reason::DownloadFailed,
            _ => Reason::UnknownModel,
        };
        Self { reason, message: error.to_string() }
    }
}
