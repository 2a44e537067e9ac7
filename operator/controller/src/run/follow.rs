//! What a leader follows beside reconciling: what everything costs, and what engines serve.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_crds::LLMDeployment;
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::Store};

use super::{Refresh, Tasks, named};
use crate::{
    prices::PriceBook,
    profiles,
    reconcile::Context,
    usage::scrape::{Scraper, Target},
    world::{Guarded, readable},
};

/// How often what has been running is charged.
const CHARGE_EVERY: Duration = Duration::from_secs(15);

/// Charges what runs, tells what profiles are good for, and makes `/metrics` read the world.
pub fn cost(
    context: &Arc<Context>,
    deployments: &Store<Guarded>,
    refresh: &Refresh,
    tasks: &mut Tasks,
) {
    let charging = Arc::clone(context);
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(CHARGE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let book = PriceBook::new(readable(&charging.stores.cost_profiles));
            charging.metrics.charge(&charging.world, &book, Instant::now());
            if let Err(error) = profiles::tell(&charging).await {
                tracing::warn!(%error, "cannot write the status of a cost profile");
            }
        }
    });
    let (context, deployments) = (Arc::clone(context), deployments.clone());
    let read = move || {
        let book = PriceBook::new(readable(&context.stores.cost_profiles));
        context.metrics.charge(&context.world, &book, Instant::now());
        context.metrics.refresh(&context.world, &book, &readable(&deployments));
    };
    // It is set once: there is one term of leadership in a process.
    let _ = refresh.set(Box::new(read));
}

/// Asks the engines what they served, unless that is off.
pub fn usage(
    context: &Arc<Context>,
    deployments: &Store<Guarded>,
    interval: Option<Duration>,
    tasks: &mut Tasks,
) {
    let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let by_default = Duration::from_secs(if in_a_pod { 15 } else { 0 });
    let interval = interval.unwrap_or(by_default);
    if interval.is_zero() {
        tracing::info!("engines are not asked for what they served");
        return;
    }
    let asking = ask(Arc::clone(context), deployments.clone(), interval);
    tasks.spawn(named("asking engines", asking));
}

/// For ever: asks the engines what they served, and has those deployments looked at whose status
/// should say so.
async fn ask(context: Arc<Context>, deployments: Store<Guarded>, interval: Duration) {
    let scraper = Scraper::default();
    let started = Instant::now();
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let objects = readable(&deployments);
        let targets = targets(&context, &objects);
        let round = scraper
            .round(targets, |target, error| {
                tracing::debug!(pod = target.pod, %error, "an engine did not say what it served");
                context.metrics.look_failed(error.label());
            })
            .await;
        let now = started.elapsed().as_secs_f64();
        for object in &objects {
            let uid = object.uid().unwrap_or_default();
            let status = object.status.as_ref().and_then(|status| status.usage.as_ref());
            let due = context.world.update(|state| {
                state.usage.resume(&uid, status);
                if let Some(pods) = round.get(&uid) {
                    state.usage.look(&uid, pods, now);
                }
                state.usage.is_due(&uid, Timestamp::now())
            });
            if due {
                context.world.look_at(&object.namespace().unwrap_or_default(), &object.name_any());
            }
        }
        let alive: HashSet<_> = objects.iter().filter_map(|object| object.uid()).collect();
        context.world.update(|state| state.usage.keep(|uid| alive.contains(uid)));
    }
}

/// The replicas to ask: all that exist, with an address where their engine answers.
fn targets(context: &Context, objects: &[Arc<LLMDeployment>]) -> Vec<Target> {
    let state = context.world.lock();
    let mut targets = Vec::new();
    for object in objects {
        let uid = object.uid().unwrap_or_default();
        let resolved = object.status.as_ref().and_then(|status| status.resolved.as_ref());
        let Some(engine) = resolved.map(|resolved| resolved.engine) else { continue };
        targets.extend(state.replicas_of(&uid).iter().map(|replica| Target {
            deployment: uid.clone(),
            pod: replica.uid.clone(),
            address: replica.address.filter(|_| replica.may_serve()),
            restarts: replica.restarts,
            names: berth_render::engine::of(engine).metrics(),
        }));
    }
    targets
}
