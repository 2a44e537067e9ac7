//! How models come to a node that really runs pods: from a hub inside of the cluster into the node's
//! cache, once for all replicas of a namespace; with what is wrong said where people look; out of the
//! cache when others need its room; and from the cache alone when downloads are switched off.
//!
//! Needs root; see `e2e/cluster/README.md`.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    Clock, Cluster, Fleet, NAMESPACE, Nodes, apply,
    cluster::client,
    json,
    llm::{complaints, reason_of, status_of},
    operator::SYSTEM,
    real_node::{self, Hub, Repository, SCRAPE_VALUE, TOKEN, tiny_model},
    wait::{Look, patience, until},
};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::Value;

const FIRST: &str = "first";
const GATED: &str = "gated";
const SLOW: &str = "slow";
const PUT: &str = "put";
/// What a model of next to nothing is planned with is 1 GiB, so two models find room.
const CACHE_SIZE: &str = "cache.size=2Gi";

#[tokio::test(flavor = "multi_thread")]
async fn real_node_fetches_models() -> Result<()> {
    if !real_node::possible("real_node_fetches_models, a real node with a cache and a hub") {
        return Ok(());
    }
    let clock = Clock::default();
    let fleet = Fleet::of([Nodes::new("elm", 1).h100(8)]);
    let images = ["llama-server", "operator", "fetch", "toolbox"];
    let cluster = real_node::start(&fleet, &images).await?;
    let filler = vec![7; 4 << 20];
    let hub = Hub::start(
        &cluster,
        &[
            Repository::tiny("quay/first")?,
            Repository::tiny("quay/gated")?.gated(),
            // Its readme is not asked for, what is asked for takes its time.
            Repository::tiny("quay/slow")?.with("README.md", filler).slow(60_000),
        ],
    )
    .await?;
    let path = cluster.real_node()?.data_dir.join("cache");
    let path = format!("cache.path={}", path.to_str().context("a folder with a strange name")?);
    let endpoint = format!("hub.endpoint={}", hub.url);
    let operator = cluster.helm_install(&[SCRAPE_VALUE, &endpoint, &path, CACHE_SIZE]).await?;
    // Keepers are root, with next to no rights: the stated exception.
    let baseline =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let namespaces = cluster.all::<Namespace>();
    namespaces.patch(SYSTEM, &PatchParams::default(), &Patch::Merge(baseline)).await?;
    clock.lap("cluster up, a hub in it, helm install with a cache");

    let mut story = Story { cluster, clock, hub, operator };
    story.replicas_share_one_download().await?;
    story.a_gated_model_wants_its_token().await?;
    story.a_slow_mirror_is_seen_and_the_least_used_makes_room().await?;
    story.no_volume_of_another_path().await?;
    story.offline_only_what_is_there_starts().await?;
    story.what_the_administrator_put_there_serves_all().await?;
    story.an_image_that_cannot_come_takes_nothing_down().await?;
    story.cluster.passed()
}

struct Story {
    cluster: Cluster,
    clock: Clock,
    hub: Hub,
    operator: Pod,
}

/// The tiny model from the hub's repository of that name.
fn model(repository: &str) -> Value {
    let mut spec = tiny_model();
    spec["model"]["uri"] = json!(format!("hf://{repository}"));
    spec["podTemplate"] = Value::Null;
    spec
}

impl Story {
    async fn replicas_share_one_download(&mut self) -> Result<()> {
        self.cluster.apply_llm(FIRST, model("quay/first")).await?;
        self.cluster.ready(FIRST, 1).await?;
        let service = self.cluster.service_address(FIRST).await?;
        let answer = self.cluster.answers(&service, &["--tokens", "8"]).await?;
        ensure!(answer.tokens.generated == 8, "{answer:?}");
        self.clock.lap("a model from the hub answers");
        let size = Repository::tiny("quay/first")?.bytes();
        let asked = self.hub.weights(&self.cluster, "quay/first").await?;
        ensure!(asked.bytes == size, "{asked:?} for a model of {size} bytes");

        self.cluster.scale(FIRST, 2).await?;
        self.cluster.ready(FIRST, 2).await?;
        let again = self.hub.weights(&self.cluster, "quay/first").await?;
        ensure!(again.bytes == size, "the second replica downloaded it too: {again:?}");
        self.clock.lap("a second replica starts from the same files");
        self.cached(&["quay--first"]).await
    }

