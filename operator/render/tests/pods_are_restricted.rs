//! What must hold for every pod, whatever it serves.

mod common;

use std::collections::BTreeSet;

use berth_render::{Replica, pod};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};

fn pods() -> Vec<(&'static str, u32, Pod)> {
    common::cases()
        .into_iter()
        .map(|case| {
            let grace = case.template.shutdown_grace_seconds;
            (case.name, grace, pod(&case.template, &case.replica, &case.site))
        })
        .collect()
}

fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec(pod).containers.iter().chain(spec(pod).init_containers.iter().flatten())
}

/// The controls of the `restricted` Pod Security Standard, one by one.
#[test]
fn every_pod_meets_the_restricted_standard() {
    for (name, _, pod) in pods() {
        let spec = spec(&pod);
        assert!(spec.host_network.is_none() && spec.host_pid.is_none() && spec.host_ipc.is_none());
        for volume in spec.volumes.iter().flatten() {
            let kinds = [
                volume.empty_dir.is_some(),
                volume.persistent_volume_claim.is_some(),
                volume.image.is_some(),
            ];
            assert_eq!(kinds.iter().filter(|&&kind| kind).count(), 1, "{name}: {}", volume.name);
        }
        let security = spec.security_context.as_ref().unwrap();
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        assert!(security.run_as_user.unwrap() > 0, "{name}");
        assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault", "{name}");
        assert_eq!(spec.automount_service_account_token, Some(false), "{name}");
        assert_eq!(spec.enable_service_links, Some(false), "{name}");
        for container in containers(&pod) {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(security.privileged, Some(false), "{name}");
            assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]), "{name}");
            assert_eq!(capabilities.add, None, "{name}");
            assert!(container.ports.iter().flatten().all(|port| port.host_port.is_none()));
        }
    }
}

#[test]
fn every_pod_is_guaranteed() {
    for (name, _, pod) in pods() {
        for container in containers(&pod) {
            let resources = container.resources.as_ref().unwrap();
            assert_eq!(resources.requests, resources.limits, "{name}: {}", container.name);
            let limits = resources.limits.as_ref().unwrap();
            assert!(limits.contains_key("cpu") && limits.contains_key("memory"), "{name}");
        }
    }
}

#[test]
fn readiness_reacts_before_liveness() {
    let seconds = |probe: &Probe| probe.period_seconds.unwrap() * probe.failure_threshold.unwrap();
    for case in common::cases() {
        let pod = pod(&case.template, &case.replica, &case.site);
        let engine = &spec(&pod).containers[0];
        let ready = engine.readiness_probe.as_ref().unwrap();
        let live = engine.liveness_probe.as_ref().unwrap();
        let start = engine.startup_probe.as_ref().unwrap();
        assert!(seconds(ready) < seconds(live) / 4, "{}", case.name);
        let budget = i32::try_from(case.template.startup_timeout_seconds).unwrap();
        assert!((budget..budget + 10).contains(&seconds(start)), "{}", case.name);
        for probe in [ready, live, start] {
            assert!(probe.timeout_seconds.unwrap() <= probe.period_seconds.unwrap());
        }
    }
}

#[test]
fn the_grace_covers_what_it_must() {
    for (name, shutdown_grace, pod) in pods() {
        let engine = &spec(&pod).containers[0];
        let grace = spec(&pod).termination_grace_period_seconds.unwrap();
        let pre_stop = engine
            .lifecycle
            .as_ref()
            .map_or(0, |l| l.pre_stop.as_ref().unwrap().sleep.as_ref().unwrap().seconds);
        let args = engine.args.clone().unwrap_or_default();
        let told = args
            .iter()
            .position(|arg| arg == "--shutdown-timeout")
            .map_or(0, |at| args[at + 1].parse().unwrap());
        // SGLang is told nothing: it waits for its requests until the pod's grace is over.
        let waits = engine.command.as_ref().is_some_and(|c| c.iter().any(|c| c.contains("sglang")));
        let told = if waits { i64::from(shutdown_grace) } else { told };
        assert!(grace > pre_stop + told, "{name}");
        assert!(pre_stop + told >= i64::from(shutdown_grace), "{name}");
        assert!(told == 0 || pre_stop > 0, "{name}: requests would still come in");
    }
}

