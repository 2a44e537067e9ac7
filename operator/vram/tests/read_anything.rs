//! Readers take whatever strangers give them: they never panic, and what they give is valid.

mod files;

use berth_vram::{
    Engine, ModelFacts, Parallelism, Workload, estimate,
    read::{ReadError, config, gguf, safetensors, with_gguf, with_safetensors},
};
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value, json};

/// Words that the reader of configs looks for, as keys and as values, one a line; `make fuzz` takes
/// the same.
fn words() -> Vec<&'static str> {
    include_str!("words.txt").lines().collect()
}

fn anything() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        0_i64..300,
        select(vec![-1, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31, i64::MAX, i64::MIN]),
    ];
    let leaf = prop_oneof![
        4 => number.prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => select(words()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            object(inner),
        ]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let pairs = prop::collection::vec((select(words()), inner), 0..12);
    pairs.prop_map(|pairs| {
        let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value));
        Value::Object(pairs.collect::<Map<_, _>>())
    })
}

fn known() -> Vec<Value> {
    let models: Vec<Value> =
        serde_json::from_str(include_str!("read_config/models.json")).expect("models.json is JSON");
    models.into_iter().map(|mut model| model["config"].take()).collect()
}

/// What must hold of all facts that a reader gives.
fn check(facts: &ModelFacts) {
    assert_eq!(facts.validate(), Ok(()));
    let tensors = facts.tensors.as_ref().expect("tensors");
    assert_eq!(tensors.layer_count(), facts.layers);
    for engine in [Engine::Vllm, Engine::LlamaCpp] {
        let workload = Workload::new(engine, facts.max_context.min(4096), 2);
        let _ = estimate(facts, &workload, Parallelism::tensor(2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_json_is_read_or_refused(value in object(anything()), beside in anything()) {
        if let Ok(facts) = config(&value.to_string(), Some(&beside.to_string())) {
            check(&facts);
        }
    }

    #[test]
    fn any_change_of_a_known_config_is_read_or_refused(
        config_of in select(known()),
        changes in prop::collection::vec((select(words()), anything()), 1..4),
    ) {
        let mut value = config_of;
        for (key, change) in changes {
            value[key] = change;
        }
        if let Ok(facts) = config(&value.to_string(), None) {
            check(&facts);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = (config(&text, None), safetensors::index(&text));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        at in 0_usize..400,
        change in any::<u8>(),
    ) {
        let tensors = [("model.layers.0.mlp.up_proj.weight".to_owned(), "BF16", vec![4, 4], 32)];
        let pairs = [
            ("general.architecture", files::Meta::Text("llama")),
            ("llama.block_count", files::Meta::U32(1)),
            ("llama.embedding_length", files::Meta::U32(32)),
            ("llama.attention.head_count", files::Meta::U32s(vec![2])),
            ("tokenizer.ggml.tokens", files::Meta::Texts(4)),
        ];
        let blocks = [("blk.0.attn_k.weight".to_owned(), vec![32, 2], 8)];
        for mut file in [
            files::safetensors(&tensors),
            files::gguf(&pairs, &blocks),
            [b"GGUF\x03\0\0\0".to_vec(), bytes.clone()].concat(),
            bytes,
        ] {
            if let Some(byte) = file.get_mut(at) {
                *byte = change;
            }
            read_bytes(&file);
        }
    }
}

fn read_bytes(file: &[u8]) {
    let facts = config(
        r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 8,
            "num_attention_heads": 4}"#,
        None,
    );
    match safetensors::header(file, None) {
        Ok(header) => {
            if let Ok(facts) = with_safetensors(&facts.expect("a config"), &[header]) {
                check(&facts);
            }
        }
        Err(ReadError::NeedMore { needed }) => assert!(needed > file.len() as u64),
        Err(_) => {}
    }
    match gguf::header(file, None) {
        Ok(header) => {
            if let Ok(facts) = with_gguf(&[header]) {
                check(&facts);
            }
        }
        Err(ReadError::NeedMore { needed }) => assert!(needed > file.len() as u64),
        Err(_) => {}
    }
}
