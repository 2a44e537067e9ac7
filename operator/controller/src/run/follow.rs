//! What a leader follows beside reconciling: what everything costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::reflector::Store;

use super::{Refresh, Tasks};
use crate::{
    prices::PriceBook,
    profiles,
    reconcile::Context,
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
