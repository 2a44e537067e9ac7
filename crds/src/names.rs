//! Labels, annotations and other names that Berth writes on objects. An admission policy keeps
//! everybody but the operator from writing those under `berth.dev/` on pods.

/// The API group.
pub const GROUP: &str = "berth.dev";

/// Field manager of server-side apply, and the component named in events.
pub const MANAGER: &str = "berth-operator";

/// Standard label: who manages an object. Always [`MANAGER`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Standard label: what an object is an instance of. The LLMDeployment's name.
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Standard label: the application. Always `llm`.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";

/// The LLMDeployment that an object belongs to.
pub const LABEL_DEPLOYMENT: &str = "berth.dev/deployment";
/// The revision that a pod was rendered from: the hash in the ControllerRevision's name.
pub const LABEL_REVISION: &str = "berth.dev/revision";
/// The replica that a pod is, counted from 0.
pub const LABEL_REPLICA: &str = "berth.dev/replica";
/// The rank of a pod in its replica, counted from 0. Rank 0 leads and serves.
pub const LABEL_RANK: &str = "berth.dev/rank";
/// The attempt at this replica that a pod is, counted from 0.
pub const LABEL_ATTEMPT: &str = "berth.dev/attempt";

/// On a pod that brings a revision's image and model onto a node: the revision.
pub const LABEL_PREFETCH: &str = "berth.dev/prefetch";

/// On a `ConfigMap` in the operator's namespace: it keeps what was learnt about a model. `public`: for
/// all namespaces.
pub const LABEL_MODEL_FACTS: &str = "berth.dev/model-facts";

/// On a pod, as JSON: what it takes on its node.
pub const ANNOTATION_CLAIM: &str = "berth.dev/claim";
/// On a pod: the UID of the pod whose GPUs it takes over on the same node.
pub const ANNOTATION_REPLACES: &str = "berth.dev/replaces";
/// On a ControllerRevision, as JSON: the user's pod-relevant fields it was made from.
pub const ANNOTATION_SPEC: &str = "berth.dev/spec";
/// On a ControllerRevision, as JSON: what engines of it told that they take, by GPU product.
pub const ANNOTATION_MEASURED: &str = "berth.dev/measured";

/// Standard label: which part of Berth an object belongs to.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`LABEL_COMPONENT`] on volumes, claims and pods of the nodes' caches.
pub const COMPONENT_CACHE: &str = "cache";
/// On a PersistentVolume of a cache, and on a keeper's pod: the node.
pub const ANNOTATION_CACHE_NODE: &str = "berth.dev/cache-node";
/// On a PersistentVolume of a cache: the namespace whose pods mount it.
pub const ANNOTATION_CACHE_NAMESPACE: &str = "berth.dev/cache-namespace";
/// On a PersistentVolume of a cache, as JSON: what lies in it.
pub const ANNOTATION_CACHE_CONTENT: &str = "berth.dev/cache-content";
/// On a keeper's pod, as JSON: what it does there.
pub const ANNOTATION_CACHE_WORK: &str = "berth.dev/cache-work";
/// On a node: the size of its cache, where it is not the usual one, such as `2Ti`; `0` for none.
pub const ANNOTATION_CACHE_SIZE: &str = "berth.dev/cache-size";

/// Label of a node: the rack that it stands in.
pub const LABEL_RACK: &str = "topology.berth.dev/rack";
