//! Berth from its chart: installed and upgraded with Helm, and looked at as a pod.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams, core::Request};

use super::{is_ready, run};
use crate::{
    Cluster, Metrics,
    apply::apply_file,
    cluster::root,
    operator::{SYSTEM, lease},
    wait::{Look, patience, until},
};

impl Cluster {
    /// Installs Berth with Helm from its chart, and waits until its pod is Ready and leads.
    pub async fn helm_install(&self, values: &[&str]) -> Result<Pod> {
        let namespace = root()?.join("charts/manifests/00-namespace.yaml");
        apply_file(&self.client, &namespace, "default").await?;
        let node = format!("nodeSelector.kubernetes\\.io/hostname={}", self.real_node()?.name);
        self.helm_chart(&["install", "--set-string", &node], values)?;
        let pod = self.operator_pod(None).await?;
        self.leads(&pod, "").await?;
        Ok(pod)
    }

    /// Upgrades Berth with Helm to other values, beside those it has, and waits until a new pod of
    /// it is Ready, alone, and leads.
    pub async fn helm_upgrade(&self, values: &[&str], old: &Pod) -> Result<Pod> {
        let before = self.leader().await?;
        self.helm_chart(&["upgrade", "--reuse-values"], values)?;
        self.next_operator(old, &before).await
    }

    /// Waits for the operator's pod that comes after `old`, and until it leads in place of `before`.
    pub async fn next_operator(&self, old: &Pod, before: &str) -> Result<Pod> {
        let pod = self.operator_pod(old.uid().as_deref()).await?;
        self.leads(&pod, before).await?;
        Ok(pod)
    }

    fn helm_chart(&self, words: &[&str], values: &[&str]) -> Result<()> {
        let chart = root()?.join("charts/berth");
        let chart = chart.to_str().context("a folder with a strange name")?;
        let mut arguments = words.to_vec();
        arguments.extend(["berth", chart]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.helm(&arguments)?;
        Ok(())
    }

    /// Helm, in the operator's namespace.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(helm());
        helm.args(arguments)
            .args(["--namespace", SYSTEM])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        run(&mut helm)
    }

    /// The operator's pod, once there is a single one, not of this UID, and it is Ready.
    pub async fn operator_pod(&self, not: Option<&str>) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        until("the operator's pod is Ready", patience(), async || {
            let mut all = pods.list(&ListParams::default()).await?.items;
            all.retain(|pod| pod.uid().as_deref() != not);
            Ok(match all.pop() {
                Some(pod) if all.is_empty() && is_ready(&pod) => Look::Done(pod),
                pod => Look::NotYet(format!("{:?}", pod.and_then(|pod| pod.status))),
            })
        })
        .await
    }

    /// Who holds the operators' lease; empty while nobody does.
    pub async fn leader(&self) -> Result<String> {
        Ok(lease(self).await?.holder_identity.unwrap_or_default())
    }

    /// Waits until a pod's operator leads, and not one that was there `before`: a container that
    /// was started anew in the same pod is another holder.
    pub async fn leads(&self, pod: &Pod, before: &str) -> Result<()> {
        until("the operator's pod holds the lease", patience(), async || {
            let holder = self.leader().await?;
            let ours = holder.starts_with(&pod.name_any()) && holder != before;
            Ok(if ours { Look::Done(()) } else { Look::NotYet(format!("{holder:?} does")) })
        })
        .await
    }

    /// The metrics of the operator's pod, through the API server.
    pub async fn operator_metrics(&self, pod: &Pod) -> Result<Metrics> {
        let url = format!("/api/v1/namespaces/{SYSTEM}/pods/{}:8080/proxy", pod.name_any());
        let request = Request::new(url).get("metrics", &kube::api::GetParams::default())?;
        Metrics::parse(&self.client.request_text(request).await?)
    }
}

/// Helm: `HELM`, the one that `make` has built, or whatever is installed.
fn helm() -> PathBuf {
    if let Some(path) = std::env::var_os("HELM") {
        return path.into();
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/berth"));
    let cache = std::env::var_os("BERTH_CACHE").map(PathBuf::from).or_else(home);
    let folders = cache.and_then(|cache| fs::read_dir(cache).ok());
    let built = folders.into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let path = entry.path().join("bin/helm");
        (name.to_string_lossy().starts_with("helm-") && path.is_file()).then_some(path)
    });
    built.max().unwrap_or_else(|| "helm".into())
}
