//! The figures that the milestone promises, on the measured cases; without them the tests say
//! "skipped: no data".

use std::sync::LazyLock;

use berth_bench::{
    cases::Case,
    compare::{Part, Row, rows, summary},
    facts::Configs,
    fit::{Fit, fit},
    llama::Measured,
    page, plot, shared,
};
use berth_vram::{Constants, RENDERED_VLLM, Risk};

fn data() -> Option<(Vec<Case>, Configs)> {
    let data = berth_bench::data(&shared("cases.csv"), &shared("configs.json")).unwrap();
    if data.is_none() {
        println!("skipped: no data");
    }
    data
}

fn compared(cases: &[Case], configs: &Configs) -> Vec<Row> {
    rows(cases, configs, &Constants::FITTED, Risk::DEFAULT)
}

/// What the procedure finds; it takes a while, so once for all.
fn found() -> Option<&'static Fit> {
    static FOUND: LazyLock<Option<Fit>> =
        LazyLock::new(|| data().map(|(cases, configs)| fit(&cases, &configs)));
    FOUND.as_ref()
}

#[test]
fn figures_meet_their_targets() {
    let Some((cases, configs)) = data() else { return };
    let summary = summary(&compared(&cases, &configs));
    println!("{summary:#?}");
    assert!(summary.full.cases >= 50);
    assert!(summary.full.mae_gib <= 0.30);
    assert!(summary.full.under_with_margin <= 1);
    assert!(summary.full.mae_with_margin_gib <= 1.0);
    assert!(summary.weights.within_2pct * 100 >= summary.weights.cases * 95);
    assert!(summary.kv.within_1pct * 100 >= summary.kv.cases * 98);
    assert_eq!(summary.gguf.within_half_pct, summary.gguf.cases);
}

#[test]
fn more_risk_is_less_margin() {
    let Some((cases, configs)) = data() else { return };
    let figures = |risk| {
        let rows = rows(&cases, &configs, &Constants::FITTED, Risk::per_mille(risk));
        summary(&rows).full
    };
    let (safe, usual, none) = (figures(5), figures(50), figures(500));
    assert!(safe.mae_with_margin_gib > usual.mae_with_margin_gib);
    assert!(none.under_with_margin > usual.under_with_margin);
    assert!((none.mae_with_margin_gib - none.mae_gib).abs() < 1e-9);
}

#[test]
fn constants_are_those_that_the_fit_finds() {
    let Some((cases, configs)) = data() else { return };
    let found = fit(&cases, &configs);
    assert_eq!(
        found.stale(1.0),
        [],
        "berth-bench fit prints what belongs into engine/constants.rs"
    );
    let (inside, left_out) = found.mean_errors(3, false);
    assert!(inside <= 0.30 && left_out <= 0.40, "{inside:.3} {left_out:.3}");
}

#[test]
fn every_case_has_figures_or_a_reason() {
    let Some((cases, configs)) = data() else { return };
    let rows = compared(&cases, &configs);
    assert_eq!(rows.len(), cases.len());
    for row in rows {
        for part in [&row.full, &row.weights, &row.kv, &row.gguf_kv, &row.gguf_file] {
            match part {
                Part::Compared { ours, truth, .. } => assert!(*ours > 0.0 && *truth > 0.0),
                Part::Skipped { skipped } => assert!(!skipped.is_empty(), "{}", row.case),
            }
        }
    }
}

#[test]
fn the_page_is_what_the_figures_give() {
    let (Some((cases, configs)), Some(found)) = (data(), found()) else { return };
    let rows = compared(&cases, &configs);
    let measured: Vec<Measured> = serde_json::from_str(include_str!("../llama.json")).unwrap();
    let page = page::page(&rows, &summary(&rows), found, &measured).unwrap();
    let read = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/");
        std::fs::read_to_string(format!("{path}{name}")).unwrap()
    };
    assert!(read("vram-figures.md") == page, "docs/vram-figures.md is old: run 'make bench-docs'");
    assert!(read("vram.svg") == plot::svg(&rows), "docs/vram.svg is old: run 'make bench-docs'");
}

#[test]
fn estimates_are_for_the_version_that_is_rendered() {
    let renderer = include_str!("../../render/src/engine/vllm.rs");
    let image = format!("vllm/vllm-openai:v{RENDERED_VLLM}.");
    assert!(renderer.contains(&image), "berth_vram::RENDERED_VLLM is not what is rendered");
}
