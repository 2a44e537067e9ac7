//! `kubectl-berth`: what Berth knows, on the command line.
//!
//! `estimate` says what a model needs and whether it fits, `advise` which GPUs would run it. Both
//! work without a cluster and without a network: they call the same code as the controller does,
//! with facts from the embedded catalogue, a manifest, or a model's own files.
//!
//! The story: [`args`] are read, [`subject`] finds out about the model and [`gpus`] about the GPUs,
//! [`estimate`] or [`advise`] work out an answer (plain data), and [`output`] prints it as JSON,
//! YAML, or as `text` for people.

mod advise;
mod args;
mod estimate;
mod files;
mod gpus;
mod names;
mod numbers;
mod output;
mod subject;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// 0: an answer was printed, also that something does not fit. 1: there is none. 2 (from clap): the
/// command line cannot be understood.
fn main() -> ExitCode {
    let answer = match Args::parse().command {
        Command::Estimate(args) => estimate::run(&args),
        Command::Advise(args) => advise::run(&args),
    };
    match answer.and_then(|text| output::print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
