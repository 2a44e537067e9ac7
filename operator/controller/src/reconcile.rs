//! One deployment, from what is there to what shall be: observe → resolve → intend → place →
//! apply → report.
//!
//! Any reconcile can be the first one after a crash: nothing that matters lives only in memory.
//! The steps up to `place` are pure; `apply` alone writes; `report` is pure again.

pub mod apply;
pub mod canonical;
pub mod conditions;
pub mod events;
pub mod facts;
pub mod intend;
pub mod placing;
pub mod problem;
pub mod report;
pub mod resolve;
pub mod revisions;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_crds::{CostProfile, LLMDeployment, names};
use berth_planner::{
    Assumed, Claim, DeploymentId, Occupant, OccupantId, Owner as Holder, PodKey,
    queue::{self, Waiting},
};
use berth_render::{Owner, Replica as Rendered, Template, revision};
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{PersistentVolumeClaim, Service},
        policy::v1::PodDisruptionBudget,
        scheduling::v1::PriorityClass,
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};

use crate::{
    client::{WriteError, Writer},
    metrics::Metrics,
    prices::PriceBook,
    world::{World, beyond, pod::Replica},
};
use apply::Created;
use events::Events;
use intend::{DeleteReason, Intent, Need, Wanted, intend};
use placing::{Misfit, Placed, Terms};
use problem::Problem;
use resolve::{Defaults, priority_class, resolve};
use revisions::{Revision, Target};

/// Objects that are kept current beside pods and nodes.
pub struct Stores {
    /// Revisions of all deployments.
    pub revisions: Store<ControllerRevision>,
    /// Services that Berth manages.
    pub services: Store<Service>,
    /// PodDisruptionBudgets that Berth manages.
    pub budgets: Store<PodDisruptionBudget>,
    /// Priority classes.
    pub priority_classes: Store<PriorityClass>,
    /// Claims that may hold models.
    pub claims: Store<PersistentVolumeClaim>,
    /// What hardware costs.
    pub cost_profiles: Store<CostProfile>,
}

/// All that a reconcile works with.
pub struct Context {
    /// The fleet, the queue and our pods.
    pub world: Arc<World>,
    /// Writes.
    pub writer: Writer,
    /// Other objects.
    pub stores: Stores,
    /// What the administrator configured.
    pub defaults: Defaults,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// How long a pod may stay unbound before its node is given up.
    pub unbound_limit: Duration,
}

/// Why a reconcile did not come to its end. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write.
    #[error("cannot {what}: {source}")]
    Write {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        source: WriteError,
    },
}

impl Error {
    /// The kind of error, as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Write { source, .. } => source.label(),
        }
    }
}

fn to(what: &'static str) -> impl FnOnce(WriteError) -> Error {
    move |source| Error::Write { what, source }
}

/// What is there.
struct Observed {
    deployment: Arc<LLMDeployment>,
    id: DeploymentId,
    owner: Owner,
    revisions: Vec<Revision>,
    pods: Vec<Arc<Replica>>,
}

/// What was decided, under the ledger's lock.
#[derive(Default)]
struct Decided {
    delete: Vec<(Arc<Replica>, DeleteReason)>,
    create: Vec<(Need, Placed)>,
    misfits: Vec<Misfit>,
    freeze: Option<Template>,
    again: Option<Duration>,
}

/// Brings a deployment closer to what it should be.
pub async fn reconcile(
    deployment: Arc<LLMDeployment>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = Instant::now();
    let result = steps(&deployment, &context).await;
    let outcome = result.as_ref().map_or_else(Error::label, |_| "ok");
    context.metrics.reconciled(outcome, started.elapsed());
    result
}

