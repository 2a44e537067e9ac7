//! The revisions of a deployment, and which of them its spec asks for. Pure.

use std::collections::BTreeSet;

use berth_crds::names;
use berth_planner::{CacheKey, DeploymentId};
use berth_render::{Template, revision};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::{problem::Problem, resolve::Serving, wish::Wish};
use crate::{
    cache::shelves::cache_key,
    measured::notes::{self, Notes},
};

/// Revisions kept beside those in use.
const HISTORY: usize = 10;

/// A revision as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its hash: the name that pods carry.
    pub hash: String,
    /// Name of the ControllerRevision.
    pub name: String,
    /// UID of the ControllerRevision.
    pub uid: String,
    /// Its number; the largest is the newest.
    pub number: i64,
    /// What pods are rendered from.
    pub template: Template,
    /// The canonical spec that it was made from.
    pub spec: Value,
    /// What its engines told that they take.
    pub notes: Notes,
}

/// The revisions of a deployment from the objects that it owns, oldest first. One that cannot be
/// read is left out, with a warning.
pub fn of<'a>(objects: impl Iterator<Item = &'a ControllerRevision>) -> Vec<Revision> {
    let mut revisions: Vec<_> = objects.filter_map(read).collect();
    revisions.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
    revisions
}

fn read(object: &ControllerRevision) -> Option<Revision> {
    let name = object.name_any();
    let template = match revision::parse(object) {
        Ok(template) => template,
        Err(error) => {
            tracing::warn!(%error, "leaving out a revision");
            return None;
        }
    };
    let spec = object.annotations().get(names::ANNOTATION_SPEC);
    Some(Revision {
        hash: object.labels().get(names::LABEL_REVISION)?.clone(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        number: object.revision.unwrap_or(0),
        template,
        notes: notes::of(object),
        spec: spec.and_then(|spec| serde_json::from_str(spec).ok()).unwrap_or_default(),
        name,
    })
}

/// What a spec asks for.
#[derive(Debug)]
pub enum Target {
    /// The newest revision, as it is.
    Newest,
    /// The newest revision: the edit comes to the same pods, which is to be noted on it.
    SameAsNewest(Value),
    /// An older revision, by its index: the spec is what it was then.
    Older(usize),
    /// A new revision, frozen by its first placement.
    Open(Box<Wish>),
    /// Nothing that can be run. What runs goes on.
    Nothing(Problem),
}

/// Decides what a spec asks for. `resolve` is called only where the spec differs from the newest
/// revision's.
pub fn target(
    canonical: &Value,
    revisions: &[Revision],
    resolve: impl FnOnce(Option<&Serving<'_>>) -> Result<Wish, Problem>,
) -> Target {
    let newest = revisions.last();
    if newest.is_some_and(|newest| newest.spec == *canonical) {
        return Target::Newest;
    }
    if let Some(older) = revisions.iter().rposition(|revision| revision.spec == *canonical) {
        return Target::Older(older);
    }
    let serving = newest.map(|newest| Serving { spec: &newest.spec, template: &newest.template });
    match resolve(serving.as_ref()) {
        Ok(wish) if newest.is_some_and(|newest| wish.comes_to(&newest.template)) => {
            Target::SameAsNewest(wish.canonical)
        }
        Ok(wish) => Target::Open(Box::new(wish)),
        Err(problem) => Target::Nothing(problem),
    }
}

/// Models that a rollback of a deployment may need: those of its newest revision and the one before.
pub fn kept(deployment: &DeploymentId, revisions: &[Revision]) -> BTreeSet<CacheKey> {
    let newest = revisions.iter().rev().take(2).map(|revision| &revision.template);
    newest
        .filter_map(|template| template.source.cached(template.weight_bytes))
        .map(|model| cache_key(&deployment.namespace, &model.directory))
        .collect()
}

/// Revisions that nothing needs any more: not among the last ten, and no pod is of them.
pub fn superfluous<'a>(
    revisions: &'a [Revision],
    in_use: &BTreeSet<&str>,
) -> impl Iterator<Item = &'a Revision> {
    let old = revisions.len().saturating_sub(HISTORY);
    let in_use: BTreeSet<String> = in_use.iter().map(|hash| (*hash).to_owned()).collect();
    revisions[..old].iter().filter(move |revision| !in_use.contains(&revision.hash))
}
