//! The pods are the ledger, and nobody but the operator writes it: a tenant with the stock role
//! `edit` cannot forge, shrink or remove a claim, nor write what status says.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use berth_crds::{
    LLMDeployment,
    names::{ANNOTATION_CLAIM, LABEL_DEPLOYMENT, LABEL_REPLICA, LABEL_REVISION},
};
use berth_e2e::{
    Cluster, Fleet, NAMESPACE, Nodes, Operator, Options,
    apply::apply,
    resources::foreign_pod,
    snapshot::controller,
    wait::{Look, patience, throughout, until},
};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{Pod, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

struct Setting {
    cluster: Cluster,
    operator: Operator,
    tenant: Client,
}

/// Two nodes of two GPUs; one GPU is held by the deployment `chat`.
async fn start() -> Result<Setting> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 2).h100(2)])).await?;
    cluster.install().await?;
    let operator = Operator::start(&cluster, Options::default()).await?;
    cluster.apply_llm("chat", gpus(1)).await?;
    cluster.ready("chat", 1).await?;
    let tenant = cluster.tenant("mallory").await?;
    policies_are_in_force(&cluster).await?;
    Ok(Setting { cluster, operator, tenant })
}

fn gpus(count: u32) -> Value {
    json!({"gpu": {"count": count, "memory": "60Gi"}})
}

