//! What a user's arguments and environment may not do: change what Berth computed, or take the
//! engine from where its Service, its probes and its claim expect it.

use std::collections::BTreeSet;

use berth_crds::llm_deployment::{EngineType, EnvVar};

use super::{Engine, Reserved, custom, of};

/// Variables by which a process picks GPUs. With a device plugin the kubelet picks them; a process
/// that picks others would use what was claimed by somebody else.
const DEVICES: Reserved = Reserved {
    names: &[
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "ZE_AFFINITY_MASK",
    ],
    instead: "which GPUs a replica sees is decided by Berth and the kubelet; leave it out",
};

/// Variables of an engine's own downloader. It is given files, and downloads nothing.
const DOWNLOADS: Reserved = Reserved {
    names: &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"],
    instead: "the model is there before the engine starts, which downloads nothing; its token \
              belongs into model.secretRef, and mirrors are the administrator's to set",
};

/// Why one of a user's arguments is refused: its name, the reason, and the field to use instead.
/// `None`: all of them may go to the engine.
pub fn refused_argument(engine: EngineType, args: &[String]) -> Option<String> {
    let engine = of(engine);
    args.iter().find_map(|arg| {
        let name = normal(arg)?;
        let reserved = engine.reserved_arguments().iter().find(|reserved| {
            reserved.names.iter().any(|published| {
                name == *published || engine.abbreviates() && abbreviates(&name, published)
            })
        })?;
        Some(format!("engine.args: {name} is refused: {}", reserved.instead))
    })
}

/// Why one of a user's environment variables is refused: its name, the reason, and what to use
/// instead.
pub fn refused_environment(engine: EngineType, env: &[EnvVar]) -> Option<String> {
    let engine = of(engine);
    let ours: BTreeSet<&str> = fixed(engine).collect();
    env.iter().find_map(|variable| {
        let name = variable.name.as_str();
        let reason = [&DEVICES, &DOWNLOADS]
            .into_iter()
            .chain(engine.reserved_environment())
            .find(|reserved| reserved.names.iter().any(|pattern| matches(pattern, name)))
            .map(|reserved| reserved.instead)
            .or_else(|| {
                ours.contains(name).then_some(
                    "Berth sets it, so that the engine writes only where the pod has room; leave \
                     it out",
                )
            })?;
        Some(format!("engine.env: {name} is refused: {reason}"))
    })
}

/// What a custom engine's command line refers to that nobody sets. Kubernetes would hand over the
/// letters as they stand.
pub fn refused_reference(engine: EngineType, words: &[String], env: &[EnvVar]) -> Option<String> {
    if engine != EngineType::Custom {
        return None;
    }
    let set: BTreeSet<&str> = of(engine)
        .env()
        .into_iter()
        .map(|(name, _)| name)
        .chain(custom::HANDED_OVER)
        .chain(env.iter().map(|variable| variable.name.as_str()))
        .collect();
    // `$$(NAME)` stands for the letters.
    let named = |word: &str| {
        let plain = word.replace("$$", "");
        let all = plain.split("$(").skip(1);
        all.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect::<Vec<_>>()
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    };
    let unset = words
        .iter()
        .flat_map(|word| named(word))
        .find(|name| is_name(name) && !set.contains(name.as_str()))?;
    Some(format!(
        "engine.args: $({unset}) stands for no variable; set it in engine.env, or use one of {}",
        custom::HANDED_OVER.join(", ")
    ))
}

