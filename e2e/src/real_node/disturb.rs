//! What happens to machines: services that are restarted, power cuts, engines that are killed.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::Api;

use super::run;
use crate::{
    Cluster,
    cluster::binary,
    explain::explain,
    snapshot::GPU_RESOURCES,
    wait::{Look, patience, until},
};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";
/// What containerd's containers are called in a pod's status.
const CONTAINERD: &str = "containerd://";

impl Cluster {
    /// Has a service of the real node end and start again (`kubelet`, `containerd`, …), and waits
    /// until the node is there.
    pub async fn restart_on_node(&self, service: &str) -> Result<()> {
        self.disturb_node(&["restart", service]).await
    }

    /// Cuts the real node's power, and waits until the node is there again: its disk is, and
    /// nothing that ran on it.
    pub async fn reboot_node(&self) -> Result<()> {
        self.disturb_node(&["reboot"]).await
    }

    /// Has the kubelet find that engines ended while the GPUs' plugin is away, as after a power cut
    /// where that is a pod too: it refuses their pods for good. Then the plugin comes back.
    pub async fn node_refuses(&self, name: &str) -> Result<()> {
        self.node_command(&["pause", "gpu-plugin"])?;
        self.node_command(&["pause", "kubelet"])?;
        for id in containers(&self.pods(name).await?) {
            self.kill_container(&id)?;
        }
        self.node_command(&["restart", "kubelet", "--kill"])?;
        until("the kubelet refuses the pods", patience(), async || {
            let pods = self.pods(name).await?;
            let reasons = pods.iter().map(|pod| pod.status.as_ref()?.reason.as_deref());
            let reasons: Vec<_> = reasons.collect();
            let refused = reasons.contains(&Some("UnexpectedAdmissionError"));
            Ok(if refused { Look::Done(()) } else { Look::NotYet(format!("{reasons:?}")) })
        })
        .await?;
        self.node_command(&["resume", "gpu-plugin"])
    }

    fn node_command(&self, what: &[&str]) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.arg("node").args(what).arg("--dir").arg(self.dir.join("cluster"));
        run(&mut command)?;
        Ok(())
    }

    async fn disturb_node(&self, what: &[&str]) -> Result<()> {
        self.node_command(what)?;
        let name = &self.real_node()?.name;
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let beat = async || -> Result<_> {
            Ok(leases.get(name).await?.spec.and_then(|spec| spec.renew_time))
        };
        let before = beat().await?;
        let what = format!("node {name} is Ready with its GPUs after {}", what.join(" "));
        until(what, patience(), async || {
            if beat().await? == before {
                return Ok(Look::NotYet("it has not renewed its lease".into()));
            }
            let node = self.all::<Node>().get(name).await?.status.unwrap_or_default();
            let gpus = node.allocatable.unwrap_or_default();
            let gpus = gpus.get(GPU_RESOURCES[0]).map_or("0", |quantity| quantity.0.as_str());
            let conditions = node.conditions.unwrap_or_default();
            let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let there = ready && gpus != "0";
            let seen = || format!("it has {gpus} GPUs, conditions {conditions:?}");
            Ok(if there { Look::Done(()) } else { Look::NotYet(seen()) })
        })
        .await
    }

    /// Kills the process of a container on the real node, by its ID in a pod's status.
    pub fn kill_container(&self, id: &str) -> Result<()> {
        let id = id.strip_prefix(CONTAINERD).with_context(|| format!("{id} is no container"))?;
        let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
        self.on_node(&kill)?;
        Ok(())
    }

    /// Waits until none of these containers, which ended, is any more what the pods of an
    /// `LLMDeployment` say that they run: others came in their place.
    pub async fn containers_are_new(&self, name: &str, old: &BTreeSet<String>) -> Result<()> {
        let waited = until("containers that ended are gone", patience(), async || {
            let now = containers(&self.pods(name).await?);
            let left: Vec<_> = now.intersection(old).collect();
            Ok(if left.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{left:?}")) })
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(explain(self, name).await)),
        }
    }
}

/// The IDs of the containers that pods say they run.
pub fn containers(pods: &[Pod]) -> BTreeSet<String> {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    statuses.flatten().filter_map(|container| container.container_id.clone()).collect()
}
