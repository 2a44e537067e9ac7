//! Any server with the API of `OpenAI`, by an image of the user's: the command line is the user's
//! too, and what Berth decided is told in the environment, to be used in it as
//! `$(BERTH_MODEL_PATH)` by Kubernetes' own expansion.

use berth_crds::llm_deployment::{KvCacheDtype, Vendor};
use berth_units::Bytes;
use berth_vram::MemoryFraction;

use super::{
    Directory, Engine, Format, HOME, Metrics, PORT, Reserved, Startup, TMP, USER, directory,
    grace_first, python,
};
use crate::{Claim, EngineTemplate, ModelSource, Template, source::Location};

pub(super) struct Custom;

/// Seconds that a server has to end after its signal. What it does then is not known.
const TEARDOWN: u32 = 30;

/// What is told in the environment, in the order of [`Custom::handed_over`].
pub(super) const HANDED_OVER: [&str; 10] = [
    "BERTH_MODEL_PATH",
    "BERTH_MODEL_NAME",
    "BERTH_CONTEXT_LENGTH",
    "BERTH_MAX_CONCURRENCY",
    "BERTH_TENSOR_PARALLEL_SIZE",
    "BERTH_GPU_COUNT",
    "BERTH_GPU_MEMORY_BYTES",
    "BERTH_GPU_MEMORY_FRACTION",
    "BERTH_KV_CACHE_DTYPE",
    "BERTH_PORT",
];

impl Engine for Custom {
    fn name(&self) -> &'static str {
        "custom engine"
    }

    fn image(&self, _: Vendor) -> Option<&'static str> {
        None
    }

    fn format(&self) -> Option<Format> {
        None
    }

    fn command(&self, server: &EngineTemplate) -> Vec<String> {
        server.custom.as_ref().map(|server| server.command.clone()).unwrap_or_default()
    }

    /// Should an image lack it: it is there all the same by then, which is all that counts.
    fn no_work(&self) -> &'static [&'static str] {
        &["true"]
    }

    fn args(&self, _: &Template, _: &Claim) -> Vec<String> {
        Vec::new()
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let kernels = vec![("TRITON_CACHE_DIR", python::cache("/triton"))];
        [python::user(), kernels, python::quiet()].concat()
    }

    /// All of it: nobody knows what the server needs.
    fn overridable(&self) -> Vec<&'static str> {
        self.env().into_iter().map(|(name, _)| name).collect()
    }

    fn handed_over(&self, template: &Template, claim: &Claim) -> Vec<(&'static str, String)> {
        let Location { directory, file } = template.source.location();
        let path = file.map_or(directory.clone(), |file| format!("{directory}/{file}"));
        // Rounded down, like what other engines are told.
        let fraction = MemoryFraction::of(claim.bytes_per_gpu, claim.total_per_gpu)
            .map_or_else(|| "0.95".to_owned(), |fraction| fraction.to_string());
        let values = [
            path,
            template.served_name.clone(),
            template.context_length.to_string(),
            template.max_concurrency.to_string(),
            template.tensor.to_string(),
            template.gpus.to_string(),
            claim.bytes_per_gpu.get().to_string(),
            fraction,
            dtype(template.engine.kv_cache_dtype).to_owned(),
            self.port(&template.engine).to_string(),
        ];
        HANDED_OVER.into_iter().zip(values).collect()
    }

    fn user(&self, server: &EngineTemplate) -> i64 {
        server.custom.as_ref().map_or(USER, |server| server.user)
    }

    fn directories(&self, server: &EngineTemplate) -> Vec<Directory> {
        let mut all = vec![directory("home", HOME, Bytes::gib(10)), TMP];
        for (at, own) in
            server.custom.iter().flat_map(|server| server.directories.iter()).enumerate()
        {
            if let Some(known) = all.iter_mut().find(|known| known.path == own.path) {
                known.size = own.size;
            } else {
                let volume = format!("own-{at}").into();
                all.push(Directory { volume, path: own.path.clone().into(), size: own.size });
            }
        }
        all
    }

    fn working_directory(&self) -> Option<&'static str> {
        None
    }

    fn port(&self, server: &EngineTemplate) -> u16 {
        server.custom.as_ref().map_or(PORT, |server| server.port)
    }

    fn health_path(&self, server: &EngineTemplate) -> String {
        server
            .custom
            .as_ref()
            .map_or_else(|| "/health".to_owned(), |server| server.health_path.clone())
    }

    fn metrics(&self) -> Option<&'static Metrics> {
        None
    }

    fn startup(&self, _: &str) -> Startup {
        Startup::default()
    }

    /// A signal may end the server at once, with whatever it is doing. So the grace is spent before
    /// it, while the server goes on without new requests.
    fn pre_stop_seconds(&self, shutdown_grace: u32) -> u32 {
        grace_first(shutdown_grace)
    }

    fn stop_seconds(&self, _: u32) -> u32 {
        TEARDOWN
    }

    fn reserved_arguments(&self) -> &'static [Reserved] {
        &[]
    }

    fn abbreviates(&self) -> bool {
        false
    }

    fn reserved_environment(&self) -> &'static [Reserved] {
        &[Reserved {
            names: &["BERTH_*"],
            instead: "Berth tells the server by such names what it decided; use another name",
        }]
    }

    fn refused_source(&self, _: &ModelSource) -> Option<String> {
        None
    }
}

/// As in the spec.
fn dtype(dtype: KvCacheDtype) -> &'static str {
    match dtype {
        KvCacheDtype::Auto => "Auto",
        KvCacheDtype::FP8 => "FP8",
        KvCacheDtype::FP8_E5M2 => "FP8_E5M2",
        KvCacheDtype::F16 => "F16",
        KvCacheDtype::Q8_0 => "Q8_0",
        KvCacheDtype::Q4_0 => "Q4_0",
    }
}