    async fn a_gated_model_wants_its_token(&mut self) -> Result<()> {
        self.cluster.apply_llm(GATED, model("quay/gated")).await?;
        let refused = self.cluster.wait_llm(GATED, "is refused by the hub", |llm| {
            reason_of(llm, "Ready") == "Unauthorized"
        });
        let message = complaints(&refused.await?);
        ensure!(message.contains("quay/gated") && message.contains("secretRef"), "{message}");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"},
            "stringData": {"token": TOKEN},
        });
        apply::apply(&self.cluster.client, &secret, NAMESPACE).await?;
        self.cluster.patch_llm(GATED, json!({"model": {"secretRef": {"name": "hub"}}})).await?;
        self.cluster.steady(GATED, 1).await?;
        for pod in self.cluster.pods(GATED).await? {
            ensure!(!serde_json::to_string(&pod)?.contains(TOKEN), "a token in a pod's spec");
        }
        self.clock.lap("a gated model says what it wants, and starts with a token");
        self.cached(&["quay--first", "quay--gated"]).await
    }

    /// Both models that are there fill the cache; of them only one is not needed any more.
    async fn a_slow_mirror_is_seen_and_the_least_used_makes_room(&mut self) -> Result<()> {
        self.cluster.apply_llm(SLOW, model("quay/slow")).await?;
        let refused = self
            .cluster
            .wait_llm(SLOW, "waits for room", |llm| status_of(llm, "Placed") == "False");
        let message = complaints(&refused.await?);
        ensure!(message.contains("model cache"), "{message}");
        self.cached(&["quay--first", "quay--gated"]).await?;

        self.cluster.delete_llm(FIRST).await?;
        let message = |llm: &LLMDeployment| {
            let placements = llm.status.as_ref().map(|status| status.placements.as_slice());
            placements.and_then(|all| all.first()?.message.clone()).unwrap_or_default()
        };
        let downloading = self.cluster.wait_llm(SLOW, "says how far its download is", |llm| {
            reason_of(llm, "Ready") == "Downloading" && message(llm).contains(" of ")
        });
        self.clock.lap(&message(&downloading.await?));
        self.cluster.ready(SLOW, 1).await?;
        self.cached(&["quay--gated", "quay--slow"]).await?;
        self.clock.lap("a slow download is seen; the model that nobody needs made room");
        Ok(())
    }

    /// The operator's own account may not make a volume of any other path.
    async fn no_volume_of_another_path(&mut self) -> Result<()> {
        let volumes = self.cluster.all::<PersistentVolume>();
        let ours = ListParams::default().labels("app.kubernetes.io/component=cache");
        let mut volume = volumes.list(&ours).await?.items.pop().context("no volume of a cache")?;
        volume.metadata = serde_json::from_value(json!({"name": "elsewhere"}))?;
        volume.status = None;
        let spec = volume.spec.as_mut().context("a volume without a spec")?;
        if let Some(claim) = &mut spec.claim_ref {
            (claim.uid, claim.resource_version) = (None, None);
        }
        let good = spec.host_path.as_ref().context("a volume without a path")?.path.clone();
        let (root, _) = good.split_once("/namespaces").context("a strange path")?;
        let account = self.cluster.account_kubeconfig(SYSTEM, "berth-operator").await?;
        let volumes: Api<PersistentVolume> = Api::all(client(&account).await?);
        for path in ["/", "/etc", root, &format!("{good}/../../.."), &format!("{root}-more/shared")]
        {
            if let Some(host) = volume.spec.as_mut().and_then(|spec| spec.host_path.as_mut()) {
                path.clone_into(&mut host.path);
            }
            match volumes.create(&PostParams::default(), &volume).await {
                Err(kube::Error::Api(status)) => {
                    let said = status.message.contains("berth-cache-volumes")
                        // The API server itself refuses paths that climb.
                        || path.contains("..");
                    ensure!(said, "{path}: {}", status.message);
                }
                other => anyhow::bail!("{path}: {other:?}"),
            }
        }
        self.clock.lap("volumes of other paths are refused");
        Ok(())
    }

    async fn offline_only_what_is_there_starts(&mut self) -> Result<()> {
        self.operator = self.cluster.helm_upgrade(&["hub.offline=true"], &self.operator).await?;
        let before = self.hub.counts(&self.cluster).await?;
        self.cluster.scale(SLOW, 2).await?;
        self.cluster.ready(SLOW, 2).await?;
        self.clock.lap("offline, a model that is in the cache starts");

        self.cluster.apply_llm("absent", model("quay/first")).await?;
        let refused = self.cluster.wait_llm("absent", "may not be downloaded", |llm| {
            reason_of(llm, "Ready") == "Offline"
        });
        let message = complaints(&refused.await?);
        ensure!(message.contains("downloads are off"), "{message}");
        ensure!(self.hub.counts(&self.cluster).await? == before, "the hub was asked something");
        self.clock.lap("one that is not says so, and the hub is asked nothing");
        Ok(())
    }

    async fn what_the_administrator_put_there_serves_all(&mut self) -> Result<()> {
        self.cluster.delete_llm("absent").await?;
        let node = self.cluster.real_node()?;
        let folder = node.data_dir.join("cache/shared/tiny");
        fs::create_dir_all(&folder)?;
        fs::copy(real_node::tiny_model_file()?, folder.join("tiny-F16.gguf"))?;
        let mut spec = tiny_model();
        spec["model"]["uri"] = json!("cache://tiny");
        spec["podTemplate"] = Value::Null;
        self.cluster.apply_llm(PUT, spec).await?;
        let nowhere = self
            .cluster
            .wait_llm(PUT, "is on no node", |llm| reason_of(llm, "Ready") == "NoMatchingNodes");
        let message = complaints(&nowhere.await?);
        ensure!(message.contains("models.berth.dev/tiny=true"), "{message}");
        let label = json!({"metadata": {"labels": {"models.berth.dev/tiny": "true"}}});
        let nodes = self.cluster.all::<Node>();
        nodes.patch(&node.name, &PatchParams::default(), &Patch::Merge(label)).await?;
        self.cluster.ready(PUT, 1).await?;
        self.clock.lap("a model that the administrator put onto the node serves");
        Ok(())
    }

    /// Every GPU is taken now, so a new image means that the replica makes way: only once it is there.
    async fn an_image_that_cannot_come_takes_nothing_down(&mut self) -> Result<()> {
        let before = self.cluster.uids(PUT).await?;
        let service = self.cluster.service_address(PUT).await?;
        let image = |name: &str| json!({"engine": {"image": {"nvidia": name}}});
        self.cluster.patch_llm(PUT, image("berth.dev/e2e/nowhere:1")).await?;
        let blocked = self.cluster.wait_llm(PUT, "says what its rollout waits for", |llm| {
            reason_of(llm, "Ready") == "RolloutBlocked"
        });
        let message = complaints(&blocked.await?);
        ensure!(message.contains("berth.dev/e2e/nowhere:1"), "{message}");
        let answer = self.cluster.answers(&service, &["--tokens", "4"]).await?;
        ensure!(answer.tokens.generated == 4, "{answer:?}");
        self.cluster.patch_llm(PUT, image(real_node::ENGINE_IMAGE)).await?;
        self.cluster.steady(PUT, 1).await?;
        let after = self.cluster.uids(PUT).await?;
        ensure!(after == before, "the replica was replaced: {before:?}, then {after:?}");
        self.clock.lap("an image that cannot come takes nothing down");
        Ok(())
    }

    /// Waits until these models lie in the namespace's folder of the node, and no others.
    async fn cached(&self, models: &[&str]) -> Result<()> {
        let folder = self.cluster.real_node()?.data_dir.join("cache/namespaces").join(NAMESPACE);
        let folder = folder.to_str().context("a folder with a strange name")?;
        until(format!("{models:?} are in the cache"), patience(), async || {
            let there: BTreeSet<String> = fs::read_dir(folder)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<_>>()?;
            let is =
                |model: &&str| there.iter().any(|name| name.starts_with(&format!("hf--{model}--")));
            let right = models.iter().all(is) && there.len() == models.len();
            Ok(if right { Look::Done(()) } else { Look::NotYet(format!("{there:?}")) })
        })
        .await
    }
}
