//! CPU, memory and storage of a pod where the spec leaves them out, and how long a start may take.
//!
//! The figures are frozen with the revision, so a better formula here touches no pod that runs.

use berth_crds::llm_deployment::{self as spec, EngineType};
use berth_units::{Bytes, MilliCpu};

use crate::{EngineTemplate, ModelSource, Resources};

/// An amount in the spec that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resources.{field}: {message}")]
pub struct AmountError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, and how to write it.
    pub message: String,
}

/// What one pod takes: what the spec says, and for the rest:
///
/// - CPU: 4 + 2 for each GPU. vLLM asks for 2 + N physical cores for N GPUs (API server, engine
///   core and one busy loop a GPU; its optimisation guide), which are twice as many logical ones.
///   Whole cores, so that a static CPU manager can pin them.
/// - Memory: see [`memory`]; shared memory comes on top, because its pages count too.
/// - Shared memory: 2 GiB for each GPU where several share a model (NCCL and the workers' message
///   queues), else 1 GiB; llama.cpp, one process, has 1 GiB always.
/// - Ephemeral storage: the download, if there is one, and [`room`].
pub fn resources(
    asked: Option<&spec::Resources>,
    server: &EngineTemplate,
    source: &ModelSource,
    weights: Bytes,
    gpus: u32,
) -> Result<Resources, AmountError> {
    let engine = server.type_;
    let asked = |get: fn(&spec::Resources) -> Option<&berth_crds::Amount>| asked.and_then(get);
    let bytes = |field, amount: Option<&berth_crds::Amount>| {
        amount
            .map(|amount| {
                amount.0.parse::<Bytes>().map_err(|e| AmountError { field, message: e.to_string() })
            })
            .transpose()
    };
    let cpu = asked(|r| r.cpu.as_ref())
        .map(|amount| {
            amount
                .0
                .parse::<MilliCpu>()
                .map_err(|e| AmountError { field: "cpu", message: e.to_string() })
        })
        .transpose()?
        .unwrap_or(MilliCpu::cores(4 + 2 * u64::from(gpus)));
    let shared_memory = bytes("sharedMemory", asked(|r| r.shared_memory.as_ref()))?
        .unwrap_or_else(|| shared_memory(engine, gpus));
    let memory = bytes("memory", asked(|r| r.memory.as_ref()))?
        .unwrap_or_else(|| memory(engine, weights, gpus));
    let ephemeral_storage = bytes("ephemeralStorage", asked(|r| r.ephemeral_storage.as_ref()))?
        .unwrap_or_else(|| {
            let download =
                if source.is_downloaded() { download_size(weights) } else { Bytes::ZERO };
            download + room(server)
        });
    Ok(Resources { cpu, memory: memory + shared_memory, shared_memory, ephemeral_storage })
}

/// Main memory without shared memory.
///
/// vLLM and `SGLang`: 6 GiB for its servers and 4 GiB for the process of each GPU (interpreter, CUDA context,
/// compiled graphs, pinned buffers). llama.cpp: one process, 4 GiB, and the 8 GiB that its server
/// keeps by default for the prompts of idle slots (`--cache-ram`). A custom engine: the more of the two. All: at least a quarter of the weights. Loading goes through the page cache, which counts towards the limit but is given back
/// under pressure; a quarter lets reading run ahead of the copy to the GPU.
fn memory(engine: EngineType, weights: Bytes, gpus: u32) -> Bytes {
    let processes = match engine {
        EngineType::VLLM | EngineType::SGLang => Bytes::gib(6) + Bytes::gib(4) * u64::from(gpus),
        EngineType::LlamaCpp => Bytes::gib(12),
        EngineType::Custom => Bytes::gib(12).max(Bytes::gib(6) + Bytes::gib(4) * u64::from(gpus)),
    };
    processes.max(weights.div_ceil(4).round_up_to(Bytes::gib(1)))
}

fn shared_memory(engine: EngineType, gpus: u32) -> Bytes {
    match engine {
        EngineType::LlamaCpp => Bytes::gib(1),
        _ if gpus > 1 => Bytes::gib(2) * u64::from(gpus),
        _ => Bytes::gib(1),
    }
}

/// The disk that a download takes: the weights and a tenth (tokenizer, configuration, what a
/// repository holds besides), in whole GiB.
pub fn download_size(weights: Bytes) -> Bytes {
    (weights + weights.div_ceil(10)).round_up_to(Bytes::gib(1))
}

