//! How far the init step is that brings a model, and why it failed. Pure.

use berth_render::source::FETCH_CONTAINER;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};

use super::pod::{Progress, Trouble};

/// What the exit codes of `berth-fetch` mean, in one word. `operator/fetch/src/lib.rs` lists them;
/// `reconcile/reason.rs` says what to do about each.
pub const REASONS: [(i32, &str); 12] = [
    (1, "VolumeError"),
    (10, "Offline"),
    (11, "Unauthorized"),
    (12, "ModelNotFound"),
    (13, "DiskFull"),
    (14, "ChecksumMismatch"),
    (15, "DownloadFailed"),
    (16, "InvalidAnswer"),
    (17, "CacheConflict"),
    (18, "UntrustedCertificate"),
    (19, "SeveralModelFiles"),
    (20, "CacheNotPrepared"),
];

/// How far the step is, where there is one that has not succeeded. `None` while it waits for what
/// every container waits for.
pub fn progress(status: &PodStatus) -> Option<Progress> {
    let mut steps = status.init_container_statuses.iter().flatten();
    let step = steps.find(|container| container.name == FETCH_CONTAINER)?;
    let state = step.state.as_ref()?;
    let failed = |ended: Option<&ContainerStateTerminated>| {
        ended.filter(|ended| ended.exit_code != 0).map(|ended| trouble(step, ended))
    };
    let last = failed(step.last_state.as_ref().and_then(|last| last.terminated.as_ref()));
    if state.running.is_some() {
        return Some(Progress::Fetching { tries: step.restart_count, failed: last });
    }
    // What it ended with says more than that it is about to be started again.
    let crashed = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref())
        == Some("CrashLoopBackOff");
    let failed = failed(state.terminated.as_ref()).or_else(|| last.filter(|_| crashed))?;
    let Trouble { reason, message } = failed;
    Some(Progress::Failing { reason, message })
}

fn trouble(step: &ContainerStatus, ended: &ContainerStateTerminated) -> Trouble {
    let code = ended.exit_code;
    let known = REASONS.iter().find(|(known, _)| *known == code).map(|(_, reason)| *reason);
    let reason = known.or(ended.reason.as_deref()).unwrap_or("Error").to_owned();
    let words = ended.message.as_deref().map(str::trim).filter(|words| !words.is_empty());
    let message = words.map_or_else(
        || format!("container {} ended with code {code}", step.name),
        |words| format!("container {}: {words}", step.name),
    );
    Trouble { reason, message }
}
