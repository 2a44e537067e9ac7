//! A change that pods show rolls through, one replica at a time and never with more GPUs than there
//! are. A change that no pod shows touches no pod, and neither does a newer operator.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    AuditLog, Cluster, Fleet, NAMESPACE, Nodes, Observer, Operator, Options,
    apply::{apply, objects},
    audit::{OPERATOR, Request},
    cluster::root,
    explain::explain,
    llm::{is_current, status_of},
    snapshot::{controller, is_ready, revision},
    wait::{Look, patience, throughout, until},
};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// How long pods must stay as they are: as long as the upgrade tests of others wait.
const UNTOUCHED: Duration = Duration::from_secs(30);

async fn start<const N: usize>(fleet: [Nodes; N]) -> Result<(Cluster, Operator)> {
    let cluster = Cluster::start(&Fleet::of(fleet)).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

fn two_gpus(replicas: i32) -> Value {
    json!({
        "replicas": replicas,
        "gpu": {"count": 2},
        "engine": {"contextLength": 8192},
        "podTemplate": {"annotations": {"simulate.berth-e2e.dev/load-seconds": "2s"}},
    })
}

fn context(tokens: u32) -> Value {
    json!({"engine": {"contextLength": tokens}})
}

/// Waits until all replicas are of the newest revision and serve this context.
async fn rolled(cluster: &Cluster, name: &str, replicas: i32, context: i32) -> Result<()> {
    cluster
        .wait_llm(name, &format!("serves {context} tokens with {replicas} replicas"), |llm| {
            let status = llm.status.clone().unwrap_or_default();
            status.resolved.is_some_and(|resolved| resolved.context_length == context)
                && status.updated_replicas == replicas
                && status.available_replicas == replicas
                && status.replicas == replicas
        })
        .await?;
    cluster.ready(name, replicas).await?;
    cluster.settled().await?;
    Ok(())
}

async fn revisions(cluster: &Cluster, name: &str) -> Result<usize> {
    let all = cluster.api::<ControllerRevision>().list(&ListParams::default()).await?;
    Ok(all.iter().filter(|r| controller(*r).is_some_and(|owner| owner.name == name)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_fleet_one_replica_after_the_other() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    cluster.apply_llm("chat", two_gpus(2)).await?;
    cluster.ready("chat", 2).await?;
    let observer = Observer::start(&cluster).await;
    cluster.patch_llm("chat", context(16_384)).await?;
    rolled(&cluster, "chat", 2, 16_384).await?;
    let seen = observer.finish()?;
    let pods = &seen.pods_seen["chat"];
    ensure!(pods.len() == 4, "each replica is replaced once; there were {pods:?}");
    let fewest = seen.fewest_ready_of("chat");
    ensure!(fewest == 1, "{fewest} replicas were ready at the worst moment");
    operator.terminate().await?;
    cluster.passed()
}

/// An image is on the node before the replica that it replaces makes way, and what brought it goes.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_fleet_an_image_comes_before_a_replica_goes() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    cluster.apply_llm("chat", two_gpus(2)).await?;
    let old = cluster.ready("chat", 2).await?;
    let mark = AuditLog::of(&cluster).mark()?;
    cluster
        .patch_llm("chat", json!({"engine": {"image": {"nvidia": "example.com/new:1"}}}))
        .await?;
    let new = cluster
        .wait_llm("chat", "runs the new image", |llm| {
            let resolved = llm.status.as_ref().and_then(|status| status.resolved.as_ref());
            let image = resolved.map(|resolved| resolved.image.as_str());
            image == Some("example.com/new:1") && status_of(llm, "Ready") == "True"
        })
        .await?;
    ensure!(old.metadata.generation != new.metadata.generation, "nothing was changed");
    let done: Vec<String> =
        AuditLog::of(&cluster).writes(OPERATOR, mark)?.iter().map(Request::line).collect();
    let first = |what: &str| done.iter().position(|line| line.contains(what));
    let (brought, gone) = (first("-prefetch-"), first("delete pods"));
    ensure!(brought.is_some() && brought < gone, "{done:#?}");
    let one = until("what brought the image is gone", patience(), async || {
        let pods = cluster.pods("chat").await?;
        let count = pods.len();
        Ok(if count == 2 { Look::Done(()) } else { Look::NotYet(format!("{count} pods")) })
    });
    one.await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_room_the_new_one_serves_before_the_old_one_goes() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    cluster.apply_llm("chat", two_gpus(3)).await?;
    cluster.ready("chat", 3).await?;
    let observer = Observer::start(&cluster).await;
    cluster.patch_llm("chat", context(16_384)).await?;
    rolled(&cluster, "chat", 3, 16_384).await?;
    let seen = observer.finish()?;
    let pods = &seen.pods_seen["chat"];
    ensure!(pods.len() == 6, "each replica is replaced once; there were {pods:?}");
    let fewest = seen.fewest_ready_of("chat");
    ensure!(fewest == 3, "{fewest} replicas were ready at the worst moment");
    ensure!(seen.most_gpus <= 8, "{} GPUs were held at once", seen.most_gpus);
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_quick_edits_end_in_the_last_one() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    cluster.apply_llm("chat", two_gpus(3)).await?;
    cluster.ready("chat", 3).await?;
    let observer = Observer::start(&cluster).await;
    for step in 1..=20 {
        cluster.patch_llm("chat", context(8_192 + 256 * step)).await?;
    }
    rolled(&cluster, "chat", 3, 8_192 + 256 * 20).await?;
    let seen = observer.finish()?;
    // The budget is the deployment's, not the revision's.
    let fewest = seen.fewest_ready_of("chat");
    ensure!(fewest >= 2, "{fewest} replicas were ready at the worst moment");
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_revision_does_not_take_away_what_serves() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    cluster.apply_llm("chat", two_gpus(2)).await?;
    cluster.ready("chat", 2).await?;
    let good = cluster.uids("chat").await?;
    let behaviour = |value: Value| json!({"podTemplate": {"annotations": {"simulate.berth-e2e.dev/behaviour": value}}});
    let observer = Observer::start(&cluster).await;
    cluster.patch_llm("chat", behaviour("crash-loop".into())).await?;
    cluster
        .wait_llm("chat", "is degraded by its new revision", |llm| {
            let status = llm.status.clone().unwrap_or_default();
            status_of(llm, "Degraded") == "True" && status.updated_replicas >= 1
        })
        .await?;
    throughout("the old revision serves", Duration::from_secs(10), async || {
        let llm = cluster.llm("chat").await?;
        ensure!(is_current(&llm), "status is about an older spec");
        let status = llm.status.clone().context("no status")?;
        // Ready replicas are counted, and those of the newest revision apart from them.
        ensure!(status.ready_replicas == 2, "{} ready", status.ready_replicas);
        ensure!(status.available_replicas == 0, "{} available", status.available_replicas);
        ensure!(status_of(&llm, "Ready") == "False", "Ready, by the pods of the old revision");
        let pods = cluster.pods("chat").await?;
        ensure!(
            pods.iter().filter(|pod| is_ready(pod)).count() == 2,
            "a serving pod was taken away"
        );
        Ok(())
    })
    .await
    .context(explain(&cluster, "chat").await)?;
    // The last good spec again: the pods that served all the time go on.
    cluster.patch_llm("chat", behaviour(Value::Null)).await?;
    cluster.ready("chat", 2).await?;
    ensure!(cluster.uids("chat").await? == good, "going back restarted what served");
    let seen = observer.finish()?;
    ensure!(seen.fewest_ready_of("chat") == 2, "{} ready once", seen.fewest_ready_of("chat"));
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pod_comes_back_as_what_it_was() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    cluster.apply_llm("chat", two_gpus(2)).await?;
    cluster.ready("chat", 2).await?;
    let old = revision(&cluster.pods("chat").await?[0]).to_owned();
    // The new revision never serves, so the rollout stays in its first step.
    let broken = json!({"podTemplate": {"annotations": {
        "simulate.berth-e2e.dev/behaviour": "never-ready",
    }}});
    cluster.patch_llm("chat", broken).await?;
    cluster
        .wait_llm("chat", "rolls", |llm| {
            llm.status.as_ref().is_some_and(|status| status.updated_replicas == 1)
        })
        .await?;
    let pods = cluster.pods("chat").await?;
    let serving: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
    ensure!(serving.iter().all(|pod| revision(pod) == old), "of another revision");
    let victim = serving.last().context("nothing serves")?.name_any();
    cluster.delete_pod(&victim).await?;
    until("two replicas of the old revision serve again", patience(), async || {
        let pods = cluster.pods("chat").await?;
        let serves = |pod: &&Pod| is_ready(pod) && revision(pod) == old;
        let names: Vec<String> = pods.iter().filter(serves).map(Pod::name_any).collect();
        Ok(if names.len() == 2 && !names.contains(&victim) {
            Look::Done(())
        } else {
            Look::NotYet(format!("{names:?} serve"))
        })
    })
    .await
    .context(explain(&cluster, "chat").await)?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_that_no_pod_shows_touch_no_pod() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    cluster.apply_llm("chat", json!({"replicas": 2})).await?;
    let llm = cluster.ready("chat", 2).await?;
    let resolved = llm.status.and_then(|status| status.resolved).context("nothing resolved")?;
    let uids = cluster.uids("chat").await?;
    for edit in [
        json!({"endpoint": {"port": 8000}}),
        json!({"placement": {"strategy": "Spread"}}),
        // Defaults spelled out.
        json!({"engine": {"imagePullPolicy": "IfNotPresent"}}),
        json!({"model": {"trustRemoteCode": false}, "suspend": false}),
        json!({"placement": {"tolerations": [], "nodeSelector": {}}, "imagePullSecrets": []}),
        json!({"podTemplate": {"labels": {}}}),
        // What Berth chose, spelled out: the outcome is the same.
        json!({"engine": {"type": "VLLM", "contextLength": resolved.context_length}}),
        json!({"gpu": {"count": resolved.gpus, "vendor": resolved.vendor}}),
        json!({"priorityClassName": "berth-default", "engine": {"shutdownGrace": "60s"}}),
        // And back to nothing.
        json!({"engine": null, "gpu": null, "priorityClassName": null, "podTemplate": {"labels": null}}),
    ] {
        cluster.patch_llm("chat", edit.clone()).await?;
        cluster.ready("chat", 2).await?;
        ensure!(cluster.uids("chat").await? == uids, "{edit} restarted pods");
    }
    let labels =
        Patch::Merge(json!({"metadata": {"labels": {"team": "a"}, "annotations": {"a": "b"}}}));
    cluster.api::<LLMDeployment>().patch("chat", &PatchParams::default(), &labels).await?;
    cluster.scale("chat", 3).await?;
    cluster.ready("chat", 3).await?;
    cluster.scale("chat", 2).await?;
    cluster.ready("chat", 2).await?;
    untouched(&cluster, "chat", &uids, Duration::from_secs(10)).await?;
    ensure!(
        revisions(&cluster, "chat").await? == 1,
        "{} revisions",
        revisions(&cluster, "chat").await?
    );
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

/// Names, UIDs and restarts of the pods stay as they are.
async fn untouched(
    cluster: &Cluster,
    name: &str,
    uids: &[(String, String)],
    time: Duration,
) -> Result<()> {
    throughout(format!("the pods of {name} are untouched"), time, async || {
        let now = cluster.uids(name).await?;
        ensure!(now == uids, "they were {uids:?} and are {now:?}");
        for pod in cluster.pods(name).await? {
            let statuses = pod.status.clone().unwrap_or_default().container_statuses;
            let restarts: i32 = statuses.iter().flatten().map(|status| status.restart_count).sum();
            ensure!(restarts == 0 && is_ready(&pod), "pod {} restarted", pod.name_any());
        }
        Ok(())
    })
    .await
    .context(explain(cluster, name).await)
}

fn image(pod: &Pod) -> &str {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers.first().and_then(|container| container.image.as_deref()).unwrap_or_default()
}

/// A catalogue in which a model that serves has other facts.
fn newer_catalogue() -> Value {
    json!([{
        "id": "Qwen/Qwen2.5-7B-Instruct",
        "licence": "Apache-2.0",
        "source": "a correction",
        "facts": {
            "layers": 56, "hiddenSize": 5120, "intermediateSize": 18944, "attentionHeads": 40,
            "kvHeads": 8, "headDim": 128, "vocabSize": 152_064, "maxContext": 65_536,
        },
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_operator_touches_nothing_that_serves() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(8)]).await?;
    let catalogued = json!({
        "model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct", "facts": null}, "replicas": 2,
    });
    cluster.apply_llm("catalogued", catalogued.clone()).await?;
    cluster.apply_llm("described", json!({"replicas": 2})).await?;
    let before = cluster.ready("catalogued", 2).await?;
    cluster.ready("described", 2).await?;
    let (uids, described) = (cluster.uids("catalogued").await?, cluster.uids("described").await?);
    let old_image = image(&cluster.pods("catalogued").await?[0]).to_owned();
    operator.terminate().await?;

    // Everything newer at once: default image, catalogue, and a field with a default in the schema.
    let catalogue = cluster.dir.join("catalogue.json");
    fs::write(&catalogue, newer_catalogue().to_string())?;
    add_defaulted_fields(&cluster).await?;
    let new_image = "registry.example.org/vllm:99.0";
    let options = Options::named("newer").with(&[
        "--engine-image",
        &format!("VLLM:NVIDIA={new_image}"),
        "--catalogue",
        &catalogue.display().to_string(),
    ]);
    let operator = Operator::start(&cluster, options.clone()).await?;
    untouched(&cluster, "catalogued", &uids, UNTOUCHED).await?;
    untouched(&cluster, "described", &described, Duration::from_secs(1)).await?;

    // An edit that no pod shows writes the new field's default into the object.
    cluster.patch_llm("catalogued", json!({"endpoint": {"port": 8000}})).await?;
    let after = cluster.ready("catalogued", 2).await?;
    untouched(&cluster, "catalogued", &uids, Duration::from_secs(5)).await?;
    let resolved = |llm: &LLMDeployment| llm.status.clone().and_then(|status| status.resolved);
    ensure!(resolved(&before) == resolved(&after), "what was resolved has changed");
    ensure!(revisions(&cluster, "catalogued").await? == 1, "a revision was made");

    // More replicas of the old revision are what it is.
    cluster.scale("catalogued", 3).await?;
    cluster.ready("catalogued", 3).await?;
    let images: Vec<String> =
        cluster.pods("catalogued").await?.iter().map(|pod| image(pod).to_owned()).collect();
    ensure!(images.iter().all(|image| *image == old_image), "images are {images:?}");

    // An edit changes what it names and nothing else.
    cluster.patch_llm("catalogued", context(4_096)).await?;
    rolled(&cluster, "catalogued", 3, 4_096).await?;
    for pod in cluster.pods("catalogued").await? {
        ensure!(image(&pod) == old_image, "an edit of the context changed the image");
    }

    // What is new takes what is newer.
    let mut fresh = catalogued;
    fresh["replicas"] = json!(1);
    cluster.apply_llm("fresh", fresh).await?;
    cluster.ready("fresh", 1).await?;
    ensure!(image(&cluster.pod("fresh").await?) == new_image, "a new deployment on an old image");
    let llm = cluster.llm("fresh").await?;
    let facts = llm.status.and_then(|status| status.model).map(|model| model.facts);
    ensure!(facts.as_deref() == Some("a correction"), "facts from {facts:?}");

    // And after another election.
    let described = cluster.uids("described").await?;
    operator.terminate().await?;
    let operator = Operator::start(&cluster, options).await?;
    untouched(&cluster, "described", &described, Duration::from_secs(10)).await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

/// The `LLMDeployment`'s definition as a later release may have it: with fields more, and defaults.
async fn add_defaulted_fields(cluster: &Cluster) -> Result<()> {
    let text = fs::read_to_string(root()?.join("crds/yaml/llmdeployments.yaml"))?;
    let mut definition = objects(&text)?.pop().context("no definition")?;
    let spec = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .context("no spec in the definition")?;
    let burst = json!({"description": "New.", "type": "integer", "default": 7});
    spec["burst"] = burst.clone();
    spec["model"]["properties"]["burst"] = burst.clone();
    spec["placement"]["properties"]["burst"] = burst.clone();
    spec["later"] = json!({
        "description": "New.", "type": "object", "default": {"mode": "Auto"},
        "properties": {"mode": {"description": "New.", "type": "string", "default": "Auto"}},
    });
    apply(&cluster.client, &definition, NAMESPACE).await?;
    cluster.definitions_established().await?;
    until("the new field has its default", patience(), async || {
        let url = format!("/apis/berth.dev/v1alpha1/namespaces/{NAMESPACE}/llmdeployments");
        let request = kube::core::Request::new(url).list(&ListParams::default())?;
        let list: Value = cluster.client.request(request).await?;
        let burst = list.pointer("/items/0/spec/burst").cloned();
        Ok(if burst == Some(json!(7)) {
            Look::Done(())
        } else {
            Look::NotYet(format!("{burst:?}"))
        })
    })
    .await
}
