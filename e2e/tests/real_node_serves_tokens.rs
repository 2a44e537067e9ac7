//! The whole story on a node that really runs pods: Berth from its chart and as a pod, a model from
//! a volume, answers over the OpenAI API, and the operator's count of tokens beside the client's
//! while everything changes: replicas, the model's settings, engines, the node, the operator.
//!
//! Needs root; see `e2e/cluster/README.md`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use berth_crds::{CostProfile, LLMDeployment};
use berth_e2e::{
    Clock, Cluster, Fleet, NAMESPACE, Nodes, apply,
    chat::Tokens,
    explain::explain,
    json,
    llm::claim,
    load::Counts,
    operator::SYSTEM,
    real_node::{
        self, Load, SCRAPE, SCRAPE_VALUE, Tally, containers, is_ready, moment, node_of, prices,
        tiny_model, unseen,
    },
    wait::{Look, patience, until},
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::Value;

const NAME: &str = "chat";
const REPLICAS: i32 = 3;
/// Requests at once, and the milliseconds that each waits between two. More than [`REPLICAS`]
/// engines of a quarter of a CPU each can do at once, so that some are always under way.
const WORKERS: u32 = 6;
const PAUSE: u32 = 30;
/// Requests that a change has to stand.
const MANY: u64 = 2_000;
/// Requests before and after an operator makes way for the next, beside those meanwhile.
const AROUND: u64 = 150;
/// How long a replica drains: `shutdownGrace` of the tiny model.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn real_node_serves_tokens() -> Result<()> {
    if !real_node::possible("real_node_serves_tokens, a real node with real tokens") {
        return Ok(());
    }
    let clock = Clock::default();
    let fleet = Fleet::of([Nodes::new("elm", 1).h100(8)]);
    let cluster = real_node::start(&fleet, &["llama-server", "operator"]).await?;
    clock.lap("cluster up, with a real node and its images");

    let operator = cluster.helm_install(&[SCRAPE_VALUE]).await?;
    ensure!(node_of(&operator) == cluster.real_node()?.name, "the operator is elsewhere");
    apply::apply(&cluster.client, &prices(), NAMESPACE).await?;
    clock.lap("helm install: the operator's pod is Ready and holds the lease");

    cluster.provide_tiny_model().await?;
    let (service, tokens) = first_token(&cluster, &clock).await?;
    let mut tally = Tally::of(NAME);
    tally.add(tokens);
    let mut story = Story { cluster, clock, operator, service, tally };
    story.first_answers_are_counted(tokens).await?;
    story.start_is_measured().await?;
    story.cost_is_plausible().await?;
    story.scales().await?;
    story.change_fails_no_request().await?;
    story.killed_engine_heals().await?;
    story.rebooted_node_heals().await?;
    story.deleted_operator_loses_nothing().await?;
    story.measure_outlives_the_operator().await?;
    story.upgraded_operator_loses_nothing().await?;
    story.uninstall_leaves_what_serves().await?;
    story.cluster.passed()
}

struct Story {
    cluster: Cluster,
    clock: Clock,
    operator: Pod,
    service: String,
    tally: Tally,
}

/// Applies the model and asks it as soon as it answers; says where the time went.
async fn first_token(cluster: &Cluster, clock: &Clock) -> Result<(String, Tokens)> {
    let begun = Instant::now();
    cluster.apply_llm(NAME, tiny_model_only()).await?;
    let (mut placed, mut running) = (None, None);
    let pod = loop {
        ensure!(begun.elapsed() < patience(), "{}", explain(cluster, NAME).await);
        if let Some(pod) = cluster.pods(NAME).await?.pop() {
            placed.get_or_insert_with(|| begun.elapsed());
            if is_running(&pod) {
                running.get_or_insert_with(|| begun.elapsed());
            }
            if is_ready(&pod) {
                break pod;
            }
        }
        moment().await;
    };
    let ready = begun.elapsed();
    let service = cluster.service_address(NAME).await?;
    let answer = cluster.answers(&service, &["--tokens", "1"]).await?;
    ensure!(answer.tokens.generated == 1, "{answer:?}");
    let end = begun.elapsed().as_secs_f64();
    let ready = ready.as_secs_f64();
    let placed = placed.map_or(0.0, |placed| placed.as_secs_f64());
    let running = running.map_or(ready, |running| running.as_secs_f64());
    clock.lap(&format!(
        "first token {end:.1} s after apply: plan {placed:.1} s, pod start {:.1} s, model load \
         {:.1} s, answer {:.1} s",
        running - placed,
        ready - running,
        end - ready,
    ));

    let node = &cluster.real_node()?.name;
    let llm = cluster.ready(NAME, 1).await?;
    let placements = llm.status.unwrap_or_default().placements;
    ensure!(placements.len() == 1 && placements[0].node == *node, "placed at {placements:?}");
    ensure!(node_of(&pod) == node, "the pod is on {:?}", node_of(&pod));
    let claim = claim(&pod)?.context("the pod has no claim")?;
    ensure!(claim.gpus == 1 && claim.product == "NVIDIA-L4", "{claim:?}");
    Ok((service, answer.tokens))
}

