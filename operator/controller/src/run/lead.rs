//! What a leader does: fill the caches, then reconcile until told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use berth_crds::names;
use berth_render::Site;
use berth_units::Bytes;
use futures::{StreamExt, channel::mpsc};
use kube::{
    Api, Client, ResourceExt,
    core::error_boundary::InvalidObject,
    runtime::{
        Controller,
        controller::{self, Action},
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use tokio::sync::{Notify, watch};

use super::{
    Refresh, STOP_WITHIN, Tasks, ask::Asking, failures::Failures, follow, learn, named, stores,
};
use crate::{
    args::Args,
    cache::tend::tend,
    client::Writer,
    leader::Leadership,
    metrics::Metrics,
    reconcile::{Context, Error, Stores, events::Events, reconcile, resolve::Defaults},
    world::{self, Guarded, World, watch::config},
};

/// What a leader works with.
pub struct Leader {
    /// The command line.
    pub args: Args,
    /// The API server.
    pub client: Client,
    /// What the administrator configured.
    pub defaults: Defaults,
    /// What the administrator configured of models.
    pub site: Site,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether it still leads.
    pub leadership: Leadership,
    /// Set to what brings `/metrics` up to date.
    pub refresh: Refresh,
    /// Set to true once every cache is synced.
    pub ready: watch::Sender<bool>,
    /// Turns true when it is to stop.
    pub stopped: watch::Receiver<bool>,
}

/// Leads until told to stop. No decision is made before every cache is synced in this term of
/// leadership. Fails as soon as any of its tasks ends.
pub async fn lead(leader: Leader) -> anyhow::Result<()> {
    let Leader { args, client, defaults, site, metrics, leadership, refresh, ready, mut stopped } =
        leader;
    let (triggers, triggered) = mpsc::unbounded();
    let cache = site.cache.clone();
    let size = cache.as_ref().map_or(Bytes::ZERO, |cache| cache.size);
    let world = World::new(triggers).with_caches(size);
    let world = Arc::new(world.with_gpu_resources(site.gpu_resources.clone()));
    let limit = Duration::from_secs(args.lease_seconds) / 3;
    let writer = Writer::new(client.clone(), leadership.clone(), limit, metrics.calls());
    let reporter =
        Reporter { controller: names::MANAGER.to_owned(), instance: Some(args.identity.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);

    let mut tasks = Tasks::new();
    let watches = metrics.watches();
    let (pods_synced, mut pods) = watch::channel(false);
    let (nodes_synced, mut nodes) = watch::channel(false);
    let following =
        world::watch::pods(client.clone(), Arc::clone(&world), watches.clone(), pods_synced);
    tasks.spawn(named("the watch of pods", following));
    let following =
        world::watch::nodes(client.clone(), Arc::clone(&world), watches.clone(), nodes_synced);
    tasks.spawn(named("the watch of nodes", following));
    let (volumes_synced, mut volumes) = watch::channel(cache.is_none());
    if cache.is_some() {
        let following = world::watch::volumes(
            client.clone(),
            Arc::clone(&world),
            watches.clone(),
            volumes_synced,
        );
        tasks.spawn(named("the watch of volumes", following));
    }
    let (library, reader) = learn::library(&args, &site)?;
    let prices_changed = Arc::new(Notify::new());
    let context = Arc::new(Context {
        stores: stores::stores(&client, &world, &watches, &mut tasks, &prices_changed),
        events: Events::new(recorder, leadership),
        unbound_limit: args.unschedulable_timeout,
        metrics,
        world: Arc::clone(&world),
        writer,
        defaults,
        site,
        library,
    });

    tracing::info!("filling the caches");
    tokio::select! {
        result = synced([&mut pods, &mut nodes, &mut volumes], &context.stores) => result?,
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    }
    learn::remember(&context, &args.namespace).await?;
    tracing::info!("every cache is synced; reconciling");

    let controller = Controller::new(Api::<Guarded>::all(client), config(None))
        .with_config(controller::Config::default().concurrency(args.concurrency))
        .reconcile_on(triggered)
        .reconcile_all_on(futures::stream::unfold(prices_changed, |changed| async move {
            changed.notified().await;
            // Changes of prices come in bursts.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Some(((), changed))
        }));
    let deployments = controller.store();
    let waking = Arc::clone(&world);
    tasks.spawn(async move {
        waking.wake_waiting().await;
        "waking those who wait"
    });
    if let Some(cache) = cache {
        tasks.spawn(named("tending caches", tend(Arc::clone(&context), cache)));
    }
    learn::start(reader, &context, &args.namespace, &mut tasks);
    follow::cost(&context, &deployments, &refresh, &mut tasks);
    let asking = Asking::start(&context, &deployments, args.scrape_interval, &mut tasks);
    ready.send_replace(true);

    let failures = Failures::default();
    let remembered = failures.clone();
    let overdue = overdue(stopped.clone());
    let reconciling = controller
        .graceful_shutdown_on(told(stopped))
        .run(
            move |object, context| one(object, context, remembered.clone()),
            move |object, error, _| failures.again(&object, error),
            Arc::clone(&context),
        )
        .for_each(|result| {
            done(result, &world);
            std::future::ready(())
        });
    tokio::select! {
        () = reconciling => {}
        () = overdue => tracing::warn!("a reconcile did not end in {STOP_WITHIN:?}"),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    }
    if let Some(asking) = asking {
        asking.write_down().await;
    }
    Ok(())
}

/// Ends when we are told to stop.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the other end is gone, and so is the process.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Ends when a reconcile should have, after we were told to stop.
async fn overdue(stopped: watch::Receiver<bool>) {
    told(stopped).await;
    tokio::time::sleep(STOP_WITHIN).await;
}

/// Reconciles one deployment.
async fn one(
    object: Arc<Guarded>,
    context: Arc<Context>,
    failures: Failures,
) -> Result<Action, Error> {
    let result = match &object.0 {
        Ok(deployment) => reconcile(Arc::new(deployment.clone()), context).await,
        Err(invalid) => Ok(left_alone(&object, invalid, &context).await),
    };
    if result.is_ok() {
        failures.forget(&ObjectRef::from_obj(object.as_ref()));
    }
    result
}

/// What became of a reconcile, or of the queue.
fn done<T>(result: Result<T, controller::Error<Error, watcher::Error>>, world: &World) {
    match result {
        // Failed reconciles are logged where they are tried again.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.unwrap_or_default();
            world.update(|state| state.forget(&namespace, &gone.name));
        }
        Err(error) => tracing::warn!(%error, "the controller's queue"),
    }
}

/// Says that a deployment cannot be read. Its pods go on; a change of it brings us back.
async fn left_alone(object: &Guarded, invalid: &InvalidObject, context: &Context) -> Action {
    let note = format!(
        "this version of Berth cannot read the object, and leaves it and its pods alone: {invalid}"
    );
    tracing::warn!(namespace = object.namespace(), deployment = object.name_any(), note);
    context.events.unreadable(object, note).await;
    Action::await_change()
}

/// Waits until every cache holds all there is.
async fn synced(watched: [&mut watch::Receiver<bool>; 3], stores: &Stores) -> anyhow::Result<()> {
    for watched in watched {
        watched.wait_for(|synced| *synced).await?;
    }
    let Stores { revisions, services, budgets, priority_classes, claims, cost_profiles } = stores;
    revisions.wait_until_ready().await;
    services.wait_until_ready().await?;
    budgets.wait_until_ready().await?;
    priority_classes.wait_until_ready().await?;
    claims.wait_until_ready().await?;
    cost_profiles.wait_until_ready().await?;
    Ok(())
}
