//! Makes the volumes and claims through which pods see a node's cache.

use berth_planner::NodeName;
use berth_render::{
    CacheSite,
    cache::{self, Folder},
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, runtime::reflector::ObjectRef};

use crate::{client::WriteError, reconcile::Context};

/// Has the volume and the claim of a folder there, so that a pod can be bound right away.
pub async fn provide(
    context: &Context,
    caches: &CacheSite,
    folder: &Folder,
) -> Result<(), WriteError> {
    let name = folder.name();
    let (known, hostname, capacity) = {
        let state = context.world.lock();
        let node = state.fleet.node(&NodeName::from(folder.node.as_str()));
        let hostname = node.and_then(|node| node.labels.get("kubernetes.io/hostname").cloned());
        let capacity = node.map_or(caches.size, |node| node.cache);
        (state.shelves.volume(folder).cloned(), hostname, capacity)
    };
    match known {
        Some(known) if known.released => {
            return Err(WriteError::Unavailable(format!(
                "the cache of namespace {} on node {} is being cleared",
                folder.namespace, folder.node
            )));
        }
        Some(_) => {}
        None => {
            let hostname = hostname.unwrap_or_else(|| folder.node.clone());
            let volume = cache::volume(folder, caches, &hostname, capacity);
            let api: Api<PersistentVolume> = Api::all(context.writer.client().clone());
            there_is(context.writer.create(&api, &volume).await)?;
        }
    }
    let key = ObjectRef::new(&name).within(&folder.namespace);
    if context.stores.claims.get(&key).is_none() {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(context.writer.client().clone(), &folder.namespace);
        there_is(context.writer.create(&api, &cache::claim(folder)).await)?;
    }
    Ok(())
}

/// One that is there already will do: its name says what it is.
fn there_is<T>(created: Result<T, WriteError>) -> Result<(), WriteError> {
    match created {
        Ok(_) | Err(WriteError::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
