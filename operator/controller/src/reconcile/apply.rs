//! Carries out what was decided. Talks to the API server; decides nothing.

use std::collections::BTreeSet;

use berth_crds::{LLMDeployment, LLMDeploymentStatus, names};
use berth_planner::PodKey;
use berth_render::Owner;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use kube::{Api, Resource, ResourceExt, api::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Context;
use crate::{
    client::{WriteError, gone},
    measured::notes::Notes,
};

/// What became of a pod that was to be created.
#[derive(Debug)]
pub enum Created {
    /// It is there.
    Yes,
    /// One of that name was there already; the ledger knows it now.
    Already,
    /// The API server will not have it.
    Refused(String),
}

/// Creates a pod whose claim is assumed already, and ends the assumption: when the pod is seen,
/// when the API server refused it for good, or when a read shows that it is not there.
pub async fn create_pod(context: &Context, pod: &Pod) -> Result<Created, WriteError> {
    let namespace = pod.namespace().unwrap_or_default();
    let key = PodKey::new(namespace.clone(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(context.writer.client().clone(), &namespace);
    match context.writer.create(&api, pod).await {
        Ok(created) => {
            context.world.wrote_pod(&created);
            Ok(Created::Yes)
        }
        Err(WriteError::Refused(message)) => {
            context.world.update(|state| state.fleet.release(&key));
            Ok(Created::Refused(message))
        }
        // The namespace is gone, or going: nothing can be created there.
        Err(WriteError::NotFound(message)) => {
            context.world.update(|state| state.fleet.release(&key));
            Ok(Created::Refused(message))
        }
        Err(WriteError::Conflict(_)) => {
            settle(context, &api, &key).await?;
            Ok(Created::Already)
        }
        Err(error @ WriteError::NotLeader(_)) => {
            context.world.update(|state| state.fleet.release(&key));
            Err(error)
        }
        // Nobody knows whether it was created: the claim stays assumed until a read tells.
        Err(error) => {
            settle(context, &api, &key).await?;
            Err(error)
        }
    }
}

/// Reads the pod of an assumed claim by its name, and ends the assumption either way.
pub async fn settle(context: &Context, api: &Api<Pod>, key: &PodKey) -> Result<(), WriteError> {
    if let Some(pod) = context.writer.get(api, &key.name).await? {
        context.world.wrote_pod(&pod);
    }
    context.world.update(|state| state.fleet.release(key));
    Ok(())
}

/// Deletes a pod, by its UID; one that is gone already is fine.
pub async fn delete_pod(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), WriteError> {
    let api: Api<Pod> = Api::namespaced(context.writer.client().clone(), namespace);
    gone(context.writer.delete(&api, name, uid).await)
}

/// Creates a ControllerRevision. One of that name that belongs to this very deployment is the same.
pub async fn create_revision(
    context: &Context,
    owner: &Owner,
    revision: &ControllerRevision,
) -> Result<(), WriteError> {
    let api: Api<ControllerRevision> =
        Api::namespaced(context.writer.client().clone(), &owner.namespace);
    match context.writer.create(&api, revision).await {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict(message)) => {
            let name = revision.name_any();
            let existing = context.writer.get(&api, &name).await?;
            let ours = existing.is_some_and(|existing| is_owned(existing.meta(), &owner.uid));
            // One of a namesake's that is about to be collected: wait until it is gone.
            if ours { Ok(()) } else { Err(WriteError::Conflict(message)) }
        }
        Err(error) => Err(error),
    }
}

/// Notes on a revision the spec that comes to it, and makes it the newest.
pub async fn note_on_revision(
    context: &Context,
    namespace: &str,
    name: &str,
    number: i64,
    spec: &Value,
) -> Result<(), WriteError> {
    let api: Api<ControllerRevision> = Api::namespaced(context.writer.client().clone(), namespace);
    let annotation = json!({names::ANNOTATION_SPEC: spec.to_string()});
    let patch = json!({"metadata": {"annotations": annotation}, "revision": number});
    context.writer.merge(&api, name, &patch).await.map(drop)
}

/// Notes on a revision what its engines told.
pub async fn note_measured(
    context: &Context,
    namespace: &str,
    name: &str,
    notes: &Notes,
) -> Result<(), WriteError> {
    let api: Api<ControllerRevision> = Api::namespaced(context.writer.client().clone(), namespace);
    let annotation = json!({names::ANNOTATION_MEASURED: json!(notes).to_string()});
    let patch = json!({"metadata": {"annotations": annotation}});
    gone(context.writer.merge(&api, name, &patch).await.map(drop))
}

/// Deletes a revision that nothing needs.
pub async fn delete_revision(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), WriteError> {
    let api: Api<ControllerRevision> = Api::namespaced(context.writer.client().clone(), namespace);
    gone(context.writer.delete(&api, name, uid).await)
}

/// Brings the Service of a deployment to what it should be.
pub async fn service(context: &Context, owner: &Owner, port: u16) -> Result<(), WriteError> {
    let desired = berth_render::service(owner, port);
    ensure(context, owner, &context.stores.services, &desired).await
}

/// Brings the PodDisruptionBudget of a deployment to what it should be.
pub async fn budget(context: &Context, owner: &Owner, replicas: u32) -> Result<(), WriteError> {
    let desired = berth_render::budget(owner, replicas);
    ensure(context, owner, &context.stores.budgets, &desired).await
}

/// Applies an object unless the one that is there says all of it already. One of that name that
/// belongs to somebody else is left alone, and told of.
async fn ensure<K>(
    context: &Context,
    owner: &Owner,
    store: &kube::runtime::reflector::Store<K>,
    desired: &K,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let name = desired.name_any();
    let key = kube::runtime::reflector::ObjectRef::<K>::new(&name).within(&owner.namespace);
    let known = store.get(&key);
    if let Some(known) = &known {
        let (want, have) = (json(desired), json(known.as_ref()));
        if is_owned(known.meta(), &owner.uid) && says_all_of(&want, &have) {
            return Ok(());
        }
    }
    let api: Api<K> = Api::namespaced(context.writer.client().clone(), &owner.namespace);
    // The store holds only what bears our label: look before taking over something else.
    let existing = match &known {
        Some(known) => Some(known.as_ref().clone()),
        None => context.writer.get(&api, &name).await?,
    };
    if existing.is_some_and(|existing| !is_owned(existing.meta(), &owner.uid)) {
        return Err(WriteError::Refused(format!(
            "a {} named {name} exists in namespace {} and does not belong to this LLMDeployment; \
             delete or rename one of the two",
            K::kind(&()),
            owner.namespace,
        )));
    }
    context.writer.apply(&api, &name, desired).await.map(drop)
}

/// Writes a status by server-side apply, so that fields that are gone go.
pub async fn status(
    context: &Context,
    deployment: &LLMDeployment,
    status: &LLMDeploymentStatus,
) -> Result<(), WriteError> {
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let api: Api<LLMDeployment> = Api::namespaced(context.writer.client().clone(), &namespace);
    let object = json!({
        "apiVersion": LLMDeployment::api_version(&()),
        "kind": LLMDeployment::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": deployment.uid()},
        "status": status,
    });
    gone(context.writer.apply_status(&api, &name, &object).await.map(drop))
}

/// The pods of a deployment whose claims are assumed.
pub fn assumed(context: &Context, uid: &str) -> BTreeSet<PodKey> {
    let state = context.world.lock();
    let of = |assumed: &&berth_planner::Assumed| assumed.claim.deployment.uid == uid;
    state.fleet.assumed().filter(of).map(|assumed| assumed.key.clone()).collect()
}

fn is_owned(meta: &ObjectMeta, uid: &str) -> bool {
    let owners = meta.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
        && meta.deletion_timestamp.is_none()
}

fn json<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Whether everything that `want` says stands in `have` too.
fn says_all_of(want: &Value, have: &Value) -> bool {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => want
            .iter()
            .all(|(name, value)| have.get(name).is_some_and(|have| says_all_of(value, have))),
        (Value::Array(want), Value::Array(have)) => {
            want.len() == have.len()
                && want.iter().zip(have).all(|(want, have)| says_all_of(want, have))
        }
        (want, have) => want == have,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_says_all_of_it_is_not_written_again() {
        let want = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
        let have = json!({
            "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}, "clusterIP": "10.0.0.1"},
            "status": {},
        });
        assert!(says_all_of(&want, &have));
        for other in [
            json!({"spec": {"ports": [{"port": 81}], "selector": {"a": "b"}}}),
            json!({"spec": {"ports": [], "selector": {"a": "b"}}}),
            json!({"spec": {"ports": [{"port": 80}], "selector": {}}}),
        ] {
            assert!(!says_all_of(&want, &other), "{other}");
        }
    }
}
