//! The whole story on a node that really runs pods: Berth from its chart and as a pod, a model from
//! a volume, answers over the OpenAI API, and the operator's count of tokens beside the client's.
//!
//! Needs root; see `e2e/cluster/README.md`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_crds::{CostProfile, LLMDeployment};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE, Nodes, apply,
    chat::Tokens,
    explain::explain,
    json,
    llm::{claim, complaints, is_current, status_of},
    load::Counts,
    operator::{SYSTEM, lease},
    real_node::{self, is_ready, moment, prices, tiny_model},
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
/// Requests at once, and the milliseconds that each waits between two.
const WORKERS: u32 = 4;
const PAUSE: u32 = 60;
/// A change of three replicas, each of which drains for ten seconds, on a machine that is busy.
const LONG: Duration = Duration::from_mins(6);

#[tokio::test(flavor = "multi_thread")]
async fn real_node_serves_tokens() -> Result<()> {
    if !real_node::possible("real_node_serves_tokens, a real node with real tokens") {
        return Ok(());
    }
    let clock = Clock::default();
    let fleet = Fleet::of([Nodes::new("elm", 1).h100(8)]);
    let cluster = real_node::start(&fleet, &["llama-server", "operator"]).await?;
    clock.lap("cluster up, with a real node and its images");

    let operator = cluster.helm_install(&["scrapeInterval=2s"]).await?;
    ensure!(node_of(&operator) == cluster.real_node()?.name, "the operator is elsewhere");
    operator_leads(&cluster, &operator).await?;
    apply::apply(&cluster.client, &prices(), NAMESPACE).await?;
    clock.lap("helm install: the operator's pod is Ready and holds the lease");

    cluster.provide_tiny_model().await?;
    let (service, told) = first_token(&cluster, &clock).await?;
    let mut story = Story { cluster, clock, operator, service, told, seen: 0.0, written: 0.0 };
    story.first_answers_are_counted().await?;
    story.cost_is_plausible().await?;
    story.scales().await?;
    story.change_fails_no_request().await?;
    story.deleted_operator_loses_nothing().await?;
    story.killed_engine_heals().await?;
    story.uninstall_leaves_what_serves().await?;
    story.cluster.passed()
}

