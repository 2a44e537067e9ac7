//! The inference servers, one file each: what an engine's image needs, and how a template becomes
//! its command line.
//!
//! The flags of every engine are checked against its own published list
//! (`tests/flags_are_published.rs`).

mod custom;
mod llama_cpp;
pub mod log;
mod memory;
pub mod metrics;
mod python;
mod refuse;
mod sglang;
mod version;
mod vllm;

use std::borrow::Cow;

use berth_crds::llm_deployment::{EngineType, Vendor};
use berth_units::Bytes;
use k8s_openapi::api::core::v1::VolumeMount;

pub use log::Startup;
pub use metrics::Metrics;
pub use refuse::{refused_argument, refused_environment, refused_reference};
pub use version::{stated_version, version};

use crate::{Claim, EngineTemplate, ModelSource, Template};

/// The port on which engines serve inside their pods, unless the user says another for an engine of
/// their own.
pub const PORT: u16 = 8000;

/// The user id that engines run as where neither their image nor the spec wants another: one number,
/// so that a volume can serve them all.
pub const USER: i64 = 2000;

/// Seconds until the endpoints of the Service are without a deleted pod on every node: then no new
/// request comes in.
const PROPAGATION: u32 = 10;

/// Where the engine's user is at home.
pub(crate) const HOME: &str = "/home/berth";

/// The directory for temporary files.
pub(crate) const TMP: Directory = directory("tmp", "/tmp", Bytes::gib(2));

/// How a model's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Safetensors, with a `config.json` beside them.
    Safetensors,
    /// GGUF.
    Gguf,
}

/// A directory that the engine writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Name of its volume.
    pub volume: Cow<'static, str>,
    /// Its path.
    pub path: Cow<'static, str>,
    /// The most that it may hold.
    pub size: Bytes,
}

const fn directory(volume: &'static str, path: &'static str, size: Bytes) -> Directory {
    Directory { volume: Cow::Borrowed(volume), path: Cow::Borrowed(path), size }
}

impl Directory {
    /// Its volume, at its path.
    pub(crate) fn mount(&self) -> VolumeMount {
        VolumeMount {
            name: self.volume.clone().into_owned(),
            mount_path: self.path.clone().into_owned(),
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
    /// touches no deployment that serves. `None`: the user must name one.
    fn image(&self, vendor: Vendor) -> Option<&'static str>;

    /// How the weights that it serves are stored. `None`: it may serve any.
    fn format(&self) -> Option<Format>;

    /// Its executable. It is process 1 of the container: its children die with it, and it gets
    /// the signals. Empty: the image's own.
    fn command(&self, server: &EngineTemplate) -> Vec<String>;

    /// Something of its image that needs no GPU and ends at once.
    fn no_work(&self) -> &'static [&'static str];

    /// Berth's arguments for a template, and the part of the GPUs that the claim gives it; the
    /// user's come after them.
    fn args(&self, template: &Template, claim: &Claim) -> Vec<String>;

    /// Berth's environment. A value here cannot be overridden by the user's, except for those of
    /// [`Engine::overridable`].
    fn env(&self) -> Vec<(&'static str, String)>;

    /// Names in [`Engine::env`] where the user's value counts.
    fn overridable(&self) -> Vec<&'static str>;

    /// What an engine that is given no arguments of Berth's is told in its environment. Nobody else
    /// may set these.
    fn handed_over(&self, _: &Template, _: &Claim) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The user id that it runs as.
    fn user(&self, server: &EngineTemplate) -> i64;

    /// The directories that it writes to, besides the model's. Everything else is read-only.
    fn directories(&self, server: &EngineTemplate) -> Vec<Directory>;

    /// Where it starts. `None`: where its image says.
    fn working_directory(&self) -> Option<&'static str> {
        Some(HOME)
    }

    /// The port that it serves on.
    fn port(&self, _: &EngineTemplate) -> u16 {
        PORT
    }

    /// HTTP path that answers 200 once requests are served.
    fn health_path(&self, _: &EngineTemplate) -> String {
        "/health".to_owned()
    }

    /// Its metrics. `None`: it is not asked for any.
    fn metrics(&self) -> Option<&'static Metrics>;

    /// What it said of itself while it started, by the beginning of its log.
    fn startup(&self, log: &str) -> Startup;

    /// Seconds that a pod goes on as it is after its deletion, before the engine is told to end. By
    /// itself: for an engine that waits for its requests then. A grace of 0 says that requests need
    /// not be saved.
    fn pre_stop_seconds(&self, shutdown_grace: u32) -> u32 {
        if shutdown_grace == 0 { 0 } else { PROPAGATION }
    }

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
        EngineType::SGLang => &sglang::Sglang,
        EngineType::LlamaCpp => &llama_cpp::LlamaCpp,
        EngineType::Custom => &custom::Custom,
    }
}

/// Berth's own choice of image, where it has one.
pub fn default_image(engine: EngineType, vendor: Vendor) -> Option<&'static str> {
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
    of(engine).format().is_none_or(|own| own == format)
}

/// Why an engine cannot be given a source, and what to do about it.
pub fn refused_source(engine: EngineType, source: &ModelSource) -> Option<String> {
    of(engine).refused_source(source)
}

/// Words of our own.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The engine in the estimator's words.
pub fn estimated(engine: EngineType) -> berth_vram::Engine {
    match engine {
        EngineType::VLLM => berth_vram::Engine::Vllm,
        EngineType::SGLang => berth_vram::Engine::Sglang,
        EngineType::LlamaCpp => berth_vram::Engine::LlamaCpp,
        EngineType::Custom => berth_vram::Engine::Custom,
    }
}

/// For an engine that drops its requests when it is told to end: the grace is spent before.
fn grace_first(shutdown_grace: u32) -> u32 {
    if shutdown_grace == 0 { 0 } else { shutdown_grace.max(PROPAGATION) }
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
        assert!(!serves(EngineType::SGLang, Format::Gguf));
        assert!(serves(EngineType::Custom, Format::Gguf));
        assert!(serves(EngineType::Custom, Format::Safetensors));
    }
}
