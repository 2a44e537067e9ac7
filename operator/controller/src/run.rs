//! The process: election, watches, the controller, and an end to all of it together.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use berth_crds::{CostProfile, LLMDeployment, names};
use futures::{StreamExt, channel::mpsc};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{PersistentVolumeClaim, Service},
    policy::v1::PodDisruptionBudget,
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller,
        controller::{self, Action},
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    args::Args,
    client::{self, Writer},
    leader::Candidate,
    metrics::Metrics,
    prices::PriceBook,
    profiles,
    reconcile::{Context, Error, Stores, events::Events, reconcile, resolve::Defaults},
    server::{self, Pages},
    world::{self, World, watch::config},
};

/// How often what has been running is charged.
const CHARGE_EVERY: Duration = Duration::from_secs(15);
/// How long a reconcile may go on after we were told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

type Refresh = Arc<Mutex<Option<Arc<dyn Fn() + Send + Sync>>>>;

/// Runs until a signal, or until any part of it fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let defaults = defaults(&args)?;
    let client = client::connect().await.context("cannot read the cluster's configuration")?;
    let metrics = Arc::new(Metrics::new()?);
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");

    let (ready, is_ready) = watch::channel(true);
    let refresh: Refresh = Refresh::default();
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let pages = Pages {
        refresh: {
            let refresh = Arc::clone(&refresh);
            Arc::new(move || {
                let refresh = refresh.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(refresh) = refresh {
                    refresh();
                }
            })
        },
        metrics: Arc::clone(&metrics),
        ready: is_ready,
    };
    tasks.spawn(async move {
        let result = server::serve(listener, pages).await;
        tracing::error!(?result, "the web server ended");
        "the web server"
    });

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let duration = Duration::from_secs(args.lease_seconds);
    let candidate =
        Arc::new(Candidate::new(client.clone(), &args.namespace, &args.identity, duration));
    let lease = tokio::select! {
        lease = candidate.acquire() => lease,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    };
    metrics.leads(true);
    ready.send_replace(false);
    {
        let candidate = Arc::clone(&candidate);
        tasks.spawn(async move {
            candidate.keep(lease).await;
            "the lease"
        });
    }
    let stop = Arc::new(Notify::new());
    let controller =
        lead(&args, client, &candidate, defaults, &metrics, &refresh, &mut tasks, &stop, ready)
            .await?;
    let mut controller = tokio::spawn(controller);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = &mut controller => bail!("the controller ended"),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    }
    tracing::info!("stopping: no new work, then the lease is given back");
    stop.notify_one();
    if tokio::time::timeout(STOP_WITHIN, &mut controller).await.is_err() {
        controller.abort();
    }
    candidate.release().await;
    Ok(())
}

