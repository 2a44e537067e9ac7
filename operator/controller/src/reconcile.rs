//! One deployment, from what is there to what shall be: observe → resolve → intend → place →
//! apply → report.
//!
//! Any reconcile can be the first one after a crash: nothing that matters lives only in memory.
//! The steps up to `place` are pure; `apply` alone writes; `report` is pure again.

pub mod advice;
pub mod apply;
pub mod bring;
pub mod canonical;
pub mod carry_out;
pub mod conditions;
pub mod decide;
pub mod events;
pub mod facts;
pub mod intend;
pub mod placing;
pub mod problem;
mod reading;
pub mod reason;
pub mod report;
pub mod resolve;
pub mod revisions;
pub mod wish;

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_crds::{CostProfile, LLMDeployment, llm_deployment::Model};
use berth_planner::DeploymentId;
use berth_render::{ModelSource, Owner, Site, Template};
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
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};

use crate::{
    client::{WriteError, Writer},
    measured::notes::{self, Earlier},
    metrics::Metrics,
    models::{Answer, library::Library},
    prices::PriceBook,
    world::{World, by_owner::ByOwner, pod::Replica, readable},
};
use carry_out::carry_out;
use decide::decide;
use events::Events;
use placing::Misfit;
use problem::Problem;
use reason::Reason;
use resolve::{Defaults, Serving, priority_class, resolve_with};
use revisions::{Revision, Target};
use wish::Wish;

/// When an object that the API server refused is tried again.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// Objects that are kept current beside pods and nodes.
pub struct Stores {
    /// Revisions of all deployments, by their UIDs.
    pub revisions: Arc<ByOwner<ControllerRevision>>,
    /// Services that Berth manages.
    pub services: Store<Service>,
    /// PodDisruptionBudgets that Berth manages.
    pub budgets: Store<PodDisruptionBudget>,
    /// Priority classes.
    pub priority_classes: Store<PriorityClass>,
    /// Claims that may hold models.
    pub claims: Store<PersistentVolumeClaim>,
    /// What hardware costs.
    pub cost_profiles: Store<DeserializeGuard<CostProfile>>,
}

