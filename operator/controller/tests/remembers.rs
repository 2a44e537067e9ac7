//! What engines told of earlier revisions, in the estimates of later ones.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use berth_crds::{
    llm_deployment::{AcceleratorStatus, Placement},
    names,
};
use berth_operator::{
    measured::notes::{Note, Notes, earlier, next, subject, tag},
    reconcile::{
        placing::{Terms, place_first},
        resolve::{Serving, resolve},
        wish::Wish,
    },
    world::pod::{Learnt, Replica},
};
use berth_planner::Overlay;
use berth_render::{Owner, Template, engine::log::Measured, revision};
use berth_units::Bytes;
use common::{defaults, deployment, fleet, need, node, replica, site};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt;
use serde_json::{Value, json};

const H100: &str = "NVIDIA-H100-80GB-HBM3";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A model of 8 B parameters at a commit, with `more` merged into the spec.
fn spec(more: &Value) -> Value {
    let mut spec = json!({
        "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "revision": COMMIT},
        "engine": {"contextLength": 8192},
        "gpu": {"vendor": "NVIDIA", "count": 1},
    });
    json_patch(&mut spec, more);
    spec
}

fn json_patch(to: &mut Value, more: &Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (name, value) in more {
                json_patch(to.entry(name).or_insert(Value::Null), value);
            }
        }
        (to, more) => *to = more.clone(),
    }
}

fn wish(more: &Value) -> Wish {
    resolve(&deployment(spec(more)), &defaults(), None).unwrap()
}

fn template(wish: &Wish) -> Template {
    wish.template(wish.contexts[0], wish.degrees[0], wish.vendors[0]).unwrap()
}

fn note() -> Note {
    Note {
        pod: "llm-old-0-0-0".to_owned(),
        on_gpus: true,
        weights: Bytes::gib(14),
        kv_cache: Some(Bytes(131_072 * 400_000)),
        kv_tokens: Some(400_000),
        compute: None,
    }
}

fn noted(template: &Template, product: &str, note: Note) -> ControllerRevision {
    let owner =
        Owner { namespace: "team".to_owned(), name: "llm".to_owned(), uid: "owner".to_owned() };
    let mut object = revision::revision(&owner, template, 1, "{}");
    let notes = Notes::from([(product.to_owned(), note)]);
    let notes = serde_json::to_string(&notes).unwrap();
    object.annotations_mut().insert(names::ANNOTATION_MEASURED.to_owned(), notes);
    object
}

/// What a spec comes to after the engine of `before` told `note`.
fn after(before: &Value, note: &Note, now: &Value) -> Template {
    let object = noted(&template(&wish(before)), H100, note.clone());
    template(&wish(now).remembering(|asked| earlier([&object], asked)))
}

#[test]
fn a_measured_value_replaces_the_estimate_on_its_product() {
    let nothing = json!({});
    let plain = template(&wish(&nothing));
    let longer = json!({"engine": {"contextLength": 32_768, "maxConcurrency": 2}});
    let found = after(&nothing, &note(), &longer);
    let measured = &found.measured[H100];
    assert_eq!(measured.weights, Bytes::gib(14));
    assert_eq!(measured.kv_cache, Bytes(131_072 * 65_536));
    assert!(measured.margin < plain.estimate.margin);
    let parts = measured.weights + measured.kv_cache + measured.activation + measured.non_torch;
    assert_eq!(measured.total, parts + measured.graphs + measured.margin);
    assert_eq!(
        measured.basis,
        format!("measured on {H100} by pod llm-old-0-0-0 of revision {}", revision::hash(&plain))
    );
    assert_eq!(found.estimate, template(&wish(&longer)).estimate, "other products");
    assert_eq!(found.estimate_on("NVIDIA-L40S"), &found.estimate);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(serde_json::from_value::<Template>(json).unwrap(), found);
}

