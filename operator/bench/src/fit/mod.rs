//! The procedure that finds the constants: `berth-bench fit`.
//!
//! 1. Cases of vLLM whose facts are known are prepared; a model counts once, however many logs there
//!    are of it and its quantised relatives.
//! 2. Each constant is found from what it explains alone: activation, memory outside of `PyTorch` and
//!    graphs from complete logs; AMD's share from budgets (what weights and KV cache leave of what
//!    vLLM was given). The loss is Huber's.
//! 3. The same again without each model in turn; the errors on the model left out are the
//!    cross-validated ones, and their shortfalls are what the margin is made of.
//! 4. Constants are rounded to what the data can tell.

mod solve;

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use berth_vram::{Basis, Breakdown, Constant, Constants, Gap, Risk, Vendor, Version};

use self::solve::{Residual, solve};
use crate::{
    cases::Case,
    compare::{Prepared, mean},
    facts::Configs,
};

/// What the procedure found.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The constants, rounded.
    pub constants: Constants,
    /// Errors of complete logs in GiB, by case: in sample, and with the model left out.
    pub logs: Vec<Log>,
    /// Cases that a constant was found from.
    pub used: Used,
}

/// How many cases each constant was found from.
type Used = BTreeMap<&'static str, usize>;

/// A complete log.
#[derive(Clone, Debug)]
pub struct Log {
    /// The case.
    pub case: String,
    /// Its model, without what quantisers add.
    pub model: String,
    /// Whether there are constants for its kind.
    pub fitted: bool,
    /// Ours minus the truth: activation, outside of `PyTorch`, graphs, and all beside the KV cache.
    pub in_sample: [f64; 4],
    /// The same with the model left out.
    pub left_out: [f64; 4],
}

/// What a log says.
struct Observed<'a> {
    prepared: Prepared<'a>,
    model: String,
    basis: Basis,
    /// Activation and memory outside of `PyTorch`; complete logs only.
    parts: Option<(f64, f64)>,
    graphs: Option<f64>,
    /// What weights and KV cache leave; not from complete logs.
    budget: Option<f64>,
}

impl Observed<'_> {
    fn era_now(&self) -> bool {
        self.prepared.workload.version >= Some(Version::new(0, 17))
    }

    fn sorts(&self) -> bool {
        self.prepared.workload.version >= Some(Version::new(0, 8)) && !self.era_now()
    }

    fn is_amd(&self) -> bool {
        self.prepared.workload.vendor == Vendor::Amd
    }

    fn counts_graphs(&self) -> bool {
        self.prepared.workload.version >= Some(Version::new(0, 20))
    }

    /// Ours minus what is taken beside the KV cache. Graphs count where vLLM or the log counts them;
    /// on AMD weights do not, as they are packed anew.
    fn fixed_error(&self, ours: &Breakdown) -> Option<f64> {
        let overheads = ours.overheads().as_gib_f64();
        let weights = self.prepared.case.gib("weights_gib_per_gpu");
        let weights = weights.map_or(0.0, |truth| ours.weights.as_gib_f64() - truth);
        if let Some((activation, non_torch)) = self.parts {
            let graphs = self.graphs.unwrap_or(0.0);
            return Some(weights + overheads - activation - non_torch - graphs);
        }
        let budget = self.budget?;
        Some(if self.is_amd() {
            overheads - budget - self.graphs?
        } else if self.counts_graphs() {
            weights + overheads - budget
        } else {
            weights + (ours.activation + ours.non_torch).as_gib_f64() - budget
        })
    }
}

/// Runs the procedure.
pub fn fit(cases: &[Case], configs: &Configs) -> Fit {
    let observed = observe(cases, configs);
    let mut used = Used::new();
    let all: Vec<&Observed<'_>> = observed.iter().collect();
    let mut constants = constants(&all, &mut used, None);
    let left_out = leave_out(&observed, &constants, &used);
    errors(&observed, &left_out, &mut constants);
    let rounded = rounded(&constants);
    let logs = logs(&observed, &left_out, &rounded);
    Fit { constants: rounded, logs, used }
}

fn observe<'a>(cases: &'a [Case], configs: &Configs) -> Vec<Observed<'a>> {
    let vllm = cases.iter().filter(|case| case.is_vllm());
    vllm.filter_map(|case| {
        let prepared = Prepared::of(case, configs, Risk::DEFAULT).ok()?;
        if prepared.guessed {
            return None;
        }
        let full = case.is_full();
        let parts = case.number("activation_peak_gib").zip(case.number("non_torch_gib"));
        Some(Observed {
            model: crate::facts::base_name(case.model()),
            basis: prepared.basis(),
            parts: parts.filter(|_| full),
            graphs: case.number("cuda_graph_actual_gib").map(|graphs| graphs.max(0.0)),
            budget: case.budget_gib().filter(|_| !full),
            prepared,
        })
    })
    .collect()
}

