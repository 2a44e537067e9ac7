//! Configs of all families become facts, and their matrices count to what was published.

#[path = "../data/mod.rs"]
#[allow(dead_code, reason = "only the configs are compared")]
mod data;

use berth_vram::{
    Engine, LayerCache, ModelFacts, Parallelism, Workload, catalogue, estimate, parameters,
    read::{ReadError, config},
    weights,
};
use serde_json::{Value, json};

/// The fields that matter of published `config.json` files, written down by hand, with the
/// parameters that each model's repository publishes (or, for checkpoints that hold more than the
/// model, that its modules in Hugging Face transformers 5.24 have).
fn models() -> Vec<Value> {
    serde_json::from_str(include_str!("models.json")).expect("models.json is JSON")
}

fn read(config: &Value) -> ModelFacts {
    berth_vram::read::config(&config.to_string(), None)
        .unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// What `models.json` may expect of facts, by its words.
fn told(facts: &ModelFacts) -> Value {
    let caches: Vec<_> = facts.tensors.as_ref().expect("tensors").caches().collect();
    let count = |cache| caches.iter().filter(|found| **found == cache).count();
    let (moe, mla) = (facts.moe, facts.mla);
    let windowed = count(LayerCache::Window);
    assert_eq!(facts.window.map_or(0, |window| window.windowed_layers) as usize, windowed);
    json!({
        "layers": facts.layers,
        "kvHeads": facts.kv_heads,
        "headDim": facts.head_dim,
        "valueHeadDim": facts.value_head_dim,
        "vocabSize": facts.vocab_size,
        "maxContext": facts.max_context,
        "intermediateSize": facts.intermediate_size,
        "tied": facts.tied_embeddings,
        "gated": facts.gated,
        "rotaryDim": facts.rotary_dim,
        "rotaryPositions": facts.rotary_positions,
        "windowedLayers": windowed,
        "windowTokens": facts.window.map(|window| window.tokens),
        "windowKvHeads": facts.window_heads.map(|heads| heads.kv_heads),
        "windowHeadDim": facts.window_heads.map(|heads| heads.head_dim),
        "kvSharedLayers": facts.kv_shared_layers,
        "attentionLayers": facts.recurrent.map(|recurrent| recurrent.attention_layers),
        "stateBytes": facts.recurrent.map(|recurrent| recurrent.state_bytes_per_sequence),
        "experts": moe.map(|moe| moe.experts),
        "perToken": moe.map(|moe| moe.experts_per_token),
        "expertWidth": moe.map(|moe| moe.expert_intermediate_size),
        "sharedExperts": moe.map(|moe| moe.shared_experts),
        "sharedWidth": moe.map(|moe| {
            moe.shared_expert_intermediate_size.unwrap_or(moe.expert_intermediate_size)
        }),
        "denseLayers": moe.map(|moe| moe.dense_layers),
        "kvLoraRank": mla.map(|mla| mla.kv_lora_rank),
        "indexerBytes": mla.map(|mla| mla.indexer_bytes_per_token),
        "crossTokens": facts.cross_attention.map(|cross| cross.tokens),
        "quantization": facts.quantization.to_string(),
    })
}

#[test]
fn every_family_is_understood() {
    let models = models();
    let mut worst = ("", 0.0_f64);
    for model in &models {
        let id = model["id"].as_str().unwrap();
        let facts = read(&model["config"]);
        let published = model["parameters"].as_u64().unwrap();
        let ratio = parameters(&facts) as f64 / published as f64 - 1.0;
        println!("{id}: {:+.3} %", ratio * 100.0);
        assert!(ratio.abs() < 0.005, "{id}: counted {}, published {published}", parameters(&facts));
        if ratio.abs() > worst.1 {
            worst = (id, ratio.abs());
        }
        let told = told(&facts);
        for (what, expected) in model["expect"].as_object().unwrap() {
            assert_eq!(&told[what], expected, "{id}: {what}");
        }
    }
    println!("{} models, the worst {} by {:.3} %", models.len(), worst.0, worst.1 * 100.0);
    assert!(models.len() >= 70);
}

/// The catalogue's facts as the `config.json` that they were taken from.
fn config_of(facts: &ModelFacts) -> Value {
    let mut config = json!({
        "model_type": if facts.mla.is_some() { "deepseek_v3" } else { "llama" },
        "num_hidden_layers": facts.layers,
        "hidden_size": facts.hidden_size,
        "intermediate_size": facts.intermediate_size,
        "num_attention_heads": facts.attention_heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "vocab_size": facts.vocab_size,
        "max_position_embeddings": facts.max_context,
        "tie_word_embeddings": facts.tied_embeddings,
        "num_nextn_predict_layers": 0,
        "n_shared_experts": 0,
    });
    let map = config.as_object_mut().unwrap();
    if !facts.gated {
        map.insert("hidden_act".to_owned(), json!("relu2"));
    }
    if let Some(mla) = facts.mla {
        map.extend([
            ("kv_lora_rank".to_owned(), json!(mla.kv_lora_rank)),
            ("q_lora_rank".to_owned(), json!(mla.q_lora_rank)),
            ("qk_rope_head_dim".to_owned(), json!(mla.qk_rope_head_dim)),
            ("qk_nope_head_dim".to_owned(), json!(mla.qk_nope_head_dim)),
            ("v_head_dim".to_owned(), json!(mla.v_head_dim)),
        ]);
    }
    if let Some(moe) = facts.moe {
        map.extend([
            ("n_routed_experts".to_owned(), json!(moe.experts)),
            ("num_experts_per_tok".to_owned(), json!(moe.experts_per_token)),
            ("moe_intermediate_size".to_owned(), json!(moe.expert_intermediate_size)),
            ("first_k_dense_replace".to_owned(), json!(moe.dense_layers)),
            ("n_shared_experts".to_owned(), json!(moe.shared_experts)),
        ]);
        if let Some(width) = moe.shared_expert_intermediate_size {
            let all = width * moe.shared_experts;
            map.insert("shared_expert_intermediate_size".to_owned(), json!(all));
        }
    }
    config
}

#[test]
fn the_catalogue_counts_to_what_was_published() {
    let (mut compared, mut worst) = (0, 0.0_f64);
    for entry in catalogue().iter() {
        let Some(published) = entry.facts.parameters else { continue };
        let facts = read(&config_of(&entry.facts));
        let counted = parameters(&facts) + entry.facts.other_parameters;
        let error = (counted as f64 / published as f64 - 1.0).abs();
        assert!(error < 0.005, "{}: counted {counted}, published {published}", entry.id);
        worst = worst.max(error);
        compared += 1;
    }
    println!("{compared} entries, the worst by {:.3} %", worst * 100.0);
    assert!(compared >= 100, "{compared}");
}

#[test]
fn reduced_configs_of_measured_models_agree() {
    let Some(data) = data::Data::read() else { return };
    let number = |count: &Value| count.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let mut compared = 0;
    for (name, facts) in data.configs() {
        if facts["hidden_size"].is_null() || facts["vocab_size"].is_null() {
            println!("{name}: not compared: too few fields are there");
            continue;
        }
        let mut config = facts.clone();
        // The copies count layers by kind; the order does not matter here.
        let map = config.as_object_mut().unwrap();
        if let Some(Value::Object(counts)) = map.remove("layer_types_count") {
            let types: Vec<_> =
                counts.iter().flat_map(|(kind, count)| vec![kind.clone(); number(count)]).collect();
            map.insert("layer_types".to_owned(), json!(types));
        }
        if let Some(Value::Object(counts)) = map.remove("hybrid_pattern_count") {
            let letters: String =
                counts.iter().map(|(letter, count)| letter.repeat(number(count))).collect();
            map.insert("hybrid_override_pattern".to_owned(), json!(letters));
        }
        let facts = match berth_vram::read::config(&config.to_string(), None) {
            Ok(facts) => facts,
            Err(error) => {
                println!("{name}: not compared: {error}");
                continue;
            }
        };
        // Bytes a token where every layer keeps everything, as the data derives them.
        let mla = config["derived_kv_bytes_per_token_bf16_per_gpu_MLA"].as_u64();
        let heads = config["derived_kv_bytes_per_token_bf16_all_layers_full_attn"].as_u64();
        let (ours, theirs) = match (mla, heads, facts.mla) {
            (Some(theirs), _, Some(mla)) => (
                u64::from(facts.layers) * u64::from(mla.kv_lora_rank + mla.qk_rope_head_dim) * 2,
                theirs,
            ),
            (None, Some(theirs), None) if facts.window_heads.is_none() => (
                u64::from(facts.layers) * u64::from(facts.kv_heads) * u64::from(facts.head_dim) * 4,
                theirs,
            ),
            _ => continue,
        };
        assert_eq!(ours, theirs, "{name}");
        compared += 1;
    }
    println!("{compared} models agree");
    assert!(compared >= 20, "{compared}");
}

#[test]
fn facts_can_be_estimated_and_survive_json() {
    for model in models() {
        let facts = read(&model["config"]);
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<ModelFacts>(&text).unwrap(), facts, "{}", model["id"]);
        let workload = Workload::new(Engine::Vllm, 1024.min(facts.max_context), 1);
        let estimate = estimate(&facts, &workload, Parallelism::SINGLE);
        let estimate = estimate.unwrap_or_else(|error| panic!("{}: {error}", model["id"]));
        assert!(estimate.per_gpu.weights.get() >= parameters(&facts) / 4, "{}", model["id"]);
    }
}