async fn steps(deployment: &Arc<LLMDeployment>, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    if deployment.metadata.deletion_timestamp.is_some() {
        // Its objects go with it: the garbage collector follows their owner references.
        context.world.lock().forget(&namespace, &name);
        return Ok(Action::await_change());
    }
    let uid = deployment.uid().unwrap_or_default();
    for key in apply::assumed(context, &uid) {
        let api = Api::namespaced(context.writer.client().clone(), &namespace);
        apply::settle(context, &api, &key).await.map_err(to("read a pod"))?;
    }
    let observed = observe(deployment, context);
    let target = target(&observed, context);
    let plan = Instant::now();
    let decided = decide(&observed, &target, context);
    context.metrics.planned(plan.elapsed());
    let again = decided.again;
    let (misfits, problem) = carry_out(&observed, &target, decided, context).await?;
    tell(&observed, &target, &misfits, problem, context).await?;
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

fn observe(deployment: &Arc<LLMDeployment>, context: &Context) -> Observed {
    let owner = Owner {
        namespace: deployment.namespace().unwrap_or_default(),
        name: deployment.name_any(),
        uid: deployment.uid().unwrap_or_default(),
    };
    let objects = context.stores.revisions.state();
    Observed {
        id: DeploymentId::new(owner.namespace.clone(), owner.name.clone(), owner.uid.clone()),
        revisions: revisions::of(&owner.uid, objects.iter().map(AsRef::as_ref)),
        pods: context.world.lock().replicas_of(&owner.uid),
        deployment: Arc::clone(deployment),
        owner,
    }
}

fn target(observed: &Observed, context: &Context) -> Target {
    let spec = &observed.deployment.spec;
    revisions::target(&canonical::canonical(spec), &observed.revisions, |serving| {
        check_references(observed, context)?;
        resolve(&observed.deployment, &context.defaults, serving)
    })
}

/// Objects that the spec names must be there before anything is made from it.
fn check_references(observed: &Observed, context: &Context) -> Result<(), Problem> {
    let spec = &observed.deployment.spec;
    let name = priority_class(spec);
    let Some(class) = context.stores.priority_classes.get(&ObjectRef::new(name)) else {
        return Err(Problem::PriorityClassNotFound(name.to_owned()));
    };
    if class.preemption_policy.as_deref() != Some("Never") {
        return Err(Problem::PriorityClassPreempts(name.to_owned()));
    }
    if let Some(path) = spec.model.uri.strip_prefix("pvc://") {
        let claim = path.split('/').next().unwrap_or(path);
        let key = ObjectRef::new(claim).within(&observed.owner.namespace);
        if context.stores.claims.get(&key).is_none() {
            return Err(Problem::ClaimNotFound(claim.to_owned()));
        }
    }
    Ok(())
}

/// The revision that a target asks for, where it is frozen.
fn frozen<'a>(observed: &'a Observed, target: &Target) -> Option<&'a Revision> {
    match target {
        Target::Newest | Target::SameAsNewest(_) | Target::Nothing(_) => observed.revisions.last(),
        Target::Older(index) => observed.revisions.get(*index),
        Target::Open(_) => None,
    }
}