/// Where the search begins, whatever is in use: what reading vLLM's code suggests.
fn start() -> Constants {
    let mut constants = Constants::FITTED;
    for (constant, value) in [
        (Constant::ActivationBase, 0.0),
        (Constant::HiddenStates, 4.0),
        (Constant::PixelsPerToken, 2352.0),
        (Constant::SortedLogit, 30.0),
        (Constant::NonTorchAlone, 256.0),
        (Constant::NonTorchTogether, 2048.0),
        (Constant::NonTorchAloneBefore, 256.0),
        (Constant::NonTorchTogetherBefore, 512.0),
        (Constant::NonTorchAmd, 1024.0),
        (Constant::Graphs, 512.0),
        (Constant::GraphsLayer, 16.0),
        (Constant::GraphsExperts, 256.0),
        (Constant::GraphsLatentLayer, 16.0),
        (Constant::GraphsBefore, 256.0),
        (Constant::GraphsAmd, 4096.0),
    ] {
        constants.set(constant, value);
    }
    constants
}

/// All constants that a formula has, from these observations.
///
/// `known` is what was found from more observations: where those that are left out say nothing, it
/// holds.
fn constants(
    observed: &[&Observed<'_>],
    used: &mut Used,
    known: Option<(&Constants, &Used)>,
) -> Constants {
    use Constant as C;
    let mut constants = start();
    let mut group = |constants: &mut Constants, names: &[C], offset: bool, from: &From<'_>| {
        for name in names {
            used.insert(name.name(), from.len());
        }
        match known {
            Some((known, used)) if used.get(names[0].name()) == Some(&from.len()) => {
                for &name in names {
                    constants.set(name, known.get(name));
                }
            }
            _ => group(constants, names, offset, from),
        }
    };

    let activation = |ours: &Breakdown| ours.activation.as_gib_f64();
    let peaks = |o: &Observed<'_>| o.parts.map(|(activation, _)| activation);
    let now = select(observed, |o| peaks(o).filter(|_| o.era_now()));
    let names = [C::ActivationBase, C::HiddenStates, C::PixelsPerToken];
    group(&mut constants, &names, false, &now.of(activation));
    let sorting = select(observed, |o| peaks(o).filter(|_| o.sorts()));
    group(&mut constants, &[C::SortedLogit], false, &sorting.of(activation));

    let non_torch = select(observed, |o| o.parts.map(|(_, non_torch)| non_torch));
    let names =
        [C::NonTorchAlone, C::NonTorchTogether, C::NonTorchAloneBefore, C::NonTorchTogetherBefore];
    group(&mut constants, &names, false, &non_torch.of(|ours| ours.non_torch.as_gib_f64()));

    let now = |o: &Observed<'_>| o.era_now() && !o.is_amd();
    let graphs = |ours: &Breakdown| ours.graphs.as_gib_f64();
    let captured = select(observed, |o| o.graphs.filter(|&graphs| graphs > 0.0 && now(o)));
    let names = [C::Graphs, C::GraphsLayer, C::GraphsExperts, C::GraphsLatentLayer];
    group(&mut constants, &names, true, &captured.of(graphs));
    let before = select(observed, |o| o.graphs.filter(|_| !o.era_now() && !o.is_amd()));
    group(&mut constants, &[C::GraphsBefore], false, &before.of(graphs));
    let amd = select(observed, |o| o.graphs.filter(|_| o.is_amd()));
    group(&mut constants, &[C::GraphsAmd], false, &amd.of(graphs));

    let budgets = select(observed, |o| o.budget.filter(|_| o.is_amd()));
    let beside = |ours: &Breakdown| (ours.activation + ours.non_torch).as_gib_f64();
    group(&mut constants, &[C::NonTorchAmd], false, &budgets.of(beside));
    constants
}

/// Observations of one thing.
struct Selected<'a>(Vec<(&'a Observed<'a>, f64)>);

/// What is compared with them.
struct From<'a> {
    rows: Vec<(&'a Observed<'a>, f64, f64)>,
    ours: Box<dyn Fn(&Breakdown) -> f64>,
}

fn select<'a>(
    observed: &[&'a Observed<'a>],
    truth: impl Fn(&Observed<'_>) -> Option<f64>,
) -> Selected<'a> {
    Selected(observed.iter().filter_map(|o| Some((*o, truth(o)?))).collect())
}

