//! Estimate beside truth, case by case and part by part.

use berth_vram::{
    Basis, Breakdown, Constants, ModelFacts, Parallelism, Quantization, Risk, Workload, estimate,
    logged_kv_bytes_per_token, stages_with,
};
use serde::Serialize;

use crate::{
    cases::Case,
    facts::{self, Configs, Known},
    gguf,
    peers::PEERS,
    workload::{self, Run},
};

/// A case ready to be estimated.
#[derive(Clone, Debug)]
pub struct Prepared<'a> {
    /// The row.
    pub case: &'a Case,
    /// The model.
    pub facts: ModelFacts,
    /// Where its facts come from.
    pub source: String,
    /// Whether widths and vocabulary are a guess.
    pub guessed: bool,
    /// What was asked.
    pub workload: Workload,
    /// Over how many GPUs.
    pub parallelism: Parallelism,
}

impl<'a> Prepared<'a> {
    /// Finds the facts of a case of vLLM or `SGLang`, and how it was run.
    pub fn of(case: &'a Case, configs: &Configs, risk: Risk) -> Result<Self, String> {
        let known = facts::of(case, configs)?;
        let Run { workload, mut parallelism } = workload::of(case, &known.facts, risk)?;
        let plain = estimate(&known.facts, &workload, parallelism);
        if let (Err(error), Some(_)) = (&plain, known.facts.moe) {
            // What cannot be cut was dealt out: experts whole on each GPU.
            let whole = Parallelism { expert: true, ..parallelism };
            if estimate(&known.facts, &workload, whole).is_err() {
                return Err(error.to_string());
            }
            parallelism = whole;
        }
        plain.map_or_else(
            |error| if parallelism.expert { Ok(()) } else { Err(error.to_string()) },
            |_| Ok(()),
        )?;
        let Known { facts, source, guessed } = known;
        Ok(Self { case, facts, source, guessed, workload, parallelism })
    }

    /// What the GPU that the log is of needs: vLLM prints that of the first stage.
    pub fn logged(&self, constants: &Constants) -> Breakdown {
        let stages = stages_with(constants, &self.facts, &self.workload, self.parallelism);
        stages.ok().and_then(|stages| stages.first().copied()).unwrap_or_default()
    }

    /// How good the data behind the estimate is.
    pub fn basis(&self) -> Basis {
        let all = estimate(&self.facts, &self.workload, self.parallelism);
        all.map_or(Basis::Fitted, |estimate| estimate.basis)
    }
}

/// One comparison, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Part {
    /// Both figures.
    Compared {
        /// Berth's.
        ours: f64,
        /// The engine's.
        truth: f64,
        /// Ours minus the truth: in GiB for the whole, else as a part of the truth.
        error: f64,
    },
    /// No comparison.
    Skipped {
        /// Why.
        skipped: String,
    },
}

impl Part {
    fn relative((ours, truth): (f64, f64)) -> Self {
        Self::Compared { ours, truth, error: ours / truth - 1.0 }
    }

    fn absolute((ours, truth): (f64, f64)) -> Self {
        Self::Compared { ours, truth, error: ours - truth }
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped { skipped: why.into() }
    }

    /// The error where there is one.
    pub fn error(&self) -> Option<f64> {
        match self {
            Self::Compared { error, .. } => Some(*error),
            Self::Skipped { .. } => None,
        }
    }

    fn within(&self, part: f64) -> bool {
        self.error().is_some_and(|error| error.abs() <= part)
    }
}

/// The parts in GiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gib {
    /// Weights.
    pub weights: f64,
    /// Activation.
    pub activation: f64,
    /// Outside of `PyTorch`.
    pub non_torch: f64,
    /// Graphs.
    pub graphs: f64,
    /// What is added for safety.
    pub margin: f64,
}

/// A case, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub case: String,
    /// The model.
    pub model: String,
    /// Its family.
    pub family: String,
    /// The engine.
    pub engine: String,
    /// Its version, as stated.
    pub version: String,
    /// The GPU.
    pub gpu: String,
    /// GPUs.
    pub gpus: u32,
    /// Where the facts come from; empty without any.
    pub facts: String,
    /// How good the data behind the estimate is; empty without one.
    pub basis: String,
    /// The estimate's parts.
    pub estimate: Option<Gib>,
    /// The log's parts.
    pub truth: Option<Gib>,
    /// All beside the KV cache, in GiB a GPU.
    pub full: Part,
    /// Weights, in GiB a GPU.
    pub weights: Part,
    /// Bytes of the KV cache a token and GPU.
    pub kv: Part,
    /// The same for models that mix kinds of layers, by the rule by which logs until 0.20 count.
    pub kv_mixed: Part,
    /// For GGUF: the cache in MiB.
    pub gguf_kv: Part,
    /// For GGUF: the file in GiB.
    pub gguf_file: Part,
    /// What peers would have claimed for `full`, minus the truth.
    pub peers: Vec<(&'static str, f64)>,
    /// What is left of the GPU beside weights and KV cache: activation and memory outside of `PyTorch`
    /// (graphs too where they count), ours and the log's.
    pub budget: Part,
}

