//! Why a condition is as it is: every reason, what it means and what to do about it. The page
//! `docs/conditions.md` is made from here.

use std::{borrow::Cow, fmt};

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident => $remedy:literal,)+) => {
        /// A reason of ours, or one that the kubelet gave for a pod.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::upper_case_acronyms, reason = "as it stands in conditions")]
        pub enum Reason {
            $($(#[doc = $meaning])+ $name,)+
            /// What the kubelet says of a pod, such as `CrashLoopBackOff`.
            Pod(String),
        }

        impl Reason {
            /// Every reason of ours, with what it means and what to do.
            pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
                $((Self::$name, concat!($($meaning),+), $remedy),)+
            ];

            /// As it stands in conditions and events.
            pub fn as_str(&self) -> Cow<'_, str> {
                match self {
                    $(Self::$name => stringify!($name).into(),)+
                    Self::Pod(reason) => reason.into(),
                }
            }
        }
    };
}

reasons! {
    /// All replicas wanted are of the newest revision and answer.
    Ready => "",
    /// `spec.suspend` is true, and no replica runs.
    Suspended => "Set `spec.suspend` to false to run it again.",
    /// `spec.replicas` is 0.
    ScaledToZero => "Scale it up: `kubectl scale llm NAME --replicas=1`.",
    /// Every replica has a node; some load their model or pull their image.
    Loading => "Wait. `status.resolved.startupTimeoutSeconds` says how long it may take; the pod's \
                events and logs tell how far it is.",
    /// Every replica has a node, and none is further than downloading its model.
    Downloading => "Wait. `status.placements` says how far each is, the metrics \
                    `berth_replica_download_*` say it live.",
    /// The model's configuration and the headers of its files are read from the hub: some ten kB, never
    /// the weights.
    ReadingModel => "Wait; the hub is given a minute.",
    /// Only an event: the model's own files could not be read, and Berth's catalogue says what they hold.
    CatalogueUsed => "Nothing must be done. The message says why they could not be read; `hub.inspect: false` \
                      in Berth's chart has nobody asked.",
    /// Replicas get their pods.
    Placing => "Wait.",
    /// Replicas are brought to the newest revision, one at a time.
    RollingOut => "Wait, or undo the edit.",
    /// The newest revision finds no room, not even in the place of an old replica, or its image or
    /// model cannot be brought to the node. The old one serves on.
    RolloutBlocked => "Free GPUs, ask for less, or undo the edit; the message names the nearest miss, or \
                       what cannot come.",
    /// Replicas that are no longer wanted end.
    ScalingDown => "Wait: requests that run are finished first.",
    /// Every replica wanted has a node.
    AllReplicasPlaced => "",
    /// Nothing is left to do.
    Complete => "",
    /// No replica fails.
    NoReplicaFails => "",
    /// Fewer replicas answer than are wanted, though all of them did.
    TooFewReplicas => "Look at the pods that are missing or not ready; Berth replaces those that ended.",
    /// An engine answered and does not any more.
    NotAnswering => "Look at the pod's logs; the liveness probe restarts an engine that hangs.",
    /// Only an event: a replica serves, but from the CPU, or partly. Its GPUs are held and not used.
    NotOnAccelerator => "Look at the beginning of the engine's log and at the node: driver, container \
                         toolkit, device plugin and, where there is one, the runtime class. Is the image \
                         for this vendor's GPUs? `status.placements` says what each replica runs on.",
    /// Only an event, once for each revision: by its own log an engine needs more of a GPU than was
    /// planned, margin included. It serves; on a fuller GPU it may not.
    EstimateTooLow => "Put what the message says it needs, and some room, into `spec.gpu.memory`. \
                       `status.measured` has the parts. Please tell us: the estimate is wrong.",
    /// Only an event, once for each revision: by its own log an engine needs less of a GPU than was
    /// planned, by more than the margin.
    EstimateTooHigh => "Nothing must be done. If GPUs are scarce, plan with less in `spec.gpu.memory`; \
                        `status.measured` has the parts.",
    /// A pod ended and is replaced.
    PodFailed => "Look at the message; after several failures in a row the next attempt waits up to 5 \
                  minutes.",
    /// No node has GPUs with enough VRAM free, or none has such GPUs at all.
    InsufficientVRAM => "It is placed by itself as soon as something frees up. The message names the \
                         nearest miss and what would fit now: set the fields that it names so, as they \
                         stand there. `status.queue.wouldFit` has the same for programs.",
    /// The GPUs are there, but CPU, memory, disk, pod slots or room in the model cache of
    /// their node are not.
    InsufficientResources => "Free them, or ask for less in `spec.resources`.",
    /// No node with GPUs may be used: selector, taints, product or vendor rule them all out.
    NoMatchingNodes => "Compare `spec.placement` and `spec.gpu` with the labels and taints of your nodes.",
    /// No node of the cluster offers GPUs.
    NoGPUNodes => "Install the device plugin of your GPUs' vendor and its labeller (NVIDIA: GPU Feature \
                   Discovery; AMD: the node labeller).",
    /// The model is not described in the manifest, its files tell nothing of it or nobody could be asked,
    /// and it is not in Berth's catalogue.
    UnknownModel => "See the message. Give `spec.model.facts`, or `spec.model.files` for a GGUF repository.",
    /// `spec.model.facts` contradicts itself.
    InvalidFacts => "Compare with the model's `config.json`.",
    /// `spec.model.uri` cannot be used.
    InvalidModelUri => "See the message.",
    /// The engine does not serve files of that format, or not as asked.
    UnsupportedFormat => "Leave `spec.engine.type` out, or choose the one that the message names.",
    /// The model cannot be split over so many GPUs.
    InvalidParallelism => "Use one of the counts that the message names.",
    /// The context is longer than the model allows.
    ContextTooLong => "Use the model's maximum or less.",
    /// An amount cannot be read.
    InvalidAmount => "Write it as a Kubernetes quantity, such as `80Gi` or `8`.",
    /// An argument or a variable that Berth sets itself.
    ReservedArgument => "Use the field that the message names.",
    /// The PriorityClass does not exist.
    PriorityClassNotFound => "Create it with `preemptionPolicy: Never`, or use `berth-default`.",
    /// The PriorityClass lets kube-scheduler preempt.
    PriorityClassPreempts => "Use a class with `preemptionPolicy: Never`.",
    /// The PersistentVolumeClaim that holds the model does not exist.
    ClaimNotFound => "Create it in the same namespace, or correct the name.",
    /// A replica is about to make way for its successor on the same GPUs. Before it does, image and
    /// model of the successor are brought onto the node.
    Prefetching => "Nothing; how long it takes depends on the network.",
    /// Downloads are switched off, and the model is not on the node.
    Offline => "Use a model that is in the nodes' caches, a volume or a registry of this site; or ask the \
                administrator.",
    /// The hub wants a token, or one that may read the model.
    Unauthorized => "Give `spec.model.secretRef` a Secret whose key `token` may read the model. For a \
                     gated model, accept its licence on the hub. The download is tried again by itself.",
    /// The hub has no such repository, revision or file.
    ModelNotFound => "Compare `spec.model.uri`, `revision` and `files` with the hub, or with what the \
                      mirror has.",
    /// The volume, or the node's cache, has no room for the model.
    DiskFull => "Free disk on the node, or ask for more in `spec.resources.ephemeralStorage`. The \
                 download goes on where it stopped.",
    /// What came is not what the hub promised, twice.
    ChecksumMismatch => "Look at the mirror and at what is between it and the node: something changes \
                         the files.",
    /// The hub did not answer, or not to the end, again and again.
    DownloadFailed => "Look at the network, the proxy and the mirror; the message says what was seen. \
                       The download is tried again by itself and goes on where it stopped.",
    /// What answered is no hub: a login page, a proxy's error.
    InvalidAnswer => "Look at the address of the mirror, and at proxies on the way.",
    /// The directory on the node holds another model or commit.
    CacheConflict => "Remove that directory from the node's cache; the message names it.",
    /// The certificate of the hub or mirror is signed by nobody who is trusted.
    UntrustedCertificate => "Ask the administrator to give Berth the authority's certificate (Berth's \
                             chart), or renew the mirror's.",
    /// The repository has several models, or parts of one, and the engine loads one file.
    SeveralModelFiles => "Say which in `spec.model.files`, such as `*Q4_K_M.gguf`.",
    /// The node's cache was not made ready in time.
    CacheNotPrepared => "Look at the pods in Berth's namespace that prepare the cache of that node. The \
                         download is tried again by itself.",
    /// The volume for the model cannot be written or read.
    VolumeError => "Look at the volume and the node's disk; the message says what was tried.",
    /// The model is named by its place in the nodes' caches, and nodes have none.
    NoCache => "Ask the administrator for `cache.path` in Berth's chart, or use another source.",
    /// The API server refused a pod or another object: a quota, an admission policy or webhook, or a
    /// name that is taken.
    Refused => "See the message: it is the API server's own. Berth tries again every 30 seconds.",
    /// On a CostProfile: prices that cannot be used.
    InvalidPrices => "The message names each field and what is wrong with it. Until then its nodes have \
                      no price.",
    /// On a CostProfile: the prices can be used, but select no node.
    NoNodes => "Compare `products` and `nodeSelector` with the labels of your nodes.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

/// The page on conditions.
pub fn page() -> String {
    use std::fmt::Write;
    let mut page = String::from(
        "# Conditions and their reasons\n\n\
         Generated by `make docs` from operator/controller/src/reconcile/reason.rs. Do not edit.\n\n\
         | condition | holds while |\n|---|---|\n\
         | `Ready` | all replicas wanted are of the newest revision and answer |\n\
         | `Progressing` | a change is being carried out |\n\
         | `Placed` | every replica wanted has a node |\n\
         | `Degraded` | a replica fails, or fewer answer than did |\n\
         | `Reconciling` | something is on its way that ends by itself; absent otherwise |\n\
         | `Stalled` | nothing goes on until somebody does something; absent otherwise |\n\n\
         | reason | meaning | what to do |\n|---|---|---|\n",
    );
    for (reason, meaning, remedy) in Reason::ALL {
        let remedy = if remedy.is_empty() { "Nothing." } else { remedy };
        let _ = writeln!(page, "| `{reason}` | {} | {remedy} |", meaning.trim());
    }
    page.push_str(
        "\nReasons that are not in this list (`CrashLoopBackOff`, `ImagePullBackOff`, \
         `CreateContainerConfigError`, `Evicted`, …) are the kubelet's own words about a pod; the \
         message says which pod and why.\n",
    );
    page
}