impl<'a> Selected<'a> {
    fn of(self, ours: impl Fn(&Breakdown) -> f64 + 'static) -> From<'a> {
        let mut counts = BTreeMap::<&str, f64>::new();
        for (observed, _) in &self.0 {
            *counts.entry(&observed.model).or_default() += 1.0;
        }
        let weight = |o: &Observed<'_>| 1.0 / counts.get(o.model.as_str()).copied().unwrap_or(1.0);
        let rows = self.0.iter().map(|(o, truth)| (*o, *truth, weight(o))).collect();
        From { rows, ours: Box::new(ours) }
    }
}

impl From<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Finds some constants together. With `offset`, GPUs other than the H100 may differ by a figure that
/// is found too and then forgotten: what they add to the law is its shape.
fn group(constants: &mut Constants, names: &[Constant], offset: bool, from: &From<'_>) {
    if from.rows.is_empty() {
        return;
    }
    let mut start: Vec<f64> = names.iter().map(|&name| constants.get(name)).collect();
    let mut scales: Vec<f64> = start.iter().map(|value| value.max(1.0) * 0.1).collect();
    if offset {
        start.push(0.0);
        scales.push(0.1);
    }
    let base = constants.clone();
    let found = solve(&start, &scales, usize::from(offset), |values| {
        let mut tried = base.clone();
        for (&name, &value) in names.iter().zip(values) {
            tried.set(name, value);
        }
        let moved = if offset { values[names.len()] } else { 0.0 };
        let residual = |(o, truth, weight): &(&Observed<'_>, f64, f64)| -> Residual {
            let elsewhere = !o.prepared.case.text("gpu").contains("H100");
            let ours = (from.ours)(&o.prepared.logged(&tried));
            (ours + if elsewhere { moved } else { 0.0 } - truth, *weight)
        };
        from.rows.iter().map(residual).collect()
    });
    for (&name, value) in names.iter().zip(found) {
        constants.set(name, value);
    }
}

/// Twice the mean shortfall, each model counting once: the mean size of errors that are as often too
/// high as too low. That an estimate is too high needs no margin.
fn shortfall(errors: impl IntoIterator<Item = (String, f64)>) -> f64 {
    let mut models = BTreeMap::<String, Vec<f64>>::new();
    for (model, error) in errors {
        models.entry(model).or_default().push((-error).max(0.0));
    }
    2.0 * mean(models.into_values().map(mean))
}

/// The sizes of errors that margins are made of, each model left out in turn.
fn errors(
    observed: &[Observed<'_>],
    left_out: &BTreeMap<&str, Constants>,
    constants: &mut Constants,
) {
    const MIB: f64 = 1024.0;
    let all: Vec<(&Observed<'_>, f64)> = observed
        .iter()
        .filter_map(|o| {
            let constants = left_out.get(o.model.as_str())?;
            Some((o, o.fixed_error(&o.prepared.logged(constants))?))
        })
        .collect();
    let size = |wanted: &dyn Fn(&Observed<'_>) -> bool| {
        let chosen = all.iter().filter(|(o, _)| wanted(o));
        shortfall(chosen.map(|(o, error)| (o.model.clone(), *error)))
    };
    let older = |o: &Observed<'_>| matches!(&o.basis, Basis::Extrapolated { gaps } if gaps.iter().any(|gap| matches!(gap, Gap::Older(_))));
    // Weights have a part of their own in the margin.
    let overheads = observed.iter().filter(|o| o.parts.is_some() && o.basis.is_fitted());
    let overheads = overheads.filter_map(|o| {
        let ours = o.prepared.logged(left_out.get(o.model.as_str())?).overheads().as_gib_f64();
        let (activation, non_torch) = o.parts?;
        Some((o.model.clone(), ours - activation - non_torch - o.graphs.unwrap_or(0.0)))
    });
    constants.set(Constant::ErrorFitted, shortfall(overheads.collect::<Vec<_>>()) * MIB);
    let weights = observed.iter().filter(|o| o.parts.is_some() && o.basis.is_fitted());
    let weights = weights.filter_map(|o| {
        let truth = o.prepared.case.gib("weights_gib_per_gpu")?;
        let ours = o.prepared.logged(constants).weights.as_gib_f64();
        Some((o.model.clone(), ours / truth - 1.0))
    });
    constants.set(Constant::ErrorWeights, shortfall(weights.collect::<Vec<_>>()));
    constants.set(Constant::ErrorOlder, size(&|o| !o.is_amd() && older(o)) * MIB);
    let budgets = size(&|o| !o.is_amd() && o.parts.is_none() && !older(o));
    constants.set(Constant::ErrorBudgets, budgets * MIB);
    constants.set(Constant::ErrorAmd, size(&|o| o.is_amd()) * MIB);
}

/// Constants without each model.
fn leave_out<'a>(
    observed: &'a [Observed<'_>],
    known: &Constants,
    used: &Used,
) -> BTreeMap<&'a str, Constants> {
    let mut left_out = BTreeMap::new();
    for o in observed {
        left_out.entry(o.model.as_str()).or_insert_with(|| {
            let others: Vec<&Observed<'_>> =
                observed.iter().filter(|other| other.model != o.model).collect();
            constants(&others, &mut Used::new(), Some((known, used)))
        });
    }
    left_out
}