struct Story {
    cluster: Cluster,
    clock: Clock,
    operator: Pod,
    service: String,
    /// What the answers to us took.
    told: Tokens,
    /// The most that the operator's metrics have shown.
    seen: f64,
    /// What status has of it: all that another operator has to go by.
    written: f64,
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
    // The Service's rules follow the pod's readiness in a moment of their own.
    let answer = until("the Service answers", patience(), async || {
        Ok(match cluster.ask(&service, &["--tokens", "1"]) {
            Ok(answer) => Look::Done(answer),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    });
    let answer = answer.await?;
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
    async fn first_answers_are_counted(&mut self) -> Result<()> {
        self.counts_agree("the first token").await?;
        let first = self.told;
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
        self.told += plain.tokens;
        self.told += streamed.tokens;
        self.counts_agree("an answer in one piece and one streamed").await
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
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            Ok(now.as_secs_f64() - claimed as f64)
        };
        let load = self.cluster.load(&self.service, WORKERS, PAUSE)?;
        while age()? < LONG_ENOUGH {
            moment().await;
        }
        let counts = load.stop()?;
        self.told += counts.tokens;
        ensure!(counts.failed == 0, "requests failed while nothing happened: {counts:#?}");
        self.counts_agree(&summary(&counts)).await?;

        let metrics = self.cluster.operator_metrics(&self.operator).await?;
        let labels = [("deployment", NAME)];
        let hourly = metrics.sum("berth_deployment_cost_per_hour", &labels)?;
        let per_million = metrics.sum("berth_deployment_cost_per_million_tokens", &labels)?;
        ensure!((hourly - 0.5).abs() < 0.001, "one of four GPUs at 2.00 costs {hourly}");
        let cost = |seconds: f64| hourly * seconds / 3600.0 / self.seen * 1e6;
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
        self.cluster.scale(NAME, 3).await?;
        self.ready(3).await?;
        self.clock.lap("scaled to three");
        Ok(())
    }

    /// A change of the context rolls through while requests go on.
    async fn change_fails_no_request(&mut self) -> Result<()> {
        let before = self.cluster.uids(NAME).await?;
        let load = self.cluster.load(&self.service, WORKERS, PAUSE)?;
        self.cluster.patch_llm(NAME, json!({"engine": {"contextLength": 640}})).await?;
        self.ready(3).await?;
        let counts = load.stop()?;
        self.told += counts.tokens;
        for pod in self.cluster.pods(NAME).await? {
            let old = before.iter().any(|(_, uid)| Some(uid) == pod.uid().as_ref());
            ensure!(!old, "{} was not replaced", pod.name_any());
            let arguments =
                pod.spec.iter().flat_map(|spec| spec.containers[0].args.iter().flatten());
            let context = arguments.skip_while(|argument| *argument != "--ctx-size").nth(1);
            ensure!(context.is_some_and(|size| size == "2560"), "the context is {context:?}");
        }
        self.clock.lap(&format!("a changed context rolled through; {}", summary(&counts)));
        ensure!(counts.failed == 0, "requests failed during a rolling change: {counts:#?}");
        ensure!(counts.answered > 300 && counts.streamed * 3 > counts.answered, "{counts:?}");
        self.counts_agree_but_for_the_last_looks("the rolling change").await
    }

    /// The operator's pod goes while requests go on: nothing is lost and nothing counted twice.
    async fn deleted_operator_loses_nothing(&mut self) -> Result<()> {
        let before = self.cluster.uids(NAME).await?;
        let (told, seen) = (self.told, self.total().await?);
        let load = self.cluster.load(&self.service, WORKERS, PAUSE)?;
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SYSTEM);
        pods.delete(&self.operator.name_any(), &DeleteParams::default()).await?;
        let uid = self.operator.uid();
        self.operator = self.cluster.operator_pod(uid.as_deref()).await?;
        operator_leads(&self.cluster, &self.operator).await?;
        until("the new operator has looked", patience(), async || {
            self.cluster.operator_metrics(&self.operator).await?.sum(TOKENS, &of("generated"))?;
            Ok(Look::Done(()))
        })
        .await?;
        let counts = load.stop()?;
        self.told += counts.tokens;
        self.clock.lap(&format!("the operator's pod deleted; {}", summary(&counts)));
        ensure!(counts.failed == 0, "requests failed without the operator: {counts:#?}");
        ensure!(self.cluster.uids(NAME).await? == before, "pods were replaced");
        // It has counted all that the client has since, on top of what its forerunner had; but for
        // what replicas that are gone had served after status was written.
        let since = (self.told.prompt + self.told.generated) - (told.prompt + told.generated);
        let most = seen + since as f64;
        let least = most - (seen - self.written);
        let what = format!("tokens after the operator's restart, {least} to {most} in all");
        let total = until(what, Duration::from_secs(30), async || {
            let total = self.total().await?;
            ensure!(total < most + 0.5, "more is counted than was served: {total}");
            let all = total > least - 0.5;
            Ok(if all { Look::Done(total) } else { Look::NotYet(format!("{total}")) })
        })
        .await?;
        ensure!(total >= seen, "the count went backwards, from {seen} to {total}");
        ensure!(total < most + 0.5, "more is counted than was served: {total} of {most}");
        self.seen = total;
        self.clock.lap(&format!("{total} tokens at the new operator, {least} to {most} expected"));
        Ok(())
    }

    /// A killed engine starts again, and what it had served stays counted.
    async fn killed_engine_heals(&mut self) -> Result<()> {
        let pod = self.cluster.pods(NAME).await?.pop().context("no pods")?;
        let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first());
        let id =
            status.and_then(|status| status.container_id.as_deref()).context("no container")?;
        let id = id.trim_start_matches("containerd://");
        let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
        self.cluster.on_node(&kill)?;
        until("the kubelet has seen it", patience(), async || {
            let pods = self.cluster.pods(NAME).await?;
            let all =
                pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
            let again = all.flatten().all(|container| {
                container.container_id.as_deref().is_none_or(|other| !other.ends_with(id))
            });
            Ok(if again { Look::Done(()) } else { Look::NotYet("it still runs".into()) })
        })
        .await?;
        self.ready(3).await?;
        self.clock.lap("killed an engine: three are Ready again");
        for _ in 0..6 {
            let answer = self.cluster.ask(&self.service, &["--plain", "--tokens", "16"])?;
            self.told += answer.tokens;
        }
        self.counts_agree_but_for_the_last_looks("a killed engine").await
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

    /// Waits until the operator's count is that of the client, to the token.
    async fn counts_agree(&mut self, after: &str) -> Result<()> {
        let Tokens { prompt, generated, .. } = self.told;
        until(format!("{prompt} and {generated} tokens are counted"), patience(), async || {
            let counted = (self.metric("prompt").await?, self.metric("generated").await?);
            let exact =
                (counted.0 - prompt as f64).abs() + (counted.1 - generated as f64).abs() < 0.5;
            Ok(if exact { Look::Done(()) } else { Look::NotYet(format!("{counted:?}")) })
        })
        .await?;
        self.seen = (prompt + generated) as f64;
        self.clock
            .lap(&format!("{after}: client and operator count {prompt} and {generated} tokens"));
        Ok(())
    }

