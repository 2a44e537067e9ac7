//! What would make a misfit fit: taken word for word, it does.

mod common;

use std::{collections::BTreeMap, time::Instant};

use berth_crds::{
    LLMDeployment, LLMDeploymentSpec,
    llm_deployment::{Placement, Strategy as Spreading},
};
use berth_operator::reconcile::{
    advice::{Advice, Trial, advise},
    placing::{Misfit, Placed, Terms, place_first},
    problem::Problem,
    report::misfit_message,
    resolve::resolve,
    wish::Wish,
};
use berth_planner::{Fleet, Overlay, Owner};
use berth_units::{Bytes, MilliCpu};
use common::{defaults, deployment, fleet, need, node, occupy, site};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

const PRODUCTS: [(&str, u64); 5] = [
    ("NVIDIA-H200", 143_771),
    ("NVIDIA-H100-80GB-HBM3", 81_559),
    ("NVIDIA-L40S", 46_068),
    ("NVIDIA-GeForce-RTX-4090", 24_564),
    ("Some-GPU", 16_384),
];

fn spec(value: Value) -> LLMDeploymentSpec {
    serde_json::from_value(value).unwrap()
}

fn wish(spec: &LLMDeploymentSpec) -> Result<Wish, Problem> {
    let whole =
        LLMDeployment { spec: spec.clone(), ..deployment(json!({"model": {"uri": "hf://a/b"}})) };
    resolve(&whole, &defaults(), None)
}

fn place(fleet: &Fleet, wish: &Wish) -> Result<Placed, Box<Misfit>> {
    let site = site();
    let placement = Placement { strategy: Spreading::Pack, ..Placement::default() };
    let terms = Terms::new("team", &site, &placement, BTreeMap::new());
    place_first(&Overlay::new(fleet), wish, &need(), &terms)
}

/// The misfit of a spec, and what is advised.
fn advised(fleet: &Fleet, spec: &LLMDeploymentSpec) -> Misfit {
    let asked = wish(spec).unwrap();
    let misfit = *place(fleet, &asked).unwrap_err();
    let (site, defaults) = (site(), defaults());
    let terms = Terms::new("team", &site, &Placement::default(), BTreeMap::new());
    let trial = Trial { spec, resolve: &wish, catalogue: &defaults.catalogue };
    let overlay = Overlay::new(fleet);
    let would_fit = advise(&trial, &misfit, &asked, &overlay, &need(), &terms);
    Misfit { would_fit, ..misfit }
}

fn texts(fleet: &Fleet, asked: Value) -> Vec<String> {
    advised(fleet, &spec(asked)).would_fit.iter().map(Advice::text).collect()
}

#[test]
fn each_kind_of_advice_is_given_as_a_manifest_says_it() {
    let l40s = fleet([node("gpu-1", "NVIDIA-L40S", 4, Bytes::mib(46_068))]);
    let long = json!({
        "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "engine": {"contextLength": 131_072, "maxConcurrency": 2},
        "gpu": {"count": 1},
    });
    let given = texts(&l40s, long.clone());
    assert_eq!(given[0], "spec.engine.kvCacheDtype: FP8", "{given:?}");
    assert_eq!(given[1], "spec.gpu.count: 2", "{given:?}");
    assert!(given[2].starts_with("spec.engine.contextLength: "), "{given:?}");
    assert_eq!(given[3], "spec.engine.maxConcurrency: 1", "{given:?}");
    let misfit = advised(&l40s, &spec(long.clone()));
    let message = misfit_message(&misfit);
    let words = "would fit with spec.engine.kvCacheDtype: FP8, or with spec.gpu.count: 2, or with spec.engine";
    assert!(message.contains(words), "{message}");

    // A GPU without arithmetic in fp8 is given no such cache.
    let a100 = fleet([node("gpu-1", "NVIDIA-A100-SXM4-40GB", 4, Bytes::mib(40_960))]);
    let given = texts(&a100, long);
    assert!(given.iter().all(|text| !text.contains("FP8")), "{given:?}");

    let mixed = fleet([
        node("gpu-1", "NVIDIA-L40S", 1, Bytes::mib(46_068)),
        node("gpu-2", "NVIDIA-H200", 1, Bytes::mib(143_771)),
    ]);
    let given = texts(
        &mixed,
        json!({
            "model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"},
            "gpu": {"products": ["NVIDIA-L40S"], "parallelism": {"tensor": 1}},
        }),
    );
    assert_eq!(given[0], r#"spec.gpu.products: ["NVIDIA-H200"]"#, "{given:?}");
    assert!(given.iter().any(|text| text.contains("spec.model.uri: hf://")), "{given:?}");

    let one = json!({
        "model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"}, "gpu": {"parallelism": {"tensor": 1}},
    });
    let given = texts(&l40s, one);
    assert_eq!(given[0], "spec.gpu.parallelism.tensor: 2", "{given:?}");
}

#[test]
fn what_nothing_helps_gets_no_advice() {
    let small = fleet([node("gpu-1", "NVIDIA-GeForce-RTX-4090", 1, Bytes::mib(24_564))]);
    let given = texts(&small, json!({"model": {"uri": "hf://deepseek-ai/DeepSeek-R1"}}));
    assert_eq!(given, [""; 0]);
    assert_eq!(
        texts(
            &small,
            json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}, "gpu": {"memory": "40Gi"}})
        ),
        [""; 0],
        "the user's own figure"
    );
}

