//! The advisor as a whole.

use std::time::Instant;

use super::*;
use crate::{Engine, catalogue};

fn variant(id: &str, file: Option<&str>) -> Variant {
    let entry = catalogue().find(id, file).unwrap();
    let engine = if file.is_some() { Engine::LlamaCpp } else { Engine::Vllm };
    Variant { name: entry.id.clone(), facts: entry.facts.clone(), engine }
}

fn llama() -> Vec<Variant> {
    vec![
        variant("meta-llama/Llama-3.1-70B-Instruct", None),
        variant("nvidia/Llama-3.1-70B-Instruct-FP8", None),
        variant("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", None),
        variant("bartowski/Meta-Llama-3.1-70B-Instruct-GGUF", Some("*Q4_K_M.gguf")),
    ]
}

/// Less than all of it, as for the fleet.
fn gpu(name: &str, price: Option<&str>) -> Gpu<'static> {
    let product = product(name).unwrap();
    let price = price.map(|price| price.parse().unwrap());
    Gpu { product, usable: product.vram().scale(0.95), price }
}

fn question<'a>(variants: &'a [Variant], gpus: &'a [Gpu<'a>]) -> Question<'a> {
    Question {
        variants,
        gpus,
        context_length: None,
        max_concurrency: 1,
        kv_dtype: None,
        max_gpus: 8,
        limit: 10,
        limit_per_product: 10,
    }
}

fn shown(question: &Question<'_>, offer: &Offer) -> String {
    let Setup { variant, gpu, gpus, kv_dtype, .. } = offer.setup;
    let stored = question.variants[variant].facts.quantization;
    format!("{gpus} x {}, {stored}, {kv_dtype:?}", question.gpus[gpu].product)
}

#[test]
fn the_cheapest_comes_first_and_everything_fits() {
    let (variants, gpus) = (llama(), [gpu("H100", Some("2.50")), gpu("L40S", Some("0.90"))]);
    let question = question(&variants, &gpus);
    let advice = advise(&question);
    let shown: Vec<_> = advice.offers.iter().map(|offer| shown(&question, offer)).collect();
    assert_eq!(shown[0], "2 x L40S, GGUF Q4_K_M, Auto", "{shown:#?}");
    assert_eq!(shown[1], "2 x L40S, AWQ 4-bit, Auto", "{shown:#?}");
    assert!(advice.offers.is_sorted_by_key(|offer| offer.cost), "{shown:#?}");
    assert!(shown.contains(&"1 x H100-80GB, AWQ 4-bit, Auto".to_owned()), "{shown:#?}");
    for offer in &advice.offers {
        assert!(offer.setup.fits(&question));
        assert!(offer.longest_context >= offer.setup.context_length);
        assert!(offer.most_sequences >= 1);
        assert!(offer.roofline.prefill > offer.roofline.decode_one);
    }
    assert!(advice.misfits.is_empty() && advice.fitting >= advice.offers.len());
}

#[test]
fn without_prices_memory_is_the_cost() {
    let (variants, gpus) = (llama(), [gpu("H200", None), gpu("A100-40GB", None)]);
    let question = question(&variants, &gpus);
    let held =
        |offer: &Offer| question.gpus[offer.setup.gpu].product.vram() * u64::from(offer.setup.gpus);
    let advice = advise(&question);
    assert!(advice.offers.is_sorted_by_key(held));
    assert_eq!(shown(&question, &advice.offers[0]), "2 x A100-40GB, GGUF Q4_K_M, Auto");
}

#[test]
fn a_misfit_comes_with_what_would_fit() {
    let variants = [variant("meta-llama/Llama-3.1-70B-Instruct", None)];
    let gpus = [gpu("L40S", None), gpu("T4", None)];
    let question = Question {
        max_concurrency: 64,
        context_length: Some(131_072),
        ..question(&variants, &gpus)
    };
    let advice = advise(&question);
    assert_eq!((advice.offers.len(), advice.misfits.len()), (0, 2));
    let l40s = &advice.misfits[0];
    assert_eq!(l40s.setup.gpus, 8);
    assert!(!l40s.changes.is_empty());
    for change in &l40s.changes {
        assert!(change.applied_to(&l40s.setup).fits(&question), "{change:?}");
    }
    // 141 GB of weights on 8 × 15 GB: nothing helps.
    assert!(advice.misfits[1].changes.is_empty(), "{:?}", advice.misfits[1]);
}

/// `cargo test --release -p berth-vram -- --nocapture the_time` prints the figure.
#[test]
fn the_time_that_advice_takes() {
    let mut variants: Vec<_> = catalogue()
        .iter()
        .filter(|entry| entry.facts.validate().is_ok())
        .map(|entry| variant(&entry.id, None))
        .collect();
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    let variants: Vec<_> = variants.into_iter().cycle().take(200).collect();
    let gpus: Vec<_> = products()
        .iter()
        .take(10)
        .map(|product| Gpu { product, usable: product.vram().scale(0.95), price: None })
        .collect();
    for (what, max_concurrency) in [("all fit", 1), ("nothing fits", 100_000)] {
        let question = Question { max_concurrency, limit: 20, ..question(&variants, &gpus) };
        let runs = 20;
        let start = Instant::now();
        for _ in 0..runs {
            assert!(advise(&question).offers.len() <= 20);
        }
        let each = start.elapsed() / runs;
        println!("advice over 10 products and 200 variants, {what}: {each:?}");
    }
}
