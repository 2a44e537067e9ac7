//! The estimate against what engines printed at start-up.
//!
//! Reads the measured cases where they are at hand (`BERTH_SHARED`, else `../shared` beside the
//! repository) and says "skipped: no data" where they are not. Nothing is left out silently: each
//! case that is not compared is printed with the reason (`--nocapture` shows the tables).

mod data;

use berth_units::Bytes;
use berth_vram::{
    Breakdown, Engine, Estimate, KvDtype, ModelFacts, Parallelism, Workload, estimate,
};
use data::{Case, Data};

/// vLLM's own `--max-num-seqs` on GPUs as large as H100, which the logs were made with.
const LOGGED_MAX_NUM_SEQS: u32 = 1024;

fn predict(case: &Case, facts: &ModelFacts) -> Result<Estimate, String> {
    if case.text("pp") != "1" {
        return Err("pipeline parallel: comes later".to_owned());
    }
    let tensor = case.text("tp").parse().map_err(|_| "no tensor degree".to_owned())?;
    let context = case.text("max_model_len").split(';').next().unwrap_or_default().trim();
    let context = context.parse().unwrap_or(1024).min(facts.max_context);
    let fp8 = case.text("kv_cache_dtype").starts_with("fp8");
    let workload = Workload {
        kv_dtype: if fp8 { KvDtype::Fp8 } else { KvDtype::Auto },
        max_num_seqs: LOGGED_MAX_NUM_SEQS,
        ..Workload::new(Engine::Vllm, context, 1)
    };
    estimate(facts, &workload, Parallelism::tensor(tensor)).map_err(|error| error.to_string())
}

/// What vLLM counts beside the KV cache.
fn fixed(parts: &Breakdown) -> f64 {
    (parts.weights + parts.overheads()).as_gib_f64()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

#[test]
fn complete_logs_agree_within_the_margin() {
    let Some(data) = Data::read() else { return };
    // (estimate − truth, margin) for the version that Berth renders, and for older ones.
    let (mut current, mut older) = (Vec::new(), Vec::new());
    for case in &data.cases {
        let parts = ["weights_gib_per_gpu", "activation_peak_gib", "non_torch_gib"];
        let measured: Option<f64> = parts.iter().map(|part| case.number(part)).sum();
        let (Some(measured), "vLLM") = (measured, case.text("engine")) else { continue };
        let truth = measured + case.number("cuda_graph_actual_gib").unwrap_or(0.0);
        let version = case.text("engine_version");
        let predicted = data::from_catalogue(case).and_then(|facts| predict(case, &facts));
        match predicted {
            Ok(Estimate { per_gpu, .. }) => {
                let error = fixed(&per_gpu) - truth;
                let margin = per_gpu.margin.as_gib_f64();
                println!("{case} vLLM {version}: {truth:.2} GiB, {error:+.2}, margin {margin:.2}");
                if version == "0.19.0" { &mut current } else { &mut older }.push((error, margin));
            }
            Err(reason) => println!("{case}: not compared: {reason}"),
        }
    }
    let report = |name: &str, errors: &mut Vec<(f64, f64)>| {
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mae = mean(errors.iter().map(|(error, _)| error.abs()));
        let bias = mean(errors.iter().map(|(error, _)| *error));
        let over = mean(errors.iter().map(|(error, margin)| error + margin));
        let under = errors.iter().filter(|(error, margin)| error + margin < 0.0).count();
        let quantile = errors.get(errors.len() / 20).map_or(0.0, |(error, _)| -error);
        println!(
            "{name}: {} cases, MAE {mae:.3}, mean {bias:+.3}, with margin {over:+.3}, shortfall \
             95 % {quantile:.2}, largest {:.2}, under with margin {under}",
            errors.len(),
            errors.first().map_or(0.0, |(error, _)| -error),
        );
        (mae, over, under)
    };
    let (mae, over, under) = report("vLLM 0.19", &mut current);
    report("older vLLM (not fitted: activation was larger)", &mut older);
    assert!(current.len() >= 40, "only {} cases could be compared", current.len());
    assert!(mae <= 0.20, "MAE {mae:.3} GiB");
    assert!(under <= 1, "{under} under-estimates with margin");
    assert!(over <= 1.0, "over by {over:.3} GiB on average");
}

#[test]
fn weights_agree_within_two_per_cent() {
    let Some(data) = Data::read() else { return };
    let (mut compared, mut close) = (0, 0);
    for case in data.cases.iter().filter(|case| case.text("engine") == "vLLM") {
        let Some(truth) = case.number("weights_gib_per_gpu") else { continue };
        if case.text("gpu").starts_with("MI") {
            println!("{case}: not compared: AMD pads some weights");
            continue;
        }
        match data::from_catalogue(case).and_then(|facts| predict(case, &facts)) {
            Ok(estimate) => {
                let ratio = estimate.per_gpu.weights.as_gib_f64() / truth;
                compared += 1;
                if (ratio - 1.0).abs() <= 0.02 {
                    close += 1;
                } else {
                    println!("{case}: weights {ratio:.3} of {truth:.2} GiB");
                }
            }
            Err(reason) => println!("{case}: not compared: {reason}"),
        }
    }
    println!("weights within 2 %: {close} of {compared}");
    assert!(close * 100 >= compared * 90, "{close} of {compared}");
}

#[test]
fn kv_bytes_per_token_agree_within_one_per_cent() {
    let Some(data) = Data::read() else { return };
    let (mut compared, mut close) = (0, 0);
    for case in data.cases.iter().filter(|case| case.text("engine") == "vLLM") {
        let Some(truth) = case.number("implied_kv_bytes_per_token_per_gpu") else { continue };
        if case.text("kv_check") != "match" {
            println!("{case}: not compared: {:?}", case.text("kv_check"));
            continue;
        }
        let facts = data::from_catalogue(case).or_else(|_| data.config_facts(case));
        match facts.and_then(|facts| predict(case, &facts)) {
            Ok(estimate) => {
                let Bytes(ours) = estimate.kv_bytes_per_token;
                compared += 1;
                if (ours as f64 / truth - 1.0).abs() <= 0.01 {
                    close += 1;
                } else {
                    println!("{case}: {ours} bytes a token, {truth} in the log");
                }
            }
            Err(reason) => println!("{case}: not compared: {reason}"),
        }
    }
    println!("KV bytes a token within 1 %: {close} of {compared}");
    assert!(compared >= 70, "only {compared} cases could be compared");
    assert!(close * 100 >= compared * 95, "{close} of {compared}");
}

#[test]
fn the_catalogue_agrees_with_copies_of_config_json() {
    let Some(data) = Data::read() else { return };
    let mut compared = 0;
    for (name, config) in data.configs() {
        let Some(entry) = berth_vram::catalogue().find(&name, None) else { continue };
        let facts = &entry.facts;
        for (field, ours) in [
            ("num_hidden_layers", facts.layers),
            ("hidden_size", facts.hidden_size),
            ("num_attention_heads", facts.attention_heads),
            ("num_key_value_heads", facts.kv_heads),
            ("vocab_size", facts.vocab_size),
            ("max_position_embeddings", facts.max_context),
        ] {
            if let Some(theirs) = config[field].as_u64() {
                assert_eq!(u64::from(ours), theirs, "{name}: {field}");
                compared += 1;
            }
        }
    }
    println!("{compared} facts agree with copies of config.json");
    assert!(compared >= 100);
}
