//! Every flag, value and variable that is rendered is one that the engine publishes: in vLLM's
//! and SGLang's own source, in the help of llama-server's binary (`tests/published/`, where each file says
//! where it comes from).

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use berth_crds::llm_deployment::{EngineType, KvCacheDtype, Model, Vendor};
use berth_render::{Claim, Template, engine, pod};
use berth_units::Bytes;

/// An option, and the values that it takes if those are a set.
type Options = BTreeMap<String, BTreeSet<String>>;

/// The lists whose names begin so.
fn files(beginning: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(beginning) && path.extension().is_some_and(|end| end == "txt")
        })
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Options {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let (option, values) = line.split_once('\t').unwrap_or((line, ""));
            (option.to_owned(), values.split_whitespace().map(ToOwned::to_owned).collect())
        })
        .collect()
}

/// The published options of an engine, by the name of their list.
fn options(engine: EngineType) -> Vec<(String, Options)> {
    let beginning = match engine {
        EngineType::VLLM => "vllm-",
        EngineType::SGLang => "sglang-",
        EngineType::LlamaCpp => "llama-server-",
        EngineType::Custom => panic!("a custom engine is given no arguments of Berth's"),
    };
    let lists: Vec<_> = files(beginning)
        .into_iter()
        .filter(|path| !path.to_str().unwrap().ends_with("-env.txt"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path)))
        .collect();
    assert!(!lists.is_empty(), "no published options of {engine:?} in tests/published");
    lists
}

/// Engines whose arguments are Berth's.
const KNOWN: [EngineType; 3] = [EngineType::VLLM, EngineType::SGLang, EngineType::LlamaCpp];

/// What a replica of a template claims.
fn claim(template: &Template) -> Claim {
    common::replica("m", template, "NVIDIA-H100-80GB-HBM3", Bytes::mib(77_481)).claim
}

/// The golden templates, and what they leave out.
fn templates() -> Vec<Template> {
    let golden = common::cases().into_iter().map(|case| case.template);
    let mut all: Vec<_> =
        golden.filter(|template| KNOWN.contains(&template.engine.type_)).collect();
    for dtype in [KvCacheDtype::Auto, KvCacheDtype::FP8] {
        let mut template = all[0].clone();
        template.engine.kv_cache_dtype = dtype;
        all.push(template);
    }
    let sglang = all.iter().find(|template| template.engine.type_ == EngineType::SGLang).cloned();
    for dtype in [KvCacheDtype::Auto, KvCacheDtype::FP8, KvCacheDtype::FP8_E5M2] {
        let mut template = sglang.clone().unwrap();
        template.engine.kv_cache_dtype = dtype;
        all.push(template);
    }
    for dtype in [KvCacheDtype::Auto, KvCacheDtype::F16, KvCacheDtype::Q8_0, KvCacheDtype::Q4_0] {
        for (gpus, files) in [(1, None), (2, Some("some/model-Q6_K.gguf"))] {
            let model = Model {
                files: files.map(ToOwned::to_owned),
                ..common::model("hf://org/model-GGUF")
            };
            let mut template =
                common::template(&model, EngineType::LlamaCpp, Vendor::AMD, gpus, Bytes::gib(5));
            template.engine.kv_cache_dtype = dtype;
            all.push(template);
        }
    }
    all
}

#[test]
fn every_rendered_flag_and_value_is_published() {
    for template in templates() {
        let lists = options(template.engine.type_);
        let mut args = engine::of(template.engine.type_).args(&template, &claim(&template));
        args.extend(template.engine.args.iter().cloned());
        for (list, published) in &lists {
            for (at, arg) in args.iter().enumerate().filter(|(_, arg)| arg.starts_with("--")) {
                let next = args.get(at + 1).filter(|next| !next.starts_with('-'));
                let (flag, value) = arg.split_once('=').map_or_else(
                    || (arg.as_str(), next.map(String::as_str)),
                    |(flag, value)| (flag, Some(value)),
                );
                let values =
                    published.get(flag).unwrap_or_else(|| panic!("{flag} is not in {list}"));
                if let (false, Some(value)) = (values.is_empty(), value) {
                    assert!(values.contains(value), "{flag} {value} is not in {list}: {values:?}");
                }
            }
        }
    }
}

