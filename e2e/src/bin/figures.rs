//! The figures of a large fleet, as one JSON object: time from apply to bound and to ready, what the
//! operator takes of the machine, and what it writes.
//!
//! `figures --deployments 50 --idle-seconds 300` on the fleet of a hundred nodes.

use std::{path::PathBuf, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use berth_e2e::{
    AuditLog, Cluster, Operator, Options, Snapshot,
    audit::OPERATOR,
    cluster::root,
    invariants::gpus_there,
    snapshot::{bound_to, controller, gpus_of, is_ready},
    wait::{PAUSE, patience},
};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};

/// Figures of the operator on a simulated fleet.
#[derive(Parser)]
struct Arguments {
    /// Fleet file. Absent: a hundred nodes.
    #[arg(long)]
    fleet: Option<PathBuf>,
    /// How many `LLMDeployments`.
    #[arg(long, default_value = "50")]
    deployments: usize,
    /// How long to watch an idle operator.
    #[arg(long, default_value = "60")]
    idle_seconds: u64,
}

/// What people deploy, in turn; each finds its place on the fleet of a hundred nodes.
const MODELS: [(&str, i32); 8] = [
    ("meta-llama/Llama-3.1-8B-Instruct", 3),
    ("Qwen/Qwen2.5-72B-Instruct-AWQ", 1),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", 1),
    ("Qwen/Qwen3-30B-A3B", 2),
    ("openai/gpt-oss-120b", 1),
    ("meta-llama/Llama-3.3-70B-Instruct", 1),
    ("Qwen/Qwen2.5-7B-Instruct", 4),
    ("microsoft/phi-4", 2),
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let fleet = match &arguments.fleet {
        Some(path) => path.clone(),
        None => root()?.join("e2e/cluster/fleets/hundred.yaml"),
    };
    let mut cluster = Cluster::from_file(&fleet).await?;
    cluster.keep_files(false);
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    let at_rest = operator.usage()?;

    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    let begun = Instant::now();
    let replicas = deploy(&cluster, arguments.deployments).await?;
    let applied = begun.elapsed();
    let bound = when(&cluster, replicas, |pod| bound_to(pod).is_some(), begun).await?;
    let ready = when(&cluster, replicas, is_ready, begun).await?;
    let busy = operator.usage()?;
    let writes = audit.writes(OPERATOR, mark)?.len();

    // What is written late is not written while idle.
    let snapshot = cluster.settled().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (mark, idle) = (audit.mark()?, operator.usage()?);
    tokio::time::sleep(Duration::from_secs(arguments.idle_seconds)).await;
    let after = operator.usage()?;
    let idle_writes = audit.writes(OPERATOR, mark)?.len();

    let figures = json!({
        "nodes": snapshot.nodes.len(),
        "gpus": gpus_there(&snapshot.nodes),
        "gpus_claimed": snapshot.pods.iter().flat_map(|pod| gpus_of(pod).into_values()).sum::<i64>(),
        "deployments": arguments.deployments,
        "replicas": replicas,
        "seconds": {
            "all_applied": seconds(applied),
            "all_bound": seconds(bound),
            "all_ready": seconds(ready),
        },
        "operator": {
            "rss_mib_at_rest": mebibytes(at_rest.resident),
            "rss_mib": mebibytes(after.resident),
            "peak_rss_mib": mebibytes(after.peak_resident),
            "cpu_seconds_until_ready": round(busy.cpu_seconds - at_rest.cpu_seconds),
            "writes_until_ready": writes,
        },
        "idle": {
            "seconds": arguments.idle_seconds,
            "writes": idle_writes,
            "cpu_seconds": round(after.cpu_seconds - idle.cpu_seconds),
        },
    });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    operator.terminate().await?;
    cluster.passed()
}

/// Applies deployments, several at a time as people and pipelines do; returns their replicas.
async fn deploy(cluster: &Cluster, count: usize) -> Result<usize> {
    const AT_ONCE: usize = 8;
    let specs = (0..count).map(|number| {
        let (model, replicas) = MODELS[number % MODELS.len()];
        (format!("model-{number:03}"), model, replicas)
    });
    let replicas = specs.clone().map(|(_, _, replicas)| replicas).sum::<i32>();
    stream::iter(specs)
        .map(|(name, model, replicas)| async move {
            let spec = json!({
                "model": {"uri": format!("hf://{model}"), "facts": Value::Null},
                "replicas": replicas,
            });
            cluster.apply_llm(&name, spec).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(usize::try_from(replicas)?)
}

/// How long after `begun` so many pods of ours were as `is` says.
async fn when(
    cluster: &Cluster,
    count: usize,
    is: impl Fn(&Pod) -> bool,
    begun: Instant,
) -> Result<Duration> {
    loop {
        let pods = cluster.api::<Pod>().list(&ListParams::default()).await?;
        let there = pods.iter().filter(|pod| controller(*pod).is_some() && is(pod)).count();
        if there == count {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience() {
            let snapshot = Snapshot::of(cluster).await?;
            let waiting = snapshot
                .llms
                .iter()
                .find(|llm| llm.status.as_ref().is_none_or(|status| status.queue.is_some()));
            let waiting = waiting.and_then(|llm| llm.metadata.name.clone());
            return Err(anyhow::anyhow!("{there} of {count} pods; {waiting:?} waits"))
                .context("not all of them in time");
        }
        tokio::time::sleep(PAUSE / 4).await;
    }
}

fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64())
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn mebibytes(bytes: u64) -> f64 {
    round(bytes as f64 / f64::from(1 << 20))
}