impl Story {
    /// The very first answer, counted by itself, then more of both kinds.
    async fn first_answers_are_counted(&mut self, first: Tokens) -> Result<()> {
        self.counts_agree("the first token").await?;
        let status = self.cluster.wait_llm(NAME, "has usage", |llm| {
            llm.status.as_ref().is_some_and(|status| status.usage.is_some())
        });
        let usage = status.await?.status.and_then(|status| status.usage).context("no usage")?;
        let counted = (usage.prompt_tokens.cast_unsigned(), usage.generated_tokens.cast_unsigned());
        ensure!(counted == (first.prompt, first.generated), "{usage:?} is not {first:?}");

        let plain = self.cluster.ask(&self.service, &["--plain", "--tokens", "32"])?;
        ensure!(plain.tokens.generated == 32 && !plain.text.is_empty(), "{plain:?}");
        let streamed = self.cluster.ask(&self.service, &["--tokens", "96"])?;
        ensure!(streamed.tokens.generated == 96 && streamed.pieces > 10, "{streamed:?}");
        self.tally.add(plain.tokens);
        self.tally.add(streamed.tokens);
        self.counts_agree("an answer in one piece and one streamed").await
    }

    /// What the engine says it takes stands in status, beside what was estimated.
    async fn start_is_measured(&mut self) -> Result<()> {
        let is_measured = |llm: &LLMDeployment| {
            llm.status.as_ref().is_some_and(|status| status.measured.is_some())
        };
        let llm = self.cluster.wait_llm(NAME, "is measured", is_measured).await?;
        let status = llm.status.context("no status")?;
        let measured = status.measured.context("not measured")?;
        let estimate = status.estimate.context("no estimate")?;
        let pod = self.cluster.pod(NAME).await?;
        ensure!(measured.pod == pod.name_any(), "{measured:?}");
        ensure!(measured.kv_cache == Some(estimate.kv_cache), "{measured:?}, {estimate:?}");
        ensure!(measured.kv_tokens == Some(4 * 512), "{measured:?}");
        ensure!(measured.compute.is_some_and(|bytes| bytes > 0), "{measured:?}");
        // On the CPU all weights are in one place. The file's name says F16, by which it is estimated,
        // and its weights are F32: the log tells. It rounds to a hundredth of a MiB.
        let stored = 2 * status.model.context("no model")?.weight_bytes;
        let weights = measured.weights.context("no weights")?;
        ensure!(weights.abs_diff(stored) * 100 < stored.unsigned_abs(), "{weights}, not {stored}");
        ensure!(measured.needed.is_none(), "the CPU says nothing of GPUs: {measured:?}");

        let metrics = self.cluster.operator_metrics(&self.operator).await?;
        for (part, bytes) in [("weights", weights), ("kv_cache", estimate.kv_cache)] {
            let labels = [("deployment", NAME), ("part", part)];
            let told = metrics.sum("berth_deployment_measured_bytes", &labels)?;
            ensure!((told - bytes as f64).abs() < 0.5, "{part}: {told}, not {bytes}");
        }
        self.clock.lap(&format!("measured: {weights} B of weights, KV cache as estimated"));
        Ok(())
    }

