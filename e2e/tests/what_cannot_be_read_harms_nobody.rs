//! An object that this version of the operator cannot read, as a later definition allows it, is
//! left alone and told of. Everything else goes on.

use anyhow::{Context as _, Result, ensure};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE, Nodes, Operator, Options,
    apply::{apply, objects},
    cluster::root,
    llm::llm,
    wait::{Look, patience, until},
};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_a_later_version() -> Result<()> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 1).h100(8)])).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    let one_gpu = |replicas: i32| json!({"replicas": replicas, "gpu": {"count": 1}});
    cluster.apply_llm("before", one_gpu(1)).await?;
    cluster.ready("before", 1).await?;

    let text = std::fs::read_to_string(root()?.join("crds/yaml/llmdeployments.yaml"))?;
    let mut definition = objects(&text)?.pop().context("no definition")?;
    let engines = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/engine/properties/type/enum";
    let engines = definition.pointer_mut(engines).and_then(|list| list.as_array_mut());
    engines.context("no engines in the definition")?.push(json!("Later"));
    apply(&cluster.client, &definition, NAMESPACE).await?;
    cluster.definitions_established().await?;

    let mut later = one_gpu(1);
    later["engine"] = json!({"type": "Later"});
    let later = llm("later", later);
    until("the later engine is allowed", patience(), async || {
        Ok(match apply(&cluster.client, &later, NAMESPACE).await {
            Ok(_) => Look::Done(()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .await?;
    until("it is said that it cannot be read", patience(), async || {
        let events = cluster.api::<Event>().list(&ListParams::default()).await?;
        let told = events.items.iter().any(|event| {
            event.reason.as_deref() == Some("Unreadable")
                && event.regarding.as_ref().is_some_and(|of| of.name.as_deref() == Some("later"))
        });
        Ok(if told { Look::Done(()) } else { Look::NotYet("no such event".to_owned()) })
    })
    .await?;

    // What was there goes on, and what is new is served.
    cluster.scale("before", 2).await?;
    cluster.ready("before", 2).await?;
    cluster.apply_llm("after", one_gpu(1)).await?;
    cluster.ready("after", 1).await?;
    ensure!(cluster.pods("later").await?.is_empty(), "a pod of what cannot be read");
    operator.terminate().await?;

    // So it is for an operator that finds it there.
    let operator = Operator::start(&cluster, Options::named("second")).await?;
    cluster.scale("after", 2).await?;
    cluster.ready("after", 2).await?;
    operator.terminate().await?;
    cluster.passed()
}
