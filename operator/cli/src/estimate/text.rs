//! The estimate for people: a bar, its parts, what fits, and what it rests on.

use std::fmt::Write;

use berth_units::Bytes;
use berth_vram::advise::{Change, Question};

use super::{Answer, FitView, PartsView};
use crate::{
    args::kv_name,
    gpus::GpuView,
    numbers::{billions, count, gib, kib, paragraph, thousands},
};

/// Characters of a bar.
const WIDTH: u32 = 60;

/// The whole answer.
pub fn page(answer: &Answer) -> String {
    // Writing into a String never fails.
    let mut page = String::new();
    let _ = write_page(&mut page, answer);
    page
}

fn write_page(page: &mut String, answer: &Answer) -> std::fmt::Result {
    let Answer { model, workload, per_gpu, .. } = answer;
    writeln!(
        page,
        "{}: {} parameters, {}, {} of weights",
        model.name,
        billions(model.parameters),
        model.quantization,
        gib(model.weight_bytes)
    )?;
    let on = match &answer.gpu {
        Some(gpu) => format!("{} x {}", answer.gpus, gpu.name),
        None => count(answer.gpus, "GPU"),
    };
    let cache = match workload.kv_dtype {
        "auto" => String::new(),
        kind => format!(", KV cache in {kind}"),
    };
    writeln!(
        page,
        "{} on {on}: {} of {} tokens at once{cache}\n",
        answer.engine,
        count(workload.max_concurrency, "sequence"),
        thousands(workload.context_length.into()),
    )?;
    parts(page, answer)?;
    writeln!(page)?;
    if let (Some(fit), Some(gpu)) = (&answer.fit, &answer.gpu) {
        fitting(page, answer, fit, gpu)?;
    }
    if let Some(full) = workload.shortened_from {
        writeln!(
            page,
            "{} tokens of context do not fit; it was halved until they did (--context asks for another).",
            thousands(full.into())
        )?;
    }
    if let Some(products) = &answer.fits_on {
        let known = if products.is_empty() {
            "no GPU that is known".to_owned()
        } else {
            products.join(", ")
        };
        page.push_str(&paragraph(&format!("As many GPUs of these would do: {known}.")));
    }
    writeln!(
        page,
        "A token of context takes {} of KV cache on each GPU.",
        kib(answer.kv_bytes_per_token)
    )?;
    if per_gpu.total_from_manifest {
        writeln!(
            page,
            "The manifest asks for {} on each GPU (spec.gpu.memory), in place of the estimate.",
            gib(per_gpu.total)
        )?;
    }
    let basis = format!("Basis: {}; facts from {}.", answer.basis.text, model.facts);
    page.push_str(&paragraph(&basis));
    Ok(())
}

fn parts(page: &mut String, answer: &Answer) -> std::fmt::Result {
    let PartsView { weights, kv_cache, activation, non_torch, graphs, margin, total, .. } =
        answer.per_gpu;
    let needs = [
        ('W', "weights", weights),
        ('K', "KV cache", kv_cache),
        ('a', "activation", activation),
        ('n', "non-torch", non_torch),
        ('g', "graphs", graphs),
        ('m', "margin", margin),
    ];
    let line = |page: &mut String, key: char, what: &str, bytes: Bytes| {
        writeln!(page, "  {key}  {what:<12}{:>7.1} GiB", bytes.as_gib_f64())
    };
    let mut segments = needs.to_vec();
    let rest = answer.gpu.as_ref().zip(answer.fit.as_ref()).map(|(gpu, fit)| {
        [('.', "free", fit.free_bytes), ('r', "reserved", gpu.vram_bytes - gpu.usable_bytes)]
    });
    segments.extend(rest.into_iter().flatten());
    let whole = answer.gpu.as_ref().map_or(total, |gpu| gpu.vram_bytes);
    let sum = needs.iter().map(|&(_, _, bytes)| bytes).sum::<Bytes>();
    let scale = whole.max(sum).max(Bytes(1));
    let each = if answer.gpus == 1 {
        "the GPU".to_owned()
    } else {
        format!("each of {} GPUs", answer.gpus)
    };
    writeln!(page, "{each}, {}:", gib(whole))?;
    writeln!(page, "  [{}]", bar(&segments, scale, answer.gpu.as_ref()))?;
    for (key, what, bytes) in needs {
        line(page, key, what, bytes)?;
    }
    line(page, ' ', "needed", sum)?;
    for (key, what, bytes) in rest.into_iter().flatten() {
        line(page, key, what, bytes)?;
    }
    Ok(())
}

/// The segments side by side, each as wide as its share. Where they are more than the GPU has, a
/// bar stands where it ends.
fn bar(segments: &[(char, &str, Bytes)], scale: Bytes, gpu: Option<&GpuView>) -> String {
    let place = |bytes: Bytes| {
        let place = u128::from(bytes.get()) * u128::from(WIDTH) + u128::from(scale.get() / 2);
        usize::try_from(place / u128::from(scale.get())).unwrap_or_default()
    };
    let (mut text, mut end) = (String::new(), Bytes::ZERO);
    for &(key, _, bytes) in segments {
        end += bytes;
        let width = place(end).min(WIDTH as usize).saturating_sub(text.len());
        text.extend(std::iter::repeat_n(key, width));
    }
    if let Some(gpu) = gpu.filter(|gpu| gpu.vram_bytes < scale) {
        let edge = place(gpu.vram_bytes).min(text.len());
        text.insert(edge, '|');
    }
    text
}

fn fitting(page: &mut String, answer: &Answer, fit: &FitView, gpu: &GpuView) -> std::fmt::Result {
    if !fit.fits {
        match &fit.obstacle {
            Some(obstacle) => writeln!(page, "It does NOT run there: {obstacle}.")?,
            None => writeln!(
                page,
                "It does NOT fit: {} are needed of {} usable on each {}.",
                gib(answer.per_gpu.total),
                gib(gpu.usable_bytes),
                gpu.name
            )?,
        }
        if fit.changes.is_empty() {
            writeln!(
                page,
                "Nothing that is known would help on this GPU; --max-gpus allows more of them."
            )?;
        } else {
            writeln!(page, "It would with any of these:")?;
            for change in &fit.changes {
                writeln!(page, "  - {}", change.text)?;
            }
        }
        return Ok(());
    }
    let longest = fit.longest_context.unwrap_or(answer.workload.context_length);
    let maximum = if longest == answer.model.max_context { ", the model's maximum" } else { "" };
    page.push_str(&paragraph(&format!(
        "It fits. With {}, up to {} tokens of context{maximum}; with {} tokens, up to {}.",
        count(answer.workload.max_concurrency, "sequence"),
        thousands(longest.into()),
        thousands(answer.workload.context_length.into()),
        count(fit.most_sequences, "sequence"),
    )));
    Ok(())
}

/// A change in words.
pub fn change(change: &Change, question: &Question<'_>) -> String {
    let mut words = Vec::new();
    if let Some(variant) = change.variant {
        let variant = &question.variants[variant];
        words.push(format!("{} ({})", variant.name, variant.facts.quantization));
    }
    if let Some(gpus) = change.gpus {
        words.push(count(gpus, "GPU"));
    }
    if let Some(kind) = change.kv_dtype {
        words.push(format!("a KV cache in {} (--kv-dtype {0})", kv_name(kind)));
    }
    if let Some(context) = change.context_length {
        words.push(format!("a context of {} tokens", thousands(context.into())));
    }
    if let Some(sequences) = change.max_concurrency {
        words.push(format!("{} at once", count(sequences, "sequence")));
    }
    words.join(" and ")
}
