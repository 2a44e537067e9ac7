//! The watches of all that is kept beside pods and nodes.

use std::sync::Arc;

use berth_crds::{CostProfile, names};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{PersistentVolumeClaim, Service},
    policy::v1::PodDisruptionBudget,
    scheduling::v1::PriorityClass,
};
use kube::{Api, Client, Resource, ResourceExt, core::DeserializeGuard};
use tokio::sync::Notify;

use super::{Tasks, named};
use crate::{
    measured::notes,
    metrics::Watches,
    reconcile::Stores,
    world::{self, World, watch::config},
};

/// Watches all that is kept beside pods and nodes.
pub fn stores(
    client: &Client,
    world: &Arc<World>,
    watches: &Watches,
    tasks: &mut Tasks,
    prices_changed: &Arc<Notify>,
) -> Stores {
    let managed = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGER);
    let managed = config(Some(&managed));
    let (revisions, task) = world::watch::by_owner(
        Api::<ControllerRevision>::all(client.clone()),
        managed.clone(),
        watches.clone(),
        notes::tag,
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
        Api::<DeserializeGuard<CostProfile>>::all(client.clone()),
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