#[test]
fn layers_differ_where_architectures_say_so() {
    // Searched architectures: a layer without attention, one without feed-forward.
    let nas = json!({
        "model_type": "nemotron-nas", "hidden_size": 8192, "num_hidden_layers": 3,
        "num_attention_heads": 64, "num_key_value_heads": null, "intermediate_size": null,
        "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "block_configs": [
            {"attention": {"n_heads_in_group": 8, "no_op": false}, "ffn": {"ffn_mult": 5.25}},
            {"attention": {"n_heads_in_group": null, "no_op": true}, "ffn": {"ffn_mult": 1.3125}},
            {"attention": {"n_heads_in_group": 8, "no_op": false}, "ffn": {"no_op": true}},
        ],
    });
    let facts = read(&nas);
    let tensors = facts.tensors.as_ref().unwrap();
    let dense: Vec<_> = tensors.layers.iter().map(|run| run.parameters.dense).collect();
    // 2/3 of the multiple of the hidden state, rounded up to 256.
    assert_eq!(dense, [3 * 8192 * 28672, 3 * 8192 * 7168, 0]);
    assert_eq!(facts.recurrent.unwrap().attention_layers, 2);
    assert_eq!(facts.kv_heads, 8);
    // Layers that keep fewer heads count as fewer layers.
    let mut fewer = nas;
    fewer["block_configs"][2]["attention"]["n_heads_in_group"] = json!(16);
    fewer["block_configs"][1] = fewer["block_configs"][2].clone();
    let facts = read(&fewer);
    assert_eq!((facts.kv_heads, facts.recurrent.unwrap().attention_layers), (8, 2));
    // Stages of a pipeline: DeepSeek's first three layers have no experts.
    let models = models();
    let r1 = models.iter().find(|model| model["id"] == "deepseek-ai/DeepSeek-R1").unwrap();
    let tensors = read(&r1["config"]).tensors.unwrap();
    assert_eq!(tensors.layers.len(), 2);
    let (first, second) = (tensors.layer_bytes(0..31), tensors.layer_bytes(31..61));
    assert_eq!(first.experts * 30, second.experts * 28);
    assert!(first.dense > second.dense);
}