    /// A later revision is planned by what an engine told: here it served from the CPU, where all that
    /// is sure is that there are so many weights. By the file's name there would be half of them.
    async fn planned_by_what_was_measured(&self, name: &str, context: i32) -> Result<()> {
        let llm = self.cluster.wait_llm(name, "is planned with its context", |llm| {
            let resolved = llm.status.as_ref().and_then(|status| status.resolved.as_ref());
            resolved.is_some_and(|resolved| resolved.context_length == context)
        });
        let status = llm.await?.status.context("no status")?;
        let estimate = status.estimate.context("no estimate")?;
        let stored = 2 * status.model.context("no model")?.weight_bytes;
        ensure!(estimate.product.as_deref() == Some("NVIDIA-L4"), "{estimate:?}");
        let told = estimate.weights.abs_diff(stored) * 100 < stored.unsigned_abs();
        ensure!(told, "{} of weights, not {stored}", estimate.weights);
        let per_token = i64::from(context) * 4 * estimate.kv_bytes_per_token;
        ensure!(estimate.kv_cache >= per_token, "{estimate:?}");
        for words in [format!("no less than pod {NAME}-"), "served from the CPU".to_owned()] {
            ensure!(estimate.basis.contains(&words), "{words:?} is not in {}", estimate.basis);
        }
        Ok(())
    }

    /// An operator that measured nothing itself plans by what the one before it noted, and for another
    /// deployment of the same model too.
    async fn measure_outlives_the_operator(&mut self) -> Result<()> {
        const OTHER: &str = "chat-too";
        let mut spec = tiny_model_only();
        spec["engine"]["contextLength"] = json!(256);
        self.cluster.apply_llm(OTHER, spec).await?;
        self.planned_by_what_was_measured(OTHER, 256).await?;
        self.cluster.delete_llm(OTHER).await?;
        self.clock.lap("the next operator plans by what was measured, for another deployment too");
        Ok(())
    }

    /// What a million tokens cost is the price of the GPU for the time since it was claimed, by the
    /// tokens since.
    async fn cost_is_plausible(&mut self) -> Result<()> {
        /// What holds GPUs is looked at every 15 s, so that much of its time may go unseen.
        const UNSEEN: f64 = 16.0;
        const LONG_ENOUGH: f64 = 45.0;
        let pod = self.cluster.pod(NAME).await?;
        let claimed = pod.creation_timestamp().context("a pod of no age")?.0.as_second();
        let age = || -> Result<f64> {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            Ok(now.as_secs_f64() - claimed as f64)
        };
        let load = self.load()?;
        while age()? < LONG_ENOUGH {
            moment().await;
        }
        self.none_failed(load, "nothing happened")?;
        self.counts_agree("requests while nothing happened").await?;

        let metrics = self.cluster.operator_metrics(&self.operator).await?;
        let labels = [("deployment", NAME)];
        let hourly = metrics.sum("berth_deployment_cost_per_hour", &labels)?;
        let per_million = metrics.sum("berth_deployment_cost_per_million_tokens", &labels)?;
        ensure!((hourly - 0.5).abs() < 0.001, "one of four GPUs at 2.00 costs {hourly}");
        let cost = |seconds: f64| hourly * seconds / 3600.0 / self.tally.total() as f64 * 1e6;
        let (least, most) = (cost(age()? - UNSEEN), cost(age()? + 1.0));
        ensure!(
            (least..most).contains(&per_million),
            "{per_million} per million tokens, not from {least} to {most}"
        );
        self.clock.lap(&format!(
            "{per_million:.3} USD for a million tokens, by our own figures {least:.3} to {most:.3}"
        ));
        Ok(())
    }

    async fn scales(&mut self) -> Result<()> {
        self.cluster.scale(NAME, REPLICAS).await?;
        self.cluster.steady(NAME, REPLICAS).await?;
        self.clock.lap("scaled to three");
        Ok(())
    }

