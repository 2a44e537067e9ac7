//! Headers of safetensors files make weights exact: by layer, by class, and by what is loaded.

mod files;

use berth_vram::{
    Engine, LayerCache, ModelFacts, Parallelism, Quantization, Workload, estimate,
    read::{config, safetensors, with_safetensors},
    weights,
};
use files::safetensors as write;

const CONFIG: &str = r#"{"model_type": "deepseek_v3", "num_hidden_layers": 3, "hidden_size": 64,
    "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "vocab_size": 100,
    "max_position_embeddings": 1024, "num_nextn_predict_layers": 1, "tie_word_embeddings": false,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}"#;

type Tensor = (String, &'static str, Vec<u64>, u64);

fn tensor(name: impl Into<String>, dtype: &'static str, shape: &[u64]) -> Tensor {
    let bits = match dtype {
        "F32" => 32,
        "BF16" => 16,
        _ => 8,
    };
    (name.into(), dtype, shape.to_vec(), shape.iter().product::<u64>() * bits / 8)
}

/// A layer as DeepSeek's checkpoints have it: fp8 with a scale for each block.
fn layer(number: u32) -> Vec<Tensor> {
    let mut tensors =
        vec![tensor(format!("model.layers.{number}.input_layernorm.weight"), "BF16", &[64])];
    let mut matrix = |name: &str, outputs, inputs| {
        let name = format!("model.layers.{number}.{name}");
        tensors.push(tensor(format!("{name}.weight"), "F8_E4M3", &[outputs, inputs]));
        tensors.push(tensor(format!("{name}.weight_scale_inv"), "F32", &[1, 1]));
    };
    matrix("self_attn.q_a_proj", 24, 64);
    matrix("self_attn.q_b_proj", 96, 24);
    matrix("self_attn.kv_a_proj_with_mqa", 24, 64);
    matrix("self_attn.kv_b_proj", 128, 16);
    matrix("self_attn.o_proj", 64, 64);
    if number == 0 {
        matrix("mlp.gate_proj", 128, 64);
        matrix("mlp.up_proj", 128, 64);
        matrix("mlp.down_proj", 64, 128);
    } else {
        for expert in 0..4 {
            matrix(&format!("mlp.experts.{expert}.gate_proj"), 32, 64);
            matrix(&format!("mlp.experts.{expert}.up_proj"), 32, 64);
            matrix(&format!("mlp.experts.{expert}.down_proj"), 64, 32);
        }
        matrix("mlp.shared_experts.up_proj", 32, 64);
        tensors.push(tensor(format!("model.layers.{number}.mlp.gate.weight"), "BF16", &[4, 64]));
    }
    tensors
}

fn checkpoint() -> [Vec<Tensor>; 2] {
    let mut first = vec![tensor("model.embed_tokens.weight", "BF16", &[100, 64])];
    first.extend(layer(0));
    first.extend(layer(1));
    let mut second = layer(2);
    second.push(tensor("model.norm.weight", "BF16", &[64]));
    second.push(tensor("lm_head.weight", "BF16", &[100, 64]));
    // The layer that predicts a token more.
    second.extend(layer(3));
    second.push(tensor("model.layers.3.eh_proj.weight", "BF16", &[64, 128]));
    [first, second]
}

fn header(tensors: &[Tensor]) -> safetensors::Header {
    safetensors::header(&write(tensors), None).unwrap()
}

#[test]
fn a_checkpoint_is_known_to_the_byte() {
    let facts = config(CONFIG, None).unwrap();
    let files = checkpoint();
    let headers = [header(&files[0]), header(&files[1])];
    let exact = with_safetensors(&facts, &headers).unwrap();
    let all: u64 = files.iter().flatten().map(|tensor| tensor.3).sum();
    assert_eq!(exact.weight_bytes, Some(all));
    assert_eq!(weights(&exact).get(), all, "the whole checkpoint is downloaded");
    let tensors = exact.tensors.as_ref().unwrap();
    let draft: u64 = files[1].iter().filter(|t| t.0.contains("layers.3.")).map(|t| t.3).sum();
    assert_eq!(tensors.draft_bytes, draft);
    assert_eq!(tensors.bytes().total(), all - draft);
    let bytes = tensors.bytes();
    assert_eq!((bytes.embedding, bytes.output), (12_800, 12_800));
    assert_eq!(bytes.experts, 2 * 4 * 3 * (32 * 64 + 4));
    assert_eq!(bytes.dense, 3 * (128 * 64 + 4) + 2 * (32 * 64 + 4));
    assert_eq!(bytes.latent_projection, 3 * 2 * (24 * 64 + 4));
    assert_eq!(bytes.replicated, 64 * 2 * 4 + 2 * 4 * 64 * 2);
    // Parameters are the architecture's, not those of packed tensors.
    assert_eq!(exact.parameters, facts.parameters);
    // The first layer is another; the caches are the config's.
    assert_eq!(tensors.layers.iter().map(|run| run.layers).collect::<Vec<_>>(), [1, 2]);
    assert!(tensors.caches().all(|cache| cache == LayerCache::Full));
    assert_eq!(tensors.layer_bytes(1..3).experts, bytes.experts);
    // Shares follow from the classes: what is the same on every GPU is not divided.
    let share = |gpus| {
        let workload = Workload::new(Engine::Vllm, 512, 1);
        let estimate = estimate(&exact, &workload, Parallelism::tensor(gpus)).unwrap();
        estimate.per_gpu.weights.get()
    };
    let same = bytes.latent_projection + bytes.replicated + 2 * 1024 * 8;
    let absorbed = 3 * 2 * 16 * 4 * (16 + 16);
    assert_eq!(share(1), all - draft + 2 * 1024 * 8 + absorbed);
    let half = (share(1) - same) / 2 + same;
    assert!(share(2).abs_diff(half) <= 4, "{} is not {half}", share(2));
}

#[test]
fn what_is_not_loaded_does_not_count() {
    let llama = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 100, "tie_word_embeddings": true}"#;
    let facts = config(llama, None).unwrap();
    let tensors = [
        tensor("model.embed_tokens.weight", "F32", &[100, 64]),
        tensor("lm_head.weight", "F32", &[100, 64]),
        tensor("model.layers.0.self_attn.qkv_proj.weight", "F32", &[128, 64]),
        tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[8]),
        tensor("model.layers.0.input_layernorm.weight", "F32", &[64]),
        tensor("visual.blocks.0.attn.qkv.weight", "BF16", &[8, 8]),
    ];
    let read = |facts: &ModelFacts| with_safetensors(facts, &[header(&tensors)]).unwrap();
    let exact = read(&facts);
    let tensors_of = |facts: &ModelFacts| facts.tensors.clone().unwrap();
    let bytes = tensors_of(&exact).bytes();
    // The output layer is the table; 32-bit matrices are cast to 16.
    assert_eq!((bytes.embedding, bytes.output), (12_800, 0));
    assert_eq!(tensors_of(&exact).unused_bytes, 25_600 + 32);
    // Four heads ask, two are kept twice: half of the rows.
    assert_eq!((bytes.attention, bytes.kv_projection), (8192, 8192));
    assert_eq!((bytes.replicated, bytes.other), (256, 128));
    let wide = read(&ModelFacts { quantization: Quantization::Fp32, ..facts });
    assert_eq!(tensors_of(&wide).bytes().embedding, 25_600);
}