#[test]
fn quantised_checkpoints_have_their_published_size() {
    let llama = &models()[1]["config"];
    let with = |quantization: Value| {
        let mut config = llama.clone();
        config["quantization_config"] = quantization;
        let facts = read(&config);
        (weights(&facts).as_gib_f64(), facts.quantization.to_string())
    };
    let group = |weights: Value| json!({"group_0": {"targets": ["Linear"], "weights": weights}});
    // GiB that vLLM loads of Llama-3.1-8B less 0.03 of rotations, as its logs say: 14.96 in bf16, 8.46 in fp8 and w8a8,
    // 5.35 in w4a16; the others as their repositories' files add up to.
    for (quantization, gib, called) in [
        (
            json!({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}),
            8.46,
            "fp8",
        ),
        (
            json!({"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
                "config_groups": group(json!({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true}))}),
            8.46,
            "int8",
        ),
        (
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
                "config_groups": group(json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": true}))}),
            5.34,
            "GPTQ 4-bit",
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true}),
            5.34,
            "AWQ 4-bit",
        ),
        (
            json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true}),
            5.35,
            "GPTQ 4-bit",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true}),
            5.31,
            "bitsandbytes 4-bit",
        ),
        (
            json!({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}),
            5.61,
            "NVFP4",
        ),
    ] {
        let (loaded, name) = with(quantization.clone());
        assert!((loaded / gib - 1.0).abs() < 0.01, "{quantization}: {loaded:.3} GiB");
        assert_eq!(name, called);
    }
    // gpt-oss-120b's 60.8 GiB: experts in MXFP4, all else in 16 bits.
    let oss = models().into_iter().find(|model| model["id"] == "openai/gpt-oss-20b").unwrap();
    let mut oss = oss["config"].clone();
    oss["num_hidden_layers"] = json!(36);
    oss["layer_types"] = json!(vec!["full_attention"; 36]);
    oss["num_local_experts"] = json!(128);
    let gib = weights(&read(&oss)).as_gib_f64();
    assert!((gib - 60.77).abs() < 0.1, "{gib}");
}

