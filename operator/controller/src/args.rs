//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::Context as _;
use berth_crds::llm_deployment::{EngineType, Vendor};
use berth_inspect::redirects::Hosts;
use berth_render::{
    CacheSite, Site,
    vendor::{GpuResources, NoExtendedResource, ResourceName},
};
use berth_units::Bytes;
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

    /// Extended resource that a vendor's device plugin offers where it is not `nvidia.com/gpu` or
    /// `amd.com/gpu`, such as `NVIDIA=example.com/gpu`. May be given more than once.
    #[arg(long)]
    pub gpu_resource: Vec<GpuResource>,

    /// Image of the step that downloads models.
    #[arg(long, default_value = concat!("berth-fetch:", env!("CARGO_PKG_VERSION")))]
    pub fetch_image: String,

    /// Address of a mirror of the Hugging Face hub, such as `https://hub.example.com`.
    #[arg(long)]
    pub hub: Option<String>,

    /// File with certificates to trust for the mirror besides the usual ones, in PEM.
    #[arg(long, value_name = "PEM")]
    pub hub_ca_file: Option<PathBuf>,

    /// Hosts that the hub may redirect to while models are looked at, such as
    /// `hub.example,*.hub.example,cdn.example:8443`. Absent: those of the public hub if that is the
    /// hub, and else none.
    #[arg(long, value_name = "HOSTS")]
    pub hub_redirect_hosts: Option<Hosts>,

    /// Ask the hub nothing about models: what the manifest and the catalogue do not say is an error.
    #[arg(long)]
    pub no_inspect: bool,

    /// Download nothing: a model that is not on a node already is an error.
    #[arg(long)]
    pub offline: bool,

    /// Folder on every node that models are kept in. Without it every pod downloads its own.
    #[arg(long, value_name = "PATH", value_parser = absolute, requires = "cache_size")]
    pub cache_path: Option<String>,

    /// How much models may take there, such as `500Gi`; a node says otherwise by the annotation
    /// `berth.dev/cache-size`.
    #[arg(long, value_name = "AMOUNT")]
    pub cache_size: Option<Bytes>,

    /// Group that may read and write the cache.
    #[arg(long, default_value = "2001", value_parser = clap::value_parser!(i64).range(1..=2_147_483_647))]
    pub cache_group: i64,

    /// Secret in the operator's namespace with which the pods that look after the caches pull their
    /// image. May be given more than once.
    #[arg(long, value_name = "NAME")]
    pub cache_pull_secret: Vec<String>,

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

impl Args {
    /// How models come to their nodes, and what the GPUs there are called.
    pub fn site(&self) -> anyhow::Result<Site> {
        let hub_ca = match &self.hub_ca_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("--hub-ca-file {}", path.display()))?,
            ),
            None => None,
        };
        let cache = self.cache_path.as_ref().zip(self.cache_size).map(|(path, size)| CacheSite {
            path: path.clone(),
            size,
            group: self.cache_group,
            namespace: self.namespace.clone(),
            pull_secrets: self.cache_pull_secret.clone(),
        });
        let renamed = self.gpu_resource.iter().map(|given| (given.vendor, given.name.clone()));
        Ok(Site {
            gpu_resources: GpuResources::new(renamed).context("--gpu-resource")?,
            fetch_image: self.fetch_image.clone(),
            hub: self.hub.clone(),
            hub_ca,
            offline: self.offline,
            cache,
        })
    }
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
        let engine = named(engine).ok_or_else(wrong)?;
        if engine == EngineType::Custom {
            return Err("a Custom engine has no image but its LLMDeployment's own".to_owned());
        }
        Ok(Self { engine, vendor: named(vendor).ok_or_else(wrong)?, image: image.to_owned() })
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

/// What a vendor's GPUs are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuResource {
    /// Vendor.
    pub vendor: Vendor,
    /// The extended resource.
    pub name: ResourceName,
}

impl FromStr for GpuResource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not VENDOR=RESOURCE, such as NVIDIA=example.com/gpu");
        let (vendor, name) = text.split_once('=').ok_or_else(wrong)?;
        let vendor = named(vendor).ok_or_else(wrong)?;
        Ok(Self { vendor, name: name.parse().map_err(|e: NoExtendedResource| e.to_string())? })
    }
}

/// A path from the root that does not climb, without a slash at its end.
fn absolute(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let climbs = path.split('/').any(|part| part == ".." || part == ".");
    if path.starts_with('/') && !climbs && !path.contains("//") {
        Ok(path.to_owned())
    } else {
        Err(format!("{text:?} is no absolute path of a folder, such as /var/lib/berth"))
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

    #[test]
    fn resources_are_named_by_vendor() {
        let args = |given: &[&str]| {
            let given = given.iter().flat_map(|given| ["--gpu-resource", given]);
            Args::try_parse_from(["berth-operator"].into_iter().chain(given))
        };
        let site = args(&["NVIDIA=example.com/gpu"]).unwrap().site().unwrap();
        assert_eq!(site.gpu_resources.of(Vendor::NVIDIA), "example.com/gpu");
        assert_eq!(site.gpu_resources.of(Vendor::AMD), "amd.com/gpu");
        for wrong in ["", "example.com/gpu", "nvidia=example.com/gpu", "NVIDIA="] {
            assert!(args(&[wrong]).is_err(), "{wrong}");
        }
        let said = args(&["NVIDIA=gpu"]).unwrap_err().to_string();
        assert!(said.contains("--gpu-resource") && said.contains("DOMAIN/NAME"), "{said}");
        let said = format!("{:#}", args(&["NVIDIA=amd.com/gpu"]).unwrap().site().unwrap_err());
        assert!(said.contains("--gpu-resource") && said.contains("amd.com/gpu"), "{said}");
    }
}