/// `cargo test --release -p berth-operator --test advises -- --nocapture the_time` prints the figure.
#[test]
fn the_time_that_advice_takes() {
    let mut full = fleet((0..1_000).map(|index| {
        node(&format!("gpu-{index:04}"), "NVIDIA-H100-80GB-HBM3", 8, Bytes::mib(81_559))
    }));
    (0..1_000).for_each(|index| occupy(&mut full, &format!("gpu-{index:04}"), 7, Owner::Foreign));
    for model in ["meta-llama/Llama-3.1-70B-Instruct", "deepseek-ai/DeepSeek-R1"] {
        let asked = spec(json!({"model": {"uri": format!("hf://{model}")}, "gpu": {"count": 8}}));
        let started = Instant::now();
        let given = advised(&full, &asked).would_fit;
        println!("{model} on 1,000 full nodes: {:?}, {} ways", started.elapsed(), given.len());
    }
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    let node_ = (select(&PRODUCTS[..]), 1..9_u32, 0..9_u32, 4..128_u64);
    prop::collection::vec(node_, 1..5).prop_map(|nodes| {
        let mut built = Fleet::new();
        for (index, ((product, mib), count, taken, cores)) in nodes.into_iter().enumerate() {
            let name = format!("gpu-{index}");
            let mut node = node(&name, product, count, Bytes::mib(mib));
            node.allocatable.cpu = MilliCpu::cores(cores);
            built.upsert_node(node);
            occupy(&mut built, &name, taken.min(count), Owner::Foreign);
        }
        built
    })
}

fn any_spec() -> impl Strategy<Value = Value> {
    let models = [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "Qwen/Qwen2.5-32B-Instruct",
        "openai/gpt-oss-20b",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "Qwen/Qwen2.5-7B-Instruct-AWQ",
    ];
    (
        select(models.to_vec()),
        prop::option::of(select(vec![1_024, 8_192, 32_768])),
        prop::option::of(1..200_i32),
        prop::option::of(select(vec![1, 2, 4])),
        prop::option::weighted(0.3, select(&PRODUCTS[..])),
        any::<bool>(),
    )
        .prop_map(|(model, context, sequences, count, product, tensor)| {
            let mut spec =
                json!({"model": {"uri": format!("hf://{model}")}, "engine": {}, "gpu": {}});
            if let Some(context) = context {
                spec["engine"]["contextLength"] = json!(context);
            }
            if let Some(sequences) = sequences {
                spec["engine"]["maxConcurrency"] = json!(sequences);
            }
            match count {
                Some(count) if tensor => spec["gpu"]["parallelism"] = json!({"tensor": count}),
                Some(count) => spec["gpu"]["count"] = json!(count),
                None => {}
            }
            if let Some((product, _)) = product {
                spec["gpu"]["products"] = json!([product]);
            }
            spec
        })
}

/// Sets the fields that a text names, as somebody who edits YAML would.
fn typed_in(spec: &Value, text: &str) -> Value {
    let mut edited = spec.clone();
    for line in text.split(" and ") {
        let (path, value) = line.split_once(": ").unwrap();
        let value: Value =
            serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.trim_matches('"')));
        let pointer = format!("/{}", path.strip_prefix("spec.").unwrap().replace('.', "/"));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut edited;
        for part in parent.split('/').skip(1) {
            at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        at[name] = value;
    }
    edited
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_piece_of_advice_taken_word_for_word_places(
        fleet in any_fleet(),
        asked in any_spec(),
    ) {
        let Ok(asked_wish) = wish(&spec(asked.clone())) else { return Ok(()) };
        if place(&fleet, &asked_wish).is_ok() {
            return Ok(());
        }
        let misfit = advised(&fleet, &spec(asked.clone()));
        prop_assert!(misfit.would_fit.len() <= 4);
        for advice in &misfit.would_fit {
            let edited = typed_in(&asked, &advice.text());
            prop_assert_ne!(&edited, &asked, "{}", advice.text());
            let wish = wish(&spec(edited)).map_err(|problem| TestCaseError::fail(format!(
                "{}: {problem}", advice.text()
            )))?;
            prop_assert!(place(&fleet, &wish).is_ok(), "{}", advice.text());
        }
    }
}

#[test]
fn a_model_by_its_facts_is_advised_too() {
    let l40s = fleet([node("gpu-1", "NVIDIA-L40S", 2, Bytes::mib(46_068))]);
    let given = texts(
        &l40s,
        json!({
            "model": {"uri": "hf://acme/plain-8b", "facts": {
                "parameters": 8_030_261_248_i64, "layers": 32, "hiddenSize": 4096,
                "intermediateSize": 14336, "attentionHeads": 32, "kvHeads": 8,
                "vocabSize": 128_256, "maxContext": 131_072,
            }},
            "podTemplate": {"annotations": {"a": "b"}},
            "gpu": {"count": 1},
            "engine": {"contextLength": 131_072, "maxConcurrency": 2},
        }),
    );
    assert_eq!(given.len(), 4, "{given:?}");
}