/// Decides what to do, in order with everybody else: under the ledger's lock, and what is decided
/// is claimed before the lock is let go.
fn decide(observed: &Observed, target: &Target, context: &Context) -> Decided {
    let frozen = frozen(observed, target);
    let hashes: BTreeSet<&str> = observed.revisions.iter().map(|r| r.hash.as_str()).collect();
    let status = observed.deployment.status.as_ref();
    let wanted = Wanted {
        replicas: observed.deployment.desired_replicas(),
        revision: frozen.map(|revision| revision.hash.as_str()),
        revisions: &hashes,
        recorded: status.map_or(&[], |status| status.placements.as_slice()),
        unbound_limit: context.unbound_limit,
        now: Timestamp::now().as_second(),
    };
    let Intent { delete, mut needs, again } = intend(&wanted, &observed.pods);
    // Without anything to render from, what is there stays and nothing new comes.
    if frozen.is_none() && !matches!(target, Target::Open(_)) {
        needs.clear();
    }
    let mut decided = Decided { delete, again, ..Decided::default() };
    let waiting_since = status.and_then(|status| status.queue.as_ref()).map(|q| q.since.0);
    let priority = priority(observed, context);

    context.world.update(|state| {
        for (pod, reason) in &decided.delete {
            if let DeleteReason::Unbound { message } = reason {
                let why = format!("the scheduler did not bind a pod there: {message}");
                state.avoid(&observed.owner.uid, pod.node.clone(), why);
            }
        }
        let placement = &observed.deployment.spec.placement;
        let mut terms = Terms::new(placement, state.avoided(&observed.owner.uid));
        for pod in observed.pods.iter().filter(|pod| pod.is_live()) {
            *terms.siblings.entry(pod.node.clone()).or_default() += 1;
        }
        let mut overlay = queue::reserve_for_earlier(&state.fleet, &state.queue, &observed.id);
        for need in needs {
            let older = need
                .revision
                .as_ref()
                .and_then(|hash| observed.revisions.iter().find(|revision| revision.hash == *hash));
            let template = older
                .or(frozen)
                .map(|revision| &revision.template)
                .or(decided.freeze.as_ref())
                .cloned();
            let placed = match (&template, target) {
                (Some(template), _) => placing::place_frozen(&overlay, template, &need, &terms),
                (None, Target::Open(wish)) => placing::place_first(&overlay, wish, &need, &terms),
                (None, _) => continue,
            };
            match placed {
                Ok(placed) => {
                    let request = placing::request(&placed.template, &need, &terms);
                    if let (true, Some(old)) = (placed.in_place, &need.replaces) {
                        overlay.remove(&OccupantId::from(old.uid.as_str()));
                    }
                    overlay.carry_out(&placed.placement, &request);
                    *terms.siblings.entry(placed.placement.node.clone()).or_default() += 1;
                    if template.is_none() {
                        decided.freeze = Some(placed.template.clone());
                    }
                    decided.create.push((need, placed));
                }
                Err(misfit) => decided.misfits.push(misfit),
            }
        }
        drop(overlay);
        for (need, placed) in &decided.create {
            assume(state, observed, need, placed);
        }
        if decided.misfits.is_empty() {
            state.queue.remove(&observed.id);
        } else {
            state.queue.upsert(Waiting {
                key: observed.id.clone(),
                priority,
                since: waiting_since.unwrap_or_else(Timestamp::now).as_second(),
                requests: decided.misfits.iter().map(|misfit| misfit.request.clone()).collect(),
            });
        }
    });
    decided
}

/// Claims what was decided, until the pod is seen or known not to come.
fn assume(state: &mut crate::world::State, observed: &Observed, need: &Need, placed: &Placed) {
    let hash = revision::hash(&placed.template);
    let name = berth_render::pod_name(&observed.owner.name, &hash, need.replica, 0, need.attempt);
    let key = PodKey::new(observed.owner.namespace.clone(), name);
    let resources = berth_planner::Resources::of_pod(
        placed.template.resources.cpu,
        placed.template.resources.memory,
        placed.template.resources.ephemeral_storage,
    );
    let claim = Claim {
        deployment: observed.id.clone(),
        replica: need.replica,
        revision: hash,
        vram_per_gpu: placed.placement.vram_per_gpu,
    };
    let mut occupant = Occupant {
        id: OccupantId::from(""),
        pod: key.clone(),
        node: placed.placement.node.clone(),
        gpus: placed.placement.gpus,
        resources,
        owner: Holder::Ours(claim.clone()),
    };
    if let (true, Some(old)) = (placed.in_place, &need.replaces)
        && let Some(held) = state.fleet.occupant(&OccupantId::from(old.uid.as_str()))
    {
        occupant = beyond(&occupant, held);
    }
    let assumed = Assumed {
        key,
        node: occupant.node,
        gpus: occupant.gpus,
        resources: occupant.resources,
        claim,
    };
    if let Err(error) = state.fleet.assume(assumed) {
        // The create that follows gets the conflict, and the ledger is right already.
        tracing::debug!(%error, "a claim was not assumed");
    }
}

fn priority(observed: &Observed, context: &Context) -> i32 {
    let name = priority_class(&observed.deployment.spec);
    context
        .stores
        .priority_classes
        .get(&ObjectRef::new(name))
        .and_then(|class| class.value)
        .unwrap_or(0)
}

