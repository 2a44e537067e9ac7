//! A model's own files are estimated by what their headers say, to the byte.

mod common;
// Writers of small model files, shared with the tests of the readers.
#[path = "../../vram/tests/files/mod.rs"]
mod model_files;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use common::berth;
use model_files::{Meta, block};
use serde_json::Value;

const CONFIG: &str = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2, "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16"}"#;

/// Name and shape of every tensor of a Llama of two layers, in safetensors' order of dimensions.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![128_256, 4096]),
        ("lm_head.weight".to_owned(), vec![128_256, 4096]),
        ("model.norm.weight".to_owned(), vec![4096]),
    ];
    for layer in 0..2 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![4096, 4096]),
            ("self_attn.k_proj", vec![1024, 4096]),
            ("self_attn.v_proj", vec![1024, 4096]),
            ("self_attn.o_proj", vec![4096, 4096]),
            ("mlp.gate_proj", vec![14336, 4096]),
            ("mlp.up_proj", vec![14336, 4096]),
            ("mlp.down_proj", vec![4096, 14336]),
            ("input_layernorm", vec![4096]),
            ("post_attention_layernorm", vec![4096]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    tensors
}

/// A file with that header, as long as it says: the weights are a hole.
fn write(path: &Path, header: &[u8], weights: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(header).unwrap();
    file.set_len(header.len() as u64 + weights + 32).unwrap();
}

fn shard(path: &Path, tensors: &[(String, Vec<u64>)]) -> u64 {
    let sized: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| {
            (name.clone(), "BF16", shape.clone(), 2 * shape.iter().product::<u64>())
        })
        .collect();
    let bytes = sized.iter().map(|tensor| tensor.3).sum();
    let header = model_files::safetensors(&sized);
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(header.len() as u64 + bytes).unwrap();
    bytes
}

fn estimate(flag: &str, path: &Path) -> Result<Value, String> {
    let output = berth(&["estimate", flag, path.to_str().unwrap(), "--gpu", "L4", "-o", "json"]);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_checkpoint_of_two_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let tensors = tensors();
    let (first, second) = tensors.split_at(5);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut bytes = shard(&folder.path().join(names[0]), first);
    bytes += shard(&folder.path().join(names[1]), second);
    let map: serde_json::Map<String, Value> = (first.iter().map(|tensor| (tensor, names[0])))
        .chain(second.iter().map(|tensor| (tensor, names[1])))
        .map(|((name, _), file)| (name.clone(), Value::from(file)))
        .collect();
    let index = serde_json::json!({"metadata": {"total_size": bytes}, "weight_map": map});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();

    let answer = estimate("--safetensors", folder.path()).unwrap();
    assert_eq!(answer["model"]["weightBytes"], bytes);
    assert_eq!(answer["fit"]["fits"], true);

    fs::remove_file(folder.path().join(names[1])).unwrap();
    let error = estimate("--safetensors", folder.path()).unwrap_err();
    assert!(error.contains("cannot read") && error.contains(names[1]), "{error}");
}

#[test]
fn a_gguf_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    let (hidden, wide, rows) = (4096, 14336, 128_256);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![hidden, rows], 12),
        ("output.weight".to_owned(), vec![hidden, rows], 14),
        ("output_norm.weight".to_owned(), vec![hidden], 0),
    ];
    for layer in 0..2 {
        for (name, shape, kind) in [
            ("attn_q", vec![hidden, hidden], 12),
            ("attn_k", vec![hidden, 1024], 12),
            ("attn_v", vec![hidden, 1024], 14),
            ("attn_output", vec![hidden, hidden], 12),
            ("ffn_gate", vec![hidden, wide], 12),
            ("ffn_up", vec![hidden, wide], 12),
            ("ffn_down", vec![wide, hidden], 14),
            ("attn_norm", vec![hidden], 0),
            ("ffn_norm", vec![hidden], 0),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape, kind));
        }
    }
    let pairs = [
        ("general.architecture", Meta::Text("llama")),
        ("llama.block_count", Meta::U32(2)),
        ("llama.context_length", Meta::U32(131_072)),
        ("llama.embedding_length", Meta::U32(4096)),
        ("llama.feed_forward_length", Meta::U32(14336)),
        ("llama.attention.head_count", Meta::U32(32)),
        ("llama.attention.head_count_kv", Meta::U32(8)),
        // Longer than what is read at first.
        ("tokenizer.ggml.tokens", Meta::Texts(128_256)),
    ];
    let header = model_files::gguf(&pairs, &tensors);
    assert!(header.len() > 1 << 20);
    let bytes: u64 = tensors
        .iter()
        .map(|(_, shape, kind)| {
            let (weights, bytes) = block(*kind);
            shape.iter().product::<u64>() / weights * bytes
        })
        .sum();
    write(&path, &header, bytes);

    let answer = estimate("--gguf", &path).unwrap();
    assert_eq!(answer["model"]["weightBytes"], bytes);
    assert_eq!(answer["engine"], "LlamaCpp");
    assert_eq!(answer["fit"]["fits"], true);

    fs::write(&path, &header[..header.len() / 2]).unwrap();
    let error = estimate("--gguf", &path).unwrap_err();
    assert!(error.contains("small.gguf cannot be used"), "{error}");
    fs::write(&path, "no such thing").unwrap();
    assert!(estimate("--gguf", &path).unwrap_err().contains("GGUF"));
}