/// All that a reconcile works with.
pub struct Context {
    /// The fleet, the queue and our pods.
    pub world: Arc<World>,
    /// Writes.
    pub writer: Writer,
    /// Other objects.
    pub stores: Stores,
    /// What the administrator configured of engines.
    pub defaults: Defaults,
    /// What the administrator configured of models.
    pub site: Site,
    /// What is known about models that no manifest describes.
    pub library: Arc<Library>,
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

/// The sooner of two looks.
fn sooner(known: Option<Duration>, wait: Duration) -> Duration {
    known.map_or(wait, |known| known.min(wait))
}

/// What is there.
struct Observed {
    deployment: Arc<LLMDeployment>,
    id: DeploymentId,
    owner: Owner,
    revisions: Vec<Revision>,
    pods: Vec<Arc<Replica>>,
}

/// What came of a reconcile, as far as it is not seen on objects.
struct Outcome {
    /// Pods that found no node.
    misfits: Vec<Misfit>,
    /// An object that the API server refused.
    problem: Option<Problem>,
    /// What a replacement waits for, though there is room for it.
    waits: Option<(Reason, String)>,
}

/// Brings a deployment closer to what it should be.
pub async fn reconcile(
    deployment: Arc<LLMDeployment>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = Instant::now();
    // On the heap: what it holds over its waits is large.
    let result = Box::pin(steps(&deployment, &context)).await;
    let outcome = result.as_ref().map_or_else(Error::label, |_| "ok");
    context.metrics.reconciled(outcome, started.elapsed());
    result
}

async fn steps(deployment: &Arc<LLMDeployment>, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    if deployment.metadata.deletion_timestamp.is_some() {
        // Its objects go with it: the garbage collector follows their owner references.
        context.world.update(|state| state.forget(&namespace, &name));
        return Ok(Action::await_change());
    }
    let uid = deployment.uid().unwrap_or_default();
    for key in apply::assumed(context, &uid) {
        let api = Api::namespaced(context.writer.client().clone(), &namespace);
        apply::settle(context, &api, &key).await.map_err(to("read a pod"))?;
    }
    let observed = observe(deployment, context);
    let (target, ask_again) = target(&observed, context);
    let plan = Instant::now();
    let decided = decide(&observed, &target, context);
    context.metrics.planned(plan.elapsed());
    let (mut again, waits) = (decided.again, decided.waits.clone());
    if let Some(wait) = ask_again {
        again = Some(sooner(again, wait));
    }
    let (misfits, problem) = carry_out(&observed, &target, decided, context).await?;
    if problem.is_some() {
        // A quota, a webhook of somebody else's: nothing tells when it would be taken.
        again = Some(sooner(again, REFUSED_AGAIN));
    }
    note(&observed, context).await?;
    let outcome = Outcome { misfits, problem, waits };
    tell(&observed, &target, &outcome, context).await?;
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

fn observe(deployment: &Arc<LLMDeployment>, context: &Context) -> Observed {
    let owner = Owner {
        namespace: deployment.namespace().unwrap_or_default(),
        name: deployment.name_any(),
        uid: deployment.uid().unwrap_or_default(),
    };
    let objects = context.stores.revisions.of(&owner.uid);
    Observed {
        id: DeploymentId::new(owner.namespace.clone(), owner.name.clone(), owner.uid.clone()),
        revisions: revisions::of(objects.iter().map(AsRef::as_ref)),
        pods: context.world.lock().replicas_of(&owner.uid),
        deployment: Arc::clone(deployment),
        owner,
    }
}

/// What the spec asks for, and when to look again at a model that could not be read.
fn target(observed: &Observed, context: &Context) -> (Target, Option<Duration>) {
    let spec = &observed.deployment.spec;
    let again = Cell::new(None);
    let target = revisions::target(&canonical::canonical(spec), &observed.revisions, |serving| {
        check_references(observed, context)?;
        check_source(&spec.model, &context.site)?;
        let (answer, wait) = reading::ask(observed, serving, context);
        again.set(wait);
        wish(&observed.deployment, serving, &answer, (observed, context))
    });
    (target, again.get())
}

/// What a spec comes to, with what is known from earlier revisions.
fn wish(
    deployment: &LLMDeployment,
    serving: Option<&Serving<'_>>,
    answer: &Answer,
    (observed, context): (&Observed, &Context),
) -> Result<Wish, Problem> {
    let wish = resolve_with(deployment, &context.defaults, serving, answer)?;
    Ok(wish.remembering(|asked| told_of(asked, observed, context)))
}

/// What engines told of a subject in this namespace.
fn told_of(asked: &Template, observed: &Observed, context: &Context) -> Vec<Earlier> {
    let tag = berth_render::revision::hash(asked);
    let objects = context.stores.revisions.tagged(&observed.owner.namespace, &tag);
    notes::earlier(objects.iter().map(AsRef::as_ref), asked)
}

/// Notes on revisions what their engines told, before status says that it was read.
async fn note(observed: &Observed, context: &Context) -> Result<(), Error> {
    for revision in &observed.revisions {
        let next = notes::next(&revision.notes, &revision.hash, &observed.pods);
        if next != revision.notes {
            apply::note_measured(context, &observed.owner.namespace, &revision.name, &next)
                .await
                .map_err(to("note what an engine told"))?;
        }
    }
    Ok(())
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

/// Sources that the administrator switched off, or never switched on.
fn check_source(model: &Model, site: &Site) -> Result<(), Problem> {
    match ModelSource::parse(model) {
        Ok(ModelSource::S3 { .. }) if site.offline => Err(Problem::Offline("s3://")),
        Ok(ModelSource::Hub { .. }) if site.offline && site.cache.is_none() => {
            Err(Problem::Offline("hf://"))
        }
        Ok(ModelSource::Cache { .. }) if site.cache.is_none() => Err(Problem::NoCache),
        // What cannot be read is told of by whoever resolves it.
        _ => Ok(()),
    }
}

/// The revision that a target asks for, where it is frozen.
fn frozen<'a>(observed: &'a Observed, target: &Target) -> Option<&'a Revision> {
    match target {
        Target::Newest | Target::SameAsNewest(_) | Target::Nothing(_) => observed.revisions.last(),
        Target::Older(index) => observed.revisions.get(*index),
        Target::Open(_) => None,
    }
}

/// Writes the status and the events that follow from it, where anything changed.
async fn tell(
    observed: &Observed,
    target: &Target,
    outcome: &Outcome,
    context: &Context,
) -> Result<(), Error> {
    let revision = frozen(observed, target);
    let shown = revision.or(observed.revisions.last());
    let known_wish = match target {
        Target::Open(wish) => Some(wish),
        _ => None,
    };
    let problem = match target {
        Target::Nothing(problem) => Some(problem.clone()),
        _ => outcome.problem.clone(),
    };
    let book = PriceBook::new(readable(&context.stores.cost_profiles));
    let (pods, position, hourly, usage) = {
        let mut state = context.world.lock();
        let pods = state.replicas_of(&observed.owner.uid);
        let hourly = book.hourly(&state, &observed.id);
        let usage = state.usage.checkpoint(&observed.owner.uid, Timestamp::now(), |usage| {
            let Owner { namespace, name, .. } = &observed.owner;
            context.metrics.cost_per_million_tokens(namespace, name, usage.priced_tokens())
        });
        (pods, state.queue().position(&observed.id), hourly, usage)
    };
    let model = match (known_wish, shown) {
        (Some(wish), _) => Some(wish.model.clone()),
        (None, Some(shown)) => reading::frozen(observed, shown, context),
        (None, None) => None,
    };
    let status = report::report(&report::Seen {
        deployment: &observed.deployment,
        pods: &pods,
        revision: revision.map(|revision| revision.hash.as_str()),
        shown: shown.map(|revision| (revision.hash.as_str(), &revision.template)),
        model,
        problem: problem.as_ref(),
        misfits: &outcome.misfits,
        waits: outcome.waits.as_ref(),
        position,
        hourly,
        usage,
        now: Timestamp::now(),
    });
    let before = observed.deployment.status.as_ref();
    if before == Some(&status) {
        return Ok(());
    }
    apply::status(context, &observed.deployment, &status).await.map_err(to("write status"))?;
    context.events.changed(&observed.deployment, before, &status).await;
    context.events.estimated(&observed.deployment, before, &status).await;
    if let Some(wish) = known_wish
        && let Some(why) = &wish.stands_in
        && before.and_then(|before| before.model.as_ref()) != status.model.as_ref()
    {
        let reason = Reason::CatalogueUsed.as_str();
        let note = format!("what the model is comes from Berth's catalogue: {why}");
        context.events.warning(&observed.deployment, &reason, note).await;
    }
    Ok(())
}
