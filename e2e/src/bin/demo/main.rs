//! `make demo`: a real Kubernetes control plane with simulated GPU nodes on this machine, the
//! operator with its own account's rights, the models of `docs/examples`, and on the screen where
//! they went, how they are and what they cost.
//!
//! With `REAL=1` its real half instead: [`real`].
//!
//! Ends by itself and leaves nothing running; with `KEEP=1` it stays up until Ctrl-C. Exits with 1
//! when something that should have become Ready did not.

mod cost;
mod fleet;
mod models;
mod paint;
mod progress;
mod real;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use berth_e2e::{Cluster, NAMESPACE, Operator, Options, cluster::root};
use tokio::signal::unix::{SignalKind, signal};

use paint::{bold, dim, heading, red};

/// The model that fits nowhere, to show what that looks like.
const DOES_NOT_FIT: &str = "llama-3-1-405b";
/// The model whose status is shown.
const SHOWN: &str = "deepseek-r1";

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::select! {
        outcome = chosen() => outcome,
        () = asked_to_end() => {
            eprintln!("\nstopped; nothing is left running");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", red("the demo failed:"));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or a signal that means the same. What runs is stopped as it is dropped.
async fn asked_to_end() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

async fn chosen() -> Result<()> {
    if is_set("REAL") { real::run().await } else { run().await }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}

async fn run() -> Result<()> {
    let begun = Instant::now();
    let root = root()?;
    heading("A Kubernetes control plane with simulated GPU nodes");
    let mut cluster = Cluster::from_file(&root.join("e2e/cluster/fleets/demo.yaml")).await?;
    cluster.keep_files(false);
    cluster.install().await?;
    println!("etcd, API server, controllers, scheduler and ten GPU nodes run; Berth is installed");
    println!("{}", dim(&format!("after {:.1} s", begun.elapsed().as_secs_f64())));
    let operator = Operator::start(&cluster, Options::named("demo")).await?;
    println!("the operator runs as ServiceAccount berth-system/berth-operator, and leads");

    heading("Models from docs/examples");
    let names = models::apply_examples(&cluster, &root.join("docs/examples")).await?;
    progress::follow(&cluster, &names, DOES_NOT_FIT).await?;

    show(&cluster, &operator).await?;
    if is_set("KEEP") {
        keep(&cluster, &operator).await;
    }
    operator.terminate().await.context("the operator does not end")?;
    cluster.passed()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("\n{} after {seconds:.0} s; nothing is left running", bold("done"));
    Ok(())
}

async fn show(cluster: &Cluster, operator: &Operator) -> Result<()> {
    heading("kubectl get llm --all-namespaces");
    models::table(cluster).await?;

    let metrics = operator.metrics().await?;
    heading("The fleet: VRAM claimed (#), free (·) and reserved (-)");
    fleet::show(&metrics)?;

    heading("What does not fit says why, and what would");
    models::explain(cluster, DOES_NOT_FIT).await?;

    heading("What it costs per hour");
    println!("{}", dim("prices of docs/examples/cost-profile.yaml; they are examples"));
    cost::show(&metrics)?;

    heading(&format!("What Berth chose and found: status of {SHOWN}, in extracts"));
    models::status(cluster, SHOWN).await?;
    Ok(())
}

/// Says how to use what runs, and waits until it is told to end.
async fn keep(cluster: &Cluster, operator: &Operator) {
    heading("It stays up");
    println!("In another terminal:\n");
    println!("  export KUBECONFIG={}", cluster.kubeconfig.display());
    println!("  kubectl get llm --all-namespaces -o wide");
    println!("  kubectl --namespace {NAMESPACE} describe llm {SHOWN}");
    println!("  kubectl --namespace {NAMESPACE} scale llm llama-3-1-8b --replicas 3");
    println!("  kubectl get pods --all-namespaces -o wide");
    println!("  curl http://{}/metrics", operator.address);
    println!("\nThe operator's log is {}", operator.log.display());
    println!("{} stops everything.", bold("Ctrl-C"));
    std::future::pending::<()>().await;
}
