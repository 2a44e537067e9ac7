//! The first bytes of a safetensors file, read into the facts of small models; as an index too.

#![no_main]

use std::sync::LazyLock;

use berth_vram::{ModelFacts, read};
use berth_vram_fuzz::use_facts;
use libfuzzer_sys::fuzz_target;

static FACTS: LazyLock<[ModelFacts; 2]> = LazyLock::new(|| {
    let dense = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16,
        "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 100, "tie_word_embeddings": true}"#;
    let mixed = r#"{"model_type": "nemotron_h", "hybrid_override_pattern": "ME", "hidden_size": 16,
        "n_routed_experts": 4, "moe_intermediate_size": 8, "vocab_size": 100}"#;
    [dense, mixed].map(|config| read::config(config, None).expect("a config"))
});

fuzz_target!(|data: &[u8]| {
    // Some know how long the file is.
    let (size, data) = match data.split_first() {
        Some((b'#', rest)) => (Some(rest.len() as u64 + 64), rest),
        _ => (None, data),
    };
    match read::safetensors::header(data, size) {
        Ok(header) => {
            assert!(header.data_start <= data.len() as u64);
            let sum: u64 = header.tensors().map(|tensor| tensor.bytes).sum();
            assert_eq!(sum, header.bytes(), "tensors stand one after the other");
            for facts in &*FACTS {
                let headers = [header.clone(), header.clone()];
                if let Ok(facts) = read::with_safetensors(facts, &headers) {
                    assert!(facts.weight_bytes <= Some(sum), "what stands twice counts once");
                    use_facts(&facts);
                }
            }
        }
        Err(read::ReadError::NeedMore { needed }) => assert!(needed > data.len() as u64),
        Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read::safetensors::index(text);
    }
});
