//! Advice for people: a table of what fits, and a line for each product that nothing fits on.

use std::fmt::Write;

use super::{Answer, MisfitView, OfferView};
use crate::numbers::{count, gib, paragraph, rate, thousands};

/// The whole answer.
pub fn page(answer: &Answer) -> String {
    // Writing into a String never fails.
    let mut page = String::new();
    let _ = write_page(&mut page, answer);
    page
}

fn write_page(page: &mut String, answer: &Answer) -> std::fmt::Result {
    let Answer { model, offers, fitting, misfits, unserved } = answer;
    if let Some(first) = offers.first() {
        writeln!(
            page,
            "{model}: {} of {} tokens at once. Ways that fit, the cheapest first:\n",
            count(first.setup.max_concurrency, "sequence"),
            thousands(first.setup.context_length.into())
        )?;
        page.push_str(&table(offers));
        writeln!(page)?;
        if *fitting > offers.len() {
            writeln!(
                page,
                "{} ways fit; of those that cost the same and are alike the roomiest is shown \
                 (--limit).",
                thousands(*fitting as u64)
            )?;
        }
        writeln!(
            page,
            "<= is a roofline, in tokens/s: the data sheets' bandwidth and arithmetic allow no more, \
             and engines reach\na part of it. PROMPT: reading prompts; ONE: writing, one sequence \
             alone; ALL: writing, all sequences\nasked for; both with the context full."
        )?;
        if offers.iter().any(|offer| offer.unpacked) {
            writeln!(
                page,
                "* The GPU has no arithmetic of the weights' type: they are unpacked first."
            )?;
        }
        if offers.iter().any(|offer| offer.cost_per_hour.is_none()) {
            writeln!(page, "Without --price, GPUs count by their memory.")?;
        }
    } else {
        writeln!(page, "{model} fits on none of these GPUs as asked.")?;
    }
    if !misfits.is_empty() {
        writeln!(page, "\nWhere it does not fit:")?;
        for misfit in misfits {
            not_fitting(page, misfit)?;
        }
    }
    if !unserved.is_empty() {
        let text = format!(
            "\nNo engine serves it there as asked, whatever the memory: {}.",
            unserved.join(", ")
        );
        page.push_str(&paragraph(&text));
    }
    Ok(())
}

fn table(offers: &[OfferView]) -> String {
    let priced = offers.iter().any(|offer| offer.cost_per_hour.is_some());
    let mut head = vec![
        "GPUS", "STORED", "ENGINE", "KV", "NEEDED", "FREE", "MAX-CTX", "MAX-SEQS", "<=PROMPT",
        "<=ONE", "<=ALL",
    ];
    if priced {
        head.push("COST/H");
    }
    head.push("MODEL");
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    rows.extend(offers.iter().map(|offer| row(offer, priced)));
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    // Words to the left, numbers to the right.
    let words = |column: usize| column < 4 || column + 1 == columns;
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if words(column) {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(offer: &OfferView, priced: bool) -> Vec<String> {
    let setup = &offer.setup;
    let star = if offer.unpacked { "*" } else { "" };
    let mut cells = vec![
        format!("{} x {}", setup.gpus, setup.gpu),
        format!("{}{star}", setup.quantization),
        setup.engine.to_owned(),
        setup.kv_dtype.to_owned(),
        gib(offer.needed_bytes),
        gib(offer.free_bytes),
        thousands(offer.longest_context.into()),
        thousands(offer.most_sequences.into()),
        rate(offer.roofline.prefill),
        rate(offer.roofline.decode_one),
        rate(offer.roofline.decode_all),
    ];
    if priced {
        cells.push(offer.cost_per_hour.map_or_else(|| "-".to_owned(), |cost| cost.to_string()));
    }
    cells.push(setup.model.clone());
    cells
}

fn not_fitting(page: &mut String, misfit: &MisfitView) -> std::fmt::Result {
    let setup = &misfit.setup;
    write!(
        page,
        "  {} x {}: {} in {} needs {} of {} usable on each",
        setup.gpus,
        setup.gpu,
        setup.model,
        setup.quantization,
        gib(misfit.needed_bytes),
        gib(misfit.usable_bytes)
    )?;
    match misfit.changes.first() {
        Some(change) => writeln!(page, "; it would fit with {}", change.text),
        None => writeln!(page),
    }
}
