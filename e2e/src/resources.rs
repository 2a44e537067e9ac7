//! What tests set up in a cluster besides models: namespaces, accounts, pods of others, nodes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, Node, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    Cluster, NAMESPACE,
    cluster::{client, root},
    wait::{Look, patience, until},
};

impl Cluster {
    /// Installs Berth's definitions and manifests, as `make demo` does.
    pub async fn install(&self) -> Result<()> {
        self.install_definitions().await?;
        self.apply_folder(&root()?.join("charts/manifests")).await
    }

    /// Installs Berth's `CustomResourceDefinitions`.
    pub async fn install_definitions(&self) -> Result<()> {
        self.apply_folder(&root()?.join("crds/yaml")).await?;
        self.definitions_established().await
    }

    /// Makes a namespace in which pods can be created.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        self.all::<Namespace>().create(&PostParams::default(), &namespace).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        until("the namespace's ServiceAccount default", patience(), async || {
            Ok(match accounts.get_opt("default").await? {
                Some(_) => Look::Done(()),
                None => Look::NotYet("none".into()),
            })
        })
        .await
    }

    /// A kubeconfig with the token of a `ServiceAccount`.
    pub async fn account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        /// A day: longer than any test.
        const LIFE_SECONDS: i64 = 86_400;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(LIFE_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for ServiceAccount {namespace}/{name}"))?
            .status
            .and_then(|status| status.token)
            .context("a token request without an answer")?;
        let path = self.dir.join(format!("{namespace}-{name}.kubeconfig"));
        write_kubeconfig(&self.kubeconfig, &token, &path)?;
        Ok(path)
    }

    /// A client for someone with the stock role `edit` in the namespace of models.
    pub async fn tenant(&self, name: &str) -> Result<Client> {
        let account = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        self.api::<ServiceAccount>().create(&PostParams::default(), &account).await?;
        let binding = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-edits")},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit",
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }))?;
        self.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;
        let tenant = client(&self.account_kubeconfig(NAMESPACE, name).await?).await?;
        let pods: Api<Pod> = Api::namespaced(tenant.clone(), NAMESPACE);
        until("the tenant's rights", patience(), async || {
            pods.list(&kube::api::ListParams::default()).await?;
            Ok(Look::Done(()))
        })
        .await?;
        Ok(tenant)
    }

    /// A running pod of somebody else's on a node, with so many NVIDIA GPUs.
    pub async fn foreign_pod(&self, name: &str, node: &str, gpus: u32) -> Result<Pod> {
        let pod = foreign_pod(name, node, gpus)?;
        self.api::<Pod>().create(&PostParams::default(), &pod).await?;
        until("the other's pod runs", patience(), async || {
            let pod = self.api::<Pod>().get(name).await?;
            let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
            Ok(if phase == "Running" { Look::Done(pod) } else { Look::NotYet(phase) })
        })
        .await
    }

    /// Deletes a pod at once.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.api::<Pod>().delete(name, &now).await?;
        Ok(())
    }

    /// Merges something into a pod, with all rights.
    pub async fn patch_pod(&self, name: &str, patch: Value) -> Result<Pod> {
        let patch = Patch::Merge(patch);
        Ok(self.api::<Pod>().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// Sets an annotation on a pod.
    pub async fn annotate_pod(&self, name: &str, key: &str, value: &str) -> Result<Pod> {
        self.patch_pod(name, json!({"metadata": {"annotations": {key: value}}})).await
    }

    /// Merges something into a node.
    pub async fn patch_node(&self, name: &str, patch: Value) -> Result<Node> {
        let patch = Patch::Merge(patch);
        Ok(self.all::<Node>().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// Makes a node Ready, or not.
    pub async fn set_node_ready(&self, name: &str, ready: bool) -> Result<()> {
        let value = if ready { Value::Null } else { "false".into() };
        let key = "simulate.berth-e2e.dev/ready";
        self.patch_node(name, json!({"metadata": {"annotations": {key: value}}})).await?;
        until(format!("node {name} is Ready={ready}"), patience(), async || {
            let node = self.all::<Node>().get(name).await?;
            let is = node_is_ready(&node);
            Ok(if is == ready { Look::Done(()) } else { Look::NotYet(format!("Ready={is}")) })
        })
        .await
    }
}

/// Whether a node's condition Ready is true.
pub fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// A pod of somebody else's: pinned to a node as a scheduler would bind it, tolerating everything.
pub fn foreign_pod(name: &str, node: &str, gpus: u32) -> Result<Pod> {
    let requests =
        if gpus > 0 { json!({"nvidia.com/gpu": gpus.to_string()}) } else { json!({"cpu": "100m"}) };
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app": "training"},
            "annotations": {"simulate.berth-e2e.dev/load-seconds": "0s"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "train",
                "image": "example.org/train:1",
                "resources": {"limits": requests},
            }],
        },
    }))?)
}

/// The admin's kubeconfig with another token in place of the admin's.
fn write_kubeconfig(admin: &Path, token: &str, path: &Path) -> Result<()> {
    let mut config: Value = serde_saphyr::from_str(&fs::read_to_string(admin)?)?;
    for user in config["users"].as_array_mut().context("a kubeconfig without users")? {
        user["user"] = json!({"token": token});
    }
    fs::write(path, serde_json::to_string_pretty(&config)?)?;
    Ok(())
}
