//! The comparison for people: tables, what misses and why, what was not compared and why.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    causes,
    compare::{Gib, Part, Row, Summary, mean},
    peers::PEERS,
    table::Table,
};

/// A part of the report.
pub struct Section {
    /// Its head.
    pub title: &'static str,
    /// What to know before reading the table.
    pub text: String,
    /// The table.
    pub table: Table,
}

/// All sections.
pub fn sections(rows: &[Row], summary: &Summary) -> Vec<Section> {
    vec![
        Section {
            title: "Figures and targets",
            text: "GiB a GPU; \"full\" is all that a GPU holds beside the KV cache.".to_owned(),
            table: figures(rows, summary),
        },
        Section {
            title: "By family, beside the rules of others",
            text: format!(
                "Mean size of the error in GiB a GPU before margin / cases that took more than \
                 claimed (ours: margin included). {}.",
                PEERS.map(|peer| format!("{}: {}", peer.name, peer.rule)).join("; ")
            ),
            table: grouped(rows, "family", |row| row.family.clone()),
        },
        Section {
            title: "By version",
            text: "The same by vLLM's version.".to_owned(),
            table: grouped(rows, "vLLM", |row| row.version.clone()),
        },
        Section {
            title: "By component",
            text: "Of the same cases: what is off where.".to_owned(),
            table: components(rows),
        },
        Section {
            title: "What is left of a GPU",
            text: "Logs that state weights and KV cache only: what they leave of the memory that vLLM \
                   was given is activation and memory outside of PyTorch (graphs too since 0.20). No \
                   constant but AMD's was fitted to them."
                .to_owned(),
            table: budgets(rows),
        },
        Section {
            title: "Misses and their likely causes",
            text: format!(
                "Full: beyond {} GiB; weights: beyond 2 %; KV cache: beyond 1 %; GGUF: beyond 0.5 %; \
                 left of a GPU: beyond 1 GiB.",
                causes::FULL_MISS
            ),
            table: misses(rows),
        },
        Section {
            title: "Not compared",
            text: "Every other case, by the reason.".to_owned(),
            table: skipped(rows),
        },
    ]
}

/// All of it for a terminal.
pub fn text(rows: &[Row], summary: &Summary) -> String {
    let mut text = String::new();
    for section in sections(rows, summary).iter().filter(|section| !section.table.is_empty()) {
        let title = section.title.to_uppercase();
        let _ = writeln!(text, "{title}\n{}\n\n{}", section.text, section.table.text());
    }
    text
}

fn figures(rows: &[Row], summary: &Summary) -> Table {
    let mixed = rows.iter().filter_map(|row| row.kv_mixed.error());
    let mixed = (mixed.clone().filter(|error| error.abs() <= 0.01).count(), mixed.count());
    let mut table = Table::new(["figure", "value", "target"]);
    let mut row = |figure: &str, value: String, target: &str| {
        table.row(&[figure.to_owned(), value, target.to_owned()]);
    };
    let full = &summary.full;
    row("full: cases", full.cases.to_string(), "");
    row("full: mean size of the error", format!("{:.3} GiB", full.mae_gib), "0.30 GiB");
    row("full: mean error", format!("{:+.3} GiB", full.bias_gib), "");
    row(
        "full: mean size of the error, margin included",
        format!("{:.3} GiB", full.mae_with_margin_gib),
        "1.0 GiB",
    );
    row("full: under-estimates, margin included", full.under_with_margin.to_string(), "1");
    let share = |part: usize, all: usize| format!("{part} of {all} ({:.1} %)", percent(part, all));
    row("weights within 2 %", share(summary.weights.within_2pct, summary.weights.cases), "95 %");
    row("KV bytes a token within 1 %", share(summary.kv.within_1pct, summary.kv.cases), "98 %");
    row(
        "KV of mixed layers within 1 %, by the log's rule until 0.20 (not in the line above)",
        share(mixed.0, mixed.1),
        "",
    );
    row("GGUF within 0.5 %", share(summary.gguf.within_half_pct, summary.gguf.cases), "");
    table
}

fn percent(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
}

/// Errors of the whole, in groups.
fn grouped(rows: &[Row], by: &str, group: impl Fn(&Row) -> String) -> Table {
    let mut groups = BTreeMap::<String, Vec<&Row>>::new();
    for row in rows.iter().filter(|row| causes::compared(&row.full)) {
        groups.entry(group(row)).or_default().push(row);
    }
    let mut table = Table::new([
        by,
        "cases",
        "truth",
        "Berth",
        "bias",
        "margin",
        "GPUStack",
        "KAITO",
        "accelerate",
    ]);
    let all: Vec<&Row> = groups.values().flatten().copied().collect();
    let total = (!all.is_empty()).then(|| ("all".to_owned(), all));
    for (name, rows) in groups.into_iter().chain(total) {
        let errors: Vec<f64> = rows.iter().filter_map(|row| row.full.error()).collect();
        let margin = |row: &&Row| row.estimate.map_or(0.0, |estimate| estimate.margin);
        let under = |errors: &[f64]| errors.iter().filter(|&&error| error < 0.0).count();
        let with: Vec<f64> =
            rows.iter().filter_map(|row| Some(row.full.error()? + margin(row))).collect();
        let peer = |name: &str| {
            let errors: Vec<f64> = rows
                .iter()
                .filter_map(|row| row.peers.iter().find(|(peer, _)| *peer == name))
                .map(|&(_, error)| error)
                .collect();
            format!("{:.2} / {}", mean(errors.iter().map(|error| error.abs())), under(&errors))
        };
        let truth = rows.iter().filter_map(|row| match row.full {
            Part::Compared { truth, .. } => Some(truth),
            Part::Skipped { .. } => None,
        });
        table.row(&[
            name,
            rows.len().to_string(),
            format!("{:.1}", mean(truth)),
            format!("{:.2} / {}", mean(errors.iter().map(|error| error.abs())), under(&with)),
            format!("{:+.2}", mean(errors.iter().copied())),
            format!("{:.2}", mean(rows.iter().map(margin))),
            peer("GPUStack"),
            peer("KAITO"),
            peer("accelerate"),
        ]);
    }
    table
}