/// The names that only Berth sets.
fn fixed(engine: &'static dyn Engine) -> impl Iterator<Item = &'static str> {
    let overridable = engine.overridable();
    engine.env().into_iter().map(|(name, _)| name).filter(move |name| !overridable.contains(name))
}

/// The name of an argument as its engine publishes it: without a value (`--name=value`), without a
/// key in a structured value (`--name.key`), with dashes for underscores. `None` for values.
fn normal(arg: &str) -> Option<String> {
    if !arg.starts_with('-') || arg.len() < 2 {
        return None;
    }
    let name = arg.split('=').next().unwrap_or(arg);
    Some(if name.starts_with("--") {
        name.split('.').next().unwrap_or(name).replace('_', "-")
    } else {
        name.to_owned()
    })
}

/// Whether `name` is a beginning of `published` that the engine may take for it. Where it could
/// stand for several options, the engine would refuse it itself.
fn abbreviates(name: &str, published: &str) -> bool {
    name.len() > 2 && name.starts_with("--") && published.starts_with(name)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(engine: EngineType, arg: &str) -> Option<String> {
        refused_argument(engine, &[arg.to_owned()])
    }

    #[test]
    fn every_form_of_a_reserved_argument_is_refused() {
        for (engine, arg, field) in [
            (EngineType::VLLM, "--gpu-memory-utilization", "gpu.memory"),
            (EngineType::VLLM, "--gpu-memory-utilization=0.5", "gpu.memory"),
            (EngineType::VLLM, "--gpu_memory_utilization=0.5", "gpu.memory"),
            (EngineType::VLLM, "--gpu-memory-util", "gpu.memory"),
            (EngineType::VLLM, "--tensor", "gpu.parallelism.tensor"),
            (EngineType::VLLM, "-tp", "gpu.parallelism.tensor"),
            (EngineType::VLLM, "-tp=4", "gpu.parallelism.tensor"),
            (EngineType::VLLM, "--max_model_len", "engine.contextLength"),
            (EngineType::VLLM, "--config", "engine.args"),
            (EngineType::SGLang, "--tp-size=4", "gpu.parallelism.tensor"),
            (EngineType::SGLang, "--mem_fraction_static", "gpu.memory"),
            (EngineType::SGLang, "--context-len", "engine.contextLength"),
            (EngineType::LlamaCpp, "-c", "engine.contextLength"),
            (EngineType::LlamaCpp, "--ctx_size", "engine.contextLength"),
            (EngineType::LlamaCpp, "-ngl", "gpu.count"),
            (EngineType::LlamaCpp, "-hf", "model.uri"),
        ] {
            let message = refused(engine, arg).unwrap_or_else(|| panic!("{arg} is let through"));
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn other_arguments_and_values_pass() {
        for (engine, arg) in [
            (EngineType::VLLM, "--enable-prefix-caching"),
            (EngineType::VLLM, "--max-logprobs"),
            (EngineType::VLLM, "--tool-call-parser=hermes"),
            (EngineType::VLLM, "model"),
            (EngineType::VLLM, "--"),
            (EngineType::VLLM, "-1"),
            (EngineType::LlamaCpp, "--flash-attn"),
            (EngineType::LlamaCpp, "-cram"),
        ] {
            assert_eq!(refused(engine, arg), None, "{arg}");
        }
    }

    #[test]
    fn a_custom_command_line_refers_to_what_is_set() {
        let env = |name: &str| EnvVar {
            name: name.to_owned(),
            value: Some("x".to_owned()),
            value_from: None,
        };
        let refused = |word: &str, env: &[EnvVar]| {
            refused_reference(EngineType::Custom, &[word.to_owned()], env)
        };
        for word in ["--model=$(BERTH_MODEL_PATH)", "$(HOME)", "$$(DATE)", "$(date)", "$(", "$("] {
            assert_eq!(refused(word, &[]), None, "{word}");
        }
        let message = refused("--ctx=$(BERTH_CONTEXT)", &[]).unwrap();
        assert!(message.contains("$(BERTH_CONTEXT)") && message.contains("BERTH_CONTEXT_LENGTH"));
        assert!(refused("$(PORT)", &[]).is_some());
        assert_eq!(refused("$(PORT)", &[env("PORT")]), None);
        let ours = ["BERTH_MODEL_PATH", "BERTH_ANYTHING", "NVIDIA_VISIBLE_DEVICES", "HF_TOKEN"];
        for name in ours {
            assert!(refused_environment(EngineType::Custom, &[env(name)]).is_some(), "{name}");
        }
        assert_eq!(refused_environment(EngineType::Custom, &[env("HOME"), env("PORT")]), None);
        assert_eq!(refused_argument(EngineType::Custom, &["--port=1".to_owned()]), None);
    }

    #[test]
    fn an_environment_that_moves_the_engine_is_refused() {
        let variable = |name: &str| EnvVar {
            name: name.to_owned(),
            value: Some("x".to_owned()),
            value_from: None,
        };
        let refused = |engine, name| refused_environment(engine, &[variable(name)]).is_some();
        for name in ["CUDA_VISIBLE_DEVICES", "HOME", "HF_HOME", "HF_TOKEN", "HF_ENDPOINT"] {
            assert!(refused(EngineType::VLLM, name), "{name}");
            assert!(refused(EngineType::LlamaCpp, name), "{name}");
        }
        assert!(refused(EngineType::LlamaCpp, "LLAMA_ARG_CTX_SIZE"));
        assert!(refused(EngineType::VLLM, "VLLM_PORT"));
        for name in ["HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL", "NCCL_DEBUG"] {
            assert!(!refused(EngineType::VLLM, name), "{name}");
        }
    }
}
