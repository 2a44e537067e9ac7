//! Carries a decision out: revision, Service and budget first, then pods come, then pods go, each
//! with its event. Writes through [`super::apply`].

use std::{collections::BTreeSet, sync::Arc};

use berth_crds::names;
use berth_render::{ModelSource, Replica as Rendered, cache::Folder, prefetch, revision};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{
    Context, Error, Observed,
    apply::{self, Created},
    decide::{Decided, key},
    intend::{DeleteReason, Need},
    placing::{self, Misfit, Placed},
    problem::Problem,
    revisions::{self, Target},
    to,
};
use crate::{
    cache::volumes,
    client::WriteError,
    world::{pod::Replica, prefetch::Prefetch},
};

/// Writes what was decided: revision, Service and budget first, then pods come, then pods go.
pub(super) async fn carry_out(
    observed: &Observed,
    target: &Target,
    decided: Decided,
    context: &Context,
) -> Result<(Vec<Misfit>, Option<Problem>), Error> {
    let Observed { deployment, owner, revisions, .. } = observed;
    let next = revisions.last().map_or(1, |newest| newest.number + 1);
    let upkeep = async {
        match target {
            Target::SameAsNewest(spec) => {
                let Some(newest) = revisions.last() else { return Ok(()) };
                let (name, number) = (&newest.name, newest.number);
                apply::note_on_revision(context, &owner.namespace, name, number, spec).await
            }
            Target::Older(index) => {
                let Some(older) = revisions.get(*index) else { return Ok(()) };
                let (name, spec) = (&older.name, &older.spec);
                apply::note_on_revision(context, &owner.namespace, name, next, spec).await
            }
            Target::Open(wish) => {
                let Some((_, template)) = &decided.freeze else { return Ok(()) };
                let spec = wish.canonical.to_string();
                let object = revision::revision(owner, template, next, &spec);
                apply::create_revision(context, owner, &object).await?;
                let note = format!("froze revision {}", object.name_any());
                context.events.normal(deployment, "RevisionCreated", note).await;
                Ok(())
            }
            Target::Newest | Target::Nothing(_) => Ok(()),
        }
    };
    if let Err(source) = upkeep.await {
        let create = &decided.create;
        return Err(release_all(create, observed, context, "write a revision", source));
    }

    let mut refused = None;
    let port = u16::try_from(deployment.spec.endpoint.port).unwrap_or(80);
    for written in [
        apply::service(context, owner, port).await,
        apply::budget(context, owner, deployment.desired_replicas()).await,
    ] {
        match written {
            Ok(()) => {}
            Err(WriteError::Refused(message)) => refused = Some(Problem::Refused(message)),
            Err(source) => {
                let create = &decided.create;
                return Err(release_all(create, observed, context, "write the Service", source));
            }
        }
    }
    let mut delete = decided.delete.clone();
    for (index, (need, placed)) in decided.create.iter().enumerate() {
        if let Err(source) = provide(observed, placed, context).await {
            let rest = &decided.create[index..];
            return Err(release_all(rest, observed, context, "make the volume of a cache", source));
        }
        let pod = render(observed, need, placed, context);
        match apply::create_pod(context, &pod).await {
            Ok(Created::Yes) => {
                let (name, note) = (pod.name_any(), placed_note(need, placed));
                context.events.pod(deployment, &name, "Placed", note).await;
                if let (true, Some(old)) = (placed.in_place, &need.replaces) {
                    delete.push((Arc::clone(old), DeleteReason::Replaced));
                }
            }
            Ok(Created::Already) => {}
            Ok(Created::Refused(message)) => {
                let text = format!("pod {} cannot be created: {message}", pod.name_any());
                refused = Some(Problem::Refused(text));
            }
            Err(source) => {
                let rest = &decided.create[index + 1..];
                return Err(release_all(rest, observed, context, "create a pod", source));
            }
        }
    }
    refused = bring(observed, &decided, context).await?.or(refused);
    for (pod, reason) in delete {
        let name = &pod.key.name;
        apply::delete_pod(context, &owner.namespace, name, &pod.uid)
            .await
            .map_err(to("delete a pod"))?;
        context.world.update(|state| state.deleting(&pod));
        if reason != DeleteReason::Ended {
            let note = delete_note(&pod, &reason);
            context.events.pod(deployment, name, reason.label(), note).await;
        }
    }
    let in_use: BTreeSet<&str> = observed.pods.iter().map(|pod| pod.revision.as_str()).collect();
    for old in revisions::superfluous(revisions, &in_use) {
        apply::delete_revision(context, &owner.namespace, &old.name, &old.uid)
            .await
            .map_err(to("delete an old revision"))?;
    }
    Ok((decided.misfits, refused))
}

