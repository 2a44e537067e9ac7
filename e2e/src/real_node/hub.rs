//! A Hugging Face hub in the cluster, as its nodes have no way to the real one: a pod that serves
//! folders of the real node, and tells what it was asked for (`e2e/cluster/toolbox`).

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, core::Request};
use serde::Deserialize;
use serde_json::json;

use super::{is_ready, model, tiny_model_file};
use crate::{
    Cluster,
    apply::apply,
    wait::{Look, patience, until},
};

/// Its namespace, and the name of everything of it there.
const HUB: &str = "hub";
const PORT: u16 = 8080;
/// Where its pod has the repositories.
const FOLDER: &str = "/repositories";
/// What opens gated repositories.
pub const TOKEN: &str = "hf_harbour";

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    /// Where pods reach it.
    pub url: String,
}

/// What a hub has.
#[derive(Clone, Debug)]
pub struct Repository {
    name: String,
    files: Vec<(String, Vec<u8>)>,
    gated: bool,
    bytes_per_second: Option<u64>,
}

/// What a hub was asked for: a path, or some of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Asked {
    /// Requests for content.
    pub gets: u64,
    /// Requests for headers alone.
    pub heads: u64,
    /// Bytes of files that were sent.
    pub bytes: u64,
}

impl Repository {
    /// The tiny model as `ORG/NAME`.
    pub fn tiny(name: &str) -> Result<Self> {
        let weights = fs::read(tiny_model_file()?)?;
        let files = vec![(model::FILE.to_owned(), weights)];
        Ok(Self { name: name.to_owned(), files, gated: false, bytes_per_second: None })
    }

    /// With one more file.
    #[must_use]
    pub fn with(mut self, file: &str, content: Vec<u8>) -> Self {
        self.files.push((file.to_owned(), content));
        self
    }

    /// Opened by [`TOKEN`] only.
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    /// Each of its files comes no faster.
    #[must_use]
    pub fn slow(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, content)| content.len() as u64).sum()
    }
}

impl Hub {
    /// Starts a hub with these repositories. The node must have the image `toolbox`.
    pub async fn start(cluster: &Cluster, repositories: &[Repository]) -> Result<Self> {
        let folder = cluster.real_node()?.data_dir.join(HUB);
        let mut arguments = vec!["hub".to_owned(), format!("--listen=:{PORT}")];
        arguments.push(format!("--token={TOKEN}"));
        for Repository { name, files, gated, bytes_per_second } in repositories {
            for (file, content) in files {
                let file = folder.join(name).join(file);
                fs::create_dir_all(file.parent().context("a file without a folder")?)?;
                fs::write(file, content)?;
            }
            arguments.extend(gated.then(|| format!("--gated={name}")));
            let slow = |speed: &u64| format!("--bytes-per-second={name}={speed}");
            arguments.extend(bytes_per_second.as_ref().map(slow));
        }
        arguments.push(FOLDER.to_owned());
        cluster.make_namespace(HUB).await?;
        cluster.restrict(HUB).await?;
        cluster.provide_folder(HUB, HUB, &folder).await?;
        apply(&cluster.client, &pod(&arguments), HUB).await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": HUB},
            "spec": {"selector": {"app": HUB}, "ports": [{"port": 80, "targetPort": PORT}]},
        });
        apply(&cluster.client, &service, HUB).await?;
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), HUB);
        until("the hub's pod is Ready", patience(), async || {
            let pod = pods.get(HUB).await?;
            let ready = is_ready(&pod);
            Ok(if ready { Look::Done(()) } else { Look::NotYet(format!("{:?}", pod.status)) })
        })
        .await?;
        Ok(Self { url: format!("http://{HUB}.{HUB}.svc.cluster.local") })
    }

    /// What it was asked for since it started, by path.
    pub async fn counts(&self, cluster: &Cluster) -> Result<BTreeMap<String, Asked>> {
        let url = format!("/api/v1/namespaces/{HUB}/pods/{HUB}:{PORT}/proxy");
        let request = Request::new(url).get("counts", &kube::api::GetParams::default())?;
        Ok(cluster.client.request(request).await?)
    }

    /// What was asked for of a repository's weights, all of it together.
    pub async fn weights(&self, cluster: &Cluster, repository: &str) -> Result<Asked> {
        let mut sum = Asked::default();
        let path = format!("/storage/{repository}/");
        for (_, asked) in self.counts(cluster).await?.iter().filter(|(p, _)| p.starts_with(&path)) {
            sum.gets += asked.gets;
            sum.heads += asked.heads;
            sum.bytes += asked.bytes;
        }
        Ok(sum)
    }
}

fn pod(arguments: &[String]) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": HUB, "labels": {"app": HUB}},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": HUB,
                "image": "berth.dev/e2e/toolbox:1",
                "imagePullPolicy": "Never",
                "command": ["/toolbox"],
                "args": arguments,
                "ports": [{"containerPort": PORT}],
                "readinessProbe": {
                    "httpGet": {"path": "/counts", "port": PORT}, "periodSeconds": 1,
                },
                "resources": {"limits": {"memory": "128Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": HUB, "mountPath": FOLDER, "readOnly": true}],
            }],
            "volumes": [
                {"name": HUB, "persistentVolumeClaim": {"claimName": HUB, "readOnly": true}},
            ],
        },
    })
}
