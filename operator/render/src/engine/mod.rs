//! The inference servers, one file each: what an engine's image needs, and how a template becomes
//! its command line.
//!
//! The flags of every engine are checked against its own published list
//! (`tests/flags_are_published.rs`).

mod llama_cpp;
pub mod log;
pub mod metrics;
mod refuse;
mod vllm;

use berth_crds::llm_deployment::{EngineType, Vendor};
use berth_units::Bytes;
use k8s_openapi::api::core::v1::VolumeMount;

pub use log::Startup;
pub use metrics::Metrics;
pub use refuse::{refused_argument, refused_environment};

use crate::{ModelSource, Template};

/// The port on which every engine serves, inside its pod.
pub const PORT: u16 = 8000;

/// Where the engine's user is at home.
pub(crate) const HOME: &str = "/home/berth";

/// The directory for temporary files.
pub(crate) const TMP: Directory = Directory { volume: "tmp", path: "/tmp", size: Bytes::gib(2) };

/// How a model's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Safetensors, with a `config.json` beside them.
    Safetensors,
    /// GGUF.
    Gguf,
}

/// A directory that the engine writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Name of its volume.
    pub volume: &'static str,
    /// Its path.
    pub path: &'static str,
    /// The most that it may hold.
    pub size: Bytes,
}

impl Directory {
    /// Its volume, at its path.
    pub(crate) fn mount(self) -> VolumeMount {
        VolumeMount {
            name: self.volume.to_owned(),
            mount_path: self.path.to_owned(),
            ..VolumeMount::default()
        }
    }
}

/// An argument that a user may not give, by all its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Its names, as the engine publishes them.
    pub names: &'static [&'static str],
    /// Why not, and what to do instead: the end of a sentence that begins with its name.
    pub instead: &'static str,
}

/// An inference server. All that an engine differs in, and nothing else.
pub trait Engine: Sync {
    /// Its name for people.
    fn name(&self) -> &'static str;

    /// Berth's own choice of image for a vendor's GPUs. Frozen in the revision: a newer one here
    /// touches no deployment that serves.
    fn image(&self, vendor: Vendor) -> &'static str;

    /// How the weights that it serves are stored.
    fn format(&self) -> Format;

    /// Its executable. It is process 1 of the container: its children die with it, and it gets
    /// the signals.
    fn command(&self) -> &'static [&'static str];

    /// Something of its image that needs no GPU and ends at once.
    fn no_work(&self) -> &'static [&'static str];

    /// Berth's arguments for a template; the user's come after them.
    fn args(&self, template: &Template) -> Vec<String>;

    /// Berth's environment. A value here cannot be overridden by the user's, except for those of
    /// [`Engine::overridable`].
    fn env(&self) -> Vec<(&'static str, String)>;

    /// Names in [`Engine::env`] where the user's value counts.
    fn overridable(&self) -> &'static [&'static str];

    /// The user id that it runs as.
    fn user(&self) -> i64;

    /// The directories that it writes to, besides the model's. Everything else is read-only.
    fn directories(&self) -> &'static [Directory];

    /// HTTP path that answers 200 once requests are served.
    fn health_path(&self) -> &'static str {
        "/health"
    }

    /// Its metrics.
    fn metrics(&self) -> &'static Metrics;

    /// What it said of itself while it started, by the beginning of its log.
    fn startup(&self, log: &str) -> Startup;

    /// Seconds that a pod goes on as it is after its deletion, before the engine is told to end.
    fn pre_stop_seconds(&self, shutdown_grace: u32) -> u32;

    /// Seconds that it then has to end.
    fn stop_seconds(&self, shutdown_grace: u32) -> u32;

    /// Arguments that a user may not give.
    fn reserved_arguments(&self) -> &'static [Reserved];

    /// Whether an argument may be shortened to any unambiguous beginning.
    fn abbreviates(&self) -> bool;

    /// Environment variables that a user may not set, besides those that Berth sets: a name, or a
    /// beginning with a `*`.
    fn reserved_environment(&self) -> &'static [Reserved];

    /// Why it cannot be given this source, and what to do about it.
    fn refused_source(&self, source: &ModelSource) -> Option<String>;
}

/// The engine of a type.
pub fn of(engine: EngineType) -> &'static dyn Engine {
    match engine {
        EngineType::VLLM => &vllm::Vllm,
        EngineType::LlamaCpp => &llama_cpp::LlamaCpp,
    }
}

/// Berth's own choice of image.
pub fn default_image(engine: EngineType, vendor: Vendor) -> &'static str {
    of(engine).image(vendor)
}

/// How the weights behind a uri are stored, by the names in it.
pub fn format(uri: &str, files: Option<&str>) -> Format {
    let gguf = |name: &str| name.to_ascii_lowercase().contains("gguf");
    if gguf(uri) || files.is_some_and(gguf) { Format::Gguf } else { Format::Safetensors }
}

/// The engine for a model whose spec names none: llama.cpp for GGUF, else vLLM.
pub fn default_engine(uri: &str, files: Option<&str>) -> EngineType {
    match format(uri, files) {
        Format::Gguf => EngineType::LlamaCpp,
        Format::Safetensors => EngineType::VLLM,
    }
}

/// Whether an engine serves weights that are stored like this.
pub fn serves(engine: EngineType, format: Format) -> bool {
    of(engine).format() == format
}

/// Why an engine cannot be given a source, and what to do about it.
pub fn refused_source(engine: EngineType, source: &ModelSource) -> Option<String> {
    of(engine).refused_source(source)
}

/// `--name value` as two arguments.
fn pair(args: &mut Vec<String>, name: &str, value: impl std::fmt::Display) {
    args.extend([name.to_owned(), value.to_string()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_goes_to_llama_cpp_and_the_rest_to_vllm() {
        for (uri, files, engine) in [
            ("hf://Qwen/Qwen2.5-7B-Instruct", None, EngineType::VLLM),
            ("hf://Qwen/Qwen2.5-7B-Instruct-GGUF", None, EngineType::LlamaCpp),
            ("hf://someone/model", Some("*Q4_K_M.gguf"), EngineType::LlamaCpp),
            ("pvc://models/llama/Q8_0.GGUF", None, EngineType::LlamaCpp),
            ("s3://models/qwen", Some("*.safetensors"), EngineType::VLLM),
        ] {
            assert_eq!(default_engine(uri, files), engine, "{uri}");
            assert!(serves(engine, format(uri, files)));
        }
        assert!(!serves(EngineType::VLLM, Format::Gguf));
    }
}
