//! The conditions of an LLMDeployment. Pure.
//!
//! `Ready`, `Progressing`, `Placed` and `Degraded` are always there. `Reconciling` and `Stalled`
//! are there only while they hold, as kstatus wants it: it and the tools built on it (Flux, Argo
//! CD, `kubectl wait`) read the state of a deployment from `observedGeneration`, `Stalled`,
//! `Reconciling` and `Ready`.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::reason::Reason;

/// Whether all replicas wanted are of the newest revision and answer.
pub const READY: &str = "Ready";
/// Whether a change is being carried out.
pub const PROGRESSING: &str = "Progressing";
/// Whether every replica wanted has a node.
pub const PLACED: &str = "Placed";
/// Whether a replica fails.
pub const DEGRADED: &str = "Degraded";
/// There while something is on its way that ends by itself.
pub const RECONCILING: &str = "Reconciling";
/// There while nothing goes on until somebody does something.
pub const STALLED: &str = "Stalled";

/// One condition, but for its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its type.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl Fact {
    /// A condition.
    pub fn new(
        type_: &'static str,
        holds: bool,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, holds, reason, message: bounded(message.into()) }
    }
}

/// Conditions from facts: times stay where the truth did not change.
pub fn conditions(
    facts: Vec<Fact>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |fact: Fact| {
        let status = if fact.holds { "True" } else { "False" };
        let since = before
            .iter()
            .find(|old| old.type_ == fact.type_ && old.status == status)
            .map_or(Time(now), |old| old.last_transition_time.clone());
        Condition {
            type_: fact.type_.to_owned(),
            status: status.to_owned(),
            reason: fact.reason.to_string(),
            message: fact.message,
            observed_generation: generation,
            last_transition_time: since,
        }
    };
    facts.into_iter().map(condition).collect()
}

/// The API takes 32,768 characters; nobody reads more than a few lines.
fn bounded(message: String) -> String {
    const MOST: usize = 1500;
    if message.chars().count() <= MOST {
        return message;
    }
    message.chars().take(MOST - 1).chain(['…']).collect()
}