fn logs(
    observed: &[Observed<'_>],
    left_out: &BTreeMap<&str, Constants>,
    constants: &Constants,
) -> Vec<Log> {
    let errors = |o: &Observed<'_>, ours: &Breakdown| -> Option<[f64; 4]> {
        let (activation, non_torch) = o.parts?;
        let graphs = o.graphs.unwrap_or(0.0);
        Some([
            ours.activation.as_gib_f64() - activation,
            ours.non_torch.as_gib_f64() - non_torch,
            ours.graphs.as_gib_f64() - graphs,
            crate::compare::fixed(ours) - o.prepared.case.fixed_gib()?,
        ])
    };
    observed
        .iter()
        .filter_map(|o| {
            Some(Log {
                case: o.prepared.case.id().to_owned(),
                model: o.model.clone(),
                fitted: o.basis.is_fitted(),
                in_sample: errors(o, &o.prepared.logged(constants))?,
                left_out: errors(o, &o.prepared.logged(left_out.get(o.model.as_str())?))?,
            })
        })
        .collect()
}

/// What the data can tell of a constant.
fn precision(constant: Constant) -> f64 {
    match constant {
        Constant::HiddenStates => 0.05,
        Constant::PixelsPerToken => 100.0,
        Constant::SortedLogit | Constant::GraphsLayer | Constant::GraphsLatentLayer => 0.1,
        Constant::ErrorWeights => 0.0005,
        Constant::ErrorFitted
        | Constant::ErrorOlder
        | Constant::ErrorBudgets
        | Constant::ErrorAmd => 20.0,
        _ => 5.0,
    }
}

fn rounded(constants: &Constants) -> Constants {
    let mut rounded = constants.clone();
    for &constant in Constant::ALL {
        let unit = precision(constant);
        rounded.set(constant, (constants.get(constant) / unit).round() * unit);
    }
    rounded
}

/// A constant without digits that mean nothing.
pub fn shown(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

impl Fit {
    /// Constants that differ from those in use by more than `steps` of their precision.
    pub fn stale(&self, steps: f64) -> Vec<Constant> {
        let differs = |constant: &Constant| {
            let (found, used) = (self.constants.get(*constant), Constants::FITTED.get(*constant));
            (found - used).abs() > precision(*constant) * (steps + 1e-6)
        };
        Constant::ALL.iter().copied().filter(differs).collect()
    }

    /// Mean size of the errors of complete logs: in sample, and with the model left out.
    pub fn mean_errors(&self, part: usize, fitted: bool) -> (f64, f64) {
        let logs = || self.logs.iter().filter(|log| !fitted || log.fitted);
        (
            mean(logs().map(|log| log.in_sample[part].abs())),
            mean(logs().map(|log| log.left_out[part].abs())),
        )
    }

    /// For people.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(
            text,
            "{:<24}{:>12}{:>12}  {:<8}{:>6}",
            "constant", "fitted", "in use", "unit", "from"
        )?;
        for &constant in Constant::ALL {
            let (found, used) = (self.constants.get(constant), Constants::FITTED.get(constant));
            let from =
                self.used.get(constant.name()).map_or_else(|| "-".to_owned(), usize::to_string);
            let mark = if self.stale(0.0).contains(&constant) { "  differs" } else { "" };
            writeln!(
                text,
                "{:<24}{found:>12.4}{used:>12.4}  {:<8}{from:>6}{mark}",
                constant.name(),
                constant.unit()
            )?;
        }
        writeln!(text, "\nmean size of errors in GiB   in sample   model left out")?;
        for (name, part) in [("activation", 0), ("non-torch", 1), ("graphs", 2), ("all", 3)] {
            for (kind, fitted) in [("vLLM 0.17 to 0.20", true), ("all versions", false)] {
                let (inside, outside) = self.mean_errors(part, fitted);
                writeln!(text, "{name:<12}{kind:<20}{inside:>6.3}{outside:>16.3}")?;
            }
        }
        writeln!(text, "\n{:<6}{:<44}{:>10}{:>14}", "case", "model", "in sample", "left out")?;
        for log in &self.logs {
            writeln!(
                text,
                "{:<6}{:<44}{:>+10.2}{:>+14.2}",
                log.case, log.model, log.in_sample[3], log.left_out[3]
            )?;
        }
        Ok(text)
    }
}
