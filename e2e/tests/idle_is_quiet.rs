//! When nothing happens, nothing is written but the lease; and what goes wrong for long is said
//! once, not over and over. The window is `BERTH_IDLE_SECONDS` long, 60 if that is not set.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_crds::CostProfile;
use berth_e2e::{
    AuditLog, Cluster, Fleet, NAMESPACE, Nodes, Operator, Options, apply,
    audit::{OPERATOR, counted},
    llm::status_of,
    resources::foreign_pod,
    wait::{Look, patience, throughout, until},
};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

fn window() -> Duration {
    let seconds = std::env::var("BERTH_IDLE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Waits until the operator has written nothing for a while: longer than anything of it that
/// recurs and finds something to say at last.
async fn quiet(cluster: &Cluster) -> Result<()> {
    const STILL: Duration = Duration::from_secs(20);
    let audit = AuditLog::of(cluster);
    let mut mark = audit.mark()?;
    let mut since = Instant::now();
    until("the operator has nothing left to do", patience(), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        if !writes.is_empty() {
            mark = audit.mark()?;
            since = Instant::now();
        }
        Ok(if since.elapsed() > STILL { Look::Done(()) } else { Look::NotYet(counted(&writes)) })
    })
    .await
}

async fn start() -> Result<(Cluster, Operator)> {
    let fleet = Fleet::of([Nodes::new("elm", 3).h100(8), Nodes::new("birch", 2)]);
    let cluster = Cluster::start(&fleet).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_sees_no_writes() -> Result<()> {
    let (cluster, operator) = start().await?;
    let one = |replicas: i32| json!({"replicas": replicas, "gpu": {"count": 1, "memory": "60Gi"}});
    // Every state in which a deployment can rest.
    for name in ["ant", "bee", "cat"] {
        cluster.apply_llm(name, one(3)).await?;
    }
    cluster.apply_llm("asleep", one(1)).await?;
    cluster.patch_llm("asleep", json!({"suspend": true})).await?;
    cluster.apply_llm("none", one(0)).await?;
    cluster.apply_llm("waits", json!({"replicas": 3, "gpu": {"count": 8}})).await?;
    cluster.apply_llm("giant", json!({"gpu": {"count": 1, "memory": "900Gi"}})).await?;
    cluster.apply_llm("odd", json!({"gpu": {"count": 3}})).await?;
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostProfile",
        "metadata": {"name": "prices"},
        "spec": {
            "currency": "EUR",
            "hardware": [{
                "name": "h100", "products": ["NVIDIA-H100-80GB-HBM3"], "rented": {"perHour": "16"},
            }],
        },
    });
    apply::apply(&cluster.client, &profile, NAMESPACE).await?;
    until("the CostProfile has its status", patience(), async || {
        let profile = cluster.all::<CostProfile>().get("prices").await?;
        let priced = profile.status.map(|status| status.priced_nodes);
        Ok(if priced == Some(3) { Look::Done(()) } else { Look::NotYet(format!("{priced:?}")) })
    })
    .await?;
    for name in ["ant", "bee", "cat"] {
        cluster.ready(name, 3).await?;
    }
    cluster.unplaced("waits").await?;
    cluster.unplaced("giant").await?;
    cluster.settled().await?;
    quiet(&cluster).await?;

    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    throughout("nothing is written", window(), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "written:\n{}", counted(&writes));
        Ok(())
    })
    .await?;
    // The lease was kept meanwhile, so the operator was alive.
    let all = audit.since(mark)?;
    let renewals = all.iter().filter(|request| {
        request.user.username == OPERATOR
            && request.object_ref.resource == "leases"
            && request.is_write()
    });
    ensure!(renewals.count() > 3, "the lease was not renewed");
    // Nor does it ask again and again for what it watches.
    let reads = all.iter().filter(|request| {
        request.user.username == OPERATOR
            && (request.verb == "list" || request.verb == "get")
            && request.object_ref.resource != "leases"
    });
    let reads = reads.count();
    ensure!(reads <= 20, "{reads} reads of what is watched");

    // What is none of Berth's business is no reason to write: pods without GPUs come and go.
    let mark = audit.mark()?;
    for number in 0..20 {
        let pod = foreign_pod(&format!("web-{number}"), "birch-000", 0)?;
        cluster.api::<Pod>().create(&PostParams::default(), &pod).await?;
    }
    for number in 0..20 {
        cluster.api::<Pod>().delete(&format!("web-{number}"), &DeleteParams::default()).await?;
    }
    throughout("nothing is written", Duration::from_secs(10), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "written because of pods of others:\n{}", counted(&writes));
        Ok(())
    })
    .await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_long_is_said_once() -> Result<()> {
    let (cluster, operator) = start().await?;
    let behaving = |behaviour: &str| {
        json!({
            "gpu": {"count": 1, "memory": "60Gi"},
            "podTemplate": {"annotations": {"simulate.berth-e2e.dev/behaviour": behaviour}},
        })
    };
    for behaviour in ["crash-loop", "image-pull", "config-error"] {
        cluster.apply_llm(behaviour, behaving(behaviour)).await?;
    }
    cluster.apply_llm("giant", json!({"gpu": {"count": 1, "memory": "900Gi"}})).await?;
    for behaviour in ["crash-loop", "image-pull", "config-error"] {
        cluster.wait_llm(behaviour, "fails", |llm| status_of(llm, "Degraded") == "True").await?;
    }
    cluster.unplaced("giant").await?;
    quiet(&cluster).await?;
    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    throughout("little is written", window().min(Duration::from_mins(1)), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.len() <= 8, "of what fails for long is written:\n{}", counted(&writes));
        Ok(())
    })
    .await?;
    for name in ["crash-loop", "image-pull", "config-error", "giant"] {
        let events = cluster.api::<Event>().list(&ListParams::default()).await?;
        let about = |event: &&Event| {
            event.involved_object.kind.as_deref() == Some("LLMDeployment")
                && event.involved_object.name.as_deref() == Some(name)
        };
        let about: Vec<&Event> = events.iter().filter(about).collect();
        let count: i32 = about.iter().map(|event| event.count.unwrap_or(1)).sum();
        let said: Vec<_> = about.iter().map(|event| event.reason.clone()).collect();
        ensure!((1..=10).contains(&count), "{count} events about {name}: {said:?}");
    }
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reconcile_writes_nothing() -> Result<()> {
    let (cluster, operator) = start().await?;
    for name in ["ant", "bee"] {
        cluster.apply_llm(name, json!({"replicas": 2, "gpu": {"count": 1}})).await?;
        cluster.ready(name, 2).await?;
    }
    quiet(&cluster).await?;
    operator.terminate().await?;
    // A new operator reconciles everything from nothing but what it reads.
    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    let operator = Operator::start(&cluster, Options::named("second")).await?;
    throughout("nothing is written", Duration::from_secs(15), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "a new operator has written:\n{}", counted(&writes));
        Ok(())
    })
    .await?;
    // An annotation of somebody's makes it look again, and find nothing to do.
    let mark = audit.mark()?;
    let pod = cluster.pods("ant").await?.first().map(Pod::name_any).context("no pod")?;
    cluster.annotate_pod(&pod, "example.org/note", "look").await?;
    throughout("nothing is written", Duration::from_secs(5), async || {
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "written because of an annotation:\n{}", counted(&writes));
        Ok(())
    })
    .await?;
    operator.terminate().await?;
    cluster.passed()
}