#[test]
fn only_the_same_thing_is_remembered() {
    let nothing = json!({});
    let same = |more: &Value| {
        let found = after(&nothing, &note(), more);
        assert_eq!(
            !found.measured.is_empty(),
            subject(&found) == subject(&template(&wish(&nothing))),
            "{more}"
        );
        !found.measured.is_empty()
    };
    for more in [
        json!({"engine": {"contextLength": 4096}}),
        json!({"engine": {"maxConcurrency": 16, "startupTimeout": "20m", "shutdownGrace": "5m"}}),
        json!({"engine": {"imagePullPolicy": "Always"}}),
        json!({"model": {"servedName": "other", "secretRef": {"name": "token"}}}),
        json!({"gpu": {"products": [H100]}}),
        json!({"resources": {"cpu": 3}, "placement": {"nodeSelector": {"a": "b"}}}),
        json!({"podTemplate": {"labels": {"a": "b"}}, "priorityClassName": "mine"}),
        json!({"imagePullSecrets": [{"name": "registry"}]}),
    ] {
        assert!(same(&more), "{more}");
    }
    for more in [
        json!({"model": {"revision": "1123456789abcdef0123456789abcdef01234567"}}),
        json!({"model": {"uri": "hf://meta-llama/Llama-3.1-8B"}}),
        json!({"model": {"trustRemoteCode": true}}),
        json!({"engine": {"image": {"nvidia": "registry.local/vllm:2"}}}),
        json!({"engine": {"args": ["--enforce-eager"]}}),
        json!({"engine": {"env": [{"name": "A", "value": "b"}]}}),
        json!({"engine": {"kvCacheDtype": "FP8"}}),
        json!({"engine": {"maxConcurrency": 300}}),
        json!({"gpu": {"count": 2}}),
        json!({"gpu": {"vendor": "AMD"}}),
        json!({"runtimeClassName": "gvisor"}),
    ] {
        assert!(!same(&more), "{more}");
    }
}

#[test]
fn they_are_found_by_tag() {
    let object = noted(&template(&wish(&json!({}))), H100, note());
    let longer = template(&wish(&json!({"engine": {"contextLength": 32_768}})));
    assert_eq!(tag(&object), Some(revision::hash(&subject(&longer))));
    let mut bare = object.clone();
    bare.annotations_mut().remove(names::ANNOTATION_MEASURED);
    assert_eq!(tag(&bare), None);
    let mut broken = object;
    broken.annotations_mut().insert(names::ANNOTATION_MEASURED.to_owned(), "[1".to_owned());
    assert_eq!(earlier([&broken], &subject(&longer)), []);
}

#[test]
fn what_cannot_be_is_not_believed_and_said_so() {
    let nothing = json!({});
    let broken = Note { weights: Bytes::gib(2), ..note() };
    let found = after(&nothing, &broken, &nothing);
    assert_eq!(found.measured, BTreeMap::new());
    let (plain, basis) = (template(&wish(&nothing)).estimate, &found.estimate.basis);
    assert_eq!(found.estimate.total, plain.total);
    assert!(
        basis.contains("pod llm-old-0-0-0 was not believed: 2.0 GiB of weights cannot be"),
        "{basis}"
    );
}

#[test]
fn files_that_may_change_and_the_cpu_only_raise_it() {
    for (before, on_gpus) in [(json!({"model": {"revision": "main"}}), true), (json!({}), false)] {
        let less = Note { on_gpus, ..note() };
        assert_eq!(after(&before, &less, &before).measured, BTreeMap::new());
        let more = Note { on_gpus, weights: Bytes::gib(30), ..note() };
        let found = after(&before, &more, &before);
        let raised = &found.measured[H100];
        assert_eq!(raised.weights, Bytes::gib(30));
        assert!(raised.margin >= found.estimate.margin);
        assert!(raised.basis.starts_with("no less than pod llm-old-0-0-0"), "{}", raised.basis);
    }
}

#[test]
fn the_surest_and_then_the_newest_counts() {
    let asked = template(&wish(&json!({})));
    let at = |second: i64, note: Note| {
        let mut object = noted(&asked, H100, note);
        object.metadata.creation_timestamp =
            serde_json::from_value(json!(format!("2026-01-01T00:00:{second:02}Z"))).unwrap();
        object
    };
    let weighs = |gib, on_gpus| Note { weights: Bytes::gib(gib), on_gpus, ..note() };
    let objects = [at(1, weighs(14, true)), at(3, weighs(15, true)), at(2, weighs(16, true))];
    let chosen = earlier(&objects, &subject(&asked));
    assert_eq!(chosen[0].told.weights, Bytes::gib(15));
    let objects = [at(1, weighs(14, true)), at(3, weighs(30, false))];
    let chosen = earlier(&objects, &subject(&asked));
    assert_eq!((chosen.len(), chosen[0].told.weights), (1, Bytes::gib(14)));
}

