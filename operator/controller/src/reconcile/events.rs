//! Events on what people look for. An event that cannot be written is logged and forgotten: it
//! never hides what it was about.

use berth_crds::{LLMDeployment, LLMDeploymentStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};

use super::{conditions, reason::Reason};
use crate::{leader::Leadership, measured};

/// Writes events about deployments while we lead.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    leadership: Leadership,
}

impl Events {
    /// Events through a recorder.
    pub fn new(recorder: Recorder, leadership: Leadership) -> Self {
        Self { recorder, leadership }
    }

    /// Something that is as it should be.
    pub async fn normal(&self, about: &LLMDeployment, reason: &str, note: String) {
        self.publish(&about.object_ref(&()), None, EventType::Normal, reason, note).await;
    }

    /// Something that was done with a pod. Events of different pods stay apart.
    pub async fn pod(&self, about: &LLMDeployment, pod: &str, reason: &str, note: String) {
        let type_ = match reason {
            "NotScheduled" | "NotOnAccelerator" => EventType::Warning,
            _ => EventType::Normal,
        };
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: about.metadata.namespace.clone(),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        };
        self.publish(&about.object_ref(&()), Some(pod), type_, reason, note).await;
    }

    /// Something that somebody should look at.
    pub async fn warning(&self, about: &LLMDeployment, reason: &str, note: String) {
        self.publish(&about.object_ref(&()), None, EventType::Warning, reason, note).await;
    }

    /// An object that cannot be read.
    pub async fn unreadable(&self, about: &impl Resource<DynamicType = ()>, note: String) {
        let about = about.object_ref(&());
        self.publish(&about, None, EventType::Warning, "Unreadable", note).await;
    }

    /// What changed from one status to the next.
    pub async fn changed(
        &self,
        about: &LLMDeployment,
        before: Option<&LLMDeploymentStatus>,
        after: &LLMDeploymentStatus,
    ) {
        let find = |status: &LLMDeploymentStatus, type_: &str| {
            status.conditions.iter().find(|condition| condition.type_ == type_).cloned()
        };
        let state = |type_: &str| {
            let before = before.and_then(|before| find(before, type_));
            let after = find(after, type_)?;
            let same = before.is_some_and(|before| {
                before.status == after.status && before.reason == after.reason
            });
            (!same).then_some(after)
        };
        if let Some(ready) = state(conditions::READY).filter(|ready| ready.status == "True") {
            self.normal(about, &ready.reason, ready.message).await;
        }
        let waits = state(conditions::PLACED)
            .filter(|placed| placed.status == "False")
            .filter(|placed| !["Placing", "ReadingModel"].contains(&placed.reason.as_str()));
        let fails = state(conditions::DEGRADED).filter(|degraded| degraded.status == "True");
        let stalled = state(conditions::STALLED);
        let mut told: Vec<String> = Vec::new();
        for condition in [stalled, waits, fails].into_iter().flatten() {
            if !told.contains(&condition.reason) {
                self.warning(about, &condition.reason, condition.message).await;
                told.push(condition.reason);
            }
        }
    }

    /// How far an estimate was off, once for each revision.
    pub async fn estimated(
        &self,
        about: &LLMDeployment,
        before: Option<&LLMDeploymentStatus>,
        after: &LLMDeploymentStatus,
    ) {
        match measured::news(before, after) {
            Some((Reason::EstimateTooLow, note)) => {
                self.warning(about, &Reason::EstimateTooLow.as_str(), note).await;
            }
            Some((reason, note)) => self.normal(about, &reason.as_str(), note).await,
            None => {}
        }
    }

    async fn publish(
        &self,
        about: &ObjectReference,
        related: Option<ObjectReference>,
        type_: EventType,
        reason: &str,
        note: String,
    ) {
        if self.leadership.check().is_err() {
            return;
        }
        // The API takes notes of up to 1024 bytes.
        let mut note = note;
        if note.len() > 1000 {
            let end = (0..=1000).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
            note.truncate(end);
            note.push('…');
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: related,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, reason, "cannot write an event");
        }
    }
}
