//! The command line.

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use berth_inspect::{Selection, oci::Reference, redirects::Redirects};
use clap::{ArgGroup, Args as Group, Parser, Subcommand};
use reqwest::Url;

use crate::{
    error::Error,
    fetch::Request,
    keep::Work,
    name::{Component, Place, Repository, Revision},
    retry::Policy,
    settings::{Authorities, Settings, Token, endpoint},
};

/// Brings a model's files onto a node before the engine starts, and keeps the cache there.
#[derive(Debug, Parser)]
#[command(name = "berth-fetch", version)]
pub struct Args {
    /// File that gets the last word; left alone if it is not there.
    #[arg(long, global = true, default_value = "/dev/termination-log")]
    pub termination_message: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Downloads from a Hugging Face hub, or a mirror that speaks its file API.
    #[command(args_override_self = true)]
    Hub(Box<HubArgs>),
    /// Says what a model is, from its headers, as one line of JSON.
    #[command(subcommand)]
    Inspect(Inspect),
    /// Keeps a node's cache: removes models, then prepares folders of namespaces.
    Keep(KeepArgs),
    /// Reads all files of a directory and compares them with the manifest.
    Verify {
        /// The model's directory.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
}

/// What to download, and how.
#[derive(Debug, Group)]
pub struct HubArgs {
    /// Repository.
    #[arg(long, value_name = "ORG/NAME")]
    pub repository: Repository,

    /// Branch, tag or commit. A branch stands for one commit from the first download on.
    #[arg(long, default_value = "main")]
    pub revision: Revision,

    /// Name of one file, or a pattern with * and ?; without it, what an engine needs.
    #[arg(long, value_name = "PATTERN")]
    pub files: Option<String>,

    /// The model must be one GGUF file, which is found as .berth/model.gguf in its directory. Without
    /// --files only GGUF files count.
    #[arg(long)]
    pub one_file: bool,

    /// The model's directory. Each commit needs one of its own.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,

    /// How long to wait for others: until the folder that the model's directory is in is there and
    /// may be written, and until there is room. 0s: not at all, and folders are made.
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = wait)]
    pub wait: Duration,

    /// Use no network: the files are in the directory, or it is an error.
    #[arg(long)]
    pub offline: bool,

    /// Address of /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Files at once.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: u8,

    /// How to ask.
    #[command(flatten)]
    pub reach: Reach,
}

/// How to ask a hub.
#[derive(Debug, Group)]
pub struct Reach {
    /// The hub.
    #[arg(
        long,
        env = "HF_ENDPOINT",
        hide_env_values = true,
        default_value = "https://huggingface.co",
        value_parser = endpoint
    )]
    pub endpoint: Url,

    /// Environment variable with the token.
    #[arg(long, value_name = "NAME", default_value = "HF_TOKEN")]
    pub token_env: String,

    /// How patient to be.
    #[command(flatten)]
    pub patience: Patience,
}

/// How long to wait, how often to try, and whom to trust.
#[derive(Debug, Group)]
pub struct Patience {
    /// How long no byte may come until an attempt has failed.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub timeout: Duration,

    /// Attempts in a row that bring nothing until it is given up.
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub attempts: u32,

    /// Pause after the first failed attempt; it doubles with each further one, up to 30s.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub pause: Duration,

    /// Certificates to trust besides the system's, in PEM.
    #[arg(long, value_name = "PEM")]
    pub ca_file: Option<PathBuf>,

    /// The same, not in a file but as text.
    #[arg(long, env = "HUB_CA_PEM", hide_env_values = true, value_name = "TEXT")]
    pub ca_pem: Option<String>,
}

/// Where the model is that should be inspected.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// On a Hugging Face hub, or a mirror that speaks its file API.
    #[command(args_override_self = true)]
    Hub(Box<InspectHub>),
    /// In a registry.
    #[command(args_override_self = true)]
    Oci(Box<InspectArtifact>),
    /// In a directory.
    Dir(InspectDirectory),
}

/// A model on a hub.
#[derive(Debug, Group)]
pub struct InspectHub {
    /// Repository.
    #[arg(long, value_name = "ORG/NAME")]
    pub repository: Repository,

    /// Branch, tag or commit.
    #[arg(long, default_value = "main")]
    pub revision: Revision,

    /// Which files.
    #[command(flatten)]
    pub chosen: Chosen,

    /// How to ask.
    #[command(flatten)]
    pub reach: Reach,
}

/// A model in a registry.
#[derive(Debug, Group)]
pub struct InspectArtifact {
    /// The artifact: REGISTRY/REPOSITORY:TAG or @DIGEST.
    #[arg(value_name = "REFERENCE")]
    pub reference: Reference,

    /// File with the registries' passwords: the .dockerconfigjson of an imagePullSecret.
    #[arg(long, value_name = "FILE")]
    pub passwords: Option<PathBuf>,

    /// The registry speaks http and no https.
    #[arg(long)]
    pub plain_http: bool,

    /// Which files.
    #[command(flatten)]
    pub chosen: Chosen,

    /// How patient to be.
    #[command(flatten)]
    pub patience: Patience,
}

