//! The operator as a process beside the cluster, with the rights of its own `ServiceAccount`.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, api::ListParams};

use crate::{
    Cluster, Metrics,
    cluster::root,
    explain::tail,
    http,
    process::{Process, Signal, Usage},
    wait::{Look, patience, until},
};

/// The namespace that the operator lives in.
pub const SYSTEM: &str = "berth-system";

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is in the election.
    pub identity: String,
    /// How long its lease lasts, in seconds.
    pub lease_seconds: u32,
    /// The hub that it asks about models. `None`: it asks nobody.
    pub hub: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self::named("first")
    }
}

impl Options {
    /// An operator of this identity.
    pub fn named(identity: &str) -> Self {
        Self { identity: identity.to_owned(), lease_seconds: 15, hub: None, arguments: Vec::new() }
    }

    /// With another length of the lease.
    #[must_use]
    pub fn lease(mut self, seconds: u32) -> Self {
        self.lease_seconds = seconds;
        self
    }

    /// Asking that hub about models.
    #[must_use]
    pub fn asking(mut self, hub: &str) -> Self {
        self.hub = Some(hub.to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// A running operator. Killed when dropped.
#[derive(Debug)]
pub struct Operator {
    /// Where it answers.
    pub address: SocketAddr,
    /// Who it is in the election.
    pub identity: String,
    /// Its log.
    pub log: PathBuf,
    process: Process,
}

impl Operator {
    /// Starts an operator and waits until it leads and can place.
    pub async fn start(cluster: &Cluster, options: Options) -> Result<Self> {
        let mut operator = Self::spawn(cluster, options).await?;
        operator.wait_leading(cluster).await?;
        Ok(operator)
    }

    /// Starts an operator and waits until its process answers, leading or not.
    pub async fn spawn(cluster: &Cluster, options: Options) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let kubeconfig = cluster.account_kubeconfig(SYSTEM, "berth-operator").await?;
        let binary = binary()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = cluster.dir.join(format!("operator-{count:03}-{}.log", options.identity));
        // A port that was free a moment ago may be taken by now.
        for _ in 0..3 {
            let address = free_address()?;
            let process = run(&binary, &kubeconfig, address, &options, &log)?;
            let identity = options.identity.clone();
            let mut operator = Self { address, identity, log: log.clone(), process };
            match operator.wait_alive().await {
                Ok(()) => return Ok(operator),
                Err(error) if operator.log_text().contains("in use") => drop(error),
                Err(error) => return Err(error),
            }
        }
        bail!("the operator finds no free port; its log is {}", log.display())
    }

    async fn wait_alive(&mut self) -> Result<()> {
        let (address, log) = (self.address, self.log.clone());
        let mut died = None;
        let alive = until("the operator's /healthz answers 200", patience(), async || {
            if let Some(status) = self.process.ended()? {
                died = Some(status);
                return Ok(Look::Done(()));
            }
            let (status, body) = http::get(address, "/healthz").await?;
            Ok(if status == 200 {
                Look::Done(())
            } else {
                Look::NotYet(format!("{status} {body}"))
            })
        });
        let answer = alive.await;
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = died {
            bail!("the operator ended with {status}:\n{}", tail(&text, 30));
        }
        answer.with_context(|| format!("the end of its log:\n{}", tail(&text, 30)))
    }

    /// Waits until this operator holds the lease and is ready.
    pub async fn wait_leading(&mut self, cluster: &Cluster) -> Result<()> {
        let what = format!("operator {} leads", self.identity);
        let leads = until(what, patience(), async || {
            if let Some(status) = self.process.ended()? {
                return Ok(Look::NotYet(format!("it ended with {status}")));
            }
            let holder = lease(cluster).await?.holder_identity.unwrap_or_default();
            if !self.is(&holder) {
                return Ok(Look::NotYet(format!("the lease is held by {holder:?}")));
            }
            let (status, body) = http::get(self.address, "/readyz").await?;
            Ok(if status == 200 {
                Look::Done(())
            } else {
                Look::NotYet(format!("{status} {body}"))
            })
        });
        let leads = leads.await;
        leads.with_context(|| format!("the end of its log:\n{}", tail(&self.log_text(), 30)))
    }

    /// Whether the holder of a lease is this operator: its identity, or that with a suffix by which
    /// two processes of one identity are told apart.
    pub fn is(&self, holder: &str) -> bool {
        let rest = holder.strip_prefix(&self.identity);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }

    /// What it has logged.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        let (status, text) = http::get(self.address, "/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}: {text}");
        Metrics::parse(&text)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.process.wait(patience()).await
    }

    /// What it takes of the machine.
    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }
}

/// The operators' lease: the only one in their namespace.
pub async fn lease(cluster: &Cluster) -> Result<LeaseSpec> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), SYSTEM);
    let mut all = leases.list(&ListParams::default()).await?.items;
    ensure!(all.len() == 1, "{} leases in {SYSTEM}, not 1", all.len());
    all.pop().and_then(|lease| lease.spec).context("a lease without spec")
}

fn run(
    binary: &Path,
    kubeconfig: &Path,
    address: SocketAddr,
    options: &Options,
    log: &Path,
) -> Result<Process> {
    let mut command = Command::new(binary);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("NO_COLOR", "1")
        .args(["--namespace", SYSTEM])
        .args(["--listen", &address.to_string()])
        .args(["--identity", &options.identity])
        .args(["--lease-seconds", &options.lease_seconds.to_string()])
        .args(["--unschedulable-timeout", "30s"])
        .args(["--log-format", "text"])
        .args(options.hub.as_ref().map_or(vec!["--no-inspect"], |hub| vec!["--hub", hub]))
        .args(&options.arguments);
    Process::start(&mut command, log)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The operator's binary: `BERTH_OPERATOR`, or the newest that cargo has built.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BERTH_OPERATOR") {
        return Ok(path.into());
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => path.into(),
        None => root()?.join("target"),
    };
    let built = ["debug", "release"].map(|profile| target.join(profile).join("berth-operator"));
    let newest = built
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    newest.map(|(_, path)| path).context(
        "there is no berth-operator to test; build it with `cargo build -p berth-operator`, or name \
         one in BERTH_OPERATOR",
    )
}
