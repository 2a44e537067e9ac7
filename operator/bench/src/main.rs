//! `berth-bench`: the figures that this project stands by.
//!
//! Exits 0 on success or where there is no data, 1 on failure, 2 on wrong usage.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use berth_bench::{
    cases::Case,
    compare::{Report, Row, Summary, rows, summary},
    facts::Configs,
    fit::fit,
    fleet,
    llama::{self, Measured},
    page,
    placement::{self, trace::Trace},
    plot, report, speed,
};
use berth_planner::policy::Named;
use berth_vram::{Constants, Risk};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// The figures that Berth stands by.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The estimate for each case beside the truth.
    Vram {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        output: Output,
        /// Cases in a thousand that may take more than estimate and margin.
        #[arg(long, default_value_t = Risk::DEFAULT, value_parser = risk)]
        risk: Risk,
    },
    /// Find the constants anew, each model left out in turn.
    Fit {
        #[command(flatten)]
        data: Data,
        /// Fail if the constants in use are others.
        #[arg(long)]
        check: bool,
    },
    /// The estimate beside the buffers of a real llama-server.
    Llama {
        /// The server; by default that of e2e/engines/llama-server.sh, if it was built.
        #[arg(long)]
        server: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
        /// Also write the figures here, as JSON.
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// How long an estimate takes, beside a peer's rule.
    Speed {
        #[command(flatten)]
        output: Output,
    },
    /// Every placement policy side by side on the published experiment.
    Placement {
        /// The nodes (CSV with `sn,cpu_milli,memory_mib,gpu,model`).
        #[arg(long)]
        nodes: Option<PathBuf>,
        /// The pods (CSV with `cpu_milli,memory_mib,num_gpu,gpu_milli`, and `gpu_spec` if any).
        #[arg(long)]
        pods: Option<PathBuf>,
        /// How many shuffles, from seed 42 on.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
        /// Only these policies.
        #[arg(long = "policy", value_delimiter = ',', value_parser = policy)]
        policies: Vec<Named>,
        #[command(flatten)]
        output: Output,
    },
    /// Planner and ledger under load, without a cluster.
    Fleet {
        /// How many nodes.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        nodes: u32,
        /// GPUs of each.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
        gpus_per_node: u32,
        /// Deployments whose replicas come and go.
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
        deployments: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Write docs/vram-figures.md and its picture.
    Docs {
        #[command(flatten)]
        data: Data,
        /// Figures of `berth-bench llama --record`.
        #[arg(long)]
        llama: PathBuf,
        /// The folder to write to.
        #[arg(long)]
        output: PathBuf,
    },
}

#[derive(Args)]
struct Data {
    /// The measured cases (CSV).
    #[arg(long)]
    cases: Option<PathBuf>,
    /// The models' configs (JSON).
    #[arg(long)]
    configs: Option<PathBuf>,
}

#[derive(Args)]
struct Output {
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn risk(text: &str) -> Result<Risk, String> {
    let cases = text.parse().map_err(|_| "it is a number from 1 to 500".to_owned())?;
    Ok(Risk::per_mille(cases))
}

fn policy(text: &str) -> Result<Named, String> {
    Named::find(text).ok_or_else(|| {
        let names: Vec<_> = Named::ALL.iter().map(|policy| policy.name()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

impl Data {
    fn read(&self) -> Result<Option<(Vec<Case>, Configs)>> {
        let or = |given: &Option<PathBuf>, file| {
            given.clone().unwrap_or_else(|| berth_bench::shared(file))
        };
        berth_bench::data(&or(&self.cases, "cases.csv"), &or(&self.configs, "configs.json"))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Vram { data, output, risk } => {
            let Some((cases, configs)) = data.read()? else {
                skipped();
                return Ok(());
            };
            let (rows, summary) = compared(&cases, &configs, risk);
            match output.output {
                Format::Json => print_json(&Report { summary, rows })?,
                Format::Text => print!("{}", report::text(&rows, &summary)),
            }
        }
        Command::Fit { data, check } => {
            let Some((cases, configs)) = data.read()? else {
                skipped();
                return Ok(());
            };
            let found = fit(&cases, &configs);
            print!("{}", found.text()?);
            let stale = found.stale(1.0);
            if check && !stale.is_empty() {
                let names: Vec<_> = stale.iter().map(|constant| constant.name()).collect();
                bail!(
                    "operator/vram/src/engine/constants.rs has other figures than the fit: {}",
                    names.join(", ")
                );
            }
        }
        Command::Llama { server, output, record } => {
            let Some(server) = server.or_else(llama::cached_server) else {
                println!("skipped: no llama-server; e2e/engines/llama-server.sh builds one");
                return Ok(());
            };
            let measured = llama::measure(&server)?;
            match output.output {
                Format::Json => print_json(&measured)?,
                Format::Text => print!("{}", page::buffers(&measured).text()),
            }
            if let Some(path) = record {
                fs::write(path, serde_json::to_string_pretty(&measured)? + "\n")?;
            }
            let off = measured.iter().filter(|one| !one.buffers().iter().all(|(_, p)| p.agrees()));
            match off.count() {
                0 => {}
                count => bail!("{count} of {} are off by more than 1 %", measured.len()),
            }
        }
        Command::Speed { output } => {
            let speed = speed::measure();
            match output.output {
                Format::Json => print_json(&speed)?,
                Format::Text => println!(
                    "an estimate takes {:.2} µs on average over {} models, {:.0} times as long as \
                     GPUStack's rule of thumb ({:.1} ns)",
                    speed.estimate_us, speed.models, speed.ratio, speed.rule_ns
                ),
            }
        }
        Command::Placement { nodes, pods, seeds, policies, output } => {
            compared_policies(nodes, pods, seeds, policies, output.output)?;
        }
        Command::Fleet { nodes, gpus_per_node, deployments, output } => {
            let figures = fleet::measure(nodes, gpus_per_node, deployments);
            match output.output {
                Format::Json => print_json(&figures)?,
                Format::Text => print!("{}", fleet::text(&figures)),
            }
        }
        Command::Docs { data, llama, output } => {
            let Some((cases, configs)) = data.read()? else {
                skipped();
                return Ok(());
            };
            let text = fs::read_to_string(&llama)
                .with_context(|| format!("{} cannot be read", llama.display()))?;
            let measured: Vec<Measured> = serde_json::from_str(&text)?;
            let (rows, summary) = compared(&cases, &configs, Risk::DEFAULT);
            let found = fit(&cases, &configs);
            fs::create_dir_all(&output)?;
            fs::write(
                output.join("vram-figures.md"),
                page::page(&rows, &summary, &found, &measured)?,
            )?;
            fs::write(output.join("vram.svg"), plot::svg(&rows))?;
        }
    }
    Ok(())
}

fn compared_policies(
    nodes: Option<PathBuf>,
    pods: Option<PathBuf>,
    seeds: u64,
    policies: Vec<Named>,
    output: Format,
) -> Result<()> {
    let or =
        |given: Option<PathBuf>, file| given.unwrap_or_else(|| berth_bench::shared_placement(file));
    let nodes = or(nodes, "openb_node_list_gpu_node.csv");
    let pods = or(pods, "openb_pod_list_default.csv");
    if !nodes.exists() || !pods.exists() {
        skipped();
        return Ok(());
    }
    let read = |path: &PathBuf| {
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let trace = Trace::read(&read(&nodes)?, &read(&pods)?)?;
    let policies = if policies.is_empty() { Named::ALL.to_vec() } else { policies };
    let figures = placement::compare(&trace, seeds, &policies);
    match output {
        Format::Json => print_json(&figures)?,
        Format::Text => print!("{}", placement::table(&figures).text()),
    }
    Ok(())
}

fn compared(cases: &[Case], configs: &Configs, risk: Risk) -> (Vec<Row>, Summary) {
    let rows = rows(cases, configs, &Constants::FITTED, risk);
    let summary = summary(&rows);
    (rows, summary)
}

fn skipped() {
    println!("skipped: no data");
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
