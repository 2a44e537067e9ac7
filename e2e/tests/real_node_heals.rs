//! What happens to machines happens to a node that really runs pods: its kubelet, its containerd,
//! its power. And what people forget: a Secret. Models serve on or come back, the operator too, with
//! nothing doubled, no claim wrong and no token counted twice; in namespaces of the strictest Pod
//! Security Standard.
//!
//! Needs root; see `e2e/cluster/README.md`.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use berth_e2e::{
    Clock, Cluster, Fleet, NAMESPACE, Nodes, Observer, apply, json,
    llm::{complaints, reason_of, status_of},
    load::Counts,
    operator::SYSTEM,
    real_node::{self, Load, SCRAPE_VALUE, Tally, containers, tiny_model},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::Value;

const NAME: &str = "chat";
const REPLICAS: i32 = 2;
/// Requests at once, and the milliseconds that each waits between two.
const WORKERS: u32 = 4;
const PAUSE: u32 = 50;
/// Requests that are answered after a disturbance is over: ten seconds of them, or more.
const AFTERWARDS: u64 = 300;
/// A model that wants a Secret which is not there.
const FORGETFUL: &str = "forgetful";
const SECRET: &str = "harbour";

#[tokio::test(flavor = "multi_thread")]
async fn real_node_heals() -> Result<()> {
    if !real_node::possible("real_node_heals, a real node that is disturbed") {
        return Ok(());
    }
    let clock = Clock::default();
    let fleet = Fleet::of([Nodes::new("elm", 1).h100(8)]);
    let cluster = real_node::start(&fleet, &["llama-server", "operator"]).await?;
    let operator = cluster.helm_install(&[SCRAPE_VALUE]).await?;
    cluster.provide_tiny_model().await?;
    clock.lap("cluster up, helm install");

    let observer = Observer::start(&cluster).await;
    let mut spec = tiny_model();
    spec["replicas"] = json!(REPLICAS);
    spec["podTemplate"] = Value::Null;
    cluster.apply_llm(NAME, spec).await?;
    cluster.steady(NAME, REPLICAS).await?;
    let service = cluster.service_address(NAME).await?;
    let mut tally = Tally::of(NAME);
    tally.add(cluster.answers(&service, &["--tokens", "8"]).await?.tokens);
    clock.lap("two replicas answer");

    let mut story = Story { cluster, clock, operator, service, tally };
    story.strictest_standard_is_met().await?;
    story.missing_secret_heals().await?;
    story.serves_on_while_restarted("kubelet").await?;
    story.serves_on_while_restarted("containerd").await?;
    story.comes_back_after_a_refusal().await?;
    story.comes_back_after_a_reboot().await?;
    observer.finish()?;
    story.cluster.passed()
}

struct Story {
    cluster: Cluster,
    clock: Clock,
    operator: Pod,
    service: String,
    tally: Tally,
}

