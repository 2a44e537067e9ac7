//! Runs the binary as a pod would.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use crate::mirror::Mirror;

pub const TOKEN: &str = "hf_averysecrettoken";

/// No test takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A node's volume, and a place for what the process says.
pub struct Node {
    root: TempDir,
}

/// A process that ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub said: String,
    pub out: String,
    /// The termination message.
    pub message: String,
}

impl Done {
    /// The last line.
    pub fn word(&self) -> &str {
        self.said.lines().last().unwrap_or_default()
    }

    /// Fails unless it ended with this code, and a sentence with these parts, which is also the
    /// termination message.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.message, self.word(), "{self:#?}");
        for part in parts {
            assert!(self.word().contains(part), "no {part:?} in {self:#?}");
        }
    }

    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!(self.code, 0, "{self:#?}");
        assert_eq!(self.message, "", "{self:#?}");
    }
}

/// A process that runs.
pub struct Running {
    pub child: Child,
    said: PathBuf,
    out: PathBuf,
    message: PathBuf,
}

impl Running {
    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    pub async fn end(mut self) -> Done {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it still runs; it said {}", self.said()));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let done = Done {
            code: status.unwrap().code().unwrap_or(-1),
            said: self.said(),
            out: read(&self.out),
            message: read(&self.message),
        };
        for text in [&done.said, &done.out, &done.message] {
            assert!(!text.contains("verysecret"), "a secret is in {text}");
        }
        done
    }
}

impl Node {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// The model's directory.
    pub fn model(&self) -> PathBuf {
        self.root.path().join("model")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.model().join(name)
    }

    /// A place beside the model's directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The only file that grows, and how far it has come.
    pub fn partial(&self) -> Option<(PathBuf, u64)> {
        let entry = fs::read_dir(self.path(".berth/partial")).ok()?.next()?.unwrap();
        Some((entry.path(), entry.metadata().ok()?.len()))
    }

    /// Starts it with these arguments, patience for tests, and nothing in the environment but the
    /// token.
    pub fn start(&self, program: &[&str], args: &[&str], token: Option<&str>) -> Running {
        let number = fs::read_dir(self.root.path()).unwrap().count();
        let file = |name: &str| self.root.path().join(format!("{number}-{name}"));
        let (said, out, message) = (file("said"), file("out"), file("message"));
        fs::write(&message, "").unwrap();
        // Whoever it runs as.
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
        let program: Vec<_> =
            program.iter().copied().chain([env!("CARGO_BIN_EXE_berth-fetch")]).collect();
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .args(args)
            .arg("--termination-message")
            .arg(&message)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&said).unwrap())
            .kill_on_drop(true);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        Running { child: command.spawn().unwrap(), said, out, message }
    }

    pub fn arguments(&self, endpoint: &str, more: &[&str]) -> Vec<String> {
        let model = self.model();
        let base = ["hub", "--repository", "org/name", "--into", model.to_str().unwrap()];
        let quick = ["--timeout", "1s", "--attempts", "3", "--pause", "10ms", "--wait", "0s"];
        let from = ["--endpoint", endpoint];
        let all = base.iter().chain(&from).chain(&quick).chain(more);
        all.map(|&argument| argument.to_owned()).collect()
    }

    pub fn fetch(&self, endpoint: &str, more: &[&str]) -> Running {
        let arguments = self.arguments(endpoint, more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.start(&[], &arguments, None)
    }

    /// Fetches from a mirror, to the end.
    pub async fn get(&self, mirror: &Mirror, more: &[&str]) -> Done {
        self.fetch(&mirror.endpoint(), more).end().await
    }

    pub async fn get_with_token(&self, mirror: &Mirror, more: &[&str]) -> Done {
        let endpoint = mirror.endpoint();
        let arguments = self.arguments(&endpoint, more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.start(&[], &arguments, Some(TOKEN)).end().await
    }

    pub async fn verify(&self) -> Done {
        let model = self.model();
        self.start(&[], &["verify", "--into", model.to_str().unwrap()], None).end().await
    }

    /// Fails unless these files are as the mirror has them.
    #[track_caller]
    pub fn holds(&self, mirror: &Mirror, names: &[&str]) {
        for name in names {
            let found = fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(found == mirror.content(name), "{name} differs");
        }
    }
}

/// Says what is not tested, past the test harness, which keeps what a test that passes prints.
pub fn skip(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// The program that runs the command after it as a user of this group besides; `None`, loudly,
/// where that is not allowed.
pub fn as_user(user: u32, group: Option<u32>) -> Option<Vec<String>> {
    as_user_with(user, group, "-all")
}

/// The same, with these of root's capabilities where it is root.
pub fn as_user_with(user: u32, group: Option<u32>, capabilities: &str) -> Option<Vec<String>> {
    let groups = group.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}"));
    let capabilities = format!("--bounding-set={capabilities}");
    let (user, own) = (format!("--reuid={user}"), format!("--regid={user}"));
    let program = ["setpriv".to_owned(), user, own, groups, capabilities];
    let works = std::process::Command::new(&program[0])
        .args(&program[1..])
        .args([env!("CARGO_BIN_EXE_berth-fetch"), "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        skip(
            "nothing can be run as other users here: this needs root, setpriv, and a checkout that all may read",
        );
    }
    works.then(|| program.into())
}

/// Waits until something is so.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let started = Instant::now();
    async move {
        while !so() {
            assert!(started.elapsed() < PATIENCE, "waited in vain at {caller}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