/// Compares all cases.
pub fn rows(cases: &[Case], configs: &Configs, constants: &Constants, risk: Risk) -> Vec<Row> {
    cases.iter().map(|case| row(case, configs, constants, risk)).collect()
}

fn row(case: &Case, configs: &Configs, constants: &Constants, risk: Risk) -> Row {
    let mut row = Row {
        case: case.id().to_owned(),
        model: case.model().to_owned(),
        family: case.text("family").to_owned(),
        engine: case.text("engine").to_owned(),
        version: case.text("engine_version").to_owned(),
        gpu: case.text("gpu").to_owned(),
        gpus: case.count("tp") * case.count("pp"),
        facts: String::new(),
        basis: String::new(),
        estimate: None,
        truth: truth(case),
        full: Part::skipped("does not state weights, activation and non-torch memory"),
        weights: Part::skipped("does not state weights"),
        kv: Part::skipped("does not state both the KV cache and its tokens"),
        kv_mixed: Part::skipped("all layers are of one kind"),
        gguf_kv: Part::skipped("no GGUF"),
        gguf_file: Part::skipped("no GGUF"),
        peers: Vec::new(),
        budget: Part::skipped("weights, KV cache or the GPU's memory are not stated"),
    };
    if case.is_gguf() {
        let reason = "an engine for GGUF";
        (row.full, row.weights, row.kv) =
            (Part::skipped(reason), Part::skipped(reason), Part::skipped(reason));
        row.budget = Part::skipped(reason);
        compare_gguf(&mut row, case, configs);
        return row;
    }
    match Prepared::of(case, configs, risk) {
        Ok(prepared) => compare(&mut row, &prepared, constants),
        Err(reason) => {
            for (part, states) in [
                (&mut row.full, case.is_full()),
                (&mut row.weights, case.gib("weights_gib_per_gpu").is_some()),
                (&mut row.kv, case.kv_bytes_per_token().is_some()),
                (&mut row.budget, case.budget_gib().is_some()),
            ] {
                if states {
                    *part = Part::skipped(reason.clone());
                }
            }
        }
    }
    row
}

fn truth(case: &Case) -> Option<Gib> {
    Some(Gib {
        weights: case.gib("weights_gib_per_gpu")?,
        activation: case.number("activation_peak_gib").unwrap_or(0.0),
        non_torch: case.number("non_torch_gib").unwrap_or(0.0),
        graphs: case.number("cuda_graph_actual_gib").unwrap_or(0.0),
        margin: 0.0,
    })
}

fn compare_gguf(row: &mut Row, case: &Case, configs: &Configs) {
    match gguf::compare(case, configs) {
        Ok(compared) => {
            "configs.json".clone_into(&mut row.facts);
            row.gguf_kv = compared
                .kv_mib
                .map_or_else(|| Part::skipped("does not state the cache"), Part::relative);
            row.gguf_file = match compared.file_gib {
                Some((_, truth)) if truth < 0.01 => {
                    Part::skipped("the file's size is garbled: lines of the log are in its name")
                }
                Some(both) => Part::relative(both),
                None => Part::skipped("the file's parameters or bits a weight are not stated"),
            };
            if let (Some(plain), Part::Compared { truth, .. }) =
                (compared.plain_kv_mib, &row.gguf_kv)
            {
                row.peers.push(("gguf-parser-go", plain / truth - 1.0));
            }
        }
        Err(reason) => {
            row.gguf_kv = Part::skipped(reason.clone());
            row.gguf_file = Part::skipped(reason);
        }
    }
}

fn compare(row: &mut Row, prepared: &Prepared<'_>, constants: &Constants) {
    let case = prepared.case;
    let ours = prepared.logged(constants);
    row.facts.clone_from(&prepared.source);
    row.basis = prepared.basis().to_string();
    row.estimate = Some(Gib {
        weights: ours.weights.as_gib_f64(),
        activation: ours.activation.as_gib_f64(),
        non_torch: ours.non_torch.as_gib_f64(),
        graphs: ours.graphs.as_gib_f64(),
        margin: ours.margin.as_gib_f64(),
    });
    if case.is_full()
        && case.is_vllm()
        && let Some(truth) = case.fixed_gib()
    {
        row.full = Part::absolute((fixed(&ours), truth));
        let checkpoint = berth_vram::weights(&prepared.facts);
        row.peers = PEERS
            .iter()
            .map(|peer| (peer.name, peer.claim(checkpoint, row.gpus) - truth))
            .collect();
    }
    if let Some(truth) = case.gib("weights_gib_per_gpu") {
        row.weights = if prepared.guessed {
            Part::skipped(format!(
                "facts are incomplete ({}): weights would be a guess",
                prepared.source
            ))
        } else if case.is_amd()
            && prepared.facts.moe.is_some()
            && case.text("engine_version").contains("dev")
        {
            Part::skipped("a build between versions, whose experts are not padded as in releases")
        } else {
            Part::relative((ours.weights.as_gib_f64(), truth))
        };
    }
    if let Some(truth) = case.kv_bytes_per_token() {
        let logged =
            logged_kv_bytes_per_token(&prepared.facts, &prepared.workload, prepared.parallelism);
        let both = (logged.map_or(0.0, |bytes| bytes.get() as f64), truth);
        row.kv = if let Some(reason) = ambiguous(prepared) {
            Part::skipped(reason)
        } else if prepared.facts.window.is_some() || prepared.facts.recurrent.is_some() {
            row.kv_mixed = Part::relative(both);
            Part::skipped(
                "layers of several kinds: what the log counts as a token is a matter of its version",
            )
        } else {
            Part::relative(both)
        };
    }
    if case.is_vllm()
        && !case.is_full()
        && let Some(truth) = case.budget_gib()
    {
        let counts = prepared.workload.version >= Some(berth_vram::Version::new(0, 20));
        let graphs = if counts { ours.graphs } else { berth_units::Bytes::ZERO };
        let beside = (ours.activation + ours.non_torch + graphs).as_gib_f64();
        row.budget = Part::absolute((beside, truth));
    }
}

