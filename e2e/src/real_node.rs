//! A node that really runs pods, the operator in one of them, and a model that really answers.
//!
//! Everything there lives in a network of its own. What has to reach a Service is started inside of
//! it ([`Cluster::ask`], [`Cluster::load`]); all else goes through the API server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Cluster, Fleet, Metrics, NAMESPACE,
    apply::{apply, apply_file},
    chat::Tokens,
    cluster::{binary, root},
    load::Counts,
    operator::SYSTEM,
    wait::{Look, patience, until},
};

/// The engine's image of the tests.
pub const ENGINE_IMAGE: &str = "berth.dev/e2e/llama-server:1";
/// The name by which the tiny model is asked.
pub const SERVED_NAME: &str = "tiny";
/// The claim that holds the model, and its file there. The name has to say the type of the weights.
const CLAIM: &str = "models";
const FILE: &str = "tiny-F16.gguf";

/// What `berth-cluster up` says of its real node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealNode {
    /// Its name.
    pub name: String,
    /// Its network, for `nsenter`.
    pub netns: PathBuf,
    /// A folder for `hostPath` volumes.
    pub data_dir: PathBuf,
}

/// Whether there can be a real node. If not, says so where nobody can miss it, though test
/// harnesses keep what tests print.
pub fn possible(test: &str) -> bool {
    use std::io::Write as _;
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: needs root: {test}");
    }
    root
}

/// Starts a cluster with a real node that has these images, by their names in `e2e/images`, beside
/// simulated ones; pods in the namespace of models have to meet the strictest standard.
pub async fn start(fleet: &Fleet, images: &[&str]) -> Result<Cluster> {
    let root = root()?;
    run(Command::new(root.join("e2e/cluster/build.sh")).arg("--real-node"))?;
    let files = run(Command::new(root.join("e2e/images/build.sh")).args(images))?;
    let mut arguments = vec!["--real-node"];
    arguments.extend(files.lines().flat_map(|file| ["--image", file]));
    let cluster = Cluster::with_arguments(fleet, &arguments).await?;
    let labels =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = cluster.all::<Namespace>();
    namespaces.patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(labels)).await?;
    Ok(cluster)
}

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

impl Cluster {
    /// The real node.
    pub fn real_node(&self) -> Result<&RealNode> {
        self.node.as_ref().context("the cluster has no real node")
    }

    /// Runs a command on the real node, and returns what it printed.
    pub fn on_node(&self, command: &[&str]) -> Result<String> {
        let mut exec = Command::new(binary()?);
        exec.args(["node", "exec", "--dir"]).arg(self.dir.join("cluster")).arg("--").args(command);
        run(&mut exec)
    }

    /// Installs Berth with Helm from its chart, and waits until its pod is Ready.
    pub async fn helm_install(&self, values: &[&str]) -> Result<Pod> {
        let charts = root()?.join("charts");
        let namespace = charts.join("manifests/00-namespace.yaml");
        apply_file(&self.client, &namespace, "default").await?;
        let node = format!("nodeSelector.kubernetes\\.io/hostname={}", self.real_node()?.name);
        let chart = charts.join("berth");
        let chart = chart.to_str().context("a folder with a strange name")?;
        let mut arguments = vec!["install", "berth", chart, "--set-string", &node];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.helm(&arguments)?;
        self.operator_pod(None).await
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

    /// The metrics of the operator's pod, through the API server.
    pub async fn operator_metrics(&self, pod: &Pod) -> Result<Metrics> {
        let url = format!("/api/v1/namespaces/{SYSTEM}/pods/{}:8080/proxy", pod.name_any());
        let request = Request::new(url).get("metrics", &kube::api::GetParams::default())?;
        Metrics::parse(&self.client.request_text(request).await?)
    }

    /// Puts the tiny model onto the real node's disk, as a volume that only that node has.
    pub async fn provide_tiny_model(&self) -> Result<()> {
        let node = self.real_node()?;
        let model = run(&mut Command::new(root()?.join("e2e/images/tiny-gguf.py")))?;
        let folder = node.data_dir.join("models");
        fs::create_dir_all(&folder)?;
        fs::copy(model.trim(), folder.join(FILE))?;
        let class = json!("e2e");
        let here =
            json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}]);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": CLAIM},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
                "storageClassName": class,
                "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
                "hostPath": {"path": folder, "type": "Directory"},
                "nodeAffinity": {
                    "required": {"nodeSelectorTerms": [{"matchExpressions": here}]},
                },
            },
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadOnlyMany"], "storageClassName": class, "volumeName": CLAIM,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        apply(&self.client, &volume, NAMESPACE).await?;
        apply(&self.client, &claim, NAMESPACE).await?;
        Ok(())
    }

    /// Where a Service answers: only in the real node's network.
    pub async fn service_address(&self, name: &str) -> Result<String> {
        let spec = self.api::<Service>().get(name).await?.spec.context("a Service without spec")?;
        let port = spec.ports.unwrap_or_default().first().map(|port| port.port);
        let address = spec.cluster_ip.filter(|address| address != "None");
        Ok(format!("{}:{}", address.context("no ClusterIP")?, port.context("no port")?))
    }

    /// Asks a Service one question, from the real node's network, with more arguments of the
    /// binary `chat`. What it streams goes to `stdout`.
    pub fn chat(&self, service: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&self.real_node()?.netns);
        command.arg(net).arg(sibling("chat")?);
        command.args(["--to", service, "--model", SERVED_NAME]).args(arguments);
        Ok(command)
    }

    /// One whole answer of a Service.
    pub fn ask(&self, service: &str, arguments: &[&str]) -> Result<Reply> {
        let output = run(&mut self.chat(service, arguments)?)?;
        let (text, figures) = output.trim_end().rsplit_once('\n').context("no figures")?;
        let mut reply: Reply = serde_json::from_str(figures)?;
        text.clone_into(&mut reply.text);
        Ok(reply)
    }

    /// Asks a Service from now on, with so many at once, until [`Load::stop`].
    pub fn load(&self, service: &str, workers: u32, pause_ms: u32) -> Result<Load> {
        let (workers, pause) = (workers.to_string(), pause_ms.to_string());
        let mut command = self.chat(service, &["--load", &workers, "--pause", &pause])?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Load(Some(child)))
    }
}

/// A whole answer, as `chat` tells of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Reply {
    /// What was generated.
    #[serde(default)]
    pub text: String,
    /// What it took.
    pub tokens: Tokens,
    /// Pieces that it came in.
    pub pieces: usize,
    /// Seconds until the first.
    pub first: f64,
}

/// Requests that go on. They end with this.
pub struct Load(Option<Child>);

impl Load {
    /// Lets the requests under way be answered, and tells what was counted.
    pub fn stop(mut self) -> Result<Counts> {
        // Waiting closes its input, which ends it.
        let output = self.0.take().context("stopped twice")?.wait_with_output()?;
        ensure!(output.status.success(), "the requests' process ended with {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a pod is Ready and stays.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    ready.next().is_some() && pod.metadata.deletion_timestamp.is_none()
}

/// Waits a little, for loops that look often.
pub async fn moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Runs a command to its end, and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let line = arguments.join(" ");
    ensure!(output.status.success(), "{name} {line} ended with {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
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

/// A binary of this package, built beside what runs.
fn sibling(name: &str) -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    let folder = us.parent().context("no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not there: cargo build --workspace --bins", path.display());
    Ok(path)
}
