//! Status, conditions, events and metrics say what is: while things load, when they serve, when
//! they fail, and what they cost.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    Cluster, Fleet, Metrics, NAMESPACE, Nodes, Operator, Options, apply,
    explain::explain,
    http,
    llm::{claim, complaints, is_current, reason_of, status_of},
    wait::{Look, patience, until},
};
use k8s_openapi::api::core::v1::Event;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

async fn start<const N: usize>(fleet: [Nodes; N]) -> Result<(Cluster, Operator)> {
    let cluster = Cluster::start(&Fleet::of(fleet)).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    Ok((cluster, operator))
}

fn behaving(behaviour: &str) -> Value {
    json!({
        "gpu": {"count": 1, "memory": "60Gi"},
        "podTemplate": {"annotations": {"simulate.berth-e2e.dev/behaviour": behaviour}},
    })
}

/// What the kstatus library reads: it is behind Flux, Argo CD's health and `kubectl wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kstatus {
    Current,
    InProgress,
    Failed,
}

/// The rules of kstatus for resources with standard conditions.
fn kstatus(llm: &LLMDeployment) -> Kstatus {
    if !is_current(llm) || status_of(llm, "Reconciling") == "True" {
        Kstatus::InProgress
    } else if status_of(llm, "Stalled") == "True" {
        Kstatus::Failed
    } else if status_of(llm, "Ready") == "True" {
        Kstatus::Current
    } else {
        Kstatus::InProgress
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_follow_what_happens() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(4)]).await?;
    let slow = json!({
        "replicas": 2,
        "gpu": {"count": 1, "memory": "60Gi"},
        "podTemplate": {"annotations": {"simulate.berth-e2e.dev/load-seconds": "8s"}},
    });
    cluster.apply_llm("chat", slow).await?;
    let loading = cluster
        .wait_llm("chat", "loads", |llm| {
            llm.status
                .as_ref()
                .is_some_and(|status| status.replicas == 2 && status.ready_replicas == 0)
                && status_of(llm, "Placed") == "True"
        })
        .await?;
    for (condition, expected) in [
        ("Ready", "False"),
        ("Placed", "True"),
        ("Progressing", "True"),
        ("Reconciling", "True"),
        ("Stalled", "absent"),
        ("Degraded", "False"),
    ] {
        let is = status_of(&loading, condition);
        ensure!(is == expected, "while loading, {condition} is {is}, not {expected}");
    }
    ensure!(kstatus(&loading) == Kstatus::InProgress, "{:?}", kstatus(&loading));

    let ready = cluster.ready("chat", 2).await?;
    for (condition, expected) in [
        ("Ready", "True"),
        ("Placed", "True"),
        ("Progressing", "False"),
        ("Reconciling", "absent"),
        ("Stalled", "absent"),
        ("Degraded", "False"),
    ] {
        let is = status_of(&ready, condition);
        ensure!(is == expected, "when serving, {condition} is {is}, not {expected}");
    }
    ensure!(kstatus(&ready) == Kstatus::Current, "{:?}", kstatus(&ready));
    let status = ready.status.clone().context("no status")?;
    ensure!(status.ready.as_deref() == Some("2/2"), "{:?}", status.ready);
    ensure!(status.gpus == 2, "{} GPUs", status.gpus);
    let bytes: i64 = {
        let pods = cluster.pods("chat").await?;
        let claims = pods.iter().filter_map(|pod| claim(pod).ok()?);
        claims.map(|claim| claim.gpus * claim.bytes_per_gpu).sum()
    };
    let vram = format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    ensure!(status.vram.as_deref() == Some(vram.as_str()), "{:?}, not {vram}", status.vram);
    ensure!(
        status.endpoint.as_deref() == Some("http://chat.models.svc/v1"),
        "{:?}",
        status.endpoint
    );
    cluster.settled().await?;

    // A change is in progress from the moment that it is seen.
    cluster.patch_llm("chat", json!({"engine": {"contextLength": 4096}})).await?;
    cluster
        .wait_llm("chat", "rolls", |llm| {
            status_of(llm, "Progressing") == "True" && kstatus(llm) == Kstatus::InProgress
        })
        .await?;
    let rolled = cluster.ready("chat", 2).await?;
    ensure!(kstatus(&rolled) == Kstatus::Current, "{:?}", kstatus(&rolled));
    let context = rolled.status.and_then(|s| s.resolved).map(|resolved| resolved.context_length);
    ensure!(context == Some(4096), "status says a context of {context:?}");

    // Times change with truths only.
    let since =
        |llm: &LLMDeployment| llm.condition("Placed").map(|c| c.last_transition_time.clone());
    let now = cluster.ready("chat", 2).await?;
    ensure!(since(&now) == since(&ready), "Placed was true all the time, and its time has changed");

    let good_events = events(&cluster, "chat").await?;
    for reason in ["Placed", "Ready"] {
        ensure!(good_events.contains(reason), "no event {reason}: {good_events:?}");
    }
    operator.terminate().await?;
    cluster.passed()
}