/// The disk that a pod takes besides a download: writable directories and logs.
pub fn room(server: &EngineTemplate) -> Bytes {
    // The kubelet rotates a container's logs at 10 MiB, 5 files; 1 GiB is far above.
    let directories = crate::engine::of(server.type_).directories(server);
    directories.iter().map(|d| d.size).sum::<Bytes>() + Bytes::gib(1)
}

/// Seconds that an engine may take until it answers.
///
/// A floor of 100 MB/s for what comes over the network (a gigabit link, nearly full), 300 MB/s for
/// what is on a disk (a SATA SSD or a modest network volume), and 300 s for the engine itself
/// (start, compilation, CUDA graphs). At least 10 minutes.
pub fn startup_timeout(weights: Bytes, source: &ModelSource) -> u32 {
    const DOWNLOAD: u64 = 100_000_000;
    const READ: u64 = 300_000_000;
    let rate = if source.is_downloaded() { DOWNLOAD } else { READ };
    let seconds = weights.get().div_ceil(rate).saturating_add(300).max(600);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use berth_crds::Amount;

    use super::*;

    fn server(type_: EngineType) -> EngineTemplate {
        EngineTemplate {
            type_,
            image: String::new(),
            image_pull_policy: spec::PullPolicy::IfNotPresent,
            args: Vec::new(),
            env: Vec::new(),
            kv_cache_dtype: spec::KvCacheDtype::Auto,
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            version: None,
            custom: None,
        }
    }

    fn hub() -> ModelSource {
        ModelSource::Hub { repository: "a/b".into(), revision: "main".into(), files: None }
    }

    fn pvc() -> ModelSource {
        ModelSource::Pvc { claim: "models".into(), path: String::new(), files: None }
    }

    #[test]
    fn an_8b_model_on_one_gpu() {
        let r = resources(None, &server(EngineType::VLLM), &hub(), Bytes::gib(15), 1).unwrap();
        assert_eq!(r.cpu, MilliCpu::cores(6));
        assert_eq!(r.shared_memory, Bytes::gib(1));
        assert_eq!(r.memory, Bytes::gib(10 + 1));
        assert_eq!(r.ephemeral_storage, Bytes::gib(17) + room(&server(EngineType::VLLM)));
    }

    #[test]
    fn a_671b_model_on_eight_gpus() {
        let r = resources(None, &server(EngineType::VLLM), &pvc(), Bytes::gib(640), 8).unwrap();
        assert_eq!(r.cpu, MilliCpu::cores(20));
        assert_eq!(r.shared_memory, Bytes::gib(16));
        assert_eq!(r.memory, Bytes::gib(160 + 16));
        assert_eq!(r.ephemeral_storage, room(&server(EngineType::VLLM)), "nothing is downloaded");
    }

    #[test]
    fn the_spec_comes_first() {
        let asked = spec::Resources {
            cpu: Some(Amount("1500m".into())),
            memory: Some(Amount("7Gi".into())),
            shared_memory: Some(Amount("3Gi".into())),
            ephemeral_storage: Some(Amount("100Gi".into())),
        };
        let r = resources(Some(&asked), &server(EngineType::LlamaCpp), &hub(), Bytes::gib(5), 1)
            .unwrap();
        assert_eq!(r.cpu, MilliCpu(1500));
        assert_eq!(r.memory, Bytes::gib(10), "shared memory comes on top");
        assert_eq!(r.shared_memory, Bytes::gib(3));
        assert_eq!(r.ephemeral_storage, Bytes::gib(100));
    }

    #[test]
    fn an_amount_that_is_none_is_named() {
        let asked =
            spec::Resources { memory: Some(Amount("lots".into())), ..spec::Resources::default() };
        let error = resources(Some(&asked), &server(EngineType::VLLM), &hub(), Bytes::gib(5), 1);
        assert!(error.unwrap_err().to_string().starts_with("resources.memory: \"lots\""));
    }

    #[test]
    fn a_start_takes_as_long_as_its_weights() {
        assert_eq!(startup_timeout(Bytes::gib(15), &hub()), 600);
        assert_eq!(startup_timeout(Bytes(700_000_000_000), &hub()), 7300);
        assert_eq!(startup_timeout(Bytes(690_000_000_000), &pvc()), 2600);
    }
}
