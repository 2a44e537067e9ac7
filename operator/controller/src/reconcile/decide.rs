//! What is to be done for one deployment, decided in order with everybody else. Talks to nobody.
//!
//! Under the ledger's lock: earlier deployments in the queue get first pick of what is free, and
//! what is decided here is claimed before the lock is let go, so that two plans never spend the
//! same GPU.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use berth_crds::{LLMDeployment, LLMDeploymentSpec};
use berth_planner::{
    Assumed, Claim, Occupant, OccupantId, Overlay, Owner as Holder, PodKey,
    queue::{self, Waiting},
};
use berth_render::{Owner, Site, Template};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use super::{
    Context, Observed,
    advice::{Advice, Advised, Trial, advise},
    bring::{self, Bring, bring},
    frozen,
    intend::{DeleteReason, Intent, Need, Wanted, intend},
    placing::{self, Misfit, Placed, Terms},
    problem::Problem,
    reading,
    reason::Reason,
    resolve::{Serving, priority_class},
    revisions::{Target, kept},
    sooner, wish,
    wish::Wish,
};
use crate::{
    cache::shelves::cache_key,
    world::{
        pod::Replica,
        prefetch::Prefetch,
        state::{State, beyond},
    },
};

/// What was decided, under the ledger's lock.
#[derive(Default)]
pub struct Decided {
    /// Pods to delete, each with the reason.
    pub delete: Vec<(Arc<Replica>, DeleteReason)>,
    /// Pods to create, each with its node; their claims are assumed already.
    pub create: Vec<(Need, Placed)>,
    /// Pods that found no node.
    pub misfits: Vec<Misfit>,
    /// Placements whose image and model are brought to their nodes first.
    pub bring: Vec<(Need, Placed)>,
    /// Pods that brought something, and are not needed any more.
    pub dismiss: Vec<Prefetch>,
    /// What a replacement waits for, though there is room for it.
    pub waits: Option<(Reason, String)>,
    /// Hash and template of the revision that the first placement froze.
    pub freeze: Option<(String, Template)>,
    /// When to look again though nothing happened.
    pub again: Option<Duration>,
}

impl Decided {
    /// A placement waits until image and model are on its node. It is looked at again in time to see
    /// that nothing can be brought there.
    fn wait(&mut self, way: Bring, need: Need, placed: Placed, freeze: bool, again: Duration) {
        self.again = Some(sooner(self.again, again));
        if let Bring::Wait(reason, message) = way {
            self.waits = Some((reason, message));
            return;
        }
        let Placed { revision, template, placement, .. } = &placed;
        self.waits = Some(bring::under_way(&placement.node, need.replica));
        if freeze {
            self.freeze = Some((revision.clone(), template.clone()));
        }
        self.bring.push((need, placed));
    }
}

/// Decides what to do, in order with everybody else: under the ledger's lock, and what is decided
/// is claimed before the lock is let go.
pub(super) fn decide(observed: &Observed, target: &Target, context: &Context) -> Decided {
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
    let priority = priority(observed, context);

    let resolve = |spec: &LLMDeploymentSpec| resolve_edited(spec, observed, context);
    let trial = Trial {
        spec: &observed.deployment.spec,
        resolve: &resolve,
        catalogue: &context.defaults.catalogue,
    };

    context.world.update(|state| {
        for (pod, reason) in &decided.delete {
            if let DeleteReason::Unbound { message } = reason {
                let why = format!("the scheduler did not bind a pod there: {message}");
                state.avoid(&observed.owner.uid, pod.node.clone(), why);
            }
        }
        let placement = &observed.deployment.spec.placement;
        let avoid = state.avoided(&observed.owner.uid);
        let mut terms = Terms::new(&observed.owner.namespace, &context.site, placement, avoid);
        state.fleet.set_kept(&observed.id, kept(&observed.id, &observed.revisions));
        for pod in observed.pods.iter().filter(|pod| pod.is_live()) {
            *terms.siblings.entry(pod.node.clone()).or_default() += 1;
        }
        let mut overlay = queue::reserve_for_earlier(&state.fleet, state.queue(), &observed.id);
        let mut advice = None;
        for need in needs {
            let older = need
                .revision
                .as_ref()
                .and_then(|hash| observed.revisions.iter().find(|revision| revision.hash == *hash));
            let kept = older
                .or(frozen)
                .map(|revision| (revision.hash.clone(), revision.template.clone()))
                .or_else(|| decided.freeze.clone());
            let placed = match (&kept, target) {
                (Some((hash, template)), _) => {
                    placing::place_frozen(&overlay, (hash, template), &need, &terms)
                }
                (None, Target::Open(wish)) => placing::place_first(&overlay, wish, &need, &terms),
                (None, _) => continue,
            };
            match placed {
                Ok(placed) => {
                    let way = bring(state, observed, &need, &placed, wanted.now, context);
                    if !matches!(way, Bring::Nothing) {
                        decided.wait(way, need, placed, kept.is_none(), context.unbound_limit);
                        continue;
                    }
                    let request = placing::request(&placed.template, &need, &terms);
                    if let (true, Some(old)) = (placed.in_place, &need.replaces) {
                        overlay.vacate(&OccupantId::from(old.uid.as_str()));
                    }
                    overlay.carry_out(&placed.placement, &request);
                    overlay.keep_for(&placed.placement.node, &observed.id);
                    *terms.siblings.entry(placed.placement.node.clone()).or_default() += 1;
                    if kept.is_none() {
                        decided.freeze = Some((placed.revision.clone(), placed.template.clone()));
                    }
                    decided.create.push((need, placed));
                }
                // GPUs of this deployment are about to become free: their end brings us back.
                Err(_) if need.replaces.is_some() && !need.in_place => {}
                Err(mut misfit) => {
                    if let Target::Open(wish) = target {
                        let known = state.advised(&observed.owner.uid);
                        let new = advised(known, &misfit, wish, &overlay, &need, &terms, &trial);
                        misfit.would_fit.clone_from(&new.advice);
                        advice = Some(new);
                    }
                    decided.misfits.push(*misfit);
                }
            }
        }
        drop(overlay);
        state.set_advised(&observed.owner.uid, advice);
        let freeze = decided.freeze.as_ref().map(|(hash, _)| hash.as_str());
        decided.dismiss = bring::superfluous(state, observed, wanted.revision.or(freeze));
        for (need, placed) in &decided.create {
            assume(state, observed, need, placed, &context.site);
        }
        wait_for_room(state, observed, &decided.misfits, priority);
    });
    decided
}

