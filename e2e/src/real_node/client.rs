//! Questions to a Service of the real node, asked from its network by the binary `chat`.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;

use super::{SERVED_NAME, run};
use crate::{
    Cluster,
    chat::Tokens,
    load::Counts,
    wait::{Look, patience, until},
};

impl Cluster {
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
        let mut net = OsString::from("--net=");
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
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let told = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Load { child, told })
    }

    /// Waits until a Service answers: its rules follow the pods' readiness in a moment of their own.
    pub async fn answers(&self, service: &str, arguments: &[&str]) -> Result<Reply> {
        until("the Service answers", patience(), async || {
            Ok(match self.ask(service, arguments) {
                Ok(answer) => Look::Done(answer),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
        .await
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
pub struct Load {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Load {
    /// What was counted so far; requests under way are not in it.
    pub fn so_far(&mut self) -> Result<Counts> {
        let input = self.child.stdin.as_mut().context("stopped already")?;
        input.write_all(b"\n").context("the requests' process has ended")?;
        self.next()
    }

    /// Waits until so many more requests have come to an end than had.
    pub async fn more(&mut self, requests: u64) -> Result<()> {
        let ended = |counts: &Counts| counts.answered + counts.failed;
        let enough = ended(&self.so_far()?) + requests;
        until(format!("{requests} more requests come to an end"), patience(), async || {
            let counts = self.so_far()?;
            let done = ended(&counts) >= enough;
            Ok(if done { Look::Done(()) } else { Look::NotYet(counts.to_string()) })
        })
        .await
    }

    /// Lets the requests under way be answered, and tells what was counted.
    pub fn stop(mut self) -> Result<Counts> {
        drop(self.child.stdin.take());
        let counts = self.next()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the requests' process ended with {status}");
        Ok(counts)
    }

    fn next(&mut self) -> Result<Counts> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the requests' process ended without a word");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