/// Starts all that a leader does, and returns the controller once every cache is synced in this
/// term of leadership.
#[expect(clippy::too_many_arguments, reason = "called once; the parts have nothing in common")]
async fn lead(
    args: &Args,
    client: Client,
    candidate: &Candidate,
    defaults: Defaults,
    metrics: &Arc<Metrics>,
    refresh: &Refresh,
    tasks: &mut JoinSet<&'static str>,
    stop: &Arc<Notify>,
    ready: watch::Sender<bool>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let (triggers, triggered) = mpsc::unbounded();
    let world = Arc::new(World::new(triggers));
    let leadership = candidate.leadership();
    let limit = Duration::from_secs(args.lease_seconds) / 3;
    let writer = Writer::new(client.clone(), leadership.clone(), limit, metrics.calls());
    let reporter =
        Reporter { controller: names::MANAGER.to_owned(), instance: Some(args.identity.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);

    let (pods_synced, mut pods) = watch::channel(false);
    let (nodes_synced, mut nodes) = watch::channel(false);
    let watches = metrics.watches();
    {
        let pods =
            world::watch::pods(client.clone(), Arc::clone(&world), watches.clone(), pods_synced);
        tasks.spawn(named("the watch of pods", pods));
        let nodes =
            world::watch::nodes(client.clone(), Arc::clone(&world), watches.clone(), nodes_synced);
        tasks.spawn(named("the watch of nodes", nodes));
        let waking = Arc::clone(&world);
        tasks.spawn(async move {
            waking.wake_waiting().await;
            "waking"
        });
    }
    let prices_changed = Arc::new(Notify::new());
    let stores = stores(&client, &world, &watches, tasks, &prices_changed);
    let context = Arc::new(Context {
        events: Events::new(recorder, leadership),
        unbound_limit: args.unschedulable_timeout,
        metrics: Arc::clone(metrics),
        world: Arc::clone(&world),
        writer,
        stores,
        defaults,
    });

    let failures: Mutex<HashMap<ObjectRef<LLMDeployment>, u32>> = Mutex::default();
    let failures = Arc::new(failures);
    let all_again = Arc::clone(&prices_changed);
    let controller = Controller::new(Api::<LLMDeployment>::all(client), config(None))
        .with_config(controller::Config::default().concurrency(args.concurrency))
        .reconcile_on(triggered)
        .reconcile_all_on(futures::stream::unfold(all_again, |changed| async move {
            changed.notified().await;
            // Changes of prices come in bursts.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Some(((), changed))
        }));
    let deployments = controller.store();
    follow_cost(&context, &deployments, refresh, tasks);

    let stopped = Arc::clone(stop);
    let run = controller.graceful_shutdown_on(async move { stopped.notified().await }).run(
        {
            let failures = Arc::clone(&failures);
            move |object, context| {
                let failures = Arc::clone(&failures);
                async move {
                    let key = ObjectRef::from_obj(object.as_ref());
                    let result = reconcile(object, context).await;
                    if result.is_ok() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    }
                    result
                }
            }
        },
        move |object: Arc<LLMDeployment>, error: &Error, _| retry(&failures, &object, error),
        Arc::clone(&context),
    );

    tracing::info!("filling the caches");
    pods.wait_for(|synced| *synced).await?;
    nodes.wait_for(|synced| *synced).await?;
    let Stores { revisions, services, budgets, priority_classes, claims, cost_profiles } =
        &context.stores;
    revisions.wait_until_ready().await?;
    services.wait_until_ready().await?;
    budgets.wait_until_ready().await?;
    priority_classes.wait_until_ready().await?;
    claims.wait_until_ready().await?;
    cost_profiles.wait_until_ready().await?;
    ready.send_replace(true);
    tracing::info!("every cache is synced; reconciling");
    Ok(async move {
        let forget = Arc::clone(&context);
        run.for_each(move |result| {
            match &result {
                // Failed reconciles are logged where they are tried again.
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.clone().unwrap_or_default();
                    forget.world.lock().forget(&namespace, &gone.name);
                }
                Err(error) => tracing::warn!(%error, "the controller's queue"),
            }
            std::future::ready(())
        })
        .await;
        // Readiness ends with the controller.
        drop(ready);
    })
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Watches all that is kept beside pods and nodes.
fn stores(
    client: &Client,
    world: &Arc<World>,
    watches: &crate::metrics::Watches,
    tasks: &mut JoinSet<&'static str>,
    prices_changed: &Arc<Notify>,
) -> Stores {
    let managed = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGER);
    let managed = config(Some(&managed));
    let (revisions, task) = world::watch::store(
        Api::<ControllerRevision>::all(client.clone()),
        managed.clone(),
        watches.clone(),
        touch(world),
    );
    tasks.spawn(named("the watch of revisions", task));
    let (services, task) = world::watch::store(
        Api::<Service>::all(client.clone()),
        managed.clone(),
        watches.clone(),
        touch(world),
    );
    tasks.spawn(named("the watch of services", task));
    let (budgets, task) = world::watch::store(
        Api::<PodDisruptionBudget>::all(client.clone()),
        managed,
        watches.clone(),
        touch(world),
    );
    tasks.spawn(named("the watch of budgets", task));
    let changed = Arc::clone(prices_changed);
    let (priority_classes, task) = world::watch::store(
        Api::<PriorityClass>::all(client.clone()),
        config(None),
        watches.clone(),
        move |_| changed.notify_one(),
    );
    tasks.spawn(named("the watch of priority classes", task));
    let changed = Arc::clone(prices_changed);
    let (claims, task) = world::watch::store(
        Api::<PersistentVolumeClaim>::all(client.clone()),
        config(None),
        watches.clone(),
        move |_| changed.notify_one(),
    );
    tasks.spawn(named("the watch of volume claims", task));
    let changed = Arc::clone(prices_changed);
    let (cost_profiles, task) = world::watch::store(
        Api::<CostProfile>::all(client.clone()),
        config(None),
        watches.clone(),
        move |_| changed.notify_one(),
    );
    tasks.spawn(named("the watch of cost profiles", task));
    Stores { revisions, services, budgets, priority_classes, claims, cost_profiles }
}

/// Has the deployment that an object belongs to looked at.
fn touch<K: Resource>(world: &Arc<World>) -> impl Fn(&K) + Send + use<K> {
    let world = Arc::clone(world);
    move |object| {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        if let Some(name) = object.labels().get(names::LABEL_DEPLOYMENT) {
            world.look_at(&namespace, name);
        }
    }
}

/// Charges what runs, tells what profiles are good for, and makes `/metrics` read the world.
fn follow_cost(
    context: &Arc<Context>,
    deployments: &Store<LLMDeployment>,
    refresh: &Refresh,
    tasks: &mut JoinSet<&'static str>,
) {
    let charging = Arc::clone(context);
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(CHARGE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let book = PriceBook::new(charging.stores.cost_profiles.state());
            charging.metrics.charge(&charging.world, &book, Instant::now());
            if let Err(error) = profiles::tell(&charging).await {
                tracing::warn!(%error, "cannot write the status of a cost profile");
            }
        }
    });
    let (context, deployments) = (Arc::clone(context), deployments.clone());
    let read = move || {
        let book = PriceBook::new(context.stores.cost_profiles.state());
        context.metrics.charge(&context.world, &book, Instant::now());
        context.metrics.refresh(&context.world, &book, &deployments.state());
    };
    *refresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(read));
}

/// Tries again after 1, 2, 4 … 60 seconds.
fn retry(
    failures: &Mutex<HashMap<ObjectRef<LLMDeployment>, u32>>,
    object: &Arc<LLMDeployment>,
    error: &Error,
) -> Action {
    let key = ObjectRef::from_obj(object.as_ref());
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(key).or_default();
    let seconds = (1_u64 << (*count).min(6)).min(60);
    *count += 1;
    tracing::warn!(
        namespace = object.namespace(),
        deployment = object.name_any(),
        %error,
        "a reconcile failed; next try in {seconds} s"
    );
    Action::requeue(Duration::from_secs(seconds))
}

fn defaults(args: &Args) -> anyhow::Result<Defaults> {
    let mut catalogue = berth_vram::catalogue().clone();
    for path in &args.catalogue {
        add(&mut catalogue, path).with_context(|| format!("--catalogue {}", path.display()))?;
    }
    Ok(Defaults {
        catalogue,
        images: args
            .engine_image
            .iter()
            .map(|given| ((given.engine, given.vendor), given.image.clone()))
            .collect(),
        runtime_classes: args
            .runtime_class
            .iter()
            .map(|given| (given.vendor, given.name.clone()))
            .collect(),
    })
}

fn add(catalogue: &mut berth_vram::Catalogue, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    catalogue.add_json(&text)?;
    Ok(())
}
