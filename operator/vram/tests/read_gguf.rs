//! GGUF headers become facts whose weights are exact, and hostile ones are refused.

mod files;

use berth_vram::{
    Engine, LayerCache, ModelFacts, Parallelism, Workload, estimate,
    read::{ReadError, gguf, with_gguf},
};
use files::{Meta, block, gguf as write};

/// Llama-3.1-8B in `Q4_K_M`, as llama.cpp's `llama-quantize` writes it: 4.58 GiB in its table.
fn llama(tied: bool) -> Vec<u8> {
    let (hidden, wide, rows) = (4096, 14336, 128_256);
    let mut tensors = vec![("token_embd.weight".to_owned(), vec![hidden, rows], 12)];
    for layer in 0..32 {
        // `use_more_bits` of llama.cpp's quantisation: the first and last eighth, and every third.
        let more = !(4..28).contains(&layer) || (layer - 4) % 3 == 2;
        let wide_type = if more { 14 } else { 12 };
        for (name, shape, kind) in [
            ("attn_q", vec![hidden, hidden], 12),
            ("attn_k", vec![hidden, 1024], 12),
            ("attn_v", vec![hidden, 1024], wide_type),
            ("attn_output", vec![hidden, hidden], 12),
            ("ffn_gate", vec![hidden, wide], 12),
            ("ffn_up", vec![hidden, wide], 12),
            ("ffn_down", vec![wide, hidden], wide_type),
            ("attn_norm", vec![hidden], 0),
            ("ffn_norm", vec![hidden], 0),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape, kind));
        }
    }
    tensors.push(("output_norm.weight".to_owned(), vec![hidden], 0));
    if !tied {
        tensors.push(("output.weight".to_owned(), vec![hidden, rows], 14));
    }
    let pairs = [
        ("general.architecture", Meta::Text("llama")),
        ("general.file_type", Meta::U32(7)),
        ("llama.block_count", Meta::U32(32)),
        ("llama.context_length", Meta::U32(131_072)),
        ("llama.embedding_length", Meta::U32(4096)),
        ("llama.feed_forward_length", Meta::U32(14336)),
        ("llama.attention.head_count", Meta::U32(32)),
        ("llama.attention.head_count_kv", Meta::U32(8)),
        ("llama.rope.dimension_count", Meta::U32(128)),
        ("tokenizer.ggml.tokens", Meta::Texts(1000)),
        ("tokenizer.ggml.add_bos_token", Meta::Bool(true)),
    ];
    write(&pairs, &tensors)
}

fn facts(file: &[u8]) -> ModelFacts {
    with_gguf(&[gguf::header(file, None).unwrap()]).unwrap()
}

#[test]
fn a_file_is_known_to_the_byte() {
    let facts = facts(&llama(false));
    assert_eq!(facts.quantization.to_string(), "GGUF Q4_K_M");
    assert_eq!((facts.layers, facts.kv_heads, facts.head_dim), (32, 8, 128));
    assert_eq!((facts.vocab_size, facts.tied_embeddings), (128_256, false));
    assert_eq!(facts.parameters, Some(8_030_261_248));
    // 4.58 GiB, as llama.cpp's tools/quantize/README.md publishes.
    let gib = berth_vram::weights(&facts).as_gib_f64();
    assert!((gib - 4.58).abs() < 0.01, "{gib}");
    // 4,403 MiB: llama.cpp's CUDA0 buffer for this file; the input table stays on the host.
    let workload = Workload::new(Engine::LlamaCpp, 8192, 1);
    let one = estimate(&facts, &workload, Parallelism::SINGLE).unwrap().per_gpu;
    let mib = one.weights.mib_ceil();
    assert!((4395..=4410).contains(&mib), "{mib}");
}

#[test]
fn a_shared_table_is_loaded_twice() {
    let (own, tied) = (facts(&llama(false)), facts(&llama(true)));
    assert!(tied.tied_embeddings);
    let table = 128_256 * 4096 / block(12).0 * block(12).1;
    let workload = Workload::new(Engine::LlamaCpp, 8192, 1);
    let weights = |facts: &ModelFacts| {
        estimate(facts, &workload, Parallelism::SINGLE).unwrap().per_gpu.weights.get()
    };
    let output = own.tensors.as_ref().unwrap().outside.bytes.output;
    assert_eq!(weights(&own) - weights(&tied), output - table);
}

