//! What was learnt about a model, as it is printed and kept. Pure.

use berth_vram::ModelFacts;
use serde::{Deserialize, Serialize};

/// The form that is written. A change of what a field means (of [`ModelFacts`] too) raises it: what
/// is kept of an older form is asked for again, not misread.
pub const FORMAT: u32 = 1;

/// Longest text that is written or read, in bytes: annotations of Kubernetes hold as many, and a
/// `ConfigMap` four times as many.
pub const LONGEST: usize = 256 << 10;

/// What was learnt about a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The hub's commit, or the digest of the artifact's manifest; none where files have no version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What the model is.
    pub facts: ModelFacts,
    /// Its licence, as the hub or the artifact names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whether the sizes of the weights are from the headers of all files. Else they were counted
    /// from the architecture, with the files' sizes where those are known.
    pub exact: bool,
    /// Bytes that were read to learn it.
    pub bytes_read: u64,
}

/// Why a text is no inspection.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// Another form: ask again.
    #[error("the inspection is of form {0}, and {FORMAT} is what is read")]
    Format(u32),
    /// Too long.
    #[error("an inspection of {0} bytes is longer than the {LONGEST} that are kept")]
    Long(usize),
    /// No inspection at all.
    #[error("no inspection: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

#[derive(Deserialize)]
struct Form {
    format: u32,
}

impl Inspection {
    /// In one line of JSON.
    pub fn to_json(&self) -> Result<String, InspectionError> {
        let text = serde_json::to_string(&Written { format: FORMAT, inspection: self })?;
        if text.len() > LONGEST { Err(InspectionError::Long(text.len())) } else { Ok(text) }
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, InspectionError> {
        if text.len() > LONGEST {
            return Err(InspectionError::Long(text.len()));
        }
        let Form { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(InspectionError::Format(format));
        }
        Ok(serde_json::from_str(text)?)
    }
}
