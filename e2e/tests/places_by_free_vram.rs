//! Replicas go where VRAM is free: the tightest GPUs that hold them, on nodes that take pods,
//! counting everybody's pods. What fits nowhere says why and what would fit, and is placed by
//! itself as soon as it can be.

use anyhow::{Context as _, Result, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    Cluster, Fleet, Nodes, Operator, Options,
    llm::{claim, status_of},
    snapshot::{bound_to, gpus_of, node_of},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

async fn start<const N: usize>(fleet: [Nodes; N]) -> Result<(Cluster, Operator)> {
    let cluster = Cluster::start(&Fleet::of(fleet)).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

/// So many GPUs with so much VRAM each.
fn gpus(count: u32, memory: &str) -> Value {
    json!({"gpu": {"count": count, "memory": memory}})
}

/// The node of the only replica; status, pod and scheduler agree on it.
async fn node(cluster: &Cluster, name: &str) -> Result<String> {
    let llm = cluster.ready(name, 1).await?;
    let status = llm.status.context("no status")?;
    let [placement] = status.placements.as_slice() else {
        anyhow::bail!("{name} has placements {:?}", status.placements);
    };
    let pod = cluster.pod(name).await?;
    ensure!(bound_to(&pod) == Some(&placement.node), "the scheduler bound it elsewhere");
    ensure!(node_of(&pod) == Some(&placement.node), "it is pinned elsewhere");
    Ok(placement.node.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tightest_gpus_that_hold_it() -> Result<()> {
    let (cluster, operator) = start([
        Nodes::new("oak", 1).h200(8),
        Nodes::new("elm", 1).h100(8),
        Nodes::new("ash", 2).l40s(4),
        Nodes::new("fir", 2).rtx4090(2),
        Nodes::new("yew", 1).mi300x(8),
        Nodes::new("birch", 1),
    ])
    .await?;
    for (name, spec, expected) in [
        ("small", gpus(1, "20Gi"), "fir"),
        ("small-too", gpus(1, "20Gi"), "fir"),
        ("small-pair", gpus(2, "20Gi"), "fir"),
        ("medium", gpus(1, "40Gi"), "ash"),
        ("medium-all", gpus(4, "40Gi"), "ash"),
        ("large", gpus(1, "70Gi"), "elm"),
        ("huge", gpus(1, "120Gi"), "oak"),
        ("amd", json!({"gpu": {"vendor": "AMD", "count": 1, "memory": "20Gi"}}), "yew"),
        ("vast", gpus(1, "150Gi"), "yew"),
        (
            "named",
            json!({"gpu": {"products": ["NVIDIA-H200"], "count": 2, "memory": "20Gi"}}),
            "oak",
        ),
        (
            "selected",
            json!({
                "gpu": {"count": 1, "memory": "20Gi"},
                "placement": {"nodeSelector": {"kubernetes.io/hostname": "elm-000"}},
            }),
            "elm",
        ),
    ] {
        cluster.apply_llm(name, spec).await?;
        let node = node(&cluster, name).await?;
        ensure!(node.starts_with(expected), "{name} is on {node}, not on {expected}");
    }
    // Two small ones share a node, so that the other one was free for the pair.
    let (first, second) = (node(&cluster, "small").await?, node(&cluster, "small-too").await?);
    ensure!(first == second, "two single GPUs were spread over {first} and {second}");
    let pair = node(&cluster, "small-pair").await?;
    ensure!(pair != first, "a pair on {pair}, where both GPUs are taken");

    // What was chosen stands on the pod and in status, and is what the pod asks for.
    let pod = cluster.pod("medium-all").await?;
    let claim = claim(&pod)?.context("no claim")?;
    ensure!(claim.gpus == 4 && gpus_of(&pod)["nvidia.com/gpu"] == 4, "{claim:?}");
    ensure!(claim.product == "NVIDIA-L40S", "{claim:?}");
    // The whole usable GPU, not only what was asked for.
    ensure!(claim.bytes_per_gpu > 40 << 30 && claim.bytes_per_gpu < 46068 << 20, "{claim:?}");
    let amd = cluster.pod("amd").await?;
    ensure!(gpus_of(&amd)["amd.com/gpu"] == 1, "{:?}", gpus_of(&amd));
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_estimate_decides_how_many_gpus() -> Result<()> {
    let (cluster, operator) =
        start([Nodes::new("ash", 1).l40s(4), Nodes::new("fir", 1).rtx4090(4)]).await?;
    // 15 GiB of weights and 8 of KV cache: over the 22.8 GiB of an RTX 4090.
    let two = json!({"maxConcurrency": 2});
    cluster.apply_llm("eight", json!({"engine": two})).await?;
    let llm = cluster.ready("eight", 1).await?;
    let status = llm.status.context("no status")?;
    let resolved = status.resolved.context("nothing resolved")?;
    let estimate = status.estimate.context("no estimate")?;
    ensure!(resolved.context_length == 32_768, "the context is {}", resolved.context_length);
    ensure!(resolved.gpus == 1 && resolved.tensor_parallelism == 1, "{resolved:?}");
    ensure!(node(&cluster, "eight").await? == "ash-000", "not on the GPU that holds it whole");
    let weights = 2 * 8_030_261_248_i64;
    ensure!((estimate.weights - weights).abs() < weights / 50, "weights are {}", estimate.weights);
    let kv_cache = 2 * 32_768 * (2 * 32 * 8 * 128 * 2);
    ensure!(estimate.kv_cache == kv_cache, "the KV cache is {}", estimate.kv_cache);
    let parts = [estimate.weights, estimate.kv_cache, estimate.activation, estimate.non_torch];
    let sum = parts.iter().sum::<i64>() + estimate.graphs + estimate.margin;
    ensure!(sum == estimate.total, "the parts make {sum}, the total is {}", estimate.total);

    // Where only small GPUs are allowed, it takes as many as it needs, of a number that divides.
    let small = json!({"engine": two, "gpu": {"products": ["NVIDIA-GeForce-RTX-4090"]}});
    cluster.apply_llm("split", small).await?;
    let resolved = cluster.ready("split", 1).await?.status.and_then(|s| s.resolved);
    let resolved = resolved.context("nothing resolved")?;
    ensure!(resolved.gpus == 2 && resolved.tensor_parallelism == 2, "{resolved:?}");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_others_count() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(4)]).await?;
    cluster.foreign_pod("training", "elm-000", 2).await?;
    cluster.apply_llm("four", gpus(4, "60Gi")).await?;
    ensure!(node(&cluster, "four").await? == "elm-001", "on a node with two GPUs free");
    cluster.apply_llm("two", gpus(2, "60Gi")).await?;
    ensure!(node(&cluster, "two").await? == "elm-000", "not on the two GPUs that are free");
    cluster.apply_llm("wait", gpus(2, "60Gi")).await?;
    let placed = cluster.unplaced("wait").await?;
    ensure!(placed.message.contains("other pods"), "others are not named: {}", placed.message);

    // Whoever is not ours is not touched, and when it goes its place is used.
    cluster.delete_pod("training").await?;
    ensure!(node(&cluster, "wait").await? == "elm-000", "not on what became free");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_take_no_pods_are_left_alone() -> Result<()> {
    let (cluster, operator) = start([
        Nodes::new("elm", 2).h100(1),
        Nodes::new("oak", 1).h100(1).taint("team", "research", "NoSchedule"),
        Nodes::new("pine", 1).h100(1).taint("nvidia.com/gpu", "present", "NoSchedule"),
    ])
    .await?;
    cluster.patch_node("elm-000", json!({"spec": {"unschedulable": true}})).await?;
    cluster.set_node_ready("elm-001", false).await?;

    // The taint of GPU nodes by custom is no obstacle.
    cluster.apply_llm("first", gpus(1, "60Gi")).await?;
    ensure!(node(&cluster, "first").await? == "pine-000", "not on the only node that takes pods");
    cluster.apply_llm("second", gpus(1, "60Gi")).await?;
    let placed = cluster.unplaced("second").await?;
    for word in ["cordoned", "not ready", "team=research:NoSchedule"] {
        ensure!(placed.message.contains(word), "{word} is not said: {}", placed.message);
    }
    // Whoever tolerates the taint may go there.
    let tolerant = json!({
        "gpu": {"count": 1, "memory": "60Gi"},
        "placement": {"tolerations": [{"key": "team", "value": "research", "effect": "NoSchedule"}]},
    });
    cluster.apply_llm("tolerant", tolerant).await?;
    ensure!(node(&cluster, "tolerant").await? == "oak-000", "not where it may go");

    // A node that comes back is used at once: first the cordon goes, then the other is Ready.
    cluster.patch_node("elm-000", json!({"spec": {"unschedulable": null}})).await?;
    ensure!(node(&cluster, "second").await? == "elm-000", "not on the node that came back");
    cluster.apply_llm("third", gpus(1, "60Gi")).await?;
    cluster.unplaced("third").await?;
    cluster.set_node_ready("elm-001", true).await?;
    ensure!(node(&cluster, "third").await? == "elm-001", "not on the node that is Ready again");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_says_what_comes_nearest_and_waits() -> Result<()> {
    let (cluster, operator) =
        start([Nodes::new("elm", 2).h100(4), Nodes::new("fir", 1).rtx4090(4)]).await?;
    cluster.foreign_pod("training-a", "elm-000", 1).await?;
    cluster.foreign_pod("training-b", "elm-001", 2).await?;
    cluster.apply_llm("four", gpus(4, "60Gi")).await?;
    let placed = cluster.unplaced("four").await?;
    ensure!(placed.reason == "InsufficientVRAM", "the reason is {}", placed.reason);
    for words in ["needs 4 GPUs with 60", "free each on one node", "best is elm-000 with 3"] {
        ensure!(placed.message.contains(words), "{words:?} is not said: {}", placed.message);
    }
    let llm = cluster.llm("four").await?;
    ensure!(status_of(&llm, "Ready") == "False", "Ready without a pod");
    ensure!(status_of(&llm, "Stalled") == "absent", "it waits for others, nobody need do anything");
    let queue = llm.status.as_ref().and_then(|s| s.queue.clone()).context("not in the queue")?;
    ensure!(queue.position == 1 && queue.replicas == 1, "{queue:?}");
    ensure!(cluster.pods("four").await?.is_empty(), "a pod without a place");

    // By itself, as soon as something frees up.
    cluster.delete_pod("training-a").await?;
    ensure!(node(&cluster, "four").await? == "elm-000", "not on what became free");
    let llm = cluster.llm("four").await?;
    ensure!(llm.status.is_some_and(|s| s.queue.is_none()), "placed, and still in the queue");

    // What no node could ever hold stalls: waiting does not help.
    cluster.apply_llm("giant", gpus(4, "100Gi")).await?;
    let giant = cluster.wait_llm("giant", "is stalled", |llm| status_of(llm, "Stalled") == "True");
    let giant = giant.await?;
    let placed = giant.condition("Placed").context("no condition Placed")?;
    ensure!(placed.reason == "InsufficientVRAM", "the reason is {}", placed.reason);
    ensure!(placed.message.contains("75.7 GiB usable"), "{}", placed.message);
    operator.terminate().await?;
    cluster.passed()
}

/// The ways that a message says would fit, each as the fields to set: `spec.gpu.count: 2`.
fn advice(placed: &Condition) -> Result<Vec<String>> {
    let (_, after) = placed
        .message
        .split_once("would fit with ")
        .with_context(|| format!("no advice: {}", placed.message))?;
    let ways = after.split(" (").next().unwrap_or(after);
    Ok(ways.split(", or with ").map(str::to_owned).collect())
}

/// A field that a way names, with its value.
fn named(way: &str) -> Result<(&str, Value)> {
    let (field, value) = way.split_once(": ").with_context(|| format!("no field: {way}"))?;
    Ok((field, value.parse().unwrap_or_else(|_| Value::from(value))))
}

/// The context that a message says would fit.
fn advised_context(placed: &Condition) -> Result<u32> {
    for way in advice(placed)? {
        if let ("spec.engine.contextLength", value) = named(&way)? {
            return Ok(serde_json::from_value(value)?);
        }
    }
    anyhow::bail!("no context is advised: {}", placed.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_taken_word_for_word_helps() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("ash", 1).l40s(2)]).await?;
    cluster.foreign_pod("training", "ash-000", 1).await?;
    // 16 GiB of KV cache in full; with two of them at once more than the 42.7 GiB of a GPU.
    let spec = |context: u32| {
        json!({
            "gpu": {"count": 1},
            "engine": {"contextLength": context, "maxConcurrency": 2},
        })
    };
    cluster.apply_llm("long", spec(131_072)).await?;
    let advice = advised_context(&cluster.unplaced("long").await?)?;
    ensure!((4_096..131_072).contains(&advice), "the advice is {advice}");
    // Computed, no phrase: a little more would not fit.
    cluster.apply_llm("long", spec(advice + 1_024)).await?;
    let placed = cluster.unplaced("long").await?;
    ensure!(advised_context(&placed)? == advice, "another advice: {}", placed.message);
    cluster.apply_llm("long", spec(advice)).await?;
    cluster.ready("long", 1).await?;
    cluster.delete_llm("long").await?;

    // Every way, one after the other, is typed into the manifest as it stands in the message.
    cluster.apply_llm("ways", spec(131_072)).await?;
    // The GPU of the one before is about to become free: then there is something to advise.
    let has_advice = |llm: &LLMDeployment| {
        let placed = llm.condition("Placed");
        placed.is_some_and(|placed| placed.message.contains("would fit with"))
    };
    let llm = cluster.wait_llm("ways", "is advised", has_advice).await?;
    let ways = self::advice(llm.condition("Placed").context("no condition Placed")?)?;
    ensure!(ways.len() > 2, "few ways: {ways:?}");
    let queue = llm.status.clone().and_then(|status| status.queue).context("not in the queue")?;
    let for_programs: Vec<_> = queue.would_fit.iter().map(|way| way.set[0].to_string()).collect();
    ensure!(for_programs == ways, "{for_programs:?} in the queue, {ways:?} in the message");
    for (number, way) in ways.iter().enumerate() {
        let (field, value) = named(way)?;
        let mut edited = spec(131_072);
        let path: Vec<_> = field.split('.').skip(1).collect();
        edited[path[0]][path[1]] = value;
        let name = format!("way-{number}");
        cluster.apply_llm(&name, edited).await?;
        cluster.ready(&name, 1).await.with_context(|| way.clone())?;
        cluster.delete_llm(&name).await?;
    }
    cluster.delete_llm("ways").await?;
    cluster.apply_llm("long", spec(advice)).await?;
    let llm = cluster.ready("long", 1).await?;
    let chosen = llm.status.and_then(|s| s.resolved).map(|r| r.context_length);
    ensure!(chosen == i32::try_from(advice).ok(), "it serves {chosen:?} tokens");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_longest_is_served_first() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    cluster
        .apply_llm("holder", json!({"replicas": 2, "gpu": {"count": 2, "memory": "60Gi"}}))
        .await?;
    cluster.ready("holder", 2).await?;
    for name in ["first", "second", "third"] {
        cluster.apply_llm(name, gpus(2, "60Gi")).await?;
        cluster.unplaced(name).await?;
    }
    for (name, position) in [("first", 1), ("second", 2), ("third", 3)] {
        position_is(&cluster, name, position).await?;
    }
    cluster.scale("holder", 1).await?;
    cluster.ready("first", 1).await?;
    position_is(&cluster, "second", 1).await?;
    position_is(&cluster, "third", 2).await?;
    ensure!(cluster.pods("second").await?.is_empty(), "placed before its time");
    cluster.scale("holder", 0).await?;
    cluster.ready("second", 1).await?;
    position_is(&cluster, "third", 1).await?;
    cluster.delete_llm("first").await?;
    cluster.ready("third", 1).await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

async fn position_is(cluster: &Cluster, name: &str, position: i32) -> Result<()> {
    let at = |llm: &LLMDeployment| {
        llm.status.as_ref().and_then(|s| s.queue.as_ref()).map(|queue| queue.position)
    };
    let what = format!("is at {position} in the queue");
    cluster.wait_llm(name, &what, |llm| at(llm) == Some(position)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_spread_where_that_is_asked_for() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 3).h100(4)]).await?;
    let spec = |strategy: &str| {
        json!({
            "replicas": 3,
            "gpu": {"count": 1, "memory": "60Gi"},
            "placement": {"strategy": strategy},
        })
    };
    for (name, strategy, nodes) in [("packed", "Pack", 1), ("spread", "Spread", 3)] {
        cluster.apply_llm(name, spec(strategy)).await?;
        cluster.ready(name, 3).await?;
        let pods = cluster.pods(name).await?;
        let on: std::collections::BTreeSet<_> = pods.iter().filter_map(bound_to).collect();
        ensure!(on.len() == nodes, "{strategy} has its replicas on {on:?}");
    }
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}