#[test]
fn the_users_own_figure_stands_above_it() {
    let found = after(&json!({}), &note(), &json!({"gpu": {"memory": "40Gi"}}));
    assert_eq!(found.measured, BTreeMap::new());
    assert_eq!(found.estimate.total, Bytes::gib(40));
}

#[test]
fn it_restarts_nothing_that_serves() {
    let old = wish(&json!({}));
    let serving = template(&old);
    let object = noted(&serving, H100, note());
    let asked = deployment(spec(&json!({"engine": {"type": "VLLM"}})));
    let kept = Serving { spec: &old.canonical, template: &serving };
    let edited = resolve(&asked, &defaults(), Some(&kept)).unwrap();
    let edited = edited.remembering(|asked| earlier([&object], asked));
    assert!(!template(&edited).measured.is_empty());
    assert!(edited.comes_to(&serving));
}

#[test]
fn the_planner_places_by_it() {
    // Room with the weights that were told, not with those that are estimated: 19 GiB in all.
    let small = node("small", "T", 1, Bytes::mib(18 * 1024));
    let place = |wish: &Wish| {
        let (site, fleet) = (site(), fleet([small.clone()]));
        let terms = Terms::new("team", &site, &Placement::default(), BTreeMap::new());
        place_first(&Overlay::new(&fleet), wish, &need(), &terms)
    };
    let asked = wish(&json!({}));
    let misfit = place(&asked).unwrap_err();
    let light = Note { weights: Bytes::gib(12), ..note() };
    for (product, fits) in [("T", true), ("L", false)] {
        let object = noted(&template(&asked), product, light.clone());
        let asked = asked.clone().remembering(|asked| earlier([&object], asked));
        assert_eq!(place(&asked).is_ok(), fits, "{}", misfit.refusal);
    }
}

fn told(number: u32, gib: u64, device: &str) -> Replica {
    let accelerator =
        AcceleratorStatus { device: device.to_owned(), layers: None, of_layers: None, restarts: 0 };
    let measured = Measured { weights: Some(Bytes::gib(gib)), ..Measured::default() };
    let learnt =
        Learnt { download: None, accelerator: Some(accelerator), measured: Some(measured) };
    Replica { learnt, ..replica("new", number) }
}

#[test]
fn notes_follow_the_pod_that_told_and_give_way_only_to_what_is_surer() {
    let look = |notes: &Notes, pods: Vec<Replica>| {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        next(notes, "new", &pods)
    };
    let said = |notes: &Notes| {
        let note = &notes["H100"];
        (note.pod.clone(), note.weights.get() >> 30, note.on_gpus)
    };
    let nothing = Notes::new();
    assert_eq!(look(&nothing, vec![replica("new", 0)]), nothing, "its log was not read");
    let cpu = look(&nothing, vec![told(0, 100, "CPU")]);
    assert_eq!(said(&cpu), ("llm-new-0-0-0".to_owned(), 100, false));
    let gpu = look(&cpu, vec![told(0, 100, "CPU"), told(1, 90, "CUDA0")]);
    assert_eq!(said(&gpu), ("llm-new-1-0-0".to_owned(), 90, true));
    assert_eq!(look(&gpu, vec![told(0, 200, "CPU")]), gpu, "the CPU takes nothing back");
    assert_eq!(look(&gpu, vec![]), gpu, "nobody is there");
    assert_eq!(look(&gpu, vec![told(1, 92, "CUDA0")]), gpu, "a little more is no news");
    assert_eq!(said(&look(&gpu, vec![told(1, 99, "CUDA0")])).1, 99);
    let others = vec![told(0, 120, "CUDA0"), told(1, 90, "CUDA0")];
    assert_eq!(look(&gpu, others), gpu, "the pod that told is there");
    assert_eq!(said(&look(&gpu, vec![told(0, 120, "CUDA0")])).1, 120);
    let mut elsewhere = told(0, 120, "CUDA0");
    "L40S".clone_into(&mut elsewhere.claim.product);
    assert_eq!(look(&gpu, vec![elsewhere]).len(), 2, "each product has its own");
    let mut older = told(0, 120, "CUDA0");
    "old".clone_into(&mut older.revision);
    assert_eq!(look(&nothing, vec![older]), nothing, "of another revision");
}