/// A model in a directory.
#[derive(Debug, Group)]
pub struct InspectDirectory {
    /// The model's directory.
    #[arg(value_name = "DIR")]
    pub path: PathBuf,

    /// The volume that links may lead around in; without it, the model's directory.
    #[arg(long, value_name = "DIR")]
    pub within: Option<PathBuf>,

    /// Which files.
    #[command(flatten)]
    pub chosen: Chosen,
}

/// Which files of a model, and how long they may take.
#[derive(Debug, Group)]
pub struct Chosen {
    /// Name of one file, or a pattern with * and ?; without it, what an engine needs.
    #[arg(long, value_name = "PATTERN")]
    pub files: Option<String>,

    /// Without --files, only GGUF files count.
    #[arg(long)]
    pub gguf: bool,

    /// How long all of it may take.
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = span)]
    pub deadline: Duration,
}

impl Chosen {
    /// As it is asked for.
    pub fn selection(&self) -> Selection<'_> {
        Selection { files: self.files.as_deref(), gguf: self.gguf }
    }
}

impl Reach {
    /// How to reach the hub; reads the token from the environment.
    pub fn settings(&self) -> Result<Settings, Error> {
        let token = match env::var(&self.token_env) {
            Ok(secret) => Token::new(&secret)?,
            Err(_) => None,
        };
        Ok(Settings {
            endpoint: self.endpoint.clone(),
            token,
            timeout: self.patience.timeout,
            authorities: self.patience.authorities(),
            redirects: Redirects::Anywhere,
        })
    }
}

impl Patience {
    /// Whom to trust.
    pub fn authorities(&self) -> Authorities {
        Authorities { file: self.ca_file.clone(), pem: self.ca_pem.clone() }
    }

    /// When to try again.
    pub fn policy(&self) -> Policy {
        Policy { attempts: self.attempts, pause: self.pause }
    }
}

/// What to do in a node's cache.
#[derive(Debug, Group)]
#[command(group = ArgGroup::new("work").args(["evict", "prepare"]).required(true).multiple(true))]
pub struct KeepArgs {
    /// The folder that holds those of all namespaces.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,

    /// Remove a model, unless one downloads it; one that is not there is no error.
    #[arg(long, value_name = "FOLDER/KEY")]
    pub evict: Vec<Place>,

    /// Make a namespace's folder, or give it its owner and mode; needs root.
    #[arg(long, value_name = "FOLDER", requires = "group")]
    pub prepare: Vec<Component>,

    /// The group, by number, that may use prepared folders.
    #[arg(long, value_name = "GID", value_parser = clap::value_parser!(u32).range(1..0xffff_ffff))]
    pub group: Option<u32>,
}

impl KeepArgs {
    /// What is to be done.
    pub fn work(&self) -> Work {
        Work {
            root: self.root.clone(),
            evict: self.evict.clone(),
            prepare: self.prepare.clone(),
            group: self.group.unwrap_or_default(),
        }
    }
}

impl HubArgs {
    /// The request; reads the token from the environment.
    pub fn request(&self) -> Result<Request, Error> {
        Ok(Request {
            repository: self.repository.clone(),
            revision: self.revision.clone(),
            files: self.files.clone(),
            one_file: self.one_file,
            directory: self.into.clone(),
            wait: self.wait,
            offline: self.offline,
            parallel: self.parallel.into(),
            settings: self.reach.settings()?,
            policy: self.reach.patience.policy(),
        })
    }
}

/// A span of time: `500ms`, `30s`, `5m`.
fn span(text: &str) -> Result<Duration, String> {
    match wait(text) {
        Ok(Duration::ZERO) => Err(format!("{text:?} is no time at all")),
        other => other,
    }
}

/// A span of time that may be none: `0s`.
fn wait(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time such as 30s");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count: u32 = count.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        _ => return Err(wrong()),
    };
    Ok(unit * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn spans_of_time() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("5m"), Ok(Duration::from_mins(5)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "0s", "99999999999s", "1h2"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert_eq!(wait("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_done() {
        let parse = |repository: &str, more: &[&str]| {
            let base = ["berth-fetch", "hub", "--into", "/x", "--repository", repository];
            Args::try_parse_from(base.iter().chain(more))
        };
        assert!(parse("org/name", &[]).is_ok());
        assert!(parse("name", &[]).is_err());
        assert!(parse("org/name", &["--revision", "../x"]).is_err());
        assert!(parse("org/name", &["--endpoint", "https://u:p@x"]).is_err());
    }

    #[test]
    fn a_cache_is_kept_only_with_something_to_do() {
        let parse = |more: &[&str]| {
            let base = ["berth-fetch", "keep", "--root", "/x"];
            Args::try_parse_from(base.iter().chain(more))
        };
        assert!(parse(&["--evict", "a/b", "--evict", "a/c"]).is_ok());
        assert!(
            parse(&["--group", "7", "--prepare", "a", "--prepare", "b", "--evict", "a/c"]).is_ok()
        );
        for wrong in [
            &[][..],
            &["--group", "7"],
            &["--prepare", "a"],
            &["--prepare", "a", "--group", "0"],
            &["--prepare", "a", "--group", "4294967295"],
            &["--prepare", "a/b", "--group", "7"],
            &["--evict", "a"],
            &["--evict", "../a"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
