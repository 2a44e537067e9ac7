//! What no manifest describes is read from the hub that the administrator configured: once, kept in the
//! cluster, and nowhere else than there, whatever a tenant names.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    AuditLog, Cluster, Fleet, Nodes, Operator, Options,
    audit::{OPERATOR, counted},
    llm::{complaints, reason_of, status_of},
    model_hub::{ModelHub, Says, weight_bytes},
    operator::SYSTEM,
    wait::throughout,
};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const OCEAN: &str = "acme/ocean";

async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 2).h100(8)])).await?;
    cluster.install().await?;
    Ok(cluster)
}

/// A spec that says where the model is, and nothing about it.
fn named(uri: &str) -> Value {
    json!({"model": {"uri": uri, "facts": null}})
}

fn commit(letter: char) -> String {
    letter.to_string().repeat(40)
}

async fn kept(cluster: &Cluster) -> Result<Vec<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SYSTEM);
    Ok(api.list(&ListParams::default().labels("berth.dev/model-facts=public")).await?.items)
}

/// The revisions of the hub that the pods of a deployment download.
async fn downloads(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let mut revisions = Vec::new();
    for pod in cluster.pods(name).await? {
        let steps = pod.spec.and_then(|spec| spec.init_containers).unwrap_or_default();
        let args = steps.into_iter().find(|step| step.name == "fetch").and_then(|step| step.args);
        let args = args.context("no step that downloads")?;
        let at = args.iter().position(|arg| arg == "--revision").context("no revision")?;
        revisions.push(args[at + 1].clone());
    }
    Ok(revisions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_read_once_and_then_known_without_the_hub() -> Result<()> {
    let cluster = cluster().await?;
    let hub = ModelHub::start().await?;
    hub.say(OCEAN, Says::Model(commit('a')));
    let operator = Operator::start(&cluster, Options::default().asking(&hub.url())).await?;
    cluster.apply_llm("first", named("hf://acme/ocean")).await?;
    let llm = cluster.ready("first", 1).await?;
    let model = llm.status.and_then(|status| status.model).context("no model in status")?;
    ensure!(model.facts == "Inspected", "{model:?}");
    ensure!(model.commit == Some(commit('a')), "{model:?}");
    ensure!(u64::try_from(model.weight_bytes)? == weight_bytes(), "{model:?}");
    ensure!(model.licence.as_deref() == Some("apache-2.0"), "{model:?}");
    ensure!(downloads(&cluster, "first").await? == [commit('a')], "not the commit that was read");
    ensure!(kept(&cluster).await?.len() == 1, "{:?}", kept(&cluster).await?);
    let asked = hub.asked();
    ensure!(asked.len() <= 4, "{asked:?}");

    // The branch moves on. What serves stays, through edits of anything but the model.
    hub.say(OCEAN, Says::Model(commit('b')));
    cluster.patch_llm("first", json!({"engine": {"maxConcurrency": 2}})).await?;
    cluster.steady("first", 1).await?;
    ensure!(downloads(&cluster, "first").await? == [commit('a')], "an edit moved the model");
    ensure!(hub.asked() == asked, "what serves was asked about again: {:?}", hub.asked());

    operator.terminate().await?;
    drop(hub);
    let hub = "http://127.0.0.1:9";
    let operator = Operator::start(&cluster, Options::named("second").asking(hub)).await?;
    cluster.apply_llm("second", named("hf://acme/ocean")).await?;
    cluster.ready("second", 1).await?;
    ensure!(downloads(&cluster, "second").await? == [commit('a')], "another commit");
    cluster.patch_llm("first", json!({"engine": {"maxConcurrency": 3}})).await?;
    cluster.steady("first", 1).await?;
    ensure!(downloads(&cluster, "first").await? == [commit('a')], "an edit moved the model");
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_says_why_and_is_not_asked_again_and_again() -> Result<()> {
    let cluster = cluster().await?;
    let hub = ModelHub::start().await?;
    hub.say("acme/gated", Says::Status(401, "x-error-code", "GatedRepo"));
    hub.say("acme/page", Says::Page);
    let operator = Operator::start(&cluster, Options::default().asking(&hub.url())).await?;
    let wrong: [(&str, &str, &[&str]); 3] = [
        ("gated", "Unauthorized", &["acme/gated", "spec.model.secretRef", "token"]),
        ("none", "ModelNotFound", &["acme/none", "404"]),
        ("page", "InvalidAnswer", &["127.0.0.1"]),
    ];
    for (name, _, _) in wrong {
        cluster.apply_llm(name, named(&format!("hf://acme/{name}"))).await?;
    }
    for (name, reason, words) in wrong {
        let stalls = |llm: &LLMDeployment| {
            reason_of(llm, "Ready") == reason && status_of(llm, "Stalled") == "True"
        };
        let llm = cluster.wait_llm(name, &format!("is stalled by {reason}"), stalls).await?;
        let said = complaints(&llm);
        for word in words {
            ensure!(said.contains(word), "{name} does not say {word:?}: {said}");
        }
        ensure!(cluster.pods(name).await?.is_empty(), "{name} has a pod");
    }
    // The catalogue knows what the hub does not have, and it is said that it was used.
    cluster.apply_llm("known", named("hf://Qwen/Qwen2.5-7B-Instruct")).await?;
    cluster.ready("known", 1).await?;
    let events = cluster.api::<Event>().list(&ListParams::default()).await?;
    let used = events.items.iter().find(|event| event.reason.as_deref() == Some("CatalogueUsed"));
    let note = used.and_then(|event| event.message.clone()).context("no event CatalogueUsed")?;
    ensure!(note.contains("Qwen/Qwen2.5-7B-Instruct") && note.contains("404"), "{note}");
    ensure!(kept(&cluster).await?.is_empty(), "an error was kept");

    cluster.settled().await?;
    let (asked, audit) = (hub.asked(), AuditLog::of(&cluster));
    let mark = audit.mark()?;
    throughout("nobody is asked, nothing is written", Duration::from_secs(20), async || {
        ensure!(hub.asked() == asked, "asked again: {:?}", hub.asked());
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "written:\n{}", counted(&writes));
        Ok(())
    })
    .await?;

    // Put right and edited, it is asked again at once.
    hub.say("acme/gated", Says::Model(commit('c')));
    cluster.patch_llm("gated", json!({"engine": {"maxConcurrency": 2}})).await?;
    cluster.ready("gated", 1).await?;
    operator.terminate().await?;
    cluster.passed()
}

/// Counts connections.
async fn trap() -> Result<(u16, Arc<AtomicU64>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let caught = Arc::<AtomicU64>::default();
    let count = Arc::clone(&caught);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok((port, caught))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_makes_the_operator_call_an_address_of_theirs() -> Result<()> {
    let cluster = cluster().await?;
    let hub = ModelHub::start().await?;
    let (port, caught) = trap().await?;
    for (name, to) in [
        ("trap", format!("http://127.0.0.1:{port}/x")),
        ("name", format!("http://localhost:{port}/x")),
        ("spelled", format!("http://0x7f000001:{port}/x")),
        ("user", format!("http://huggingface.co@127.0.0.1:{port}/x")),
        ("six", format!("http://[::ffff:127.0.0.1]:{port}/x")),
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned()),
        ("relative", format!("//127.0.0.1:{port}/x")),
        ("file", "file:///etc/passwd".to_owned()),
    ] {
        hub.say(&format!("evil/{name}"), Says::Elsewhere(to));
    }
    let operator = Operator::start(&cluster, Options::default().asking(&hub.url())).await?;
    let uris = [
        format!("hf://127.0.0.1:{port}/x"),
        "hf://127.0.0.1/x".to_owned(),
        format!("hf://user@127.0.0.1:{port}/x"),
        format!("hf://user:password@127.0.0.1:{port}/x"),
        format!("hf://a/b@127.0.0.1:{port}"),
        format!("hf://a/b?x=http://127.0.0.1:{port}"),
        format!("hf://a/b#@127.0.0.1:{port}/"),
        "hf://a/..".to_owned(),
        "hf://../../x".to_owned(),
        "hf://a/%2e%2e".to_owned(),
        format!("hf://a%2f%2f127.0.0.1:{port}/x"),
        format!("hf://a\\127.0.0.1:{port}/x"),
        format!("hf:///127.0.0.1:{port}/x"),
        format!("hf://http://127.0.0.1:{port}/x"),
        "hf://a.b/c..d".to_owned(),
    ];
    let mut applied = Vec::new();
    let mut refused = 0;
    for (number, uri) in uris.iter().enumerate() {
        let name = format!("uri-{number}");
        match cluster.apply_llm(&name, named(uri)).await {
            Ok(_) => applied.push(name),
            Err(_) => refused += 1,
        }
    }
    ensure!(refused >= 10, "only {refused} of the uris were refused: {applied:?}");
    for (number, revision) in
        ["../../../x", "a/../../b", "a%2f..", "main@127.0.0.1", "a//b", "a/./b"].iter().enumerate()
    {
        let name = format!("revision-{number}");
        let spec = json!({"model": {"uri": "hf://a/b", "revision": revision, "facts": null}});
        match cluster.apply_llm(&name, spec).await {
            Ok(_) => applied.push(name),
            Err(error) => drop(error),
        }
    }
    for name in ["trap", "name", "spelled", "user", "six", "metadata", "relative", "file"] {
        cluster.apply_llm(name, named(&format!("hf://evil/{name}"))).await?;
        applied.push(name.to_owned());
    }
    for name in &applied {
        let stalls = |llm: &LLMDeployment| status_of(llm, "Stalled") == "True";
        cluster.wait_llm(name, "is stalled", stalls).await?;
    }
    let llm = cluster.llm("metadata").await?;
    let said = complaints(&llm);
    ensure!(said.contains("169.254.169.254") && said.contains("redirects"), "{said}");
    // Whatever was named is a part of a path at the hub, and nothing but that.
    let asked = hub.asked();
    for path in &asked {
        let parts: Vec<_> = path.split('/').collect();
        let ["", "api", "models", _, _, "revision", ..] = parts.as_slice() else {
            bail!("the hub was asked for {path}");
        };
        ensure!(!path.contains("..") || path.contains("c..d"), "the hub was asked for {path}");
    }
    ensure!(asked.len() >= 8, "{asked:?}");
    ensure!(caught.load(Ordering::Relaxed) == 0, "the operator called an address of a tenant's");
    // The trap works.
    drop(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    throughout("the trap is sprung", Duration::from_millis(200), async || Ok(())).await?;
    ensure!(caught.load(Ordering::Relaxed) == 1, "the trap does not work");
    operator.terminate().await?;
    cluster.passed()
}