    /// Changes of the context roll through while requests go on, until many of them did. A replica
    /// that ends drains first, and is looked at while it does; so nothing it served is lost where
    /// answers are quick. Where the machine is slow, what it served since the last look may be.
    async fn change_fails_no_request(&mut self) -> Result<()> {
        let mut load = self.load()?;
        let mut ended = 0;
        for context in [640, 512, 640] {
            let before = self.cluster.uids(NAME).await?;
            let change = json!({"engine": {"contextLength": context}});
            self.cluster.patch_llm(NAME, change).await?;
            self.cluster.steady(NAME, REPLICAS).await?;
            self.planned_by_what_was_measured(NAME, context).await?;
            ended += REPLICAS.unsigned_abs();
            for pod in self.cluster.pods(NAME).await? {
                let old = before.iter().any(|(_, uid)| Some(uid) == pod.uid().as_ref());
                ensure!(!old, "{} was not replaced", pod.name_any());
                // Each of the four requests at once has that much.
                let (size, expected) = (argument(&pod, "--ctx-size"), (4 * context).to_string());
                ensure!(size == Some(&expected), "the context is {size:?}, not {expected}");
            }
            if load.so_far()?.answered >= MANY {
                break;
            }
        }
        let counts = self.none_failed(load, "a changed context rolled through")?;
        ensure!(counts.answered >= MANY, "only {counts} in three changes: too slow a machine");
        ensure!(counts.streamed * 3 > counts.answered, "too few were streamed: {counts}");
        let quick = Duration::from_secs_f64(counts.slowest) * 2 + SCRAPE * 2 < DRAIN;
        let most = if quick { 0 } else { unseen(&counts, ended, REPLICAS.unsigned_abs())? };
        self.lacks_at_most(most, "the rolling change").await
    }

    /// A killed engine starts again. Nobody asks it meanwhile, so all it had served was seen.
    async fn killed_engine_heals(&mut self) -> Result<()> {
        let pods = self.cluster.pods(NAME).await?;
        let killed = containers(&pods[..1]);
        let id = killed.first().context("no container")?;
        self.cluster.kill_container(id)?;
        self.cluster.containers_are_new(NAME, &killed).await?;
        self.cluster.steady(NAME, REPLICAS).await?;
        self.clock.lap("killed an engine: three are Ready again");
        for _ in 0..6 {
            let answer = self.cluster.ask(&self.service, &["--plain", "--tokens", "16"])?;
            self.tally.add(answer.tokens);
        }
        self.counts_agree("an engine killed").await
    }

    /// The node's power is cut: engines and operator end at once. What the operator had counted
    /// and not written into status is lost, a twentieth at most, and nothing else.
    async fn rebooted_node_heals(&mut self) -> Result<()> {
        let unwritten = self.tally.unwritten(&self.cluster).await?;
        self.clock.lap(&format!("status.usage has all but {unwritten} tokens"));
        let ended = containers(&self.cluster.pods(NAME).await?);
        let leader = self.cluster.leader().await?;
        self.cluster.reboot_node().await?;
        self.cluster.containers_are_new(NAME, &ended).await?;
        self.operator = self.cluster.operator_pod(None).await?;
        self.cluster.leads(&self.operator, &leader).await?;
        self.cluster.steady(NAME, REPLICAS).await?;
        let answer = self.cluster.answers(&self.service, &["--plain", "--tokens", "16"]).await?;
        self.tally.add(answer.tokens);
        self.clock.lap("the node rebooted: three are Ready again, and answer");
        self.lacks_at_most(unwritten, "the reboot").await
    }