/// A reserved name with a slip in it would reserve nothing.
#[test]
fn every_reserved_argument_is_published() {
    for engine_type in KNOWN {
        for (list, published) in options(engine_type) {
            for name in engine::of(engine_type).reserved_arguments().iter().flat_map(|r| r.names) {
                let long = name.starts_with("--");
                assert!(!long || published.contains_key(*name), "{name} is not in {list}");
            }
        }
    }
}

/// What a user may give is not refused for resembling what they may not.
#[test]
fn only_reserved_arguments_are_refused() {
    for engine_type in KNOWN {
        let reserved: BTreeSet<&str> = engine::of(engine_type)
            .reserved_arguments()
            .iter()
            .flat_map(|reserved| reserved.names)
            .copied()
            .collect();
        for (list, published) in options(engine_type) {
            for option in published.keys() {
                let refused = engine::refused_argument(engine_type, std::slice::from_ref(option));
                assert_eq!(
                    refused.is_some(),
                    reserved.contains(option.as_str()),
                    "{option} of {list}: {refused:?}"
                );
            }
        }
    }
}

/// Variables that vLLM or SGLang does not read itself, and who does.
const READ_BY_OTHERS: &[(&str, &str)] = &[
    ("CUDA_CACHE_PATH", "the CUDA driver"),
    ("DO_NOT_TRACK", "vLLM, as another name for VLLM_DO_NOT_TRACK (vllm/envs.py), and libraries"),
    ("FLASHINFER_WORKSPACE_BASE", "FlashInfer"),
    ("HF_HOME", "huggingface_hub"),
    ("HF_HUB_DISABLE_TELEMETRY", "huggingface_hub"),
    ("HF_HUB_OFFLINE", "huggingface_hub"),
    ("HF_TOKEN", "huggingface_hub"),
    ("HF_XET_CHUNK_CACHE_SIZE_BYTES", "hf-xet"),
    ("HOME", "every program"),
    ("LOGNAME", "Python's getpass"),
    ("NUMBA_CACHE_DIR", "Numba"),
    ("TORCHINDUCTOR_CACHE_DIR", "PyTorch"),
    ("TRANSFORMERS_OFFLINE", "transformers"),
    ("TRITON_CACHE_DIR", "Triton"),
    ("USER", "Python's getpass"),
    ("XDG_CACHE_HOME", "many libraries"),
    ("XDG_CONFIG_HOME", "many libraries"),
];

#[test]
fn every_variable_of_vllm_and_sglang_is_published() {
    let lists: Vec<_> = [(EngineType::VLLM, "vllm-"), (EngineType::SGLang, "sglang-")]
        .into_iter()
        .flat_map(|(engine, beginning)| {
            files(beginning).into_iter().map(move |path| (engine, path))
        })
        .filter(|(_, path)| path.to_str().unwrap().ends_with("-env.txt"))
        .collect();
    assert_eq!(lists.len(), 2, "published environments in tests/published: {lists:?}");
    for (engine, path) in lists {
        let published = read(&path);
        for case in common::cases() {
            if case.template.engine.type_ != engine {
                continue;
            }
            let users: BTreeSet<_> =
                case.template.engine.env.iter().map(|env| env.name.as_str()).collect();
            let pod = pod(&case.template, &case.replica, &case.site);
            for variable in pod.spec.unwrap().containers.remove(0).env.unwrap() {
                let name = variable.name.as_str();
                let known = published.contains_key(name)
                    || READ_BY_OTHERS.iter().any(|(other, _)| *other == name)
                    || users.contains(name);
                assert!(known, "{name} is not in {}", path.display());
            }
        }
    }
}

/// The list is the one of the version that is shipped: a newer image needs a newer list.
#[test]
fn the_lists_are_of_the_images() {
    for (engine, name) in [(EngineType::VLLM, "vllm"), (EngineType::SGLang, "sglang")] {
        for vendor in [Vendor::NVIDIA, Vendor::AMD] {
            let image = engine::default_image(engine, vendor).unwrap();
            let tag = image.rsplit_once(":v").unwrap().1;
            let list = format!("{name}-{}", tag.split('-').next().unwrap());
            assert!(
                options(engine).iter().any(|(name, _)| *name == list),
                "{image} needs tests/published/{list}.txt"
            );
        }
    }
}
