//! What was learnt is read back as it was written, and an older form is not misread.

use berth_inspect::{FORMAT, Inspection, InspectionError};
use berth_vram::{
    Classes, CrossAttention, GgufType, Heads, KvDtype, LayerCache, LayerRun, Mla, ModelFacts, Moe,
    Quantization, Recurrent, Tensors, Window,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn quantization() -> impl Strategy<Value = Quantization> {
    use Quantization as Q;
    let grouped = (any::<bool>(), any::<u8>(), any::<u32>()).prop_map(|(awq, bits, group_size)| {
        if awq { Q::Awq { bits, group_size } } else { Q::Gptq { bits, group_size } }
    });
    prop_oneof![
        select(vec![Q::None, Q::Fp32, Q::Fp8, Q::Fp8Block, Q::Int8, Q::Mxfp4, Q::Nvfp4, Q::Bnb4]),
        grouped,
        select(GgufType::ALL).prop_map(Q::Gguf),
    ]
}

fn kv() -> impl Strategy<Value = KvDtype> {
    use KvDtype as K;
    select(vec![
        K::Auto,
        K::Fp8,
        K::Fp8E4m3,
        K::F16,
        K::Bf16,
        K::Q8_0,
        K::Q4_0,
        K::Q4_1,
        K::Q5_0,
        K::Q5_1,
        K::F32,
    ])
}

prop_compose! {
    fn classes()(n in any::<[u64; 9]>(), zero in any::<u16>()) -> Classes {
        let n = |at: usize| if zero >> at & 1 == 1 { 0 } else { n[at] };
        Classes {
            embedding: n(0), output: n(1), attention: n(2), kv_projection: n(3),
            latent_projection: n(4), dense: n(5), experts: n(6), replicated: n(7), other: n(8),
        }
    }
}

prop_compose! {
    fn run()(
        layers in any::<u32>(),
        cache in select(vec![
            LayerCache::None, LayerCache::Full, LayerCache::Window, LayerCache::State,
            LayerCache::StateAndFull,
        ]),
        parameters in classes(),
        bytes in classes(),
    ) -> LayerRun {
        LayerRun { layers, cache, parameters, bytes }
    }
}

prop_compose! {
    fn tensors()(
        exact in any::<bool>(), outside in run(), layers in vec(run(), 0..5), n in any::<[u64; 3]>(),
    ) -> Tensors {
        let [draft_bytes, host_bytes, unused_bytes] = n;
        Tensors { exact, outside, layers, draft_bytes, host_bytes, unused_bytes }
    }
}

prop_compose! {
    fn mla()(n in any::<[u32; 5]>(), q_lora_rank in option::of(any::<u32>())) -> Mla {
        Mla {
            kv_lora_rank: n[0], qk_rope_head_dim: n[1], qk_nope_head_dim: n[2], v_head_dim: n[3],
            q_lora_rank, indexer_bytes_per_token: n[4],
        }
    }
}

prop_compose! {
    fn moe()(n in any::<[u32; 5]>(), shared in option::of(any::<u32>())) -> Moe {
        Moe {
            experts: n[0], experts_per_token: n[1], expert_intermediate_size: n[2],
            shared_experts: n[3], shared_expert_intermediate_size: shared, dense_layers: n[4],
        }
    }
}

prop_compose! {
    fn facts()(
        (parameters, weight_bytes) in any::<(Option<u64>, Option<u64>)>(),
        n in any::<[u32; 10]>(),
        (tied_embeddings, gated, other_parameters) in any::<(bool, bool, u64)>(),
        (mla, moe, tensors) in (option::of(mla()), option::of(moe()), option::of(tensors())),
        window in option::of(any::<(u32, u32)>()),
        recurrent in option::of(any::<(u32, u64)>()),
        (value_head_dim, rotary_dim, rotary_positions) in any::<(Option<u32>, Option<u32>, Option<u32>)>(),
        window_heads in option::of(any::<(u32, u32, Option<u32>)>()),
        cross_attention in option::of(any::<(u32, u32)>()),
        (quantization, kv_cache) in (quantization(), option::of(kv())),
    ) -> ModelFacts {
        ModelFacts {
            parameters, layers: n[0], hidden_size: n[1], intermediate_size: n[2],
            attention_heads: n[3], kv_heads: n[4], head_dim: n[5], vocab_size: n[6],
            max_context: n[7], tied_embeddings, gated, other_parameters, mla, moe,
            window: window.map(|(tokens, windowed_layers)| Window { tokens, windowed_layers }),
            recurrent: recurrent.map(|(attention_layers, state_bytes_per_sequence)| Recurrent {
                attention_layers, state_bytes_per_sequence,
            }),
            quantization, weight_bytes, value_head_dim,
            window_heads: window_heads.map(|(kv_heads, head_dim, value_head_dim)| Heads {
                kv_heads, head_dim, value_head_dim,
            }),
            kv_shared_layers: n[8],
            cross_attention: cross_attention.map(|(layers, tokens)| CrossAttention { layers, tokens }),
            index_bytes_per_token: n[9], rotary_dim, rotary_positions, kv_cache, tensors,
        }
    }
}

prop_compose! {
    fn inspection()(
        facts in facts(), commit in any::<Option<String>>(), licence in any::<Option<String>>(),
        exact in any::<bool>(), bytes_read in any::<u64>(),
    ) -> Inspection {
        Inspection { commit, facts, licence, exact, bytes_read }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(inspection in inspection()) {
        let text = inspection.to_json().unwrap();
        prop_assert!(!text.contains('\n'));
        prop_assert_eq!(Inspection::from_json(&text).unwrap(), inspection);
    }
}

fn small() -> Inspection {
    let facts = ModelFacts { layers: 1, ..ModelFacts::default() };
    Inspection { commit: None, facts, licence: None, exact: true, bytes_read: 7 }
}

#[test]
fn another_form_is_told_from_no_form() {
    let text = small().to_json().unwrap();
    assert!(text.starts_with(&format!("{{\"format\":{FORMAT},")), "{text}");
    let older = text.replace("\"format\":1,", "\"format\":0,");
    assert!(matches!(Inspection::from_json(&older), Err(InspectionError::Format(0))));
    // Even where nothing else of it can be read.
    let newer = Inspection::from_json(r#"{"format": 2, "what": []}"#);
    assert!(matches!(newer, Err(InspectionError::Format(2))));
    for none in ["", "{}", "[]", r#"{"format": 1}"#, r#"{"format": -1}"#] {
        assert!(matches!(Inspection::from_json(none), Err(InspectionError::Json(_))), "{none}");
    }
}

#[test]
fn it_stays_short_enough_to_be_kept() {
    let long = Inspection { licence: Some("x".repeat(berth_inspect::LONGEST)), ..small() };
    assert!(matches!(long.to_json(), Err(InspectionError::Long(_))));
    let run = |layers| LayerRun { layers, ..LayerRun::default() };
    // Each layer unlike its neighbours, twice as many as any model has.
    let layers = (0..256_u64).map(|at| {
        let classes = Classes {
            attention: at,
            dense: u64::MAX,
            experts: u64::MAX,
            kv_projection: u64::MAX,
            latent_projection: u64::MAX,
            replicated: u64::MAX,
            ..Classes::default()
        };
        LayerRun { bytes: classes, parameters: classes, ..run(1) }
    });
    let tensors = Tensors { layers: layers.collect(), outside: run(1), ..Tensors::default() };
    let facts = ModelFacts { tensors: Some(tensors), ..small().facts };
    let text = Inspection { facts, ..small() }.to_json().unwrap();
    assert!(text.len() < berth_inspect::LONGEST, "{}", text.len());
}