#[test]
fn every_prefix_asks_for_more_or_is_enough() {
    let file = llama(false);
    let mut given = 0;
    let mut requests = 0;
    let whole = gguf::header(&file, None).unwrap();
    loop {
        match gguf::header(&file[..given.min(file.len())], None) {
            Ok(header) => {
                assert_eq!(header, whole);
                break;
            }
            Err(ReadError::NeedMore { needed }) => {
                assert!(needed > given as u64);
                given = usize::try_from(needed).unwrap();
                requests += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(requests < 20, "{requests}");
    for length in (0..file.len()).step_by(17) {
        let error = gguf::header(&file[..length], None).unwrap_err();
        assert!(
            matches!(error, ReadError::NeedMore { needed } if needed > length as u64),
            "{error}"
        );
    }
    // A file that ends there is broken.
    let error = gguf::header(&file[..1000], Some(1000)).unwrap_err();
    assert!(error.to_string().contains("longer than the file"), "{error}");
}

#[test]
fn a_split_model_needs_all_parts() {
    let part = |number, tensors: &[(String, Vec<u64>, u32)]| {
        let pairs = [
            ("split.no", Meta::U32(number)),
            ("split.count", Meta::U32(2)),
            ("general.architecture", Meta::Text("qwen3moe")),
            ("qwen3moe.block_count", Meta::U32(2)),
            ("qwen3moe.embedding_length", Meta::U32(256)),
            ("qwen3moe.attention.head_count", Meta::U32(4)),
            ("qwen3moe.attention.head_count_kv", Meta::U32(2)),
            ("qwen3moe.attention.key_length", Meta::U32(128)),
            ("qwen3moe.attention.value_length", Meta::U32(128)),
            ("qwen3moe.expert_count", Meta::U32(8)),
            ("qwen3moe.expert_used_count", Meta::U32(2)),
            ("qwen3moe.expert_feed_forward_length", Meta::U32(256)),
        ];
        gguf::header(&write(&pairs, tensors), None).unwrap()
    };
    let layer = |layer: u32| {
        vec![
            (format!("blk.{layer}.attn_k.weight"), vec![256, 256], 8),
            (format!("blk.{layer}.ffn_up_exps.weight"), vec![256, 256, 8], 12),
        ]
    };
    let mut first = layer(0);
    first.push(("token_embd.weight".to_owned(), vec![256, 1000], 8));
    let (first, second) = (part(0, &first), part(1, &layer(1)));
    let facts = with_gguf(&[second.clone(), first.clone()]).unwrap();
    assert_eq!((facts.layers, facts.head_dim, facts.vocab_size), (2, 128, 1000));
    let moe = facts.moe.unwrap();
    assert_eq!((moe.experts, moe.experts_per_token, moe.expert_intermediate_size), (8, 2, 256));
    assert_eq!(moe.dense_layers, 0);
    let tensors = facts.tensors.unwrap();
    assert_eq!(tensors.layers.len(), 1, "equal layers are one run");
    assert_eq!(tensors.bytes().experts, 2 * 256 * 256 * 8 / 256 * 144);
    let refusal = |headers: &[gguf::Header]| with_gguf(headers).unwrap_err().to_string();
    assert!(refusal(std::slice::from_ref(&first)).contains("part 2 of 2 is missing"));
    assert!(refusal(&[second]).contains("part 1 of 2 is missing"));
    assert!(refusal(&[first.clone(), first]).contains("part 2 of 2 is missing"));
}

#[test]
fn hybrids_windows_and_latent_attention() {
    let minimal =
        |architecture: &'static str, more: Vec<(&'static str, Meta)>, layers: Vec<&str>| {
            let key = |name: &str| format!("{architecture}.{name}");
            let mut pairs: Vec<(String, Meta)> = vec![
                ("general.architecture".to_owned(), Meta::Text(architecture)),
                (key("block_count"), Meta::U32(u32::try_from(layers.len()).unwrap())),
                (key("embedding_length"), Meta::U32(256)),
                (key("feed_forward_length"), Meta::U32(512)),
                (key("attention.head_count"), Meta::U32(4)),
            ];
            pairs.extend(more.into_iter().map(|(name, value)| (key(name), value)));
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            let tensors: Vec<_> = layers
                .iter()
                .enumerate()
                .flat_map(|(layer, names)| {
                    names
                        .split(' ')
                        .map(move |name| (format!("blk.{layer}.{name}.weight"), vec![256, 256], 8))
                })
                .chain([("token_embd.weight".to_owned(), vec![256, 100], 8)])
                .collect();
            facts(&write(&pairs, &tensors))
        };
    let caches = |facts: &ModelFacts| facts.tensors.as_ref().unwrap().caches().collect::<Vec<_>>();
    // Nemotron-H: Mamba, feed-forward, attention, by which tensors a layer has.
    let hybrid = minimal(
        "nemotron_h",
        vec![
            ("attention.head_count_kv", Meta::U32s(vec![0, 0, 2])),
            ("ssm.conv_kernel", Meta::U32(4)),
            ("ssm.inner_size", Meta::U32(512)),
            ("ssm.state_size", Meta::U32(128)),
            ("ssm.group_count", Meta::U32(8)),
        ],
        vec!["ssm_in ssm_out", "ffn_up ffn_down", "attn_q attn_k attn_v"],
    );
    assert_eq!(caches(&hybrid), [LayerCache::State, LayerCache::None, LayerCache::Full]);
    let recurrent = hybrid.recurrent.unwrap();
    assert_eq!(recurrent.attention_layers, 1);
    assert_eq!(recurrent.state_bytes_per_sequence, 4 * (3 * (512 + 2 * 8 * 128) + 512 * 128));
    assert_eq!(hybrid.kv_heads, 2);
    // Layers that keep fewer heads count as fewer layers.
    let searched = minimal(
        "deci",
        vec![("attention.head_count_kv", Meta::U32s(vec![1, 2, 1, 0]))],
        vec!["attn_k", "attn_k", "attn_k", "ffn_up"],
    );
    assert_eq!((searched.kv_heads, searched.recurrent.unwrap().attention_layers), (2, 2));
    // Gemma 3: five of six layers look back over a window.
    let gemma = minimal(
        "gemma3",
        vec![
            ("attention.sliding_window", Meta::U32(1024)),
            ("attention.head_count_kv", Meta::U32(2)),
        ],
        vec!["attn_k attn_v"; 12],
    );
    assert_eq!(gemma.window.unwrap().windowed_layers, 10);
    assert_eq!(caches(&gemma)[5], LayerCache::Full);
    // A Mistral's window is none in llama.cpp.
    let mistral =
        minimal("llama", vec![("attention.sliding_window", Meta::U32(4096))], vec!["attn_k"; 2]);
    assert_eq!(mistral.window, None);
    // DeepSeek: compressed where the file gives the lengths of heads beside those of the cache.
    let latent = vec![
        ("attention.kv_lora_rank", Meta::U32(512)),
        ("attention.q_lora_rank", Meta::U32(1536)),
        ("attention.key_length", Meta::U32(576)),
        ("attention.value_length", Meta::U32(512)),
        ("attention.key_length_mla", Meta::U32(192)),
        ("attention.value_length_mla", Meta::U32(128)),
        ("rope.dimension_count", Meta::U32(64)),
    ];
    let deepseek = minimal("deepseek2", latent, vec!["attn_kv_a_mqa attn_k_b"; 2]);
    let mla = deepseek.mla.unwrap();
    assert_eq!((mla.kv_lora_rank, mla.qk_rope_head_dim, mla.qk_nope_head_dim), (512, 64, 128));
    assert_eq!(caches(&deepseek), [LayerCache::Full; 2]);
    let old = vec![
        ("attention.kv_lora_rank", Meta::U32(512)),
        ("attention.key_length", Meta::U32(192)),
        ("attention.value_length", Meta::U32(128)),
    ];
    let expanded = minimal("deepseek2", old, vec!["attn_kv_a_mqa attn_kv_b"; 2]);
    assert_eq!((expanded.mla, expanded.head_dim, expanded.value_head_dim), (None, 192, Some(128)));
}

#[test]
fn hostile_headers_are_refused() {
    let refused = |bytes: &[u8]| gguf::header(bytes, None).unwrap_err().to_string();
    assert!(refused(b"GGML\x03\0\0\0").contains("does not begin with GGUF"));
    assert!(refused(b"GGUF\0\0\0\x03").contains("big-endian"));
    assert!(refused(b"GGUF\x01\0\0\0").contains("version 1"));
    let head = |tensors: u64, pairs: u64| {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        file
    };
    assert!(refused(&head(u64::MAX, 0)).contains("larger than"));
    assert!(refused(&head(0, u64::MAX)).contains("larger than"));
    // A key as long as memory; a list as long as memory; lists in lists without end.
    let mut key = head(0, 1);
    key.extend(u64::MAX.to_le_bytes());
    assert!(refused(&key).contains("larger than"));
    let mut list = head(0, 1);
    list.extend(1_u64.to_le_bytes());
    list.push(b'k');
    list.extend(9_u32.to_le_bytes());
    let mut deep = list.clone();
    list.extend(8_u32.to_le_bytes());
    list.extend((1_u64 << 62).to_le_bytes());
    assert!(refused(&list).contains("larger than"));
    for _ in 0..100_000 {
        deep.extend(9_u32.to_le_bytes());
        deep.extend(1_u64.to_le_bytes());
    }
    assert!(refused(&deep).contains("too deep"));
    let tensor = |shape: Vec<u64>, kind: u32| {
        let file = write(&[], &[("t".to_owned(), vec![32], 8)]);
        let mut file = file[..file.len() - 8 - 4 - 8 - 4].to_vec();
        file.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
        file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file
    };
    assert!(gguf::header(&tensor(vec![32], 8), None).is_ok());
    assert!(refused(&tensor(vec![31], 8)).contains("whole blocks"));
    assert!(refused(&tensor(vec![32], 144)).contains("no type 144"));
    assert!(refused(&tensor(vec![1 << 40, 1 << 40], 0)).contains("out of all proportion"));
    assert!(refused(&tensor(vec![32; 5], 0)).contains("more than 4 dimensions"));
}
