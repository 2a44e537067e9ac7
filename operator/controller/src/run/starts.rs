//! Reads, once for each start of an engine that answers, the beginning of its log: what it says of
//! itself stands nowhere else. Through the API server, so that no new door into pods is opened.

use std::{sync::Arc, time::Duration};

use berth_crds::{LLMDeployment, llm_deployment::AcceleratorStatus};
use berth_render::{
    engine::{self, log::MOST_BYTES},
    pod::CONTAINER,
};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, runtime::reflector::Store};

use crate::{
    accelerator,
    reconcile::Context,
    world::{Guarded, pod::Replica, readable},
};

/// Reads so many logs at once.
const AT_ONCE: usize = 4;

/// For ever: reads the logs of engines that answer since the last look.
pub async fn every(context: Arc<Context>, deployments: Store<Guarded>, interval: Duration) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        stream::iter(unread(&context, &deployments))
            .for_each_concurrent(AT_ONCE, |(object, replica)| {
                let context = &context;
                async move { look(context, &object, &replica).await }
            })
            .await;
    }
}

/// The replicas whose logs are to be read, each with its deployment.
fn unread(
    context: &Context,
    deployments: &Store<Guarded>,
) -> Vec<(Arc<LLMDeployment>, Arc<Replica>)> {
    let objects = readable(deployments);
    let state = context.world.lock();
    let mut unread = Vec::new();
    for object in objects {
        let replicas = state.replicas_of(&object.uid().unwrap_or_default());
        let wanted = replicas.into_iter().filter(|replica| state.learning().wants_log(replica));
        unread.extend(wanted.map(|replica| (Arc::clone(&object), replica)));
    }
    unread
}

/// Takes in what a replica's engine says of its start: what status remembers of it, else its log.
async fn look(context: &Context, object: &LLMDeployment, replica: &Replica) {
    let Replica { key, uid, restarts, deployment, .. } = replica;
    if let Some(known) = remembered(object, replica) {
        let known = Some(known.clone());
        let uids = (&deployment.uid, uid);
        context.world.update(|state| {
            state.learn(uids.0, |learning| learning.started(uids.1, *restarts, known, None))
        });
        return;
    }
    let resolved = object.status.as_ref().and_then(|status| status.resolved.as_ref());
    let Some(resolved) = resolved else { return };
    let api = Api::<Pod>::namespaced(context.writer.client().clone(), &key.namespace);
    let log = match context.writer.log(&api, &key.name, CONTAINER, MOST_BYTES).await {
        Ok(log) => log,
        Err(error) => {
            tracing::debug!(pod = key.name, %error, "cannot read the beginning of an engine's log");
            context.world.update(|state| {
                state.learn(&deployment.uid, |learning| learning.log_failed(uid, *restarts))
            });
            return;
        }
    };
    let startup = engine::of(resolved.engine).startup(&log);
    let found = startup.accelerator.map(|found| accelerator::status(found, *restarts));
    let complaint = found.as_ref().and_then(accelerator::complaint);
    context.world.update(|state| {
        state.learn(&deployment.uid, |learning| {
            learning.started(uid, *restarts, found, startup.measured)
        })
    });
    context.world.look_at(&deployment.namespace, &deployment.name);
    if let Some(complaint) = complaint {
        let note = format!("replica {} {complaint}", replica.replica);
        context.events.pod(object, &key.name, "NotOnAccelerator", note).await;
    }
}

/// What status says of this start, so that an operator that begins need not read every log again.
/// Where none was read for what it takes, as by an operator of before that, it is.
fn remembered<'a>(object: &'a LLMDeployment, replica: &Replica) -> Option<&'a AcceleratorStatus> {
    object.status.as_ref()?.measured.as_ref()?;
    let placements = object.status.iter().flat_map(|status| &status.placements);
    let mut of_pod = placements.filter(|placement| placement.pod == replica.key.name);
    let known = of_pod.next()?.accelerator.as_ref()?;
    (known.restarts == replica.restarts).then_some(known)
}