#[test]
fn nothing_is_named_twice() {
    for (name, _, pod) in pods() {
        let unique = |what: &str, names: Vec<&str>| {
            let set: BTreeSet<_> = names.iter().collect();
            assert_eq!(set.len(), names.len(), "{name}: {what} {names:?}");
        };
        unique("container", containers(&pod).map(|c| c.name.as_str()).collect());
        let volumes: Vec<_> =
            spec(&pod).volumes.iter().flatten().map(|v| v.name.as_str()).collect();
        for container in containers(&pod) {
            unique("env", container.env.iter().flatten().map(|e| e.name.as_str()).collect());
            let mounts = || container.volume_mounts.iter().flatten();
            unique("path", mounts().map(|m| m.mount_path.as_str()).collect());
            assert!(mounts().all(|m| volumes.contains(&m.name.as_str())), "{name}");
            for port in container.ports.iter().flatten() {
                assert!(port.name.as_ref().unwrap().len() <= 15);
            }
        }
        unique("volume", volumes);
        let tolerations = spec(&pod).tolerations.as_ref().unwrap();
        for (at, toleration) in tolerations.iter().enumerate() {
            assert!(!tolerations[..at].contains(toleration), "{name}");
        }
    }
}

/// Every directory that an engine's environment names is in a volume that can be written.
#[test]
fn caches_are_in_writable_volumes() {
    for (name, _, pod) in pods() {
        let engine = &spec(&pod).containers[0];
        let writable: Vec<_> = engine
            .volume_mounts
            .iter()
            .flatten()
            .filter(|m| m.read_only != Some(true))
            .map(|m| m.mount_path.as_str())
            .collect();
        for variable in engine.env.iter().flatten() {
            // The model is read.
            let reads = variable.name == "BERTH_MODEL_PATH";
            let value = variable.value.as_deref().filter(|v| v.starts_with('/') && !reads);
            let Some(path) = value else { continue };
            assert!(
                writable.iter().any(|mount| path == *mount
                    || path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))),
                "{name}: {}={path}",
                variable.name
            );
        }
    }
}

/// What the volumes may hold is no more than the pod asks of the node's disk.
#[test]
fn volumes_fit_the_disk_that_is_asked_for() {
    for case in common::cases() {
        let pod = pod(&case.template, &case.replica, &case.site);
        let volumes: u64 = spec(&pod)
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| v.empty_dir.as_ref())
            .filter(|dir| dir.medium.is_none())
            .map(|dir| {
                let limit = &dir.size_limit.as_ref().unwrap().0;
                limit.parse::<berth_units::Bytes>().unwrap().get()
            })
            .sum();
        assert!(volumes <= case.template.resources.ephemeral_storage.get(), "{}", case.name);
    }
}

#[test]
fn names_fit_with_the_longest_inputs() {
    let case = common::cases().remove(0);
    let longest = Replica {
        deployment: common::owner(&"a".repeat(40)),
        replica: 999,
        rank: 99,
        attempt: 99_999,
        ..case.replica
    };
    assert!(longest.name().len() <= 63, "{}", longest.name().len());
    let pod = pod(&case.template, &longest, &case.site);
    for (key, value) in pod.metadata.labels.unwrap() {
        assert!(value.len() <= 63, "{key}={value}");
    }
}

/// The pod may go to one node, by name, and its owner is its controller.
#[test]
fn every_pod_is_pinned_and_owned() {
    for case in common::cases() {
        let pod = pod(&case.template, &case.replica, &case.site);
        let affinity = spec(&pod).affinity.as_ref().unwrap().node_affinity.as_ref().unwrap();
        let terms = &affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
            .unwrap()
            .node_selector_terms;
        assert_eq!(terms.len(), 1);
        let field = &terms[0].match_fields.as_ref().unwrap()[0];
        assert_eq!((field.key.as_str(), field.operator.as_str()), ("metadata.name", "In"));
        assert_eq!(field.values.as_ref().unwrap(), std::slice::from_ref(&case.replica.node));
        let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(owner.uid, case.replica.deployment.uid);
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
        let claim = &pod.metadata.annotations.as_ref().unwrap()["berth.dev/claim"];
        assert_eq!(serde_json::from_str::<berth_render::Claim>(claim).unwrap(), case.replica.claim);
    }
}
