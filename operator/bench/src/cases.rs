//! The measured cases: one row of `cases.csv` each, with what an engine printed at start-up.

use std::collections::HashMap;

use anyhow::{Context, bail};
use berth_units::{Bytes, GIB};
use berth_vram::Version;

/// One row.
#[derive(Clone, Debug)]
pub struct Case(HashMap<String, String>);

impl Case {
    /// A column's text, empty where there is none.
    pub fn text(&self, column: &str) -> &str {
        self.0.get(column).map_or("", |text| text.trim())
    }

    /// A column's number.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A column's whole number from 1 on; 1 where there is none.
    pub fn count(&self, column: &str) -> u32 {
        self.text(column).parse().unwrap_or(1).max(1)
    }

    /// A column of GiB that are more than none.
    pub fn gib(&self, column: &str) -> Option<f64> {
        self.number(column).filter(|&gib| gib > 0.0)
    }

    /// The name of the case.
    pub fn id(&self) -> &str {
        self.text("case_id")
    }

    /// The model, as the log names it.
    pub fn model(&self) -> &str {
        self.text("model")
    }

    /// Whether vLLM printed this.
    pub fn is_vllm(&self) -> bool {
        self.text("engine") == "vLLM"
    }

    /// Whether the model is a GGUF file: an engine of llama.cpp's family.
    pub fn is_gguf(&self) -> bool {
        !matches!(self.text("engine"), "vLLM" | "SGLang")
    }

    /// The versions that the row is about: rows that did not differ were put together.
    pub fn versions(&self) -> Vec<Version> {
        let text = self.text("engine_version");
        if text.contains("not stated") {
            return Vec::new();
        }
        text.split(';').filter_map(Version::parse).collect()
    }

    /// Whether the version is only known roughly (`~0.9`, `0.21-0.22`).
    pub fn version_is_rough(&self) -> bool {
        let text = self.text("engine_version");
        self.versions().is_empty() || text.contains('~') || text.contains(".x")
    }

    /// The longest context that the row is about.
    pub fn context(&self) -> Option<u32> {
        let all = self.text("max_model_len").split(';');
        all.filter_map(|length| length.trim().parse().ok()).max()
    }

    /// The fraction of the GPU's memory that vLLM was given.
    ///
    /// Rows of vLLM 0.20 and later say 0.9 where the flag was not given; the default became 0.92 with
    /// 0.20, and with 0.9 weights and KV cache alone would be more than there was.
    pub fn memory_utilization(&self) -> Option<f64> {
        let stated = self.number("gpu_memory_utilization")?;
        let newer = self.versions().iter().all(|&version| version >= Version::new(0, 20));
        Some(if newer && (stated - 0.9).abs() < 1e-9 { 0.92 } else { stated })
    }

    /// The memory of one GPU as `PyTorch` counts it, in GiB, by the log or by the product's name.
    pub fn gpu_memory(&self) -> Option<f64> {
        if let Some(stated) = self.gib("gpu_total_gib") {
            return Some(stated);
        }
        let gpu = self.text("gpu");
        PRODUCTS.iter().find(|(name, _)| gpu.contains(name)).map(|&(_, gib)| gib)
    }

    /// Whether the GPU is AMD's.
    pub fn is_amd(&self) -> bool {
        self.text("gpu").starts_with("MI")
    }

    /// What a token of the KV cache takes on a GPU, by the log: its size divided by its tokens.
    pub fn kv_bytes_per_token(&self) -> Option<f64> {
        let (gib, tokens) = (self.gib("kv_cache_gib_per_gpu")?, self.gib("kv_tokens_reported")?);
        Some(gib * GIB as f64 / tokens)
    }

    /// Whether the row states weights, activation and memory outside of `PyTorch`.
    pub fn is_full(&self) -> bool {
        let parts = ["weights_gib_per_gpu", "activation_peak_gib", "non_torch_gib"];
        parts.iter().all(|part| self.number(part).is_some())
    }

    /// All that the log says is taken beside the KV cache, in GiB. A negative figure for graphs is
    /// memory of the allocator's cache that was given back meanwhile; graphs take none then.
    pub fn fixed_gib(&self) -> Option<f64> {
        let part = |column| self.number(column);
        let graphs = part("cuda_graph_actual_gib").unwrap_or(0.0).max(0.0);
        Some(
            part("weights_gib_per_gpu")?
                + part("activation_peak_gib")?
                + part("non_torch_gib")?
                + graphs,
        )
    }

    /// What is left for activation and memory outside of `PyTorch` (and graphs, where they count)
    /// when weights and KV cache are taken off what vLLM was given.
    pub fn budget_gib(&self) -> Option<f64> {
        let total = self.gpu_memory()? * self.memory_utilization()?;
        Some(total - self.gib("weights_gib_per_gpu")? - self.gib("kv_cache_gib_per_gpu")?)
    }
}

/// GiB that `PyTorch` counts on whole GPUs, by the product's name.
const PRODUCTS: [(&str, f64); 7] = [
    ("H100 80GB", 79.19),
    ("H200", 139.81),
    ("B200", 178.35),
    ("MI300X", 191.98),
    ("RTX 3090", 23.58),
    ("RTX 5090", 31.36),
    ("A6000", 47.53),
];

/// Reads the rows of a CSV file with a header.
pub fn read(text: &str) -> anyhow::Result<Vec<Case>> {
    let mut rows = parse(text).into_iter();
    let header = rows.next().context("the cases are empty")?;
    if !header.iter().any(|column| column == "case_id") {
        bail!("the cases have no column case_id");
    }
    let cases = rows.filter(|row| row.iter().any(|field| !field.is_empty()));
    Ok(cases
        .map(|row| {
            let named = header.iter().map(String::as_str).map(str::to_owned).zip(row);
            Case(named.collect())
        })
        .collect())
}

/// CSV with quoted fields.
fn parse(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            _ => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// GiB as bytes.
pub fn gib(gib: f64) -> Bytes {
    Bytes::from_gib_f64(gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_quotes_and_gaps() {
        let text = "case_id,engine_version,max_model_len,note\n\
                    c1,v0.18.0; v0.19.0,\"8192; 10000\",\"says \"\"so\"\", twice\"\n\
                    c2,v0.1x (not stated),,\r\n\
                    c3,V0 ~0.6.4,29000";
        let cases = read(text).unwrap();
        assert_eq!(cases.len(), 3);
        assert_eq!(cases[0].versions(), [Version::new(0, 18), Version::new(0, 19)]);
        assert_eq!(cases[0].context(), Some(10_000));
        assert_eq!(cases[0].text("note"), "says \"so\", twice");
        assert!(cases[1].versions().is_empty() && cases[1].version_is_rough());
        assert_eq!(cases[1].context(), None);
        assert!(cases[2].version_is_rough());
        assert!(read("").is_err() && read("a,b\n1,2\n").is_err());
    }
}
