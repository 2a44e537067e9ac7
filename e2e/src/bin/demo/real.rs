//! The demo's real half (`make demo REAL=1`): a node that really runs pods, Berth installed with
//! Helm as one of them, and a model that really answers.

use std::{process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use berth_e2e::{
    Fleet, NAMESPACE, Nodes,
    apply::apply,
    real_node::{self, prices, tiny_model},
};
use serde_json::json;

use crate::{
    paint::{bold, dim, heading},
    progress,
};

const NAME: &str = "tiny";
const TOKENS: &str = "160";

/// Runs it.
pub async fn run() -> Result<()> {
    let begun = Instant::now();
    let after = |what: &str| {
        println!("{}", dim(&format!("{what} after {:.1} s", begun.elapsed().as_secs_f64())));
    };
    ensure!(real_node::possible("make demo REAL=1"), "run it as root");
    heading("A real node beside the control plane: containerd, kubelet, kube-proxy, DNS");
    println!(
        "{}",
        dim("it needs images of llama-server and of the operator; what is not there yet is built")
    );
    // A simulated node too, so that there is something to choose from.
    let fleet = Fleet::of([Nodes::new("simulated", 1).h100(8)]);
    let mut cluster = real_node::start(&fleet, &["llama-server", "operator"]).await?;
    cluster.keep_files(false);
    after("it runs");

    heading("helm install berth charts/berth --namespace berth-system");
    let operator = cluster.helm_install(&["scrapeInterval=2s"]).await?;
    apply(&cluster.client, &prices(), NAMESPACE).await?;
    after("the operator's pod is Ready");

    heading("An LLMDeployment: llama.cpp, its model from a PersistentVolumeClaim");
    cluster.provide_tiny_model().await?;
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": NAME}, "spec": tiny_model(),
    });
    print!("{}", dim(&serde_saphyr::to_string(&object)?));
    apply(&cluster.client, &object, NAMESPACE).await?;
    progress::follow(&cluster, &[NAME.to_owned()], "").await?;
    after("it answers");

    heading(&format!("POST http://{NAME}.{NAMESPACE}/v1/chat/completions, streamed"));
    println!(
        "{}",
        dim("the model has random weights, half a megabyte of them: its words are noise")
    );
    println!("Where is the ship?\n");
    let service = cluster.service_address(NAME).await?;
    let arguments = ["--tokens", TOKENS, "Where is the ship?"];
    let mut chat = cluster.chat(&service, &arguments)?;
    let chat = tokio::task::spawn_blocking(move || chat.stdin(Stdio::null()).status());
    ensure!(chat.await??.success(), "the model does not answer");

    heading("What the operator counted: status in extracts");
    let llm = cluster.wait_llm(NAME, "has usage", |llm| {
        llm.status.as_ref().is_some_and(|status| status.usage.is_some())
    });
    let status = serde_json::to_value(llm.await?.status.context("no status")?)?;
    let extract = json!({
        "usage": status["usage"], "placements": status["placements"], "cost": status["cost"],
    });
    print!("{}", serde_saphyr::to_string(&extract)?);
    println!("{}", dim("and /metrics, which charge up to this moment"));
    let metrics = cluster.operator_metrics(&operator).await?;
    for name in ["berth_deployment_tokens_total", "berth_deployment_cost_per_million_tokens"] {
        for sample in metrics.all(name, &[]) {
            let labels: Vec<_> = sample.labels.values().map(String::as_str).collect();
            println!("{name}  {}  {}", labels.join(" "), sample.value);
        }
    }
    cluster.passed()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("\n{} after {seconds:.0} s; nothing is left running", bold("done"));
    Ok(())
}
