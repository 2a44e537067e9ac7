//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use berth_crds::llm_deployment::{EngineType, Vendor};
use clap::{Parser, ValueEnum};

/// Runs large language models on the GPUs of this cluster: the Berth operator.
#[derive(Clone, Debug, Parser)]
#[command(name = "berth-operator", version)]
pub struct Args {
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "berth-system")]
    pub namespace: String,

    /// Name under which this operator stands for election.
    #[arg(long, env = "POD_NAME", default_value = "berth-operator")]
    pub identity: String,

    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Seconds that the lease outlives a leader that is gone.
    #[arg(long, default_value = "15", value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease_seconds: u64,

    /// How long a pod may wait for the scheduler before its node is given up.
    #[arg(long, default_value = "30s", value_parser = period)]
    pub unschedulable_timeout: Duration,

    /// File with models that the embedded catalogue lacks, or knows otherwise. May be given more
    /// than once; later files win.
    #[arg(long)]
    pub catalogue: Vec<PathBuf>,

    /// Image of an engine in place of the built-in one, such as
    /// `VLLM:NVIDIA=registry.example/vllm-openai:v1`. May be given more than once. Revisions that
    /// serve keep the image they have.
    #[arg(long)]
    pub engine_image: Vec<EngineImage>,

    /// Runtime class of pods by vendor, such as `NVIDIA=nvidia`. May be given more than once.
    #[arg(long)]
    pub runtime_class: Vec<RuntimeClass>,

    /// Deployments that are looked at side by side.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,

    /// How often engines are asked for what they served; `0s` asks nobody. Absent: every 15 s where
    /// the operator runs in a pod, as the addresses of pods can be reached only there.
    #[arg(long, value_parser = period)]
    pub scrape_interval: Option<Duration>,

    /// How logs are written. `auto`: for people on a terminal, else as JSON.
    #[arg(long, default_value = "auto")]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// By whether there is a terminal.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An image for an engine on a vendor's GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineImage {
    /// Engine.
    pub engine: EngineType,
    /// Vendor.
    pub vendor: Vendor,
    /// Image.
    pub image: String,
}

impl FromStr for EngineImage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ENGINE:VENDOR=IMAGE, such as VLLM:NVIDIA=IMAGE");
        let (which, image) = text.split_once('=').ok_or_else(wrong)?;
        let (engine, vendor) = which.split_once(':').ok_or_else(wrong)?;
        if image.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            engine: named(engine).ok_or_else(wrong)?,
            vendor: named(vendor).ok_or_else(wrong)?,
            image: image.to_owned(),
        })
    }
}

/// A runtime class for a vendor's GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeClass {
    /// Vendor.
    pub vendor: Vendor,
    /// Name of the RuntimeClass.
    pub name: String,
}

impl FromStr for RuntimeClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not VENDOR=NAME, such as NVIDIA=nvidia");
        let (vendor, name) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self { vendor: named(vendor).ok_or_else(wrong)?, name: name.to_owned() })
    }
}

/// An enum value by the name that the API gives it.
fn named<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

fn period(text: &str) -> Result<Duration, String> {
    let seconds = berth_crds::Period(text.to_owned()).seconds();
    let seconds = seconds.ok_or_else(|| format!("{text:?} is no span of time such as 30s"))?;
    Ok(Duration::from_secs(seconds.into()))
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
    fn images_are_named_by_engine_and_vendor() {
        let image: EngineImage = "LlamaCpp:AMD=registry/x:1@sha256:ab".parse().unwrap();
        assert_eq!((image.engine, image.vendor), (EngineType::LlamaCpp, Vendor::AMD));
        assert_eq!(image.image, "registry/x:1@sha256:ab");
        for wrong in ["", "VLLM=x", "VLLM:NVIDIA", "vllm:NVIDIA=x", "VLLM:NVIDIA="] {
            assert!(wrong.parse::<EngineImage>().is_err(), "{wrong}");
        }
    }
}
