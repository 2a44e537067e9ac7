//! What the advisor says holds, word for word: offers fit, and changes make misfits fit.

use berth_vram::{
    Engine, GgufType, KvDtype, ModelFacts, Quantization,
    advise::{Gpu, Question, Setup, Variant, advise, products},
    catalogue,
};
use proptest::prelude::*;

/// Variants of one model: what the advisor chooses among.
fn some_variants() -> impl Strategy<Value = Vec<Variant>> {
    let stored = prop::sample::subsequence(
        vec![
            Quantization::None,
            Quantization::Fp8,
            Quantization::Int8,
            Quantization::Awq { bits: 4, group_size: 128 },
            Quantization::Bnb4,
        ],
        1..=5,
    );
    let model = prop::sample::select(vec![
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "Qwen/Qwen3-30B-A3B",
        "google/gemma-3-27b-it",
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
    ]);
    (stored, model, any::<bool>()).prop_map(|(stored, model, gguf)| {
        let of = |quantization: Quantization| {
            let facts = catalogue().find(model, None).unwrap().facts.clone();
            let facts = ModelFacts { quantization, weight_bytes: None, ..facts };
            Variant { name: model.to_owned(), facts, engine: Engine::Vllm }
        };
        let mut variants: Vec<_> = stored.into_iter().map(of).collect();
        if gguf {
            let variant = of(Quantization::Gguf(GgufType::Q4KM));
            variants.push(Variant { engine: Engine::LlamaCpp, ..variant });
        }
        variants
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_offer_fits_and_every_change_makes_it_fit(
        variants in some_variants(),
        names in prop::sample::subsequence(products().iter().collect::<Vec<_>>(), 1..4),
        share in 0.3..1.0,
        context_length in prop::option::of(1u32..40_960),
        max_concurrency in prop_oneof![1u32..8, 1u32..64, 200u32..600],
        fp8 in prop::bool::weighted(0.2),
        max_gpus in 1u32..9,
    ) {
        let gpus: Vec<_> = names
            .into_iter()
            .map(|product| Gpu { product, usable: product.vram().scale(share), price: None })
            .collect();
        let kv_dtype = fp8.then_some(KvDtype::Fp8);
        let question = Question {
            variants: &variants,
            gpus: &gpus,
            context_length,
            max_concurrency,
            kv_dtype,
            max_gpus,
            limit: 10,
            limit_per_product: 10,
        };
        let advice = advise(&question);
        prop_assert!(advice.offers.len() <= question.limit);
        // Each product fits, or does not, or serves none of the variants.
        for gpu in 0..gpus.len() {
            let fits = advice.offers.iter().any(|offer| offer.setup.gpu == gpu);
            let misfit = advice.misfits.iter().any(|misfit| misfit.setup.gpu == gpu);
            let unserved = advice.unserved.contains(&gpu);
            let limited = advice.offers.len() == question.limit;
            prop_assert!(limited || u8::from(fits) + u8::from(misfit) + u8::from(unserved) == 1);
        }
        for offer in &advice.offers {
            let setup = offer.setup;
            prop_assert!(setup.fits(&question), "{offer:?}");
            let longest = Setup { context_length: offer.longest_context, ..setup };
            prop_assert!(longest.fits(&question), "{offer:?}");
            let most = Setup { max_concurrency: offer.most_sequences, ..setup };
            prop_assert!(most.fits(&question), "{offer:?}");
            let more = Setup { max_concurrency: offer.most_sequences + 1, ..setup };
            prop_assert!(!more.fits(&question), "{offer:?}");
        }
        for misfit in &advice.misfits {
            prop_assert!(!misfit.setup.fits(&question), "{misfit:?}");
            for change in &misfit.changes {
                prop_assert!(change.applied_to(&misfit.setup).fits(&question), "{misfit:?} {change:?}");
            }
        }
    }
}
