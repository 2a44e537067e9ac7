//! Where facts about a model come from, and that what serves stays what it is.

mod common;

use std::sync::Arc;

use berth_inspect::Inspection;
use berth_operator::{
    models::{Answer, Failure},
    reconcile::{
        canonical::canonical,
        problem::Problem,
        reason::Reason,
        resolve::{Serving, question, resolve, resolve_with},
        wish::Wish,
    },
};
use berth_render::{ModelSource, Template, revision::hash};
use berth_vram::ModelFacts;
use common::{defaults, deployment};
use serde_json::{Value, json};

const KNOWN: &str = "hf://Qwen/Qwen2.5-7B-Instruct";

/// The catalogue's own facts of a model, as if its files had said so.
fn learnt(commit: &str, change: impl FnOnce(&mut ModelFacts)) -> Answer {
    let catalogue = berth_vram::catalogue();
    let mut facts = catalogue.find("Qwen/Qwen2.5-7B-Instruct", None).unwrap().facts.clone();
    change(&mut facts);
    let commit = Some(commit.to_owned());
    Answer::Known(Arc::new(Inspection { commit, facts, licence: None, exact: true, bytes_read: 1 }))
}

fn failed() -> Answer {
    Answer::Failed(Failure { reason: Reason::Unauthorized, message: "wants a token".to_owned() })
}

fn wish(spec: Value, answer: &Answer) -> Result<Wish, Problem> {
    resolve_with(&deployment(spec), &defaults(), None, answer)
}

fn freeze(wish: &Wish) -> Template {
    wish.template(wish.contexts[0], wish.degrees[0], wish.vendors[0]).unwrap()
}

fn revision(template: &Template) -> &str {
    match &template.source {
        ModelSource::Hub { revision, .. } => revision,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_manifest_goes_before_the_files_and_those_before_the_catalogue() {
    let facts = json!({"layers": 2, "hiddenSize": 64, "intermediateSize": 128, "attentionHeads": 4,
                       "kvHeads": 4, "vocabSize": 100, "maxContext": 128});
    let commit = "a".repeat(40);
    let answer = learnt(&commit, |facts| facts.max_context = 8192);
    let described = json!({"model": {"uri": KNOWN, "facts": facts}});
    assert_eq!(question(&deployment(described.clone()).spec, None), None);
    assert_eq!(wish(described, &Answer::Unasked).unwrap().model.facts, "Manifest");

    let read = wish(json!({"model": {"uri": KNOWN}}), &answer).unwrap();
    assert_eq!((read.model.facts.as_str(), read.contexts[0]), ("Inspected", 8192));
    assert_eq!(read.model.commit.as_deref(), Some(commit.as_str()));
    assert_eq!(revision(&freeze(&read)), commit);

    let catalogue = wish(json!({"model": {"uri": KNOWN}}), &failed()).unwrap();
    let entry = berth_vram::catalogue().find("Qwen/Qwen2.5-7B-Instruct", None).unwrap();
    assert_eq!(catalogue.model.facts, entry.source);
    assert_eq!(catalogue.stands_in.as_deref(), Some("wants a token"));
    assert_eq!(revision(&freeze(&catalogue)), "main");

    let nobody = wish(json!({"model": {"uri": "hf://acme/secret"}}), &failed()).unwrap_err();
    assert_eq!(nobody.reason(), Reason::Unauthorized);
    assert!(nobody.to_string().contains("wants a token") && !nobody.passes(), "{nobody}");
    let waits = wish(json!({"model": {"uri": KNOWN}}), &Answer::Asking).unwrap_err();
    assert!(waits.reason() == Reason::ReadingModel && waits.passes(), "{waits}");
}

#[test]
fn what_wants_a_secret_is_not_asked_about_by_the_operator() {
    for model in [
        json!({"uri": KNOWN, "secretRef": {"name": "token"}}),
        json!({"uri": "pvc://models/x"}),
        json!({"uri": "oci://registry.example/models/x:1"}),
        json!({"uri": "s3://bucket/x"}),
        json!({"uri": "cache://x"}),
    ] {
        assert_eq!(question(&deployment(json!({"model": model})).spec, None), None, "{model}");
    }
}

#[test]
fn an_edit_elsewhere_keeps_the_commit_that_serves_and_one_of_the_model_moves_it() {
    let (first, second) = ("a".repeat(40), "b".repeat(40));
    let before = deployment(json!({"model": {"uri": KNOWN}}));
    let template =
        freeze(&wish(json!({"model": {"uri": KNOWN}}), &learnt(&first, |_| {})).unwrap());
    let old = canonical(&before.spec);
    let serving = Serving { spec: &old, template: &template };
    let edited = deployment(json!({"model": {"uri": KNOWN}, "engine": {"maxConcurrency": 2}}));
    assert_eq!(question(&edited.spec, Some(&serving)).unwrap().revision, first);
    // Whatever is answered: the files that serve stay.
    let answer = learnt(&second, |_| {});
    let kept = resolve_with(&edited, &defaults(), Some(&serving), &answer).unwrap();
    assert_eq!(revision(&freeze(&kept)), first);
    let renamed = deployment(json!({"model": {"uri": KNOWN, "servedName": "q"}}));
    assert_eq!(question(&renamed.spec, Some(&serving)).unwrap().revision, "main");
    let moved = resolve_with(&renamed, &defaults(), Some(&serving), &answer).unwrap();
    assert_eq!(revision(&freeze(&moved)), second);
}

#[test]
fn what_an_older_operator_froze_stays_though_files_say_more_than_the_catalogue() {
    let spec = json!({"model": {"uri": KNOWN}});
    let template = freeze(&resolve(&deployment(spec.clone()), &defaults(), None).unwrap());
    assert_eq!(revision(&template), "main");
    // Noted from a spec that says the same in other words.
    let mut old = canonical(&deployment(spec.clone()).spec);
    old["engine"] = json!({"imagePullPolicy": "IfNotPresent"});
    let serving = Serving { spec: &old, template: &template };
    let answer = learnt(&"a".repeat(40), |facts| {
        facts.weight_bytes = Some(berth_vram::weights(facts).get() + 12_345);
    });
    let again = resolve_with(&deployment(spec), &defaults(), Some(&serving), &answer).unwrap();
    assert!(again.comes_to(&template), "an upgrade would replace its pods");
    assert_eq!(hash(&template).len(), 8);
}