#[test]
fn a_file_beside_the_config_tells_the_quantisation() {
    let config = models()[1]["config"].to_string();
    let beside = r#"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8",
        "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}"#;
    let facts = berth_vram::read::config(&config, Some(beside)).unwrap();
    assert_eq!(facts.quantization.to_string(), "fp8");
    assert_eq!(facts.kv_cache, Some(berth_vram::KvDtype::Fp8));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let refused = |text: &str| config(text, None).unwrap_err().to_string();
    assert_eq!(
        refused(r#"{"model_type": "novel", "num_hidden_layers": 2}"#),
        "the config of a \"novel\" model lacks hidden_size"
    );
    assert_eq!(
        refused(r#"{"model_type": "novel", "hidden_size": 64}"#),
        "the config of a \"novel\" model lacks num_hidden_layers"
    );
    assert!(refused("[]").contains("it is no object"));
    assert!(refused("{").contains("not JSON"));
    assert!(
        refused(r#"{"model_type": "t5", "is_encoder_decoder": true}"#).contains("encoder-decoder")
    );
    assert!(refused(r#"{"model_type": "bert", "num_hidden_layers": 2}"#).contains("an encoder"));
    assert!(
        refused(r#"{"model_type": "llama", "num_hidden_layers": 99999999999}"#).contains("2^31")
    );
    assert!(
        refused(r#"{"model_type": "llama", "num_hidden_layers": 2147483647}"#).contains("4096")
    );
    assert!(
        refused(r#"{"model_type": "llama", "num_attention_heads": 7, "num_key_value_heads": 3}"#)
            .contains("kvHeads")
    );
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20));
    assert!(matches!(config(&long, None), Err(ReadError::TooLarge { .. })));
    // Enough for an estimate, though nobody has met the kind.
    let novel = r#"{"model_type": "novel", "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 100}"#;
    assert_eq!(config(novel, None).unwrap().intermediate_size, 256);
}
