//! A cluster of its own for a test: started here, stopped when dropped.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{Fleet, real_node::RealNode};

/// The namespace that tests deploy models into.
pub const NAMESPACE: &str = "models";

/// How a cluster is built where there is none yet.
const BUILD: &str = "e2e/cluster/build.sh";

/// A running cluster. Dropping it stops it; unless [`Cluster::passed`] was called, its logs stay.
pub struct Cluster {
    /// A client with all rights.
    pub client: Client,
    /// URL of the API server.
    pub server: String,
    /// Kubeconfig with all rights.
    pub kubeconfig: PathBuf,
    /// The API server's audit log.
    pub audit_log: PathBuf,
    /// The real node, if it was started with one.
    pub node: Option<RealNode>,
    /// Folder for the test's own files and logs.
    pub dir: PathBuf,
    process: Child,
    passed: bool,
}

/// What `berth-cluster up` prints when it is ready.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    kubeconfig: PathBuf,
    server: String,
    audit_log: PathBuf,
    node: Option<RealNode>,
}

impl Cluster {
    /// Starts a cluster with these nodes, and the namespace for models.
    pub async fn start(fleet: &Fleet) -> Result<Self> {
        Self::with_arguments(fleet, &[]).await
    }

    /// Starts a cluster with more arguments for `berth-cluster up`.
    pub async fn with_arguments(fleet: &Fleet, arguments: &[&str]) -> Result<Self> {
        let dir = make_dir()?;
        let file = dir.join("fleet.yaml");
        fs::write(&file, fleet.to_yaml())?;
        Self::start_in(dir, &file, arguments).await
    }

    /// Starts a cluster with the nodes of a file.
    pub async fn from_file(fleet: &Path) -> Result<Self> {
        Self::start_in(make_dir()?, fleet, &[]).await
    }

    async fn start_in(dir: PathBuf, fleet: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command
            .args(["up", "--stop-on-stdin-eof", "--keep-logs", "--fleet"])
            .arg(fleet)
            .arg("--dir")
            .arg(dir.join("cluster"))
            .args(arguments);
        let log = dir.join("cluster.log");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let output = process.stdout.take().context("berth-cluster has no output")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        })
        .await??;
        let Ok(ready) = serde_json::from_str::<Ready>(&line) else {
            stop(&mut process);
            let log = fs::read_to_string(&log).unwrap_or_default();
            bail!("the cluster does not start; files are in {}:\n{log}", dir.display());
        };
        let Ready { kubeconfig, server, audit_log, node } = ready;
        let client = match client(&kubeconfig).await {
            Ok(client) => client,
            Err(error) => {
                stop(&mut process);
                return Err(error);
            }
        };
        let cluster =
            Self { client, server, kubeconfig, audit_log, node, dir, process, passed: false };
        cluster.make_namespace(NAMESPACE).await?;
        Ok(cluster)
    }

    /// Whether logs and files stay when this is dropped without having passed.
    pub fn keep_files(&mut self, keep: bool) {
        self.passed = !keep;
    }

    /// Stops the cluster and removes its files: the test has passed.
    pub fn passed(mut self) -> Result<()> {
        self.passed = true;
        Ok(())
    }

    /// Objects of a kind in the namespace of models.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Objects of a kind that has no namespaces, or in all of them.
    pub fn all<K>(&self) -> Api<K>
    where
        K: Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// Whether the cluster still runs.
    pub fn check(&mut self) -> Result<()> {
        ensure!(self.process.try_wait()?.is_none(), "the cluster has died; see {}", self.logs());
        Ok(())
    }

    /// Where the logs are.
    pub fn logs(&self) -> String {
        self.dir.display().to_string()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        stop(&mut self.process);
        if self.passed {
            let _ = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("logs of the cluster and the operator are in {}", self.dir.display());
        }
    }
}

/// Ends `berth-cluster`, which ends everything that it started.
fn stop(process: &mut Child) {
    /// It gives each of five components five seconds, twice.
    const GRACE: Duration = Duration::from_mins(1);
    drop(process.stdin.take());
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    let begun = Instant::now();
    while begun.elapsed() < GRACE {
        if !matches!(process.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// A client for a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The repository's root, seen from where we run.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let root = here.ancestors().find(|folder| folder.join(BUILD).is_file());
    Ok(root.context("run this inside of Berth's repository")?.to_owned())
}

/// The cluster's binary: `BERTH_CLUSTER`, or what the build script has built.
pub(crate) fn binary() -> Result<PathBuf> {
    static BUILT: std::sync::Mutex<Option<PathBuf>> = std::sync::Mutex::new(None);
    if let Some(path) = std::env::var_os("BERTH_CLUSTER") {
        return Ok(path.into());
    }
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let output = Command::new(root()?.join(BUILD))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {BUILD}"))?;
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    ensure!(
        output.status.success() && path.is_file(),
        "there is no berth-cluster, the simulated cluster that tests run on. {BUILD} builds it and \
         needs Go; run it to see what is wrong"
    );
    Ok(built.insert(path).clone())
}

/// A new folder for a test's files.
fn make_dir() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(format!("berth-e2e-{id}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