    /// After replicas went: what they served between the last look and their end is lost, by the
    /// stated bound, so the operator may have less than the client, a little, and never more.
    /// What it has is in status, but for the twentieth that is not worth a write.
    async fn counts_agree_but_for_the_last_looks(&mut self, after: &str) -> Result<()> {
        let told = (self.told.prompt + self.told.generated) as f64;
        // Two looks that show the same: all that is to be counted is.
        let mut last = 0.0;
        let total = until("the count comes to rest", patience(), async || {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let total = self.total().await?;
            let same = (total - std::mem::replace(&mut last, total)).abs() < 0.5;
            Ok(if same { Look::Done(total) } else { Look::NotYet(format!("{total}")) })
        })
        .await?;
        self.clock.lap(&format!(
            "{after}: the client counts {told} tokens, the operator {total} ({:.2} % less)",
            (told - total) / told * 100.0
        ));
        ensure!(total >= self.seen, "the count went backwards, from {} to {total}", self.seen);
        ensure!(total <= told, "more is counted than was served: {total} of {told}");
        ensure!(total >= told * 0.9, "too much is lost: {total} of {told}");
        self.seen = total;
        let waited = until("status.usage has it", patience(), async || {
            let usage = self.cluster.llm(NAME).await?.status.and_then(|status| status.usage);
            let usage = usage.context("no usage")?;
            let written = (usage.prompt_tokens + usage.generated_tokens) as f64;
            ensure!(usage.cost_per_million_tokens.is_some(), "{usage:?} has no cost");
            let near = written <= total && written >= total * 0.95;
            Ok(if near { Look::Done(written) } else { Look::NotYet(format!("{usage:?}")) })
        });
        self.written = waited.await?;
        self.clock.lap(&format!("status.usage says {}", self.written));
        Ok(())
    }

    async fn metric(&self, kind: &str) -> Result<f64> {
        let waited = until("the operator counts tokens", patience(), async || {
            let metrics = self.cluster.operator_metrics(&self.operator).await?;
            Ok(match metrics.sum(TOKENS, &of(kind))? {
                0.0 => Look::NotYet("0".into()),
                some => Look::Done(some),
            })
        });
        waited.await
    }

    async fn total(&self) -> Result<f64> {
        Ok(self.metric("prompt").await? + self.metric("generated").await?)
    }

    /// Waits for so many replicas of the newest revision, and for nothing else to go on.
    async fn ready(&self, replicas: i32) -> Result<LLMDeployment> {
        let waited = until(format!("{replicas} are Ready"), LONG, async || {
            let llm = self.cluster.llm(NAME).await?;
            let status = llm.status.clone().unwrap_or_default();
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            let done = is_current(&llm)
                && counts == [replicas; 3]
                && status_of(&llm, "Ready") == "True"
                && self.cluster.pods(NAME).await?.len() == usize::try_from(replicas)?;
            Ok(if done { Look::Done(llm) } else { Look::NotYet(complaints(&llm)) })
        });
        match waited.await {
            Ok(llm) => Ok(llm),
            Err(error) => Err(error.context(explain(&self.cluster, NAME).await)),
        }
    }
}

const TOKENS: &str = "berth_deployment_tokens_total";

fn of(kind: &str) -> [(&str, &str); 2] {
    [("deployment", NAME), ("kind", kind)]
}

/// [`tiny_model`] with what `apply_llm` puts in for simulated nodes taken out.
fn tiny_model_only() -> Value {
    let mut spec = tiny_model();
    spec["podTemplate"] = Value::Null;
    spec
}

/// Waits until a pod of the operator holds the lease.
async fn operator_leads(cluster: &Cluster, pod: &Pod) -> Result<()> {
    until("the operator's pod holds the lease", patience(), async || {
        let holder = lease(cluster).await?.holder_identity.unwrap_or_default();
        let ours = holder.starts_with(&pod.name_any());
        Ok(if ours { Look::Done(()) } else { Look::NotYet(holder) })
    })
    .await
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    status.is_some_and(|all| {
        all.iter().all(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}

fn summary(counts: &Counts) -> String {
    format!(
        "{} requests in {:.0} s, {} of them streamed, {} failed, the slowest took {:.2} s",
        counts.answered + counts.failed,
        counts.seconds,
        counts.streamed,
        counts.failed,
        counts.slowest,
    )
}

/// Says what took how long.
struct Clock(std::cell::Cell<Instant>);

impl Default for Clock {
    fn default() -> Self {
        Self(std::cell::Cell::new(Instant::now()))
    }
}

impl Clock {
    fn lap(&self, what: &str) {
        println!("{:7.1} s  {what}", self.0.replace(Instant::now()).elapsed().as_secs_f64());
    }
}
