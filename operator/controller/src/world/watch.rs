//! The watches that feed the world. They talk to the API server, and read only.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    sync::Arc,
};

use berth_crds::names;
use berth_planner::NodeName;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;

use super::{
    World,
    by_owner::{ByOwner, Tag},
};
use crate::{cache::content, metrics::Watches};

/// Watches end by themselves after so many seconds and start anew, so that a connection that went
/// dead without a word is noticed.
const WATCH_SECONDS: u32 = 50;

/// How a watch is set up, with an optional label selector.
pub fn config(labels: Option<&str>) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    match labels {
        Some(labels) => config.labels(labels),
        None => config,
    }
}

/// For ever: follows nodes. `synced` turns true once all of them are known.
pub async fn nodes(client: Client, world: Arc<World>, watches: Watches, synced: Sender<bool>) {
    let mut events = events(Api::<Node>::all(client), config(None), watches);
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(node) => {
                listed.insert(NodeName::from(node.name_any()));
                world.saw_node(&node);
            }
            Event::InitDone => {
                world.update(|state| state.keep_nodes(&listed));
                listed.clear();
                synced.send_replace(true);
            }
            Event::Apply(node) => world.saw_node(&node),
            Event::Delete(node) => {
                world.update(|state| state.fleet.remove_node(&NodeName::from(node.name_any())));
            }
        }
    }
}

/// For ever: follows the pods of the whole cluster. Of pods of others only what they hold is kept.
pub async fn pods(client: Client, world: Arc<World>, watches: Watches, synced: Sender<bool>) {
    let mut events = events(Api::<Pod>::all(client), config(None), watches);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.uid());
                world.saw_pod(&pod);
            }
            Event::InitDone => {
                for lost in world.update(|state| state.keep_pods(&listed)) {
                    world.look_at(&lost.deployment.namespace, &lost.deployment.name);
                }
                listed.clear();
                synced.send_replace(true);
            }
            Event::Apply(pod) => world.saw_pod(&pod),
            Event::Delete(pod) => world.lost_pod(&pod),
        }
    }
}

/// For ever: follows the volumes of the nodes' caches.
pub async fn volumes(client: Client, world: Arc<World>, watches: Watches, synced: Sender<bool>) {
    let labels = format!(
        "{}={},{}={}",
        names::LABEL_MANAGED_BY,
        names::MANAGER,
        names::LABEL_COMPONENT,
        names::COMPONENT_CACHE
    );
    let mut events = events(Api::<PersistentVolume>::all(client), config(Some(&labels)), watches);
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(volume) => {
                listed.insert(volume.name_any());
                world.saw_volume(&volume);
            }
            Event::InitDone => {
                world.update(|state| state.shelves.keep_volumes(&listed));
                listed.clear();
                synced.send_replace(true);
            }
            Event::Apply(volume) => world.saw_volume(&volume),
            Event::Delete(volume) => {
                if let Some(volume) = content::volume(&volume) {
                    world.update(|state| state.shelves.lost_volume(&volume));
                }
            }
        }
    }
}

/// A store of all objects of a kind and the task that keeps it current. `touched` is called with
/// each object that came, changed or went.
pub fn store<K>(
    api: Api<K>,
    config: watcher::Config,
    watches: Watches,
    touched: impl Fn(&K) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let task = async move {
        let mut stream = events(api, config, watches).map(Ok).reflect(writer).boxed();
        while let Some(event) = stream.next().await {
            if let Ok(Event::Apply(object) | Event::Delete(object) | Event::InitApply(object)) =
                event
            {
                touched(&object);
            }
        }
    };
    (reader, task)
}

/// The same for objects that are looked up by the object that controls them, or by a tag. `touched` is called
/// when they can be found, or no longer.
pub fn by_owner<K>(
    api: Api<K>,
    config: watcher::Config,
    watches: Watches,
    tag: Tag<K>,
    touched: impl Fn(&K) + Send + 'static,
) -> (Arc<ByOwner<K>>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let objects = Arc::new(ByOwner::new(tag));
    let kept = Arc::clone(&objects);
    let task = async move {
        let mut events = events(api, config, watches);
        while let Some(event) = events.next().await {
            kept.take(event).iter().for_each(|object| touched(object));
        }
    };
    (objects, task)
}

/// Events of a kind without managed fields, for ever; errors are logged, counted and waited out.
fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    watches: Watches,
) -> impl Stream<Item = Event<K>> + Send + Unpin
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&());
    watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .inspect_ok({
            let (watches, kind) = (watches.clone(), kind.clone());
            move |_| watches.event(&kind)
        })
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => Some(event),
                Err(error) => {
                    tracing::warn!(kind = &*kind, %error, "watch failed; starting it again");
                    watches.error(&kind);
                    None
                }
            };
            std::future::ready(event)
        })
        .boxed()
}
