//! What a failing test says: everything a person would look at first.

use std::fmt::Write as _;

use berth_crds::LLMDeployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams, ObjectList},
};

use crate::{Cluster, operator::SYSTEM};

/// Lines of a log that are shown.
const TAIL: usize = 40;

/// An `LLMDeployment`'s status, the pods and events of its namespace, and the end of the operator's
/// log, be it a process or a pod.
pub async fn explain(cluster: &Cluster, name: &str) -> String {
    let mut text = String::new();
    match cluster.api::<LLMDeployment>().get_opt(name).await {
        Ok(Some(llm)) => {
            let spec = serde_saphyr::to_string(&llm.spec).unwrap_or_default();
            let status = serde_saphyr::to_string(&llm.status).unwrap_or_default();
            let generation = llm.metadata.generation.unwrap_or_default();
            let _ =
                writeln!(text, "--- spec (generation {generation})\n{spec}--- status\n{status}");
        }
        other => {
            let _ = writeln!(text, "--- LLMDeployment {name}: {other:?}");
        }
    }
    text.push_str("--- pods\n");
    let everything = ListParams::default();
    for pod in items(cluster.api::<Pod>().list(&everything).await) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let ready = status.conditions.unwrap_or_default();
        let ready = ready.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let going = if pod.metadata.deletion_timestamp.is_some() { " Terminating" } else { "" };
        let reason = status.reason.unwrap_or_default();
        let _ = writeln!(text, "{} {phase}{going} ready={ready} {node} {reason}", pod.name_any());
        let containers = status.init_container_statuses.into_iter().flatten();
        for container in containers.chain(status.container_statuses.into_iter().flatten()) {
            let state = serde_json::to_string(&container.state).unwrap_or_default();
            let _ = writeln!(text, "  {}: {state}", container.name);
        }
    }
    text.push_str("--- events\n");
    let mut events = items(cluster.api::<Event>().list(&everything).await);
    events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
    for event in events.iter().rev().take(TAIL).rev() {
        let about = &event.involved_object;
        let _ = writeln!(
            text,
            "{} {}: {}: {} (x{})",
            about.kind.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default(),
            event.count.unwrap_or(1),
        );
    }
    for (file, log) in operator_logs(cluster).into_iter().chain(pod_logs(cluster).await) {
        let _ = writeln!(text, "--- the end of {file}\n{log}");
    }
    text
}

/// Where the operator is a pod of a real node: what it says there.
async fn pod_logs(cluster: &Cluster) -> Vec<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), SYSTEM);
    let parameters = LogParams { tail_lines: i64::try_from(TAIL).ok(), ..LogParams::default() };
    let mut logs = Vec::new();
    for pod in items(pods.list(&ListParams::default()).await) {
        let name = pod.name_any();
        let log = pods.logs(&name, &parameters).await.unwrap_or_else(|error| format!("{error}"));
        logs.push((format!("the log of {name}"), log));
    }
    logs
}

fn items<K: Clone>(list: kube::Result<ObjectList<K>>) -> Vec<K> {
    list.map(|list| list.items).unwrap_or_default()
}

fn operator_logs(cluster: &Cluster) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(&cluster.dir) else { return Vec::new() };
    let mut logs: Vec<_> = entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name.starts_with("operator-"))
        .map(|(name, path)| (name, tail(&std::fs::read_to_string(path).unwrap_or_default(), TAIL)))
        .collect();
    logs.sort();
    logs
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
