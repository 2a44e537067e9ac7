//! The pod of one replica: a template, a place, and the claim that it holds there.
//!
//! It meets the `restricted` Pod Security Standard, is of the Guaranteed class, and is pinned to
//! its node by required affinity: kube-scheduler still checks that it fits, and binds it.

use std::collections::BTreeMap;

use berth_crds::{
    llm_deployment::{Effect, Operator, PullPolicy, Toleration as SpecToleration},
    names,
};
use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference,
        NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
        PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
        SecretKeySelector, SecurityContext, SleepAction, Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};

use crate::{
    Claim, EngineTemplate, Owner, Site, Template,
    engine::{self, Directory, Engine},
    quantity,
    source::{self, Mounted},
    vendor,
};

/// Name of the engine's container.
pub const CONTAINER: &str = "engine";

/// Name of the port that the engine serves on.
const HTTP: &str = "http";

/// What tells one pod from the next of the same revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The `LLMDeployment`.
    pub deployment: Owner,
    /// The revision: the hash in the `ControllerRevision`'s name.
    pub revision: String,
    /// The replica, counted from 0.
    pub replica: u32,
    /// The pod's rank in it, counted from 0.
    pub rank: u32,
    /// The attempt at this replica, counted from 0.
    pub attempt: u32,
    /// The node.
    pub node: String,
    /// What it takes there.
    pub claim: Claim,
}

impl Replica {
    /// The pod's name.
    pub fn name(&self) -> String {
        let Self { deployment, revision, replica, rank, attempt, .. } = self;
        pod_name(&deployment.name, revision, *replica, *rank, *attempt)
    }
}

/// The name of a pod. It ends in the attempt, so a stale cache meets a conflict and never makes a
/// second pod. At most 63 characters: 40 + 8 + 3 + 2 + 5 and the dashes.
pub fn pod_name(deployment: &str, revision: &str, replica: u32, rank: u32, attempt: u32) -> String {
    format!("{deployment}-{revision}-{replica}-{rank}-{attempt}")
}

