//! The process: election, then all that a leader does, and an end to all of it together.

mod ask;
mod failures;
mod follow;
mod lead;
mod learn;
mod starts;
mod stores;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    args::Args,
    client,
    leader::Candidate,
    metrics::Metrics,
    reconcile::resolve::Defaults,
    server::{self, Pages},
};
use lead::{Leader, lead};

/// How long a reconcile may go on after we were told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Tasks that run for as long as the process does; each returns its name should it end.
type Tasks = JoinSet<&'static str>;

/// Brings what `/metrics` shows up to date, once there is something to show.
type Refresh = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// Runs until a signal, or until any part of it fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (defaults, site) = (defaults(&args)?, args.site()?);
    let client = client::connect().await.context("cannot read the cluster's configuration")?;
    let metrics = Arc::new(Metrics::new()?);
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");

    // A standby is ready to take over.
    let (ready, is_ready) = watch::channel(true);
    let refresh = Refresh::default();
    let mut tasks = Tasks::new();
    let pages = Pages {
        refresh: {
            let refresh = Arc::clone(&refresh);
            Arc::new(move || {
                if let Some(refresh) = refresh.get() {
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
    let mut told_to_stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let duration = Duration::from_secs(args.lease_seconds);
    let candidate =
        Arc::new(Candidate::new(client.clone(), &args.namespace, &args.identity, duration));
    let lease = tokio::select! {
        lease = candidate.acquire() => lease,
        () = &mut told_to_stop => return Ok(()),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    };
    metrics.leads(true);
    ready.send_replace(false);
    let keeper = Arc::clone(&candidate);
    tasks.spawn(async move {
        keeper.keep(lease).await;
        "the lease"
    });

    let leadership = candidate.leadership();
    let (stop, stopped) = watch::channel(false);
    let leader =
        Leader { args, client, defaults, site, metrics, leadership, refresh, ready, stopped };
    let mut leading = tokio::spawn(lead(leader));
    tokio::select! {
        () = &mut told_to_stop => {}
        ended = &mut leading => return ended?.and_then(|()| bail!("the controller ended")),
        Some(ended) = tasks.join_next() => bail!("{} ended", ended?),
    }
    tracing::info!(
        "stopping: no new work, then what was served is written down, then the lease is given back"
    );
    stop.send_replace(true);
    let limit = STOP_WITHIN + ask::LAST_WORDS + Duration::from_secs(1);
    if tokio::time::timeout(limit, &mut leading).await.is_err() {
        leading.abort();
    }
    candidate.release().await;
    Ok(())
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

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}