    /// The operator's pod goes while requests go on: nothing is lost and nothing counted twice, as it
    /// writes down what it counted before it ends.
    async fn deleted_operator_loses_nothing(&mut self) -> Result<()> {
        let before = self.cluster.uids(NAME).await?;
        let mut load = self.load()?;
        load.more(AROUND).await?;
        let leader = self.cluster.leader().await?;
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SYSTEM);
        pods.delete(&self.operator.name_any(), &DeleteParams::default()).await?;
        self.operator = self.cluster.next_operator(&self.operator, &leader).await?;
        load.more(AROUND).await?;
        self.none_failed(load, "the operator's pod was deleted")?;
        ensure!(self.cluster.uids(NAME).await? == before, "pods were replaced");
        self.counts_agree("the operator's pod deleted").await
    }

    /// Another version of the operator takes over while requests go on: the same binary by another
    /// name, as Helm and the kubelet see no more of it.
    async fn upgraded_operator_loses_nothing(&mut self) -> Result<()> {
        const NEXT: &str = "next";
        let image = |pod: &Pod| pod.spec.as_ref()?.containers[0].image.clone();
        let old = image(&self.operator).context("no image")?;
        let (repository, _) = old.rsplit_once(':').context("an image without a tag")?;
        let next = format!("{repository}:{NEXT}");
        let full = |name: &str| format!("docker.io/library/{name}");
        let tag = ["ctr", "--namespace", "k8s.io", "images", "tag", &full(&old), &full(&next)];
        self.cluster.on_node(&tag)?;

        let before = self.cluster.uids(NAME).await?;
        let mut load = self.load()?;
        load.more(AROUND).await?;
        let values = [&format!("image.tag={NEXT}")[..]];
        self.operator = self.cluster.helm_upgrade(&values, &self.operator).await?;
        ensure!(image(&self.operator) == Some(next), "it runs {:?}", image(&self.operator));
        load.more(AROUND).await?;
        self.none_failed(load, "helm upgrade")?;
        ensure!(self.cluster.uids(NAME).await? == before, "pods were replaced");
        self.counts_agree("helm upgrade").await
    }

    /// Without Berth its objects and what serves are there still.
    async fn uninstall_leaves_what_serves(&mut self) -> Result<()> {
        let before = self.cluster.uids(NAME).await?;
        self.cluster.helm(&["uninstall", "berth"])?;
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), SYSTEM);
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SYSTEM);
        until("the operator is gone", patience(), async || {
            let left = deployments.list(&ListParams::default()).await?.items.len()
                + pods.list(&ListParams::default()).await?.items.len();
            Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(format!("{left} left")) })
        })
        .await?;
        let definitions = self.cluster.all::<CustomResourceDefinition>();
        for name in ["llmdeployments.berth.dev", "costprofiles.berth.dev"] {
            definitions.get(name).await?;
        }
        self.cluster.llm(NAME).await?;
        ensure!(
            !self.cluster.all::<CostProfile>().list(&ListParams::default()).await?.items.is_empty()
        );
        ensure!(self.cluster.uids(NAME).await? == before, "pods changed");
        self.cluster.ask(&self.service, &["--tokens", "8"])?;
        self.clock.lap("helm uninstall: definitions, objects and pods stay, and serve");
        Ok(())
    }

    fn load(&self) -> Result<Load> {
        self.cluster.load(&self.service, WORKERS, PAUSE)
    }

    /// Ends requests, of which none may have failed.
    fn none_failed(&mut self, load: Load, what: &str) -> Result<Counts> {
        let counts = load.stop()?;
        self.clock.lap(&format!("{what}: {counts}"));
        ensure!(counts.failed == 0, "requests failed while {what}: {counts:#?}");
        self.tally.add(counts.tokens);
        Ok(counts)
    }

    /// Waits until the operator's count is that of the client, to the token.
    async fn counts_agree(&self, after: &str) -> Result<()> {
        self.tally.agrees(&self.cluster, &self.operator).await.with_context(|| after.to_owned())?;
        let [prompt, generated] = self.tally.expected();
        self.clock.lap(&format!("{after}: both count {prompt} and {generated} tokens"));
        Ok(())
    }

    /// Waits until the operator's count rests, at most so many tokens short.
    async fn lacks_at_most(&mut self, most: u64, after: &str) -> Result<()> {
        let tally = &mut self.tally;
        let lost = tally.agrees_but_for(most, &self.cluster, &self.operator).await;
        let lost = lost.with_context(|| after.to_owned())?;
        let total = self.tally.total();
        self.clock.lap(&format!("{after}: {total} tokens counted, {lost} lost, {most} may be"));
        Ok(())
    }
}

/// [`tiny_model`] with what `apply_llm` puts in for simulated nodes taken out.
fn tiny_model_only() -> Value {
    let mut spec = tiny_model();
    spec["podTemplate"] = Value::Null;
    spec
}

/// What follows an argument of the engine.
fn argument<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    let arguments = pod.spec.as_ref()?.containers[0].args.as_ref()?;
    arguments.iter().skip_while(|argument| *argument != name).nth(1)
}

fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    status.is_some_and(|all| {
        all.iter().all(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}