/// Writes what was decided: revision, Service and budget first, then pods come, then pods go.
async fn carry_out(
    observed: &Observed,
    target: &Target,
    decided: Decided,
    context: &Context,
) -> Result<(Vec<Misfit>, Option<Problem>), Error> {
    let Observed { deployment, owner, revisions, .. } = observed;
    let next = revisions.last().map_or(1, |newest| newest.number + 1);
    let upkeep = async {
        match target {
            Target::SameAsNewest(spec) => {
                let Some(newest) = revisions.last() else { return Ok(()) };
                let (name, number) = (&newest.name, newest.number);
                apply::note_on_revision(context, &owner.namespace, name, number, spec).await
            }
            Target::Older(index) => {
                let Some(older) = revisions.get(*index) else { return Ok(()) };
                let (name, spec) = (&older.name, &older.spec);
                apply::note_on_revision(context, &owner.namespace, name, next, spec).await
            }
            Target::Open(wish) => {
                let Some(template) = &decided.freeze else { return Ok(()) };
                let spec = wish.canonical.to_string();
                let object = revision::revision(owner, template, next, &spec);
                apply::create_revision(context, owner, &object).await?;
                let note = format!("froze revision {}", object.name_any());
                context.events.normal(deployment, "RevisionCreated", note).await;
                Ok(())
            }
            Target::Newest | Target::Nothing(_) => Ok(()),
        }
    };
    if let Err(source) = upkeep.await {
        let mut state = context.world.lock();
        for (need, placed) in &decided.create {
            let hash = revision::hash(&placed.template);
            let name = berth_render::pod_name(&owner.name, &hash, need.replica, 0, need.attempt);
            state.fleet.release(&PodKey::new(owner.namespace.clone(), name));
        }
        drop(state);
        return Err(Error::Write { what: "write a revision", source });
    }

    let mut refused = None;
    let port = u16::try_from(deployment.spec.endpoint.port).unwrap_or(80);
    for written in [apply::service(context, owner, port).await, apply::budget(context, owner).await]
    {
        match written {
            Ok(()) => {}
            Err(WriteError::Refused(message)) => refused = Some(Problem::Refused(message)),
            Err(source) => {
                return Err(release_all(&decided, observed, context, "write the Service", source));
            }
        }
    }
    let mut delete = decided.delete.clone();
    for (index, (need, placed)) in decided.create.iter().enumerate() {
        let pod = render(observed, need, placed);
        match apply::create_pod(context, &pod).await {
            Ok(Created::Yes) => {
                context.events.normal(deployment, "Placed", placed_note(need, placed)).await;
                if let (true, Some(old)) = (placed.in_place, &need.replaces) {
                    delete.push((Arc::clone(old), DeleteReason::Replaced));
                }
            }
            Ok(Created::Already) => {}
            Ok(Created::Refused(message)) => {
                let text = format!("pod {} cannot be created: {message}", pod.name_any());
                refused = Some(Problem::Refused(text));
            }
            Err(source) => {
                let rest =
                    Decided { create: decided.create[index + 1..].to_vec(), ..Decided::default() };
                return Err(release_all(&rest, observed, context, "create a pod", source));
            }
        }
    }
    for (pod, reason) in delete {
        let name = &pod.key.name;
        apply::delete_pod(context, &owner.namespace, name, &pod.uid)
            .await
            .map_err(to("delete a pod"))?;
        context.world.update(|state| state.deleting(&pod));
        let note = delete_note(&pod, &reason);
        match reason {
            DeleteReason::Ended => {}
            DeleteReason::Unbound { .. } => {
                context.events.warning(deployment, reason.label(), note).await;
            }
            _ => context.events.normal(deployment, reason.label(), note).await,
        }
    }
    let in_use: BTreeSet<&str> = observed.pods.iter().map(|pod| pod.revision.as_str()).collect();
    for old in revisions::superfluous(revisions, &in_use) {
        apply::delete_revision(context, &owner.namespace, &old.name, &old.uid)
            .await
            .map_err(to("delete an old revision"))?;
    }
    Ok((decided.misfits, refused))
}

