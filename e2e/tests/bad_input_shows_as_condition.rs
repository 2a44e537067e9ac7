//! What the API server cannot see is wrong shows as a condition that says what to do, and nothing
//! that runs is touched by it.

use anyhow::{Context as _, Result, ensure};
use berth_crds::{CostProfile, LLMDeployment};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE, Nodes, Operator, Options, apply,
    llm::{complaints, is_current, reason_of, status_of},
    wait::{Look, patience, until},
};
use serde_json::{Value, json};

async fn start() -> Result<(Cluster, Operator)> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 2).h100(8)])).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

/// A spec that is wrong, and words that its condition must contain.
fn bad_specs() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let engine = |engine: Value| json!({"engine": engine});
    vec![
        (
            "unknown-model",
            json!({"model": {"uri": "hf://nobody/knows-this", "facts": null}}),
            &[
                "spec.model.facts",
                "layers",
                "hiddenSize",
                "attentionHeads",
                "kvHeads",
                "vocabSize",
                "maxContext",
                "config.json",
            ],
        ),
        (
            "unknown-file",
            json!({
                "model": {"uri": "hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "facts": null},
            }),
            &["spec.model.files"],
        ),
        (
            "missing-claim",
            json!({"model": {"uri": "pvc://no-such-claim/llama"}}),
            &["PersistentVolumeClaim", "no-such-claim"],
        ),
        ("odd-count", json!({"gpu": {"count": 3}}), &["3", "32 attention heads"]),
        (
            "odd-tensor",
            json!({"gpu": {"parallelism": {"tensor": 5}}}),
            &["5", "32 attention heads"],
        ),
        (
            "our-argument",
            engine(json!({"args": ["--tensor-parallel-size", "4"]})),
            &["--tensor-parallel-size", "gpu"],
        ),
        ("our-short-argument", engine(json!({"args": ["-tp=4"]})), &["-tp", "gpu"]),
        (
            "our-variable",
            engine(json!({"env": [{"name": "VLLM_PORT", "value": "1"}]})),
            &["VLLM_PORT"],
        ),
        ("too-long", engine(json!({"contextLength": 200_000})), &["contextLength", "131072"]),
        (
            "gguf-on-vllm",
            json!({
                // Under another name the API server cannot see what it is.
                "model": {"files": "model-Q4_K_M.bin", "facts": {"quantization": "GGUF"}},
                "engine": {"type": "VLLM"},
            }),
            &["GGUF", "LlamaCpp"],
        ),
        ("safetensors-on-llama", engine(json!({"type": "LlamaCpp"})), &["LlamaCpp", "VLLM"]),
        (
            "no-class",
            json!({"priorityClassName": "no-such-class"}),
            &["priorityClassName", "no-such-class"],
        ),
        (
            "preempting-class",
            json!({"priorityClassName": "preempting"}),
            &["priorityClassName", "preempting", "preemptionPolicy"],
        ),
        ("odd-facts", json!({"model": {"facts": {"kvHeads": 5}}}), &["facts", "kvHeads"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_spec_says_what_to_do_and_starts_nothing() -> Result<()> {
    let (cluster, operator) = start().await?;
    preempting_class(&cluster).await?;
    cluster.apply_llm("healthy", json!({"gpu": {"count": 1}})).await?;
    cluster.ready("healthy", 1).await?;
    let healthy = cluster.uids("healthy").await?;

    for (name, spec, _) in bad_specs() {
        cluster.apply_llm(name, spec).await?;
    }
    let mut wrong = Vec::new();
    for (name, spec, words) in bad_specs() {
        if let Err(error) = complains(&cluster, name, words).await {
            wrong.push(format!("{name} {spec}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of the bad specs:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cluster.uids("healthy").await? == healthy, "a running deployment was touched");

    // Put right, it runs.
    cluster.patch_llm("odd-count", json!({"gpu": {"count": 2}})).await?;
    cluster.ready("odd-count", 1).await?;
    cluster.patch_llm("our-argument", json!({"engine": {"args": null}})).await?;
    cluster.ready("our-argument", 1).await?;
    ensure!(cluster.uids("healthy").await? == healthy, "a running deployment was touched");
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_edit_leaves_what_serves_alone() -> Result<()> {
    let (cluster, operator) = start().await?;
    cluster.apply_llm("chat", json!({"replicas": 2, "gpu": {"count": 2}})).await?;
    let good = cluster.ready("chat", 2).await?;
    let uids = cluster.uids("chat").await?;

    for (edit, words) in [
        (json!({"gpu": {"count": 3}}), "attention heads"),
        (json!({"gpu": {"count": 2}, "engine": {"args": ["--model=x"]}}), "--model"),
        (json!({"engine": null, "model": {"uri": "pvc://gone"}}), "gone"),
    ] {
        cluster.patch_llm("chat", edit).await?;
        complains(&cluster, "chat", &[words]).await?;
        let llm = cluster.llm("chat").await?;
        ensure!(cluster.uids("chat").await? == uids, "a bad edit touched the pods");
        let ready = llm.status.context("no status")?.ready_replicas;
        ensure!(ready == 2, "{ready} replicas ready by status, though both pods serve");
    }
    // The last good spec again: nothing was lost, nothing restarts.
    cluster
        .patch_llm("chat", json!({"model": {"uri": good.spec.model.uri}, "engine": null}))
        .await?;
    cluster.ready("chat", 2).await?;
    ensure!(cluster.uids("chat").await? == uids, "going back touched the pods");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_list_that_cannot_be_says_so() -> Result<()> {
    let (cluster, operator) = start().await?;
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostProfile",
        "metadata": {"name": "prices"},
        "spec": {
            "currency": "EUR",
            "hardware": [{
                "name": "h100", "products": ["NVIDIA-H100-80GB-HBM3"], "rented": {"perHour": "16"},
            }],
            // Less power than the machines themselves take.
            "energy": {"perKilowattHour": "0.2", "pue": "0.5"},
        },
    });
    apply::apply(&cluster.client, &profile, NAMESPACE).await?;
    profile_is(&cluster, "False", "pue").await?;
    let mut good = profile;
    good["spec"]["energy"]["pue"] = "1.5".into();
    apply::apply(&cluster.client, &good, NAMESPACE).await?;
    profile_is(&cluster, "True", "").await?;
    operator.terminate().await?;
    cluster.passed()
}

/// Waits until a deployment is stalled with these words, and checks that it started nothing new.
async fn complains(cluster: &Cluster, name: &str, words: &[&str]) -> Result<()> {
    let says = |llm: &LLMDeployment| {
        let said = complaints(llm);
        words.iter().all(|word| said.contains(word))
    };
    let llm = cluster
        .wait_llm(name, &format!("complains with {words:?}"), |llm| {
            says(llm) && status_of(llm, "Stalled") == "True"
        })
        .await?;
    ensure!(is_current(&llm), "status is about an older spec");
    ensure!(status_of(&llm, "Ready") == "False", "Ready is {}", status_of(&llm, "Ready"));
    ensure!(status_of(&llm, "Reconciling") == "absent", "both Stalled and Reconciling");
    let reason = reason_of(&llm, "Ready");
    ensure!(reason.starts_with(char::is_uppercase), "the reason {reason:?} is no word");
    let newest = llm.status.and_then(|status| status.resolved).map(|resolved| resolved.revision);
    for pod in cluster.pods(name).await? {
        let revision = berth_e2e::snapshot::revision(&pod).to_owned();
        ensure!(
            newest.as_ref().is_some_and(|newest| newest.ends_with(&revision)),
            "a pod runs the bad spec"
        );
    }
    Ok(())
}

async fn preempting_class(cluster: &Cluster) -> Result<()> {
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "preempting"},
        "value": 1_000_000,
        "preemptionPolicy": "PreemptLowerPriority",
    });
    apply::apply(&cluster.client, &class, NAMESPACE).await?;
    Ok(())
}

async fn profile_is(cluster: &Cluster, status: &str, word: &str) -> Result<()> {
    until(format!("the CostProfile is Ready={status} with {word:?}"), patience(), async || {
        let profile = cluster.all::<CostProfile>().get("prices").await?;
        let current = profile.status.as_ref().and_then(|status| status.observed_generation)
            == profile.metadata.generation;
        let conditions = profile.status.map(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(ready) if current && ready.status == status && ready.message.contains(word) => {
                Look::Done(())
            }
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .await
}