/// All beside the KV cache and the margin, in GiB.
pub fn fixed(parts: &Breakdown) -> f64 {
    (parts.weights + parts.overheads()).as_gib_f64()
}

/// Why a log's size and tokens of the KV cache do not tell what a token takes.
fn ambiguous(prepared: &Prepared<'_>) -> Option<&'static str> {
    let (case, facts) = (prepared.case, &prepared.facts);
    let says = |text: &str| case.model().contains(text) || case.text("note").contains(text);
    let reason = if prepared.parallelism.pipeline > 1 {
        "the cache is that of the first stage, the tokens those of the fullest"
    } else if says("DCP") || says("decode-context-parallel") {
        "tokens are spread over GPUs (decode context parallel), which is not rendered"
    } else if says("derived here") {
        "the size was derived from the number of blocks by the formula that it would check"
    } else if case.is_vllm() && case.version_is_rough() {
        "the version is not known: a table or a thread, no log"
    } else if case.text("kv_cache_dtype").is_empty() && facts.quantization != Quantization::None {
        "how the cache is stored is not stated"
    } else {
        return None;
    };
    Some(reason)
}

/// The figures over all rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Rows.
    pub cases: usize,
    /// Everything beside the KV cache.
    pub full: Full,
    /// Weights.
    pub weights: Weights,
    /// Bytes a token.
    pub kv: Kv,
    /// GGUF.
    pub gguf: Gguf,
}

/// Cases that state weights, activation and memory outside of `PyTorch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Full {
    /// How many.
    pub cases: usize,
    /// Mean size of the error, before the margin.
    pub mae_gib: f64,
    /// Mean error, before the margin.
    pub bias_gib: f64,
    /// Mean size of the error, margin included.
    pub mae_with_margin_gib: f64,
    /// Cases that took more than estimate and margin.
    pub under_with_margin: usize,
}

/// Cases that state weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// How many.
    pub cases: usize,
    /// Within 2 %.
    pub within_2pct: usize,
}

/// Cases that state the KV cache and its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kv {
    /// How many.
    pub cases: usize,
    /// Within 1 %.
    pub within_1pct: usize,
}

/// Cases of GGUF files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gguf {
    /// How many.
    pub cases: usize,
    /// With everything that is stated, cache and file, within 0.5 %.
    pub within_half_pct: usize,
}

/// What `-o json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
    /// The cases.
    pub rows: Vec<Row>,
}

/// The mean, 0 of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) =
        values.into_iter().fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Adds up.
pub fn summary(rows: &[Row]) -> Summary {
    // Error, and error with the margin.
    let full: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|row| Some((row.full.error()?, row.estimate?.margin)))
        .map(|(error, margin)| (error, error + margin))
        .collect();
    let count = |part: fn(&Row) -> &Part, within: f64| {
        let compared = rows.iter().map(part).filter(|part| part.error().is_some());
        (compared.clone().count(), compared.filter(|part| part.within(within)).count())
    };
    let (weights, within_2pct) = count(|row| &row.weights, 0.02);
    let (kv, within_1pct) = count(|row| &row.kv, 0.01);
    let gguf: Vec<bool> = rows
        .iter()
        .filter_map(|row| {
            let mut parts =
                [&row.gguf_kv, &row.gguf_file].into_iter().filter(|p| p.error().is_some());
            let first = parts.next()?;
            Some(first.within(0.005) && parts.all(|part| part.within(0.005)))
        })
        .collect();
    Summary {
        cases: rows.len(),
        full: Full {
            cases: full.len(),
            mae_gib: mean(full.iter().map(|(error, _)| error.abs())),
            bias_gib: mean(full.iter().map(|(error, _)| *error)),
            mae_with_margin_gib: mean(full.iter().map(|(_, with)| with.abs())),
            under_with_margin: full.iter().filter(|(_, with)| *with < 0.0).count(),
        },
        weights: Weights { cases: weights, within_2pct },
        kv: Kv { cases: kv, within_1pct },
        gguf: Gguf { cases: gguf.len(), within_half_pct: gguf.iter().filter(|&&ok| ok).count() },
    }
}