async fn events(cluster: &Cluster, name: &str) -> Result<BTreeSet<String>> {
    let events = cluster.api::<Event>().list(&ListParams::default()).await?;
    let about = |event: &&Event| {
        event.involved_object.kind.as_deref() == Some("LLMDeployment")
            && event.involved_object.name.as_deref() == Some(name)
    };
    Ok(events.iter().filter(about).filter_map(|event| event.reason.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_says_what_it_is() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    let failures: [(&str, &[&str]); 3] = [
        ("crash-loop", &["CrashLoopBackOff", "ended with code 1"]),
        ("image-pull", &["ImagePullBackOff", "pulling image"]),
        ("config-error", &["CreateContainerConfigError", "secret \"x\" not found"]),
    ];
    for (behaviour, _) in failures {
        cluster.apply_llm(behaviour, behaving(behaviour)).await?;
    }
    for (behaviour, words) in failures {
        let llm = cluster
            .wait_llm(behaviour, &format!("says {words:?}"), |llm| {
                let said = complaints(llm);
                status_of(llm, "Degraded") == "True" && words.iter().all(|word| said.contains(word))
            })
            .await?;
        ensure!(status_of(&llm, "Ready") == "False", "Ready is {}", status_of(&llm, "Ready"));
        ensure!(status_of(&llm, "Placed") == "True", "it has its place");
        let status = llm.status.clone().context("no status")?;
        ensure!(status.replicas == 1 && status.ready_replicas == 0, "{status:?}");
        let [placement] = status.placements.as_slice() else {
            anyhow::bail!("placements are {:?}", status.placements);
        };
        ensure!(format!("{:?}", placement.phase) == "Failing", "it is {:?}", placement.phase);
        let message = placement.message.clone().unwrap_or_default();
        ensure!(message.contains(words[1]), "of the replica: {message}");
        // What fails is told, to whoever looks at events.
        let reason = reason_of(&llm, "Degraded").to_owned();
        until(format!("an event about {behaviour}"), patience(), async || {
            let events = events(&cluster, behaviour).await?;
            Ok(if events.contains(&reason) {
                Look::Done(())
            } else {
                Look::NotYet(format!("{events:?}"))
            })
        })
        .await?;
    }
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_that_the_engine_answers() -> Result<()> {
    let (cluster, operator) = start([Nodes::new("elm", 1).h100(8)]).await?;
    // Runs, and never answers.
    cluster.apply_llm("mute", behaving("never-ready")).await?;
    let mute = cluster
        .wait_llm("mute", "loads", |llm| llm.status.as_ref().is_some_and(|s| s.replicas == 1))
        .await?;
    ensure!(status_of(&mute, "Ready") == "False", "ready without an answer");
    // Answers, and then no more.
    let spec = json!({"replicas": 2, "gpu": {"count": 1, "memory": "60Gi"}});
    cluster.apply_llm("chat", spec).await?;
    cluster.ready("chat", 2).await?;
    let pod = cluster.pods("chat").await?[0].name_any();
    cluster.annotate_pod(&pod, "simulate.berth-e2e.dev/behaviour", "never-ready").await?;
    let degraded = cluster
        .wait_llm("chat", "is degraded", |llm| {
            status_of(llm, "Degraded") == "True"
                && llm.status.as_ref().is_some_and(|status| status.ready_replicas == 1)
        })
        .await?;
    ensure!(status_of(&degraded, "Ready") == "False", "one of two answers: not Ready");
    ensure!(degraded.status.and_then(|s| s.ready).as_deref() == Some("1/2"), "not 1/2");
    cluster
        .patch_pod(
            &pod,
            json!({"metadata": {"annotations": {"simulate.berth-e2e.dev/behaviour": null}}}),
        )
        .await?;
    let again = cluster.ready("chat", 2).await?;
    ensure!(status_of(&again, "Degraded") == "False", "healed, and still degraded");
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

/// The metrics as soon as `is` holds for them.
async fn metrics_when(
    operator: &Operator,
    what: &str,
    is: impl Fn(&Metrics) -> Result<()>,
) -> Result<Metrics> {
    until(what, patience(), async || {
        let metrics = operator.metrics().await?;
        Ok(match is(&metrics) {
            Ok(()) => Look::Done(metrics),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .await
}

/// Whether two figures are the same but for the rounding of floating point.
fn near(what: &str, is: f64, expected: f64) -> Result<()> {
    let close = (is - expected).abs() <= expected.abs().max(1.0) * 1e-9;
    ensure!(close, "{what} is {is}, not {expected}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_fleet_and_who_has_it() -> Result<()> {
    let (cluster, operator) =
        start([Nodes::new("elm", 1).h100(8), Nodes::new("yew", 1).mi300x(8)]).await?;
    cluster.foreign_pod("training", "elm-000", 3).await?;
    let two = json!({"replicas": 2, "gpu": {"vendor": "NVIDIA", "count": 2, "memory": "60Gi"}});
    cluster.apply_llm("chat", two).await?;
    cluster.ready("chat", 2).await?;
    let wait = json!({"gpu": {"vendor": "NVIDIA", "count": 2, "memory": "60Gi"}});
    cluster.apply_llm("waits", wait).await?;
    cluster.unplaced("waits").await?;
    let elm = [("node", "elm-000"), ("product", "NVIDIA-H100-80GB-HBM3")];
    let gpus = |metrics: &Metrics, state: &str| {
        metrics.sum("berth_fleet_gpus", &[elm[0], elm[1], ("state", state)])
    };
    let metrics = metrics_when(&operator, "the fleet's metrics", |metrics| {
        near("claimed", gpus(metrics, "claimed")?, 4.0)?;
        near("foreign", gpus(metrics, "foreign")?, 3.0)?;
        near("free", gpus(metrics, "free")?, 1.0)
    })
    .await
    .context(explain(&cluster, "chat").await)?;

    // VRAM in bytes: what is claimed, foreign, free and reserved is all there is.
    let total = 8.0 * f64::from(81_559) * f64::from(1 << 20);
    near("all VRAM", metrics.sum("berth_fleet_vram_bytes", &elm)?, total)?;
    let claimed: i64 = {
        let pods = cluster.pods("chat").await?;
        let claims = pods.iter().filter_map(|pod| claim(pod).ok()?);
        claims.map(|claim| claim.gpus * claim.bytes_per_gpu).sum()
    };
    let vram =
        |state: &str| metrics.sum("berth_fleet_vram_bytes", &[elm[0], elm[1], ("state", state)]);
    near("claimed VRAM", vram("claimed")?, claimed as f64)?;
    ensure!(vram("foreign")? > 0.0 && vram("free")? > 0.0, "no foreign or free VRAM");
    let yew = [("node", "yew-000"), ("product", "AMD_Instinct_MI300X_OAM"), ("state", "free")];
    near("free GPUs of yew-000", metrics.sum("berth_fleet_gpus", &yew)?, 8.0)?;

    let chat = [("namespace", NAMESPACE), ("deployment", "chat")];
    let replicas = |state| metrics.sum("berth_deployment_replicas", &[chat[0], chat[1], state]);
    near("desired replicas", replicas(("state", "desired"))?, 2.0)?;
    near("ready replicas", replicas(("state", "ready"))?, 2.0)?;
    near("its VRAM", metrics.sum("berth_deployment_claimed_vram_bytes", &chat)?, claimed as f64)?;
    let waits = [("namespace", NAMESPACE), ("deployment", "waits")];
    near("its position", metrics.sum("berth_deployment_queue_position", &waits)?, 1.0)?;

    // The operator itself.
    near("leads", metrics.sum("berth_leader", &[])?, 1.0)?;
    ensure!(metrics.sum("berth_reconcile_total", &[])? > 0.0, "no reconciles");
    ensure!(metrics.sum("berth_api_requests_total", &[("verb", "create")])? > 0.0, "no requests");
    ensure!(metrics.sum("berth_plan_duration_seconds_count", &[])? > 0.0, "no plans");
    conventions(&metrics)?;
    for path in ["/healthz", "/readyz"] {
        let (status, body) = http::get(operator.address, path).await?;
        ensure!(status == 200, "{path} answers {status} {body}");
    }

    // Who is gone is gone from the metrics.
    cluster.delete_llm("chat").await?;
    metrics_when(&operator, "chat is gone", |metrics| {
        ensure!(metrics.all("berth_deployment_replicas", &chat).count() == 0, "still there");
        Ok(())
    })
    .await?;
    operator.terminate().await?;
    cluster.passed()
}

/// Prometheus' naming, and a cardinality that a large cluster can bear.
fn conventions(metrics: &Metrics) -> Result<()> {
    for (name, kind) in &metrics.types {
        let counts = kind == "counter";
        ensure!(counts == name.ends_with("_total"), "{name} is a {kind}");
        ensure!(metrics.help.get(name).is_some_and(|help| help.len() > 10), "{name} has no help");
        for unit in ["_ms", "_milliseconds", "_mib", "_gib", "_mb", "_gb", "_percent", "_minutes"] {
            ensure!(!name.ends_with(unit), "{name} is not in a base unit");
        }
    }
    for sample in &metrics.samples {
        for label in ["pod", "uid", "uuid", "message", "error", "user", "request"] {
            ensure!(sample.label(label).is_none(), "{} has the label {label}", sample.name);
        }
    }
    Ok(())
}

fn profile(hardware: &Value, energy: Option<Value>) -> Value {
    let mut profile = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostProfile",
        "metadata": {"name": "prices"},
        "spec": {"currency": "EUR", "hardware": hardware},
    });
    if let Some(energy) = energy {
        profile["spec"]["energy"] = energy;
    }
    profile
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_add_up_to_the_bill() -> Result<()> {
    let (cluster, operator) =
        start([Nodes::new("elm", 2).h100(8), Nodes::new("fir", 1).rtx4090(2)]).await?;
    // A node for an hour, by the book: 262,800 over 36 months of 730 hours is 10, and 730 a month
    // is 1.
    let owned = json!([{
        "name": "h100",
        "products": ["NVIDIA-H100-80GB-HBM3"],
        "owned": {
            "price": "262800", "residual": "0", "lifeMonths": 36,
            "capitalRate": "0.06", "maintenanceRate": "0.1",
        },
        "gpuPowerWatts": 700, "hostPowerWatts": 2400,
        "facilityPerMonth": "730", "staffPerMonth": "365",
    }]);
    let energy = json!({"perKilowattHour": "0.25", "pue": "1.5"});
    apply::apply(&cluster.client, &profile(&owned, Some(energy)), NAMESPACE).await?;
    cluster.foreign_pod("training", "elm-001", 4).await?;
    let two = json!({
        "gpu": {"count": 2, "products": ["NVIDIA-H100-80GB-HBM3"], "memory": "60Gi"},
    });
    cluster.apply_llm("chat", two).await?;
    cluster.ready("chat", 1).await?;
    let chat = [("namespace", NAMESPACE), ("deployment", "chat"), ("currency", "EUR")];
    let metrics = metrics_when(&operator, "what chat costs", |metrics| {
        metrics.sum("berth_deployment_cost_per_hour", &chat).map(|_| ())
    })
    .await?;

    let part = |name: &str, component: &str| {
        metrics.sum(name, &[("component", component), ("currency", "EUR")])
    };
    // The bill of both nodes, component by component.
    let bill = "berth_bill_per_hour";
    near("amortisation", part(bill, "amortisation")?, 2.0 * 10.0)?;
    near("maintenance", part(bill, "maintenance")?, 2.0 * 262_800.0 * 0.1 / 8_760.0)?;
    let capital = 2.0 * 0.06 * 262_800.0 / (2.0 * 8_760.0);
    near("capital", part(bill, "capital")?, capital)?;
    near("facility", part(bill, "facility")?, 2.0)?;
    near("staff", part(bill, "staff")?, 1.0)?;
    ensure!(part(bill, "energy")? > 0.0, "no energy");

    // Σ deployments + foreign + idle is the bill, for each component.
    let components: BTreeSet<String> = metrics
        .all(bill, &[])
        .filter_map(|sample| sample.label("component").map(str::to_owned))
        .collect();
    for component in components {
        let of = |name: &str| metrics.sum_or_zero(name, &[("component", component.as_str())]);
        let parts = of("berth_deployment_cost_per_hour")
            + of("berth_foreign_cost_per_hour")
            + of("berth_idle_cost_per_hour");
        near(&format!("the sum of {component}"), parts, of(bill))?;
    }
    // Two of sixteen GPUs are chat's, four the other's.
    let all = |name: &str| metrics.sum_or_zero(name, &[("component", "amortisation")]);
    near("chat's part", all("berth_deployment_cost_per_hour"), 20.0 * 2.0 / 16.0)?;
    near("the other's part", all("berth_foreign_cost_per_hour"), 20.0 * 4.0 / 16.0)?;
    near("the idle part", all("berth_idle_cost_per_hour"), 20.0 * 10.0 / 16.0)?;

    // What has no price is unknown, not free.
    near("unpriced nodes", metrics.sum("berth_unpriced_nodes", &[])?, 1.0)?;
    let unpriced = json!({"gpu": {"count": 1, "memory": "20Gi"}});
    cluster.apply_llm("unpriced", unpriced).await?;
    let llm = cluster.ready("unpriced", 1).await?;
    let cost = llm.status.and_then(|status| status.cost);
    ensure!(cost.as_ref().is_none_or(|cost| !cost.complete), "{cost:?}");
    let llm = cluster
        .wait_llm("chat", "says what it costs", |llm| {
            llm.status.as_ref().is_some_and(|status| status.cost.is_some())
        })
        .await?;
    let cost = llm.status.and_then(|status| status.cost).context("no cost")?;
    let (amount, currency) = cost.hourly.split_once(' ').context("no currency")?;
    let hourly = metrics.sum("berth_deployment_cost_per_hour", &chat)?;
    ensure!(cost.complete && currency == "EUR", "{cost:?}");
    ensure!((amount.parse::<f64>()? - hourly).abs() < 0.01, "{cost:?}, by the metrics {hourly}");

    // Totals grow, so that `increase()` makes an invoice.
    let total = |metrics: &Metrics| metrics.sum("berth_deployment_cost_total", &chat[..2]);
    let before = total(&operator.metrics().await?).unwrap_or(0.0);
    metrics_when(&operator, "the total grows", |metrics| {
        let now = total(metrics)?;
        ensure!(now > before, "{now} after {before}");
        Ok(())
    })
    .await?;

    // Another price counts at once.
    let rented = json!([{
        "name": "h100", "products": ["NVIDIA-H100-80GB-HBM3"], "rented": {"perHour": "16"},
    }]);
    apply::apply(&cluster.client, &profile(&rented, None), NAMESPACE).await?;
    metrics_when(&operator, "the rent counts", |metrics| {
        near("chat costs", metrics.sum("berth_deployment_cost_per_hour", &chat)?, 4.0)?;
        near("the bill", metrics.sum("berth_bill_per_hour", &[])?, 32.0)
    })
    .await?;
    cluster
        .wait_llm("chat", "costs 4 EUR an hour", |llm| {
            let cost = llm.status.as_ref().and_then(|status| status.cost.as_ref());
            cost.is_some_and(|cost| cost.hourly == "4.00 EUR" && cost.complete)
        })
        .await?;
    operator.terminate().await?;
    cluster.passed()
}