/// The pod of a replica.
pub fn pod(template: &Template, replica: &Replica, site: &Site) -> Pod {
    let engine = engine::of(template.engine.type_);
    let Mounted { volumes, mounts, init, group } = source::mounted(template, replica, site);
    let mut volumes: Vec<Volume> = volumes;
    volumes.extend(
        engine
            .directories(&template.engine)
            .iter()
            .map(|directory| empty_dir(&directory.volume, directory.size, None)),
    );
    volumes.push(empty_dir("shm", template.resources.shared_memory, Some("Memory")));
    Pod {
        metadata: metadata(template, replica),
        spec: Some(PodSpec {
            affinity: Some(pin(&replica.node)),
            node_selector: non_empty(template.node_selector.clone()),
            tolerations: Some(tolerations(template, site)),
            priority_class_name: Some(template.priority_class.clone()),
            runtime_class_name: template.runtime_class.clone(),
            image_pull_secrets: pull_secrets(&template.image_pull_secrets),
            restart_policy: Some("Always".to_owned()),
            // The variables of a Service named `vllm` would be read by vLLM as its own.
            enable_service_links: Some(false),
            automount_service_account_token: Some(false),
            termination_grace_period_seconds: Some(grace_seconds(
                engine,
                template.shutdown_grace_seconds,
            )),
            security_context: Some(pod_security(template, engine, group)),
            init_containers: (!init.is_empty()).then_some(init),
            containers: vec![container(template, engine, replica, site, mounts)],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

pub(crate) fn pull_secrets(names: &[String]) -> Option<Vec<LocalObjectReference>> {
    let secrets = || names.iter().map(|name| LocalObjectReference { name: name.clone() });
    (!names.is_empty()).then(|| secrets().collect())
}

/// Seconds from a pod's deletion until it is killed: what the engine spends before and after its
/// signal, and a little more, because the two must end before the kill.
fn grace_seconds(engine: &dyn Engine, shutdown_grace: u32) -> i64 {
    i64::from(engine.pre_stop_seconds(shutdown_grace))
        + i64::from(engine.stop_seconds(shutdown_grace))
        + 5
}

fn metadata(template: &Template, replica: &Replica) -> ObjectMeta {
    let mut metadata = replica.deployment.metadata(replica.name());
    let mut labels = template.pod_labels.clone();
    labels.extend(metadata.labels.take().unwrap_or_default());
    labels.extend(
        [
            (names::LABEL_REVISION, replica.revision.clone()),
            (names::LABEL_REPLICA, replica.replica.to_string()),
            (names::LABEL_RANK, replica.rank.to_string()),
            (names::LABEL_ATTEMPT, replica.attempt.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut annotations: BTreeMap<String, String> = [
        // An evicted replica comes back on the same node or waits for another: a loop, and a model
        // to load each time. Their own words for "not this one".
        ("descheduler.alpha.kubernetes.io/prefer-no-eviction", "true"),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    annotations.extend(template.pod_annotations.clone());
    annotations.insert(names::ANNOTATION_CLAIM.to_owned(), replica.claim.to_json());
    metadata.labels = Some(labels);
    metadata.annotations = Some(annotations);
    metadata
}

/// Required, by the node's name: labels can be moved to another node, names cannot.
pub(crate) fn pin(node: &str) -> Affinity {
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_fields: Some(vec![NodeSelectorRequirement {
                        key: "metadata.name".to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![node.to_owned()]),
                    }]),
                    ..NodeSelectorTerm::default()
                }],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// The user's, the taint that the vendor's nodes carry by custom, and the taint by the name that this
/// cluster gives the vendor's GPUs: the custom is to name it after the resource.
pub(crate) fn tolerations(template: &Template, site: &Site) -> Vec<Toleration> {
    let mut all = template.tolerations.iter().map(toleration).collect();
    tolerate(&mut all, vendor::profile(template.vendor).taint);
    tolerate(&mut all, site.gpu_resources.of(template.vendor));
    all
}

/// Tolerates a taint whatever its value and effect, once.
fn tolerate(all: &mut Vec<Toleration>, taint: &str) {
    let taint = Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    if !all.contains(&taint) {
        all.push(taint);
    }
}

fn toleration(of_spec: &SpecToleration) -> Toleration {
    Toleration {
        key: of_spec.key.clone(),
        operator: Some(
            match of_spec.operator {
                Operator::Equal => "Equal",
                Operator::Exists => "Exists",
            }
            .to_owned(),
        ),
        value: of_spec.value.clone(),
        effect: of_spec.effect.map(|effect| {
            match effect {
                Effect::NoSchedule => "NoSchedule",
                Effect::PreferNoSchedule => "PreferNoSchedule",
                Effect::NoExecute => "NoExecute",
            }
            .to_owned()
        }),
        toleration_seconds: None,
    }
}

pub(crate) fn pod_security(
    template: &Template,
    engine: &dyn Engine,
    group: Option<i64>,
) -> PodSecurityContext {
    let user = engine.user(&template.engine);
    let of_vendor = vendor::profile(template.vendor).groups.iter().copied();
    let groups: Vec<i64> = of_vendor.chain(group).collect();
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        fs_group: Some(user),
        // A claim with a terabyte of weights must not be walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        supplemental_groups: (!groups.is_empty()).then_some(groups),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

pub(crate) fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

/// What every container of the pod is kept from.
///
/// The root file system is read-only: a user without rights could write nearly nowhere in it, and
/// every directory that the engines do write to is a volume. (Container runtimes run their hooks,
/// which put the GPU's libraries in, before they make it so.)
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn container(
    template: &Template,
    engine: &dyn Engine,
    replica: &Replica,
    site: &Site,
    mut mounts: Vec<VolumeMount>,
) -> Container {
    let server = &template.engine;
    mounts.extend(engine.directories(server).iter().map(Directory::mount));
    mounts.push(VolumeMount {
        name: "shm".to_owned(),
        mount_path: "/dev/shm".to_owned(),
        ..VolumeMount::default()
    });
    let mut args = engine.args(template, &replica.claim);
    args.extend(template.engine.args.iter().cloned());
    let amounts = amounts(template, replica, site);
    let pre_stop = engine.pre_stop_seconds(template.shutdown_grace_seconds);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(template.engine.image.clone()),
        image_pull_policy: Some(pull_policy(template.engine.image_pull_policy).to_owned()),
        command: Some(engine.command(server)).filter(|command| !command.is_empty()),
        args: Some(args).filter(|args| !args.is_empty()),
        // Our images' own working directories are not for this user.
        working_dir: engine.working_directory().map(ToOwned::to_owned),
        env: Some(environment(template, engine, &replica.claim)),
        ports: Some(vec![ContainerPort {
            name: Some(HTTP.to_owned()),
            container_port: i32::from(engine.port(server)),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(guaranteed(amounts)),
        // No probe of life before the start has ended. A start that takes longer than its budget
        // is begun again.
        // Often, so that a small model serves as soon as it has loaded.
        startup_probe: Some(probe(
            engine,
            server,
            2,
            template.startup_timeout_seconds.div_ceil(2),
            2,
        )),
        // Out of the endpoints after 10 s without an answer, and back with the first one.
        readiness_probe: Some(probe(engine, server, 5, 2, 5)),
        // Killed only after 3 minutes: a loaded engine may be slow to answer, and a restart costs
        // all its requests and a model to load.
        liveness_probe: Some(probe(engine, server, 30, 6, 10)),
        lifecycle: (pre_stop > 0).then(|| Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: i64::from(pre_stop) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Requests and limits alike: the Guaranteed class, and GPUs cannot be overcommitted anyway.
pub(crate) fn guaranteed(amounts: BTreeMap<String, Quantity>) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(amounts.clone()),
        limits: Some(amounts),
        ..ResourceRequirements::default()
    }
}

/// What the engine takes.
fn amounts(template: &Template, replica: &Replica, site: &Site) -> BTreeMap<String, Quantity> {
    let resources = template.resources_with(replica.claim.cache.as_ref());
    BTreeMap::from([
        ("cpu".to_owned(), quantity::cpu(resources.cpu)),
        ("memory".to_owned(), quantity::bytes(resources.memory)),
        ("ephemeral-storage".to_owned(), quantity::bytes(resources.ephemeral_storage)),
        (
            site.gpu_resources.of(template.vendor).to_owned(),
            Quantity(replica.claim.gpus.to_string()),
        ),
    ])
}

/// Berth's environment, then the user's, each name once.
fn environment(template: &Template, engine: &dyn Engine, claim: &Claim) -> Vec<EnvVar> {
    let users: Vec<EnvVar> = template.engine.env.iter().map(of_spec).collect();
    // What is handed over comes first: later variables may refer to it.
    let told = engine.handed_over(template, claim).into_iter().chain(engine.env());
    let ours = told.map(|(name, value)| plain(name, &value));
    let overridable = engine.overridable();
    let fixed = |name: &str| !overridable.contains(&name);
    let mut env: Vec<EnvVar> = ours
        .filter(|ours| fixed(&ours.name) || !users.iter().any(|user| user.name == ours.name))
        .collect();
    for user in users {
        // A fixed name was refused before there was a template.
        if !env.iter().any(|ours| ours.name == user.name) {
            env.push(user);
        }
    }
    env
}

fn of_spec(variable: &berth_crds::llm_deployment::EnvVar) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: variable.value_from.as_ref().map(|from| EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: from.secret_key_ref.name.clone(),
                key: from.secret_key_ref.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// A variable with a value.
pub(crate) fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// Kubernetes' word for a pull policy.
pub(crate) fn pull_policy(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    }
}

fn probe(
    engine: &dyn Engine,
    server: &EngineTemplate,
    period: u32,
    failures: u32,
    timeout: u32,
) -> Probe {
    let number = |value: u32| Some(i32::try_from(value).unwrap_or(i32::MAX));
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(engine.health_path(server)),
            port: IntOrString::String(HTTP.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: number(period),
        failure_threshold: number(failures),
        timeout_seconds: number(timeout),
        ..Probe::default()
    }
}

pub(crate) fn empty_dir(name: &str, size: berth_units::Bytes, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(ToOwned::to_owned),
            size_limit: Some(quantity::bytes(size)),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn non_empty<K, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}