/// Has what replacements need brought to their nodes, and takes down what brought it.
async fn bring(
    observed: &Observed,
    decided: &Decided,
    context: &Context,
) -> Result<Option<Problem>, Error> {
    let mut refused = None;
    for (need, placed) in &decided.bring {
        refused = send(observed, need, placed, context).await?.or(refused);
    }
    for Prefetch { key, uid, .. } in &decided.dismiss {
        apply::delete_pod(context, &key.namespace, &key.name, uid)
            .await
            .map_err(to("delete a pod"))?;
    }
    Ok(refused)
}

/// Creates the pod that brings a placement's image and model onto its node.
async fn send(
    observed: &Observed,
    need: &Need,
    placed: &Placed,
    context: &Context,
) -> Result<Option<Problem>, Error> {
    provide(observed, placed, context).await.map_err(to("make the volume of a cache"))?;
    let replica = rendered(observed, need, placed, context);
    let pod = prefetch::prefetch(&placed.template, &replica, &context.site);
    match apply::create_pod(context, &pod).await {
        Ok(Created::Yes) => {
            let node = &placed.placement.node;
            let text = format!("image and model of revision {} go to node {node}", placed.revision);
            let name = pod.name_any();
            context.events.pod(&observed.deployment, &name, "Prefetching", text).await;
            Ok(None)
        }
        Ok(Created::Already) => Ok(None),
        Ok(Created::Refused(message)) => Ok(Some(Problem::Refused(message))),
        Err(source) => Err(to("create a pod")(source)),
    }
}

/// The volume through which a pod sees its node's cache, where it does.
async fn provide(
    observed: &Observed,
    placed: &Placed,
    context: &Context,
) -> Result<(), WriteError> {
    let Some(site) = &context.site.cache else { return Ok(()) };
    let (node, namespace) = (placed.placement.node.as_str(), &observed.owner.namespace);
    let folder = match &placed.template.source {
        ModelSource::Hub { .. } => Folder::of(node, namespace),
        ModelSource::Cache { .. } => Folder::shared(node, namespace),
        _ => return Ok(()),
    };
    volumes::provide(context, site, &folder).await
}

/// Lets go of claims whose pods were not tried.
fn release_all(
    create: &[(Need, Placed)],
    observed: &Observed,
    context: &Context,
    what: &'static str,
    source: WriteError,
) -> Error {
    context.world.update(|state| {
        for (need, placed) in create {
            state.fleet.release(&key(observed, need, placed));
        }
    });
    Error::Write { what, source }
}

fn rendered(observed: &Observed, need: &Need, placed: &Placed, context: &Context) -> Rendered {
    Rendered {
        deployment: observed.owner.clone(),
        revision: placed.revision.clone(),
        replica: need.replica,
        rank: 0,
        attempt: need.attempt,
        node: placed.placement.node.to_string(),
        claim: berth_render::Claim {
            gpus: placed.placement.gpus,
            bytes_per_gpu: placed.placement.vram_per_gpu,
            total_per_gpu: placed.placement.total_vram_per_gpu,
            product: placed.placement.product.clone(),
            cache: placing::cached(&placed.template, &context.site),
        },
    }
}

fn render(observed: &Observed, need: &Need, placed: &Placed, context: &Context) -> Pod {
    let replica = rendered(observed, need, placed, context);
    let mut pod = berth_render::pod(&placed.template, &replica, &context.site);
    if let (true, Some(old)) = (placed.in_place, &need.replaces) {
        pod.annotations_mut().insert(names::ANNOTATION_REPLACES.to_owned(), old.uid.clone());
    }
    pod
}

fn placed_note(need: &Need, placed: &Placed) -> String {
    let Placed { template, placement, in_place, revision: _ } = placed;
    let how = if *in_place { ", in place of the old replica" } else { "" };
    format!(
        "replica {} on node {}: {} × {} with {} usable each, {} needed{how}",
        need.replica,
        placement.node,
        placement.gpus,
        placement.product,
        placement.vram_per_gpu,
        template.estimate_on(&placement.product).total,
    )
}

fn delete_note(pod: &Replica, reason: &DeleteReason) -> String {
    let (name, node) = (&pod.key.name, &pod.node);
    match reason {
        DeleteReason::ScaledDown => format!("pod {name} on node {node} is no longer wanted"),
        DeleteReason::Replaced => format!("pod {name} on node {node} makes way for its successor"),
        DeleteReason::Duplicate => {
            format!("pod {name} is a second pod for replica {}", pod.replica)
        }
        DeleteReason::Ended => format!("pod {name} ended"),
        DeleteReason::Unbound { message } => {
            format!("pod {name} was not bound to node {node}: {message}; planning again")
        }
    }
}