/// What the deployment comes to with another spec.
fn resolve_edited(
    spec: &LLMDeploymentSpec,
    observed: &Observed,
    context: &Context,
) -> Result<Wish, Problem> {
    let newest = observed.revisions.last();
    let serving = newest.map(|newest| Serving { spec: &newest.spec, template: &newest.template });
    let deployment =
        LLMDeployment { spec: spec.clone(), ..LLMDeployment::clone(&observed.deployment) };
    let answer = reading::known(spec, serving.as_ref(), &context.library);
    wish(&deployment, serving.as_ref(), &answer, (observed, context))
}

/// What would make a misfit fit. Looked for only where something changed since the last time: a
/// deployment that waits is reconciled often, and trying edits costs more than placing.
fn advised(
    known: Option<&Advised>,
    misfit: &Misfit,
    wish: &Wish,
    overlay: &Overlay<'_>,
    need: &Need,
    terms: &Terms<'_>,
    trial: &Trial<'_>,
) -> Advised {
    let freed = overlay.fleet().freed();
    let holds = |advice: &Advice| advice.holds(trial, overlay, need, terms);
    if let Some(known) = known.filter(|known| known.is_on(wish, misfit, freed))
        && known.advice.iter().all(holds)
    {
        return known.clone();
    }
    let Misfit { request, refusal, .. } = misfit;
    Advised {
        spec: wish.canonical.clone(),
        freed,
        request: request.clone(),
        refusal: refusal.clone(),
        advice: advise(trial, misfit, wish, overlay, need, terms),
    }
}

/// Enters the queue with what found no node, or leaves it.
fn wait_for_room(state: &mut State, observed: &Observed, misfits: &[Misfit], priority: i32) {
    if misfits.is_empty() {
        state.stop_waiting(&observed.id);
        return;
    }
    let queue = observed.deployment.status.as_ref().and_then(|status| status.queue.as_ref());
    state.wait(Waiting {
        key: observed.id.clone(),
        priority,
        since: queue.map_or_else(Timestamp::now, |queue| queue.since.0).as_second(),
        requests: misfits.iter().map(|misfit| misfit.request.clone()).collect(),
    });
}

/// Namespace and name of the pod that a placement leads to.
pub(super) fn key(observed: &Observed, need: &Need, placed: &Placed) -> PodKey {
    let Owner { namespace, name, .. } = &observed.owner;
    let name = berth_render::pod_name(name, &placed.revision, need.replica, 0, need.attempt);
    PodKey::new(namespace.clone(), name)
}

/// Claims what was decided, until the pod is seen or known not to come.
fn assume(state: &mut State, observed: &Observed, need: &Need, placed: &Placed, site: &Site) {
    let key = key(observed, need, placed);
    let cached = placing::cached(&placed.template, site);
    let resources = placing::resources(&placed.template, cached.as_ref());
    let cache =
        cached.map(|model| (cache_key(&observed.owner.namespace, &model.directory), model.bytes));
    let claim = Claim {
        deployment: observed.id.clone(),
        replica: need.replica,
        revision: placed.revision.clone(),
        vram_per_gpu: placed.placement.vram_per_gpu,
    };
    let mut occupant = Occupant {
        id: OccupantId::from(""),
        pod: key.clone(),
        node: placed.placement.node.clone(),
        gpus: placed.placement.gpus,
        resources,
        cache,
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
        cache: occupant.cache,
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