/// One part of a breakdown.
type PartOf = fn(&Gib) -> f64;

fn components(rows: &[Row]) -> Table {
    let mut table = Table::new(["part", "truth", "error", "bias", "largest"]);
    let full: Vec<_> = rows
        .iter()
        .filter(|row| causes::compared(&row.full))
        .filter_map(|row| Some((row, row.estimate?, row.truth?)))
        .collect();
    let parts: [(&str, PartOf); 4] = [
        ("weights", |gib| gib.weights),
        ("activation", |gib| gib.activation),
        ("non-torch", |gib| gib.non_torch),
        ("graphs", |gib| gib.graphs.max(0.0)),
    ];
    for (name, part) in parts {
        let errors = || full.iter().map(|(row, ours, truth)| (row, part(ours) - part(truth)));
        let Some((row, worst)) = errors().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else {
            continue;
        };
        table.row(&[
            name.to_owned(),
            format!("{:.2}", mean(full.iter().map(|(.., truth)| part(truth)))),
            format!("{:.3}", mean(errors().map(|(_, error)| error.abs()))),
            format!("{:+.3}", mean(errors().map(|(_, error)| error))),
            format!("{worst:+.2} ({})", row.case),
        ]);
    }
    table
}

fn budgets(rows: &[Row]) -> Table {
    let mut groups = BTreeMap::<(String, String), Vec<(f64, f64)>>::new();
    for row in rows {
        if let Part::Compared { truth, error, .. } = row.budget {
            let old = row.basis.contains("few logs");
            let era = if old { "before 0.17" } else { "0.17 to 0.20" };
            groups.entry((row.gpu.clone(), era.to_owned())).or_default().push((truth, error));
        }
    }
    let mut table = Table::new(["GPU", "vLLM", "cases", "truth", "error", "bias"]);
    for ((gpu, era), figures) in groups {
        table.row(&[
            gpu,
            era,
            figures.len().to_string(),
            format!("{:.2}", mean(figures.iter().map(|(truth, _)| *truth))),
            format!("{:.2}", mean(figures.iter().map(|(_, error)| error.abs()))),
            format!("{:+.2}", mean(figures.iter().map(|(_, error)| *error))),
        ]);
    }
    table
}

fn misses(rows: &[Row]) -> Table {
    let mut table = Table::new(["case", "model", "GPUs", "what", "error", "likely cause"]);
    let mut miss = |row: &Row, what: &str, error: String, cause: String| {
        table.row(&[
            row.case.clone(),
            short(&row.model),
            format!("{} {}", row.gpus, row.gpu),
            what.to_owned(),
            error,
            cause,
        ]);
    };
    let percent = |error: f64| format!("{:+.1} %", 100.0 * error);
    let beyond = |part: &Part, limit: f64| part.error().filter(|error| error.abs() > limit);
    for row in rows {
        if let Some(error) = beyond(&row.full, causes::FULL_MISS) {
            miss(row, "full", format!("{error:+.2} GiB"), causes::full(row));
        }
        if let Some(error) = beyond(&row.weights, 0.02) {
            miss(row, "weights", percent(error), causes::weights(row).to_owned());
        }
        if let Some(error) = beyond(&row.kv, 0.01) {
            miss(row, "KV cache", percent(error), causes::kv(row).to_owned());
        }
        for (what, part) in [("GGUF cache", &row.gguf_kv), ("GGUF file", &row.gguf_file)] {
            if let Some(error) = beyond(part, 0.005) {
                miss(row, what, percent(error), "unknown".to_owned());
            }
        }
        if let Some(error) = beyond(&row.budget, 1.0) {
            miss(row, "left of a GPU", format!("{error:+.2} GiB"), causes::budget(row).to_owned());
        }
    }
    table
}

/// A model's name; some rows have half a log in it.
fn short(model: &str) -> String {
    let words: Vec<&str> = model.split_whitespace().collect();
    let joined = words.join(" ");
    let mut name: String = joined.chars().take(60).collect();
    if name.len() < joined.len() {
        name.push('…');
    }
    name.replace('|', "/")
}

fn skipped(rows: &[Row]) -> Table {
    let mut reasons = BTreeMap::<(&str, String), Vec<&str>>::new();
    for row in rows {
        for (what, part) in [
            ("full", &row.full),
            ("weights", &row.weights),
            ("KV cache", &row.kv),
            ("GGUF cache", &row.gguf_kv),
            ("GGUF file", &row.gguf_file),
        ] {
            if let Part::Skipped { skipped } = part
                && !matches!(skipped.as_str(), "no GGUF" | "an engine for GGUF")
            {
                // Figures differ by case; the rows have them.
                let reason = skipped.split(['(', ';']).next().unwrap_or(skipped).trim().to_owned();
                reasons.entry((what, reason)).or_default().push(&row.case);
            }
        }
    }
    let mut table = Table::new(["what", "cases", "reason", "which"]);
    for ((what, reason), cases) in reasons {
        table.row(&[what.to_owned(), cases.len().to_string(), reason, cases.join(" ")]);
    }
    table
}