#[test]
fn an_index_names_the_files() {
    let files = checkpoint();
    let map = |tensors: &[Tensor], file: &str| {
        tensors.iter().map(|t| format!("\"{}\": \"{file}\"", t.0)).collect::<Vec<_>>().join(", ")
    };
    let text = format!(
        r#"{{"metadata": {{"total_size": 123.0}}, "weight_map": {{{}, {}}}}}"#,
        map(&files[0], "model-00001-of-00002.safetensors"),
        map(&files[1], "model-00002-of-00002.safetensors"),
    );
    let index = safetensors::index(&text).unwrap();
    assert_eq!((index.files.len(), index.total_size), (2, Some(123)));
    let headers = [header(&files[0]), header(&files[1])];
    assert_eq!(index.check(&headers), Ok(()));
    let missing = index.check(&headers[..1]).unwrap_err().to_string();
    assert!(missing.contains("no file's header has the tensor"), "{missing}");
    for hostile in
        ["../../etc/passwd", "/etc/passwd", "a/b", "", "a?b", ".hidden", "http:\\\\\\\\x"]
    {
        let text = format!(r#"{{"weight_map": {{"a": "{hostile}"}}}}"#);
        assert!(safetensors::index(&text).is_err(), "{hostile}");
    }
    assert!(safetensors::index("{}").is_err());
}

#[test]
fn half_a_checkpoint_is_refused() {
    let facts = config(CONFIG, None).unwrap();
    let files = checkpoint();
    let refusal = with_safetensors(&facts, &[header(&files[0])]).unwrap_err().to_string();
    assert_eq!(refusal, "not a whole checkpoint: no file has tensors of layer 2 of 3");
    assert!(with_safetensors(&facts, &[]).is_err());
    // The same file twice counts once.
    let [first, second] = [header(&files[0]), header(&files[1])];
    let once = with_safetensors(&facts, &[first.clone(), second.clone()]).unwrap();
    let twice = with_safetensors(&facts, &[first.clone(), first, second]).unwrap();
    assert_eq!(once, twice);
}
