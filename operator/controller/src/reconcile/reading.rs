//! What a model's own files say, as far as one deployment is concerned: when the library is asked, and
//! when only what it knows already counts. Pure but for the library.

use std::time::Duration;

use berth_crds::{LLMDeployment, LLMDeploymentSpec, llm_deployment::ModelSummary};
use k8s_openapi::jiff::Timestamp;

use super::{
    Context, Observed, facts,
    resolve::{Serving, pinned, question},
    revisions::Revision,
};
use crate::models::{
    Answer, Question,
    library::{Asker, Library},
};

/// What the files of a model say; whoever has to be asked is. With it, when to look again though
/// nobody was asked.
pub(super) fn ask(
    observed: &Observed,
    serving: Option<&Serving<'_>>,
    context: &Context,
) -> (Answer, Option<Duration>) {
    let deployment = &observed.deployment;
    let Some(question) = question(&deployment.spec, serving) else {
        return (Answer::Unasked, None);
    };
    let status = deployment.status.as_ref();
    let told = status.and_then(|status| status.model.as_ref());
    let generation = deployment.metadata.generation;
    let asker = Asker {
        namespace: &observed.owner.namespace,
        name: &observed.owner.name,
        uid: &observed.owner.uid,
        generation: generation.unwrap_or(0),
        is_settled: told.is_some_and(|told| told.facts == facts::INSPECTED)
            && status.and_then(|status| status.observed_generation) == generation,
    };
    let (answer, wait) = context.library.ask(&question, &asker, Timestamp::now().as_second());
    (answer, wait.map(Duration::from_secs))
}

/// What is known already of the model of an edit that is only tried.
pub(super) fn known(
    spec: &LLMDeploymentSpec,
    serving: Option<&Serving<'_>>,
    library: &Library,
) -> Answer {
    let known = question(spec, serving).and_then(|question| library.peek(&question));
    known.map_or(Answer::Unasked, Answer::Known)
}

/// The model of a revision that is frozen, without asking anybody; `None`: as status says it already.
pub(super) fn frozen(
    observed: &Observed,
    shown: &Revision,
    context: &Context,
) -> Option<ModelSummary> {
    let spec = &observed.deployment.spec;
    let serving = Serving { spec: &shown.spec, template: &shown.template };
    let commit = pinned(&shown.template.source, spec);
    let asked = question(spec, Some(&serving)).filter(Question::is_pinned);
    let answer = match asked.and_then(|question| context.library.peek(&question)) {
        Some(inspection) => Answer::Known(inspection),
        None if commit.is_some() && has_model(&observed.deployment) => return None,
        None => Answer::Unasked,
    };
    let known = facts::find_with(&spec.model, &context.defaults.catalogue, &answer).ok()?;
    Some(ModelSummary { commit, ..known.summary(spec) })
}

fn has_model(deployment: &LLMDeployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| status.model.is_some())
}
