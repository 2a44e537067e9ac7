//! The API server's audit log: who wrote what, counted where nobody can hide it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::Result;
use serde::Deserialize;

use crate::Cluster;

/// The account that the operator runs as.
pub const OPERATOR: &str = "system:serviceaccount:berth-system:berth-operator";

/// The audit log of a cluster.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A place in the log: now, when it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A request that was answered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// `create`, `update`, `patch`, `delete`, `deletecollection`, `get`, `list`, `watch`.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// What about.
    pub object_ref: ObjectRef,
    /// With what result.
    pub response_status: ResponseStatus,
    /// When.
    pub request_received_timestamp: String,
    /// Which program asked.
    pub user_agent: String,
}

/// Who asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// Name of the user.
    pub username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Plural of the kind.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name; empty for a create that leaves it to the API server.
    pub name: String,
    /// Such as `status`.
    pub subresource: String,
}

/// The result of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// HTTP status.
    pub code: u16,
}

impl AuditLog {
    /// The log of a cluster.
    pub fn of(cluster: &Cluster) -> Self {
        Self(cluster.audit_log.clone())
    }

    /// Now.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(std::fs::metadata(&self.0)?.len()))
    }

    /// All requests that were logged since.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut file = File::open(&self.0)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            // The last line may be half written; it is there at the next look.
            if let Ok(request) = serde_json::from_str(&line?) {
                requests.push(request);
            }
        }
        Ok(requests)
    }

    /// The writes of a user since then, leases left out.
    pub fn writes(&self, user: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| {
            request.user.username == user
                && request.is_write()
                && request.object_ref.resource != "leases"
        });
        Ok(requests)
    }
}

impl Request {
    /// Whether it is there to change something. Reviews of tokens and rights, which are created to
    /// ask a question, are not.
    pub fn is_write(&self) -> bool {
        let asks = ["subjectaccessreviews", "selfsubjectaccessreviews", "tokenreviews"];
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
            && !asks.contains(&self.object_ref.resource.as_str())
    }

    /// In a line: `patch llmdeployments/status models/small 200`.
    pub fn line(&self) -> String {
        let ObjectRef { resource, namespace, name, subresource } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        let code = self.response_status.code;
        format!("{} {resource}{slash}{subresource} {namespace}/{name} {code}", self.verb)
    }
}

/// Requests counted by their lines, for messages.
pub fn counted(requests: &[Request]) -> String {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.line()).or_insert(0) += 1;
    }
    counts.iter().map(|(line, count)| format!("{count} × {line}")).collect::<Vec<_>>().join("\n")
}