/// Admission policies take effect a moment after they were made.
async fn policies_are_in_force(cluster: &Cluster) -> Result<()> {
    until("the admission policies are in force", patience(), async || {
        let mut pod = foreign_pod("canary", "elm-000", 0)?;
        pod.annotations_mut().insert("berth.dev/canary".into(), "tweet".into());
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        Ok(match cluster.api::<Pod>().create(&dry, &pod).await {
            Err(kube::Error::Api(status)) if status.message.contains("berth") => Look::Done(()),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// Fails unless a request was refused as forbidden.
fn refused<T: std::fmt::Debug>(what: &str, answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => Ok(()),
        other => bail!("{what}: not refused: {other:?}"),
    }
}

fn merge(patch: &Value) -> Patch<&Value> {
    Patch::Merge(patch)
}

/// Two GPUs are free, both on one node, and one on the other: what the ledger must still say.
async fn ledger_is_right(cluster: &Cluster) -> Result<()> {
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await?;
    let of_chat = pods.iter().filter(|pod| controller(*pod).is_some());
    ensure!(of_chat.count() == 1, "pods of ours came or went");
    cluster.settled().await?;
    // A deployment that needs two GPUs twice: one replica fits, a second does not.
    let probe = json!({"replicas": 2, "gpu": {"count": 2, "memory": "60Gi"}});
    cluster.apply_llm("probe", probe).await?;
    cluster
        .wait_llm("probe", "has one replica, and one that waits", |llm| {
            let status = llm.status.clone().unwrap_or_default();
            status.ready_replicas == 1 && status.queue.is_some_and(|queue| queue.replicas == 1)
        })
        .await?;
    throughout("one GPU is held", Duration::from_secs(3), async || {
        let pods = cluster.pods("probe").await?.len();
        ensure!(pods == 1, "{pods} pods: the claim of chat is forgotten, or more than it counts");
        Ok(())
    })
    .await?;
    cluster.delete_llm("probe").await?;
    cluster.no_pods("probe").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_claim_is_refused() -> Result<()> {
    let Setting { cluster, operator, tenant } = start().await?;
    let pods: Api<Pod> = Api::namespaced(tenant.clone(), NAMESPACE);
    let ours = cluster.pod("chat").await?;
    let owner = ours.owner_references().to_vec();
    let claim = r#"{"gpus":2,"bytesPerGpu":80000000000,"product":"NVIDIA-H100-80GB-HBM3"}"#;

    // A pod with everything that a pod of ours has.
    let mut forged = foreign_pod("chat-zzzzzzzz-9-0-0", "elm-001", 0)?;
    forged.metadata.labels = ours.metadata.labels.clone();
    forged.labels_mut().insert(LABEL_REPLICA.into(), "9".into());
    forged.annotations_mut().insert(ANNOTATION_CLAIM.into(), claim.into());
    forged.metadata.owner_references = Some(owner.clone());
    refused("a forged replica", pods.create(&PostParams::default(), &forged).await)?;

    // Piece by piece.
    let mut annotated = foreign_pod("annotated", "elm-001", 0)?;
    annotated.annotations_mut().insert(ANNOTATION_CLAIM.into(), claim.into());
    refused("a claim alone", pods.create(&PostParams::default(), &annotated).await)?;
    let mut labelled = foreign_pod("labelled", "elm-001", 0)?;
    labelled.labels_mut().insert(LABEL_DEPLOYMENT.into(), "chat".into());
    refused("a label alone", pods.create(&PostParams::default(), &labelled).await)?;
    let mut adopted = foreign_pod("adopted", "elm-001", 0)?;
    adopted.metadata.owner_references = Some(owner.clone());
    refused("an owner alone", pods.create(&PostParams::default(), &adopted).await)?;

    // Onto a pod of one's own that runs already.
    let plain = foreign_pod("plain", "elm-001", 0)?;
    pods.create(&PostParams::default(), &plain).await.context("a pod of one's own")?;
    for patch in [
        json!({"metadata": {"annotations": {ANNOTATION_CLAIM: claim}}}),
        json!({"metadata": {"labels": {LABEL_DEPLOYMENT: "chat", LABEL_REPLICA: "1"}}}),
        json!({"metadata": {"labels": {LABEL_REVISION: "zzzzzzzz"}}}),
        json!({"metadata": {"ownerReferences": owner}}),
    ] {
        let answer = pods.patch("plain", &PatchParams::default(), &merge(&patch)).await;
        refused(&patch.to_string(), answer)?;
    }
    // What is not ours stays everybody's own affair.
    let harmless = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}});
    pods.patch("plain", &PatchParams::default(), &merge(&harmless)).await?;
    pods.delete("plain", &DeleteParams::default()).await?;
    ledger_is_right(&cluster).await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_neither_shrunk_nor_removed() -> Result<()> {
    let Setting { cluster, operator, tenant } = start().await?;
    let pods: Api<Pod> = Api::namespaced(tenant.clone(), NAMESPACE);
    let ours = cluster.pod("chat").await?;
    let name = ours.name_any();
    let shrunk = r#"{"gpus":0,"bytesPerGpu":1,"product":"NVIDIA-H100-80GB-HBM3"}"#;
    for patch in [
        json!({"metadata": {"annotations": {ANNOTATION_CLAIM: shrunk}}}),
        json!({"metadata": {"annotations": {ANNOTATION_CLAIM: "nonsense"}}}),
        json!({"metadata": {"annotations": {ANNOTATION_CLAIM: null}}}),
        json!({"metadata": {"annotations": null}}),
        json!({"metadata": {"labels": {LABEL_DEPLOYMENT: null}}}),
        json!({"metadata": {"labels": {LABEL_REPLICA: "7"}}}),
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"ownerReferences": null}}),
    ] {
        let answer = pods.patch(&name, &PatchParams::default(), &merge(&patch)).await;
        refused(&patch.to_string(), answer)?;
    }
    let after = cluster.api::<Pod>().get(&name).await?;
    ensure!(after.annotations() == ours.annotations(), "annotations have changed");
    ensure!(after.labels() == ours.labels(), "labels have changed");
    ledger_is_right(&cluster).await?;
    // A tenant may well delete a pod in its own namespace; then it is replaced.
    pods.delete(&name, &DeleteParams::default()).await?;
    until("the pod is replaced", patience(), async || {
        let pods = cluster.pods("chat").await?;
        let other = pods.iter().any(|pod| pod.uid() != ours.uid());
        Ok(if other && pods.len() == 1 { Look::Done(()) } else { Look::NotYet("no".into()) })
    })
    .await?;
    cluster.ready("chat", 1).await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_history_are_the_operators() -> Result<()> {
    let Setting { cluster, operator, tenant } = start().await?;
    let llms: Api<LLMDeployment> = Api::namespaced(tenant.clone(), NAMESPACE);
    // The stock role can manage deployments, …
    llms.get("chat").await.context("edit cannot read LLMDeployments")?;
    let scaled = json!({"spec": {"replicas": 2}});
    llms.patch_scale("chat", &PatchParams::default(), &merge(&scaled)).await?;
    cluster.ready("chat", 2).await?;
    // … but not what is said of them.
    let lie = json!({"status": {"readyReplicas": 99, "gpus": 0, "placements": []}});
    refused("status", llms.patch_status("chat", &PatchParams::default(), &merge(&lie)).await)?;

    // Not even where an administrator has given the right by mistake.
    for object in [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "too-much", "namespace": NAMESPACE},
            "rules": [
                {"apiGroups": ["berth.dev"], "resources": ["*"], "verbs": ["*"]},
                {"apiGroups": ["apps"], "resources": ["controllerrevisions"], "verbs": ["*"]},
                {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["*"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "too-much", "namespace": NAMESPACE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "too-much",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "mallory", "namespace": NAMESPACE}],
        }),
    ] {
        apply(&cluster.client, &object, NAMESPACE).await?;
    }
    let revisions: Api<ControllerRevision> = Api::namespaced(tenant.clone(), NAMESPACE);
    until("the rights are there", patience(), async || {
        Ok(Look::Done(revisions.list(&ListParams::default()).await.map(|_| ())?))
    })
    .await?;
    refused("status", llms.patch_status("chat", &PatchParams::default(), &merge(&lie)).await)?;
    let ours = cluster.api::<ControllerRevision>().list(&ListParams::default()).await?;
    let revision = ours.iter().find(|r| controller(*r).is_some()).context("no revision")?;
    let other = json!({"data": {"engine": {"image": "example.org/miner:1"}}});
    let name = revision.name_any();
    let answer = revisions.patch(&name, &PatchParams::default(), &merge(&other)).await;
    refused("another revision", answer)?;
    let gone = revisions.delete(&name, &DeleteParams::default()).await;
    refused("the revision's end", gone.map(|_| ()))?;
    // A Service of the deployment may be bent, and is bent back.
    let services: Api<Service> = Api::namespaced(tenant, NAMESPACE);
    let bent = json!({"spec": {"selector": {LABEL_DEPLOYMENT: "other"}}});
    services.patch("chat", &PatchParams::default(), &merge(&bent)).await?;
    until("the Service selects its own pods again", patience(), async || {
        let spec = cluster.api::<Service>().get("chat").await?.spec.unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        let deployment = selector.get(LABEL_DEPLOYMENT).cloned().unwrap_or_default();
        Ok(if deployment == "chat" { Look::Done(()) } else { Look::NotYet(deployment) })
    })
    .await?;
    cluster.ready("chat", 2).await?;
    cluster.settled().await?;
    operator.terminate().await?;
    cluster.passed()
}
