//! What people do to a deployment and what happens to its pods, nodes and operator: each ends as
//! users of Kubernetes expect.

use anyhow::{Context as _, Result, ensure};
use berth_crds::{LLMDeployment, names::LABEL_ATTEMPT};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE, Nodes, Observer, Operator, Options, apply,
    snapshot::{bound_to, controller, is_live, is_ready, is_terminating, slot},
    wait::{Look, patience, throughout, until},
};
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{Node, Pod, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use std::time::Duration;

async fn start<const N: usize>(fleet: [Nodes; N]) -> Result<(Cluster, Operator)> {
    let cluster = Cluster::start(&Fleet::of(fleet)).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

fn one_gpu(replicas: i32) -> Value {
    json!({"replicas": replicas, "gpu": {"count": 1, "memory": "60Gi"}})
}

/// Waits until a deployment has a ready pod other than `old`, and returns it.
async fn replacement(cluster: &Cluster, name: &str, old: &Pod) -> Result<Pod> {
    let old = old.uid().unwrap_or_default();
    until(format!("{name} has a ready pod in place of {old}"), patience(), async || {
        let pods = cluster.pods(name).await?;
        let other = pods.iter().find(|pod| is_ready(pod) && pod.uid().as_ref() != Some(&old));
        Ok(match other {
            Some(pod) => Look::Done(pod.clone()),
            None => Look::NotYet(format!("{:?}", cluster.uids(name).await?)),
        })
    })
    .await
    .context(berth_e2e::explain::explain(cluster, name).await)
}

fn attempt(pod: &Pod) -> Option<i32> {
    pod.labels().get(LABEL_ATTEMPT)?.parse().ok()
}

async fn revisions(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let all = cluster.api::<ControllerRevision>().list(&ListParams::default()).await?;
    let of =
        |object: &ControllerRevision| controller(object).is_some_and(|owner| owner.name == name);
    Ok(all.iter().filter(|revision| of(revision)).map(ControllerRevision::name_any).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_scales_suspends_and_resumes() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(4)]).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster.ready("chat", 1).await?;
    let first = cluster.uids("chat").await?;
    let revision = revisions(&cluster, "chat").await?;
    ensure!(revision.len() == 1, "revisions are {revision:?}");

    cluster.scale("chat", 3).await?;
    cluster.ready("chat", 3).await?;
    let three = cluster.uids("chat").await?;
    ensure!(first.iter().all(|pod| three.contains(pod)), "scaling up restarted a pod");
    let scale = cluster.api::<LLMDeployment>().get_scale("chat").await?;
    let there = scale.status.context("scale without status")?;
    ensure!(there.replicas == 3, "the scale subresource says {there:?}");
    let selector = there.selector.context("scale without selector")?;
    let selected = cluster.api::<Pod>().list(&ListParams::default().labels(&selector)).await?;
    ensure!(selected.items.len() == 3, "{selector} selects {} pods", selected.items.len());

    cluster.scale("chat", 1).await?;
    cluster.ready("chat", 1).await?;
    let one = cluster.uids("chat").await?;
    ensure!(one.iter().all(|pod| three.contains(pod)), "scaling down restarted a pod");
    ensure!(one == first, "of ready replicas the highest go first: {one:?} is left, not {first:?}");

    // Suspended: nothing runs, the object and its history stay.
    cluster.patch_llm("chat", json!({"suspend": true})).await?;
    cluster.no_pods("chat").await?;
    let suspended = cluster
        .wait_llm("chat", "is suspended", |llm| {
            llm.status.as_ref().is_some_and(|s| s.replicas == 0 && s.gpus == 0)
        })
        .await?;
    ensure!(suspended.spec.replicas == 1, "suspending changed the replicas");
    ensure!(revisions(&cluster, "chat").await? == revision, "suspending lost the history");
    // What it held is free for others.
    let all = json!({"replicas": 2, "gpu": {"count": 4, "memory": "60Gi"}});
    cluster.apply_llm("other", all).await?;
    cluster.ready("other", 2).await?;
    cluster.patch_llm("other", json!({"suspend": true})).await?;

    cluster.patch_llm("chat", json!({"suspend": false})).await?;
    cluster.ready("chat", 1).await?;
    ensure!(revisions(&cluster, "chat").await? == revision, "resuming made a revision");
    cluster.scale("chat", 0).await?;
    cluster.no_pods("chat").await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_owns_a_service_a_budget_and_its_history() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    cluster.apply_llm("chat", one_gpu(2)).await?;
    let llm = cluster.ready("chat", 2).await?;
    let uids = cluster.uids("chat").await?;
    let uid = llm.uid();

    let service = cluster.api::<Service>().get("chat").await?;
    let spec = service.spec.clone().context("a Service without spec")?;
    let port = spec.ports.as_ref().and_then(|ports| ports.first()).context("no port")?;
    ensure!(port.port == 80, "the Service's port is {}", port.port);
    let target = port.target_port.clone().context("no target port")?;
    let pods = cluster.pods("chat").await?;
    let containers = pods.iter().flat_map(|pod| &pod.spec.as_ref().unwrap().containers);
    let has_port = |container: &k8s_openapi::api::core::v1::Container| {
        container.ports.iter().flatten().any(|port| match &target {
            IntOrString::String(name) => port.name.as_ref() == Some(name),
            IntOrString::Int(number) => port.container_port == *number,
        })
    };
    ensure!(
        containers.clone().any(has_port),
        "the Service's target {target:?} is no port of a pod"
    );
    let selector = spec.selector.context("a Service without selector")?;
    let selected = pods
        .iter()
        .filter(|pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
    ensure!(selected.count() == 2, "{selector:?} does not select both replicas");

    let budgets = cluster.api::<PodDisruptionBudget>().list(&ListParams::default()).await?.items;
    let of = |object: &PodDisruptionBudget| controller(object).is_some_and(|o| Some(o.uid) == uid);
    let budget = budgets.iter().find(|budget| of(budget)).context("no PodDisruptionBudget")?;
    // The cluster's disruption controller learns of new kinds twice a minute, and looks again when
    // a pod changes.
    let pod = pods[0].name_any();
    let mut looks = 0;
    until("the budget counts both replicas", patience(), async || {
        looks += 1;
        cluster.annotate_pod(&pod, "example.org/looks", &looks.to_string()).await?;
        let budget = cluster.api::<PodDisruptionBudget>().get(&budget.name_any()).await?;
        let expected = budget.status.and_then(|status| status.expected_pods);
        Ok(if expected == Some(2) { Look::Done(()) } else { Look::NotYet(format!("{expected:?}")) })
    })
    .await?;

    // Everything is found and collected by its owner.
    let owner = |owner: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>| {
        owner.is_some_and(|owner| {
            Some(owner.uid) == uid && owner.api_version == "berth.dev/v1alpha1"
        })
    };
    ensure!(owner(controller(&service)), "the Service has another owner");
    ensure!(pods.iter().all(|pod| owner(controller(pod))), "a pod has another owner");

    // What somebody deletes or bends comes back.
    cluster.api::<Service>().delete("chat", &DeleteParams::default()).await?;
    let again = until("the Service is back", patience(), async || {
        let again = cluster.api::<Service>().get("chat").await?;
        Ok(if again.uid() == service.uid() {
            Look::NotYet("the old one".into())
        } else {
            Look::Done(again)
        })
    })
    .await?;
    ensure!(owner(controller(&again)), "the new Service has another owner");
    cluster
        .api::<PodDisruptionBudget>()
        .delete(&budget.name_any(), &DeleteParams::default())
        .await?;
    until("the budget is back", patience(), async || {
        cluster.api::<PodDisruptionBudget>().get(&budget.name_any()).await?;
        Ok(Look::Done(()))
    })
    .await?;

    // Another port is no reason to restart anything, and is where clients are told to go.
    cluster.patch_llm("chat", json!({"endpoint": {"port": 8080}})).await?;
    until("the Service has the new port", patience(), async || {
        let spec = cluster.api::<Service>().get("chat").await?.spec.unwrap_or_default();
        let ports: Vec<i32> = spec.ports.unwrap_or_default().iter().map(|port| port.port).collect();
        Ok(if ports == [8080] { Look::Done(()) } else { Look::NotYet(format!("{ports:?}")) })
    })
    .await?;
    let llm = cluster.ready("chat", 2).await?;
    let endpoint = llm.status.and_then(|status| status.endpoint).unwrap_or_default();
    ensure!(endpoint.contains("chat.models") && endpoint.contains(":8080"), "{endpoint}");
    ensure!(cluster.uids("chat").await? == uids, "another port restarted pods");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_it_takes_everything_along() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    for (name, how) in
        [("background", DeleteParams::background()), ("foreground", DeleteParams::foreground())]
    {
        cluster.apply_llm(name, one_gpu(2)).await?;
        cluster.ready(name, 2).await?;
        let observer = Observer::start(&cluster).await;
        cluster.api::<LLMDeployment>().delete(name, &how).await?;
        until(format!("{name} is gone with everything"), patience(), async || {
            let gone = cluster.api::<LLMDeployment>().get_opt(name).await?.is_none();
            let pods = cluster.pods(name).await?.len();
            let revisions = revisions(&cluster, name).await?.len();
            let service = cluster.api::<Service>().get_opt(name).await?.is_some();
            let budgets = cluster.api::<PodDisruptionBudget>().list(&ListParams::default()).await?;
            let budgets = budgets.iter().filter(|b| controller(*b).is_some_and(|o| o.name == name));
            let budgets = budgets.count();
            Ok(if gone && pods + revisions + budgets == 0 && !service {
                Look::Done(())
            } else {
                Look::NotYet(format!(
                    "gone: {gone}; {pods} pods, {revisions} revisions, {budgets} budgets, Service: {service}"
                ))
            })
        })
        .await?;
        // Nothing was made again on the way.
        let seen = observer.finish()?;
        let pods = &seen.pods_seen[name];
        ensure!(pods.len() == 2, "while it was deleted there were the pods {pods:?}");
    }
    // The same name at once again is another deployment.
    cluster.apply_llm("again", one_gpu(1)).await?;
    cluster.ready("again", 1).await?;
    let old = cluster.uids("again").await?;
    cluster.delete_llm("again").await?;
    cluster.apply_llm("again", one_gpu(1)).await?;
    until("the new one has a pod of its own", patience(), async || {
        let new = cluster.llm("again").await?.uid();
        let pods = cluster.pods("again").await?;
        let mine = |pod: &&Pod| controller(*pod).is_some_and(|owner| Some(owner.uid) == new);
        let ready = pods.iter().filter(mine).filter(|pod| is_ready(pod)).count();
        Ok(if pods.len() == 1 && ready == 1 {
            Look::Done(())
        } else {
            Look::NotYet(format!("{ready} of {} pods", pods.len()))
        })
    })
    .await?;
    ensure!(cluster.uids("again").await? != old, "the old pod serves the new deployment");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_operator_it_serves_on() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    cluster.apply_llm("chat", one_gpu(2)).await?;
    cluster.apply_llm("gone", one_gpu(1)).await?;
    cluster.ready("chat", 2).await?;
    cluster.ready("gone", 1).await?;
    let uids = cluster.uids("chat").await?;
    operator.terminate().await?;

    // Deleting works without it: the cluster's own garbage collector does it.
    cluster.delete_llm("gone").await?;
    cluster.no_pods("gone").await?;
    throughout("the pods are as they were", Duration::from_secs(15), async || {
        let now = cluster.uids("chat").await?;
        ensure!(now == uids, "{now:?}, not {uids:?}");
        let ready = cluster.pods("chat").await?.iter().filter(|pod| is_ready(pod)).count();
        ensure!(ready == 2, "{ready} ready");
        Ok(())
    })
    .await?;
    // What was asked for meanwhile is done by the next one.
    cluster.scale("chat", 3).await?;
    let operator = Operator::start(&cluster, Options::named("second")).await?;
    cluster.ready("chat", 3).await?;
    let now = cluster.uids("chat").await?;
    ensure!(uids.iter().all(|pod| now.contains(pod)), "the new operator restarted pods");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_pods_are_replaced() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(2)]).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster.ready("chat", 1).await?;
    let observer = Observer::start(&cluster).await;
    let behaviour = "simulate.berth-e2e.dev/behaviour";

    // Deleted by hand.
    let first = cluster.pod("chat").await?;
    cluster.delete_pod(&first.name_any()).await?;
    let second = replacement(&cluster, "chat", &first).await?;
    ensure!(slot(&second) == slot(&first), "another replica: {:?}", slot(&second));
    ensure!(attempt(&second) > attempt(&first), "attempt {:?} again", attempt(&second));

    // Evicted by its kubelet.
    cluster.annotate_pod(&second.name_any(), behaviour, "evict").await?;
    let third = replacement(&cluster, "chat", &second).await?;
    ensure!(attempt(&third) > attempt(&second), "attempt {:?} again", attempt(&third));

    // Evicted through the API, as a drain does it.
    cluster.api::<Pod>().evict(&third.name_any(), &kube::api::EvictParams::default()).await.ok();
    cluster.api::<Pod>().delete(&third.name_any(), &DeleteParams::default()).await.ok();
    let fourth = replacement(&cluster, "chat", &third).await?;

    // Failed for good.
    let failed =
        json!({"status": {"phase": "Failed", "reason": "OOMKilled", "message": "too much"}});
    patch_pod_status(&cluster, &fourth, failed).await?;
    let fifth = replacement(&cluster, "chat", &fourth).await?;
    ensure!(attempt(&fifth) > attempt(&fourth), "attempt {:?} again", attempt(&fifth));

    // What has ended is cleared away once its successor serves; then there is one pod.
    cluster.ready("chat", 1).await?;
    cluster.settled().await?;
    cluster.pod("chat").await?;
    observer.finish()?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_its_pod_is_avoided() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(2)]).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster.ready("chat", 1).await?;
    let first = cluster.pod("chat").await?;
    let refused = json!({"status": {
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": "Pod was rejected: Allocate failed due to requested number of devices unavailable",
    }});
    patch_pod_status(&cluster, &first, refused).await?;
    let second = replacement(&cluster, "chat", &first).await?;
    ensure!(bound_to(&second) != bound_to(&first), "back on the node that refused it");
    cluster.settled().await?;

    // Where every node refuses, that is said, and it is no race: attempts wait longer each time.
    let refusing = json!({
        "gpu": {"count": 1, "memory": "60Gi"},
        "podTemplate": {"annotations": {
            "simulate.berth-e2e.dev/behaviour": "unexpected-admission",
        }},
    });
    let observer = Observer::start(&cluster).await;
    cluster.apply_llm("refused", refusing).await?;
    cluster
        .wait_llm("refused", "says that its pods are refused", |llm| {
            berth_e2e::llm::complaints(llm).contains("UnexpectedAdmissionError")
        })
        .await?;
    throughout("attempts are few", Duration::from_secs(20), async || {
        let seen = observer.so_far();
        let attempts = seen.pods_seen.get("refused").map_or(0, Vec::len);
        ensure!(attempts <= 5, "{attempts} attempts already");
        Ok(())
    })
    .await?;
    observer.finish()?;
    operator.terminate().await?;
    cluster.passed()
}

