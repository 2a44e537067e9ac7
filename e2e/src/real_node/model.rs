//! A model of half a megabyte that an engine really loads, and what it costs where it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::{Value, json};

use super::run;
use crate::{Cluster, NAMESPACE, apply::apply, cluster::root};

/// The engine's image of the tests.
pub const ENGINE_IMAGE: &str = "berth.dev/e2e/llama-server:1";
/// The name by which the tiny model is asked.
pub const SERVED_NAME: &str = "tiny";
/// The model's file. The name has to say the type of the weights.
pub const FILE: &str = "tiny-F16.gguf";
/// The claim that holds it.
const CLAIM: &str = "models";

/// The spec of the tiny model on one of the real node's GPUs, of a size that several of it run on
/// a small machine.
pub fn tiny_model() -> Value {
    json!({
        "model": {
            "uri": format!("pvc://{CLAIM}"),
            "files": FILE,
            "servedName": SERVED_NAME,
            "facts": {
                "layers": 2, "hiddenSize": 64, "intermediateSize": 128, "attentionHeads": 4,
                "kvHeads": 2, "headDim": 16, "vocabSize": 286, "maxContext": 2048,
                "quantization": "GGUF",
            },
        },
        "engine": {
            "type": "LlamaCpp",
            "image": {"nvidia": ENGINE_IMAGE},
            "contextLength": 512,
            "maxConcurrency": 4,
            "shutdownGrace": "10s",
        },
        "gpu": {"count": 1, "products": ["NVIDIA-L4"]},
        "resources": {
            "cpu": "250m", "memory": "512Mi", "sharedMemory": "64Mi", "ephemeralStorage": "1Gi",
        },
    })
}

/// What the L4 of the real node costs: a machine of four of them, per hour.
pub fn prices() -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostProfile",
        "metadata": {"name": "lab"},
        "spec": {
            "currency": "USD",
            "hardware": [
                {"name": "l4", "products": ["NVIDIA-L4"], "rented": {"perHour": "2.00"}},
            ],
        },
    })
}

/// The file of the tiny model, which is written once.
pub fn tiny_model_file() -> Result<PathBuf> {
    let path = run(&mut Command::new(root()?.join("e2e/images/tiny-gguf.py")))?;
    Ok(path.trim().into())
}

impl Cluster {
    /// Puts the tiny model onto the real node's disk, as a volume that only that node has.
    pub async fn provide_tiny_model(&self) -> Result<()> {
        let node = self.real_node()?;
        let folder = node.data_dir.join(CLAIM);
        fs::create_dir_all(&folder)?;
        fs::copy(tiny_model_file()?, folder.join(FILE))?;
        self.provide_folder(NAMESPACE, CLAIM, &folder).await
    }

    /// Lets pods of a namespace mount a folder of the real node by a claim of that name. They may
    /// not mount it themselves.
    pub async fn provide_folder(&self, namespace: &str, name: &str, folder: &Path) -> Result<()> {
        let node = self.real_node()?;
        let class = json!("e2e");
        let volume_name = format!("{namespace}-{name}");
        let here =
            json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}]);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume_name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
                "storageClassName": class,
                "claimRef": {"namespace": namespace, "name": name},
                "hostPath": {"path": folder, "type": "Directory"},
                "nodeAffinity": {
                    "required": {"nodeSelectorTerms": [{"matchExpressions": here}]},
                },
            },
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadOnlyMany"], "storageClassName": class, "volumeName": volume_name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        apply(&self.client, &volume, namespace).await?;
        apply(&self.client, &claim, namespace).await?;
        Ok(())
    }
}
