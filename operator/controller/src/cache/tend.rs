//! Tends the caches, node by node: writes down what lies there, has keepers prepare folders and
//! make room, and takes down what nobody needs any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use berth_crds::names;
use berth_planner::NodeName;
use berth_render::{
    CacheSite,
    cache::{self, Folder},
};
use k8s_openapi::{
    api::core::v1::{PersistentVolume, Pod},
    jiff::Timestamp,
};
use kube::Api;
use serde_json::json;

use super::{
    content,
    shelves::{Next, User},
    volumes::provide,
};
use crate::{
    client::{WriteError, gone},
    reconcile::{Context, revisions},
    world::state::State,
};

/// Between a failure and the next look at that node.
const AGAIN: Duration = Duration::from_secs(2);

/// For ever: looks at each node where something happened to its cache.
pub async fn tend(context: Arc<Context>, site: CacheSite) {
    remember_kept(&context);
    loop {
        context.world.cache_changed().await;
        let nodes = context.world.update(|state| state.shelves.take_changed());
        for node in nodes {
            if let Err(error) = node_of(&context, &site, &node).await {
                tracing::warn!(%node, %error, "cannot tend the cache of a node; trying again");
                let context = Arc::clone(&context);
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    context.world.look_at_cache(&node);
                });
            }
        }
    }
}

async fn node_of(context: &Context, site: &CacheSite, node: &NodeName) -> Result<(), WriteError> {
    let Next { write, remove, dismiss, work } = context.world.update(|state| {
        let users = users(state, node);
        let State { shelves, fleet, .. } = state;
        shelves.next(node, &users, fleet, Timestamp::now().as_second())
    });
    let client = context.writer.client();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for volume in write {
        let text = serde_json::to_string(&volume.content).unwrap_or_default();
        let patch = json!({"metadata": {
            "resourceVersion": volume.version,
            "annotations": {names::ANNOTATION_CACHE_CONTENT: text},
        }});
        let written = context.writer.merge(&volumes, &volume.name, &patch).await?;
        if let Some(volume) = content::volume(&written) {
            context.world.update(|state| state.shelves.saw_volume(volume));
        }
    }
    for keeper in dismiss {
        if keeper.ended == Some(false) {
            tracing::warn!(%node, pod = %keeper.key, "a keeper of the cache failed; sending another");
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), &keeper.key.namespace);
        gone(context.writer.delete(&pods, &keeper.key.name, &keeper.uid).await)?;
        context.world.update(|state| state.shelves.lost_keeper(&keeper));
    }
    for volume in remove {
        gone(context.writer.delete(&volumes, &volume.name, &volume.uid).await)?;
        context.world.update(|state| state.shelves.lost_volume(&volume));
    }
    if !work.is_empty() {
        provide(context, site, &Folder::all(node.as_str(), site)).await?;
        let pod = cache::keeper(node.as_str(), &work, &context.site, site);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &site.namespace);
        let created = context.writer.create(&pods, &pod).await?;
        context.world.wrote_pod(&created);
    }
    Ok(())
}

/// What rollbacks may need is known before anything is removed, not only once each deployment was
/// looked at.
fn remember_kept(context: &Context) {
    context.world.update(|state| {
        let ids: BTreeSet<_> = state.replicas().map(|one| one.deployment.clone()).collect();
        for id in ids {
            let objects = context.stores.revisions.of(&id.uid);
            let revisions = revisions::of(objects.iter().map(AsRef::as_ref));
            state.fleet.set_kept(&id, revisions::kept(&id, &revisions));
        }
    });
}

/// The pods that use a node's cache.
fn users(state: &State, node: &NodeName) -> Vec<User> {
    let occupants = state.fleet.occupants_of(node);
    occupants
        .filter_map(|occupant| {
            let (key, bytes) = occupant.cache.as_ref()?;
            let (namespace, directory) = key.as_str().split_once('/')?;
            let replica = state.replica(&occupant.pod);
            Some(User {
                model: (namespace.to_owned(), directory.to_owned()),
                bytes: *bytes,
                ready: replica.is_some_and(|replica| replica.may_serve()),
            })
        })
        .collect()
}
