//! Models of real shapes: their small files, and weights that are nothing but headers.

use std::fmt::Write;

use crate::{
    files::{self, Meta},
    server::File,
};

/// The shape of a Llama.
#[derive(Clone, Copy, Debug)]
pub struct Llama {
    pub layers: u64,
    pub hidden: u64,
    pub inner: u64,
    pub heads: u64,
    pub kv_heads: u64,
}

pub const VOCABULARY: u64 = 128_256;

/// Llama 3.1's.
pub const EIGHT: Llama = Llama { layers: 32, hidden: 4096, inner: 14_336, heads: 32, kv_heads: 8 };
pub const FOUR_HUNDRED: Llama =
    Llama { layers: 126, hidden: 16_384, inner: 53_248, heads: 128, kv_heads: 8 };

impl Llama {
    pub fn config(self) -> String {
        let Self { layers, hidden, inner, heads, kv_heads } = self;
        format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": {hidden}, "intermediate_size": {inner}, "num_hidden_layers": {layers},
  "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads}, "vocab_size": {VOCABULARY},
  "max_position_embeddings": 131072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}}"#
        )
    }

    fn tensors(self) -> Vec<(String, Vec<u64>)> {
        let Self { layers, hidden, inner, heads, kv_heads } = self;
        let kv = hidden / heads * kv_heads;
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, hidden])];
        for layer in 0..layers {
            for (name, shape) in [
                ("input_layernorm", vec![hidden]),
                ("mlp.down_proj", vec![hidden, inner]),
                ("mlp.gate_proj", vec![inner, hidden]),
                ("mlp.up_proj", vec![inner, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
            ] {
                all.push((format!("model.layers.{layer}.{name}.weight"), shape));
            }
        }
        all.push(("model.norm.weight".to_owned(), vec![hidden]));
        all.push(("lm_head.weight".to_owned(), vec![VOCABULARY, hidden]));
        all
    }

    /// Bytes of all tensors, in 16 bits.
    pub fn bytes(self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<u64>() * 2).sum()
    }

    /// The repository, in so many files of safetensors.
    pub fn repository(self, count: usize) -> Vec<(String, File)> {
        let tensors = self.tensors();
        let (mut map, mut all) = (String::new(), Vec::new());
        for (at, part) in tensors.chunks(tensors.len().div_ceil(count)).enumerate() {
            let name = format!("model-{:05}-of-{count:05}.safetensors", at + 1);
            let part: Vec<_> = part
                .iter()
                .map(|(tensor, shape)| {
                    write!(map, r#""{tensor}": "{name}", "#).unwrap();
                    (tensor.clone(), "BF16", shape.clone(), shape.iter().product::<u64>() * 2)
                })
                .collect();
            let start = files::safetensors(&part);
            let size = start.len() as u64 + part.iter().map(|tensor| tensor.3).sum::<u64>();
            all.push((name, File { start, size }));
        }
        let map = map.trim_end_matches(", ");
        let index = format!(
            r#"{{"metadata": {{"total_size": {}}}, "weight_map": {{{map}}}}}"#,
            self.bytes()
        );
        all.push(("model.safetensors.index.json".to_owned(), File::of(index)));
        all.push(("config.json".to_owned(), File::of(self.config())));
        for (name, size) in
            [("README.md", 40_000), ("tokenizer.json", 9_085_657), ("LICENSE", 7_627)]
        {
            all.push((name.to_owned(), File { start: vec![], size }));
        }
        all
    }

    /// The same in GGUF, in fp16, split into so many files.
    pub fn gguf(self, count: usize) -> Vec<(String, File)> {
        let Self { layers, hidden, inner, heads, kv_heads } = self;
        let kv = hidden / heads * kv_heads;
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![hidden, VOCABULARY], 1)];
        for layer in 0..layers {
            for (name, shape, kind) in [
                ("attn_norm", vec![hidden], 0),
                ("ffn_down", vec![inner, hidden], 1),
                ("ffn_gate", vec![hidden, inner], 1),
                ("ffn_up", vec![hidden, inner], 1),
                ("ffn_norm", vec![hidden], 0),
                ("attn_k", vec![hidden, kv], 1),
                ("attn_output", vec![hidden, hidden], 1),
                ("attn_q", vec![hidden, hidden], 1),
                ("attn_v", vec![hidden, kv], 1),
            ] {
                tensors.push((format!("blk.{layer}.{name}.weight"), shape, kind));
            }
        }
        tensors.push(("output_norm.weight".to_owned(), vec![hidden], 0));
        tensors.push(("output.weight".to_owned(), vec![hidden, VOCABULARY], 1));
        let number = |number: u64| Meta::U32(u32::try_from(number).unwrap());
        let parts = tensors.chunks(tensors.len().div_ceil(count)).enumerate();
        parts
            .map(|(at, part)| {
                let mut pairs = vec![
                    ("split.no", number(at as u64)),
                    ("split.count", number(count as u64)),
                    ("split.tensors.count", number(tensors.len() as u64)),
                ];
                if at == 0 {
                    pairs.extend([
                        ("general.architecture", Meta::Text("llama")),
                        ("llama.block_count", number(layers)),
                        ("llama.context_length", number(131_072)),
                        ("llama.embedding_length", number(hidden)),
                        ("llama.feed_forward_length", number(inner)),
                        ("llama.attention.head_count", number(heads)),
                        ("llama.attention.head_count_kv", number(kv_heads)),
                        ("llama.vocab_size", number(VOCABULARY)),
                        (
                            "tokenizer.ggml.tokens",
                            Meta::Texts(usize::try_from(VOCABULARY).unwrap()),
                        ),
                        ("tokenizer.ggml.merges", Meta::Texts(280_147)),
                    ]);
                }
                let start = files::gguf(&pairs, part);
                let bytes = |(_, shape, kind): &(String, Vec<u64>, u32)| {
                    let (block, bytes) = files::block(*kind);
                    (shape.iter().product::<u64>() / block * bytes).next_multiple_of(32)
                };
                let size =
                    (start.len() as u64).next_multiple_of(32) + part.iter().map(bytes).sum::<u64>();
                (format!("x-F16-{:05}-of-{count:05}.gguf", at + 1), File { start, size })
            })
            .collect()
    }
}