impl Story {
    /// Engines and operator run where nothing may run that is not restricted.
    async fn strictest_standard_is_met(&self) -> Result<()> {
        let careless = json!({
            "metadata": {"name": "careless"},
            "spec": {"containers": [{"name": "careless", "image": "careless"}]},
        });
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        for namespace in [NAMESPACE, SYSTEM] {
            let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), namespace);
            match pods.create(&dry, &serde_json::from_value(careless.clone())?).await {
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    let standard = r#"violates PodSecurity "restricted"#;
                    ensure!(status.message.contains(standard), "{namespace}: {}", status.message);
                }
                other => bail!("{namespace} takes a pod that is not restricted: {other:?}"),
            }
        }
        self.clock.lap("both namespaces refuse what is not restricted");
        Ok(())
    }

    /// A Secret that is not there: the kubelet's own words in the conditions, and the model starts
    /// once somebody makes it.
    async fn missing_secret_heals(&self) -> Result<()> {
        let mut spec = tiny_model();
        let from = json!({"secretKeyRef": {"name": SECRET, "key": "key"}});
        spec["engine"]["env"] = json!([{"name": "HARBOUR_KEY", "valueFrom": from}]);
        spec["podTemplate"] = Value::Null;
        self.cluster.apply_llm(FORGETFUL, spec).await?;
        let llm = self.cluster.wait_llm(FORGETFUL, "says what is wrong", |llm| {
            reason_of(llm, "Degraded") == "CreateContainerConfigError"
        });
        let llm = llm.await?;
        let message = complaints(&llm);
        let words = [&format!("secret \"{SECRET}\" not found")[..], "engine"];
        ensure!(words.iter().all(|word| message.contains(word)), "nobody can tell why: {message}");
        ensure!(status_of(&llm, "Ready") == "False", "it is Ready: {:?}", llm.status);
        self.clock.lap(&format!("a missing Secret shows: {message:?}"));

        let pod = self.cluster.uids(FORGETFUL).await?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
            "stringData": {"key": "of the harbour"},
        });
        apply::apply(&self.cluster.client, &secret, NAMESPACE).await?;
        self.cluster.steady(FORGETFUL, 1).await?;
        ensure!(self.cluster.uids(FORGETFUL).await? == pod, "its pod was replaced");
        let service = self.cluster.service_address(FORGETFUL).await?;
        self.cluster.answers(&service, &["--tokens", "8"]).await?;
        self.clock.lap("with the Secret it answers, by the same pod");
        self.cluster.delete_llm(FORGETFUL).await?;
        self.cluster.no_pods(FORGETFUL).await
    }

    /// Without its kubelet or its containerd a node runs on: no request fails, no pod changes, and
    /// every token is counted once.
    async fn serves_on_while_restarted(&mut self, service: &str) -> Result<()> {
        let before = self.containers().await?;
        let mut load = self.load()?;
        self.cluster.restart_on_node(service).await?;
        // Whatever it makes of its pods shows while these are asked.
        load.more(AFTERWARDS).await?;
        let counts = self.ended(load, &format!("{service} restarted"))?;
        ensure!(counts.failed == 0, "requests failed while {service} restarted: {counts:#?}");
        ensure!(self.containers().await? == before, "engines or operator are others");
        self.tally.agrees(&self.cluster, &self.operator).await?;
        let total = self.tally.total();
        self.cluster.settled().await?;
        self.clock.lap(&format!("{total} tokens by both accounts, the same containers"));
        Ok(())
    }

    /// The node refuses the pods that it had, as its GPUs are not there yet when it starts. No other
    /// node has such GPUs, so others come to the same one once it has them again.
    async fn comes_back_after_a_refusal(&mut self) -> Result<()> {
        let ended = containers(&self.cluster.pods(NAME).await?);
        self.cluster.node_refuses(NAME).await?;
        self.cluster.containers_are_new(NAME, &ended).await?;
        self.cluster.steady(NAME, REPLICAS).await?;
        let answer = self.cluster.answers(&self.service, &["--tokens", "8"]).await?;
        self.tally.add(answer.tokens);
        self.clock.lap("refused by the node and placed there again");
        self.tally.agrees(&self.cluster, &self.operator).await?;
        self.cluster.settled().await?;
        Ok(())
    }

    /// The power is cut. Engines and operator come back, and go on counting from what was written
    /// into status, of which nothing is lost.
    async fn comes_back_after_a_reboot(&mut self) -> Result<()> {
        let unwritten = self.tally.unwritten(&self.cluster).await?;
        let ended = containers(&self.cluster.pods(NAME).await?);
        let leader = self.cluster.leader().await?;
        self.cluster.reboot_node().await?;
        self.cluster.containers_are_new(NAME, &ended).await?;
        self.operator = self.cluster.operator_pod(None).await?;
        self.cluster.leads(&self.operator, &leader).await?;
        self.cluster.steady(NAME, REPLICAS).await?;
        let answer = self.cluster.answers(&self.service, &["--tokens", "8"]).await?;
        self.tally.add(answer.tokens);
        self.clock.lap("the node rebooted: engines and operator are back");
        let tally = &mut self.tally;
        let lost = tally.agrees_but_for(unwritten, &self.cluster, &self.operator).await?;
        self.clock.lap(&format!("{lost} tokens lost, {unwritten} may be"));
        self.cluster.settled().await?;

        let mut load = self.load()?;
        load.more(AFTERWARDS).await?;
        let counts = self.ended(load, "all is well again")?;
        ensure!(counts.failed == 0, "requests failed when all was well again: {counts:#?}");
        self.tally.agrees(&self.cluster, &self.operator).await
    }

    fn load(&self) -> Result<Load> {
        self.cluster.load(&self.service, WORKERS, PAUSE)
    }

    fn ended(&mut self, load: Load, what: &str) -> Result<Counts> {
        let counts = load.stop()?;
        self.tally.add(counts.tokens);
        self.clock.lap(&format!("{what}: {counts}"));
        Ok(counts)
    }

    /// The containers of the engines and of the operator.
    async fn containers(&self) -> Result<BTreeSet<String>> {
        let operator = self.cluster.operator_pod(None).await?;
        let mut all = containers(&self.cluster.pods(NAME).await?);
        all.extend(containers(&[operator]));
        Ok(all)
    }
}
