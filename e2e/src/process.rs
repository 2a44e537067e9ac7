//! Processes that end with the test, however it ends.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A child process. It is killed when this is dropped, and also when this very process is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// A shell that waits for our end of its input to close, and then kills the child: what a drop
    /// cannot do when we get SIGKILL ourselves.
    leash: Option<Child>,
}

impl Process {
    /// Starts `command` with its output going to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_owned();
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let leash = Self::leash(child.id()).ok();
        Ok(Self { child, leash })
    }

    fn leash(pid: u32) -> Result<Child> {
        use std::os::unix::process::CommandExt as _;
        Ok(Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -KILL \"$1\" 2>/dev/null", "leash"])
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must not take it before it has done its work.
            .process_group(0)
            .spawn()?)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {pid:?}"))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.unleash();
        }
        Ok(ended)
    }

    /// Waits for its end.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < until, "process {} does not end", self.pid());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        // The leash first: the pid must not be reused while it still points there.
        self.unleash();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn unleash(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            let _ = leash.kill();
            let _ = leash.wait();
        }
    }

    /// Resident memory in bytes, and seconds of CPU used so far.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: u64,
    /// The most that it ever was.
    pub peak_resident: u64,
    /// Seconds of CPU used so far.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Of a process by pid, from `/proc`.
    pub fn of(pid: u32) -> Result<Self> {
        /// What Linux counts CPU time in, per second (`USER_HZ`).
        const TICKS: f64 = 100.0;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |field: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(field));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(number.with_context(|| format!("/proc/{pid}/status has no {field}"))?.parse()?)
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name in brackets, which may hold anything: fields 3 and on.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| -> Result<u64> {
            Ok(fields.get(field - 3).context("/proc/PID/stat is short")?.parse()?)
        };
        Ok(Self {
            resident: kib("VmRSS:")? << 10,
            peak_resident: kib("VmHWM:")? << 10,
            cpu_seconds: (ticks(14)? + ticks(15)?) as f64 / TICKS,
        })
    }
}