/// Lets go of claims whose pods were not tried.
fn release_all(
    decided: &Decided,
    observed: &Observed,
    context: &Context,
    what: &'static str,
    source: WriteError,
) -> Error {
    context.world.update(|state| {
        for (need, placed) in &decided.create {
            let hash = revision::hash(&placed.template);
            let (name, replica) = (&observed.owner.name, need.replica);
            let name = berth_render::pod_name(name, &hash, replica, 0, need.attempt);
            state.fleet.release(&PodKey::new(observed.owner.namespace.clone(), name));
        }
    });
    Error::Write { what, source }
}

fn render(observed: &Observed, need: &Need, placed: &Placed) -> k8s_openapi::api::core::v1::Pod {
    let mut pod = berth_render::pod(
        &placed.template,
        &Rendered {
            deployment: observed.owner.clone(),
            revision: revision::hash(&placed.template),
            replica: need.replica,
            rank: 0,
            attempt: need.attempt,
            node: placed.placement.node.to_string(),
            claim: berth_render::Claim {
                gpus: placed.placement.gpus,
                bytes_per_gpu: placed.placement.vram_per_gpu,
                product: placed.placement.product.clone(),
            },
        },
    );
    if let (true, Some(old)) = (placed.in_place, &need.replaces) {
        pod.annotations_mut().insert(names::ANNOTATION_REPLACES.to_owned(), old.uid.clone());
    }
    pod
}

fn placed_note(need: &Need, placed: &Placed) -> String {
    let Placed { template, placement, in_place } = placed;
    let how = if *in_place { ", in place of the old replica" } else { "" };
    format!(
        "replica {} on node {}: {} × {} with {} usable each, {} needed{how}",
        need.replica,
        placement.node,
        placement.gpus,
        placement.product,
        placement.vram_per_gpu,
        template.estimate.total,
    )
}

fn delete_note(pod: &Replica, reason: &DeleteReason) -> String {
    let (name, node) = (&pod.key.name, &pod.node);
    match reason {
        DeleteReason::ScaledDown => format!("pod {name} on node {node} is no longer wanted"),
        DeleteReason::Replaced => format!("pod {name} on node {node} makes way for its successor"),
        DeleteReason::Duplicate => {
            format!("pod {name} is a second pod for replica {}", pod.replica)
        }
        DeleteReason::Ended => format!("pod {name} ended"),
        DeleteReason::Unbound { message } => {
            format!("pod {name} was not bound to node {node}: {message}; planning again")
        }
    }
}

/// Writes the status and the events that follow from it, where anything changed.
async fn tell(
    observed: &Observed,
    target: &Target,
    misfits: &[Misfit],
    refused: Option<Problem>,
    context: &Context,
) -> Result<(), Error> {
    let revision = frozen(observed, target);
    let known_wish = match target {
        Target::Open(wish) => Some(wish),
        _ => None,
    };
    let problem = match target {
        Target::Nothing(problem) => Some(problem.clone()),
        _ => refused,
    };
    let book = PriceBook::new(context.stores.cost_profiles.state());
    let (pods, position, hourly) = {
        let state = context.world.lock();
        let pods = state.replicas_of(&observed.owner.uid);
        let gpus = pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.claim.gpus).sum();
        let bills = book.bills(&state);
        let hourly = bills.hourly(&observed.owner.namespace, &observed.owner.name, gpus);
        (pods, state.queue.position(&observed.id), hourly)
    };
    let model = match (known_wish, revision) {
        (Some(wish), _) => Some(wish.model.clone()),
        (None, Some(_)) => {
            facts::find(&observed.deployment.spec.model, &context.defaults.catalogue)
                .ok()
                .map(|known| known.summary(&observed.deployment.spec))
        }
        (None, None) => None,
    };
    let status = report::report(&report::Seen {
        deployment: &observed.deployment,
        pods: &pods,
        revision: revision.map(|revision| (revision.hash.as_str(), &revision.template)),
        model,
        problem: problem.as_ref(),
        misfits,
        position,
        hourly,
        now: Timestamp::now(),
    });
    let before = observed.deployment.status.as_ref();
    if before.is_some_and(|before| report::same(before, &status)) {
        return Ok(());
    }
    apply::status(context, &observed.deployment, &status).await.map_err(to("write status"))?;
    context.events.changed(&observed.deployment, before, &status).await;
    Ok(())
}