async fn patch_pod_status(cluster: &Cluster, pod: &Pod, patch: Value) -> Result<()> {
    let patch = kube::api::Patch::Merge(patch);
    let parameters = kube::api::PatchParams::default();
    cluster.api::<Pod>().patch_status(&pod.name_any(), &parameters, &patch).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_left_behind() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 3).h100(2)]).await?;
    let spread = json!({
        "replicas": 2,
        "gpu": {"count": 1, "memory": "60Gi"},
        "placement": {"strategy": "Spread"},
    });
    cluster.apply_llm("chat", spread).await?;
    cluster.ready("chat", 2).await?;
    let pods = cluster.pods("chat").await?;
    let (lost, kept) = (&pods[0], &pods[1]);
    let node = bound_to(lost).context("not bound")?.to_owned();
    cluster.all::<Node>().delete(&node, &DeleteParams::default()).await?;
    until("both replicas are elsewhere", patience(), async || {
        let pods = cluster.pods("chat").await?;
        let ready = pods.iter().filter(|pod| is_ready(pod) && bound_to(pod) != Some(&node)).count();
        Ok(if ready == 2 { Look::Done(()) } else { Look::NotYet(format!("{ready} are")) })
    })
    .await
    .context(berth_e2e::explain::explain(&cluster, "chat").await)?;
    let uids = cluster.uids("chat").await?;
    ensure!(
        uids.contains(&(kept.name_any(), kept.uid().unwrap())),
        "the other replica was touched"
    );
    cluster.ready("chat", 2).await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_stuck_in_terminating_keeps_its_claim_and_blocks_nothing() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 2).h100(2)]).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster.ready("chat", 1).await?;
    let stuck = cluster.pod("chat").await?;
    let (name, node) = (stuck.name_any(), bound_to(&stuck).context("not bound")?.to_owned());
    cluster
        .patch_pod(
            &name,
            json!({"metadata": {
                "finalizers": ["example.org/hold"],
                "annotations": {"simulate.berth-e2e.dev/behaviour": "stuck-terminating"},
            }}),
        )
        .await?;
    cluster.set_node_ready(&node, false).await?;
    cluster.api::<Pod>().delete(&name, &DeleteParams::default()).await?;

    // Its replacement runs elsewhere.
    let second = replacement(&cluster, "chat", &stuck).await?;
    ensure!(bound_to(&second) != Some(&node), "on the dead node");
    ensure!(attempt(&second) > attempt(&stuck), "attempt {:?} again", attempt(&second));
    ensure!(is_terminating(&cluster.api::<Pod>().get(&name).await?), "the old pod is gone");
    cluster.ready("chat", 1).await?;
    // Status shows both, one of them going.
    cluster.settled().await?;

    // Its claim still counts, also when the node is back: a pod for both GPUs waits.
    cluster.set_node_ready(&node, true).await?;
    let both = json!({"gpu": {"count": 2, "memory": "60Gi"}});
    cluster.apply_llm("both", both).await?;
    let placed = cluster.unplaced("both").await?;
    ensure!(placed.message.contains("needs 2 GPUs"), "{}", placed.message);
    throughout("the claim counts", Duration::from_secs(5), async || {
        let pods = cluster.pods("both").await?;
        ensure!(pods.is_empty(), "placed though a GPU is held: {:?}", cluster.uids("both").await?);
        Ok(())
    })
    .await?;

    // Let go, its GPU is free.
    cluster
        .patch_pod(
            &name,
            json!({"metadata": {
                "finalizers": null,
                "annotations": {"simulate.berth-e2e.dev/behaviour": null},
            }}),
        )
        .await?;
    cluster.ready("both", 1).await?;
    let both = cluster.pod("both").await?;
    ensure!(bound_to(&both) == Some(&node), "on {:?}", bound_to(&both));
    ensure!(is_live(&cluster.pod("chat").await?), "the replacement went with it");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_elses_service_is_not_taken_over() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(2)]).await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "website"}, "ports": [{"port": 443}]},
    });
    apply::apply(&cluster.client, &service, NAMESPACE).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster
        .wait_llm("chat", "says that the Service is somebody else's", |llm| {
            llm.status.iter().flat_map(|s| &s.conditions).any(|c| c.message.contains("Service"))
        })
        .await?;
    let service = cluster.api::<Service>().get("chat").await?;
    ensure!(controller(&service).is_none(), "somebody else's Service was adopted");
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(selector.get("app").map(String::as_str) == Some("website"), "{selector:?}");
    operator.terminate().await?;
    cluster.passed()
}
