//! Follows deployments until all serve, a line for each thing that happens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use berth_crds::{LLMDeployment, llm_deployment::ReplicaPhase};
use berth_e2e::{
    Cluster,
    explain::explain,
    llm::{complaints, is_current, status_of},
    wait::{PAUSE, patience},
};
use kube::{ResourceExt as _, api::ListParams};

use crate::paint::{dim, green, red, yellow};

/// Waits until every deployment is Ready, but for the one that must find no place.
pub async fn follow(cluster: &Cluster, names: &[String], does_not_fit: &str) -> Result<()> {
    let begun = Instant::now();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    loop {
        let all = cluster.api::<LLMDeployment>().list(&ListParams::default()).await;
        let all = all.context("the API server does not answer")?.items;
        let mut open = Vec::new();
        for name in names {
            let Some(llm) = all.iter().find(|llm| llm.name_any() == *name) else { continue };
            let state = state(llm);
            if said.get(name) != Some(&state.text) {
                let seconds = format!("{:5.1} s", begun.elapsed().as_secs_f64());
                println!("{}  {name:<width$}  {}", dim(&seconds), state.painted());
                said.insert(name.clone(), state.text);
            }
            let refused =
                status_of(llm, "Placed") == "False" && status_of(llm, "Stalled") == "True";
            let done = is_current(llm)
                && if name == does_not_fit { refused } else { status_of(llm, "Ready") == "True" };
            if !done {
                open.push(format!("{name}: {}", complaints(llm).replace('\n', "; ")));
            }
        }
        if open.is_empty() && said.len() == names.len() {
            return Ok(());
        }
        if begun.elapsed() > patience() {
            let first = open.first().and_then(|line| line.split(':').next()).unwrap_or_default();
            let seconds = Duration::as_secs(&begun.elapsed());
            let details = explain(cluster, first).await;
            bail!("not as it should be after {seconds} s:\n{}\n{details}", open.join("\n"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct State {
    text: String,
    mood: Mood,
}

enum Mood {
    Good,
    Busy,
    Bad,
}

impl State {
    fn painted(&self) -> String {
        match self.mood {
            Mood::Good => green(&self.text),
            Mood::Busy => yellow(&self.text),
            Mood::Bad => red(&self.text),
        }
    }
}

/// What a deployment is doing, in a line.
fn state(llm: &LLMDeployment) -> State {
    let of = |mood, text: String| State { text, mood };
    let Some(status) = &llm.status else { return of(Mood::Busy, "seen".to_owned()) };
    if status_of(llm, "Ready") == "True" {
        let ready = status.ready.clone().unwrap_or_default();
        return of(Mood::Good, format!("ready    {ready}  {}", places(llm)));
    }
    if status_of(llm, "Placed") == "False" {
        let condition = llm.condition("Placed");
        let message = condition.map(|c| c.message.clone()).unwrap_or_default();
        let message = message.split(" (").next().unwrap_or_default();
        return of(Mood::Bad, format!("waits    {message}"));
    }
    if status_of(llm, "Degraded") == "True" {
        return of(Mood::Bad, format!("fails    {}", complaints(llm).replace('\n', "; ")));
    }
    let bound = status.placements.iter().any(|p| p.phase != ReplicaPhase::Pending);
    if status.placements.is_empty() {
        return of(Mood::Busy, "is looked at".to_owned());
    }
    let doing = if bound { "loads  " } else { "placed " };
    of(
        Mood::Busy,
        format!("{doing}  {}  {}", status.ready.clone().unwrap_or_default(), places(llm)),
    )
}

/// `2 × NVIDIA-H100-80GB-HBM3 on h100-000, …`
fn places(llm: &LLMDeployment) -> String {
    let placements = llm.status.iter().flat_map(|status| &status.placements);
    let place = placements.map(|p| {
        let product = p.product.as_deref().unwrap_or("GPU");
        format!("{} × {product} on {}", p.gpus, p.node)
    });
    place.collect::<Vec<_>>().join(", ")
}
