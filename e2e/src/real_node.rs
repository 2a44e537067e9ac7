//! A node that really runs pods, the operator in one of them, and a model that really answers.
//!
//! Everything there lives in a network of its own. What has to reach a Service is started inside of
//! it ([`Cluster::ask`], [`Cluster::load`]); all else goes through the API server.

mod chart;
mod client;
mod disturb;
mod hub;
mod model;
mod tally;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams};
use serde::Deserialize;
use serde_json::json;

pub use self::{
    client::{Load, Reply},
    disturb::containers,
    hub::{Asked, Hub, Repository, TOKEN},
    model::{ENGINE_IMAGE, SERVED_NAME, prices, tiny_model, tiny_model_file},
    tally::{Tally, unseen},
};
use crate::{
    Cluster, Fleet, NAMESPACE,
    cluster::{binary, root},
};

/// Between two looks of the operator at what engines served, where a test counts tokens: chart
/// value [`SCRAPE_VALUE`].
pub const SCRAPE: Duration = Duration::from_secs(2);
/// The chart's value for it.
pub const SCRAPE_VALUE: &str = "scrapeInterval=2s";

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
    cluster.restrict(NAMESPACE).await?;
    Ok(cluster)
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

    /// From now on pods of a namespace have to meet the strictest Pod Security Standard.
    pub async fn restrict(&self, namespace: &str) -> Result<()> {
        let labels =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let namespaces = self.all::<Namespace>();
        namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(labels)).await?;
        Ok(())
    }
}

/// Whether a pod is Ready and stays.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    ready.next().is_some() && pod.metadata.deletion_timestamp.is_none()
}

/// The node that a pod runs on.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
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
