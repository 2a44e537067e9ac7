//! Which of a repository's files an engine needs. Pure.
//!
//! With a name or a pattern: those, and all parts of a split GGUF of which one is among them.
//! Without: the weights in the best format that is there (safetensors, else GGUF, else `.bin`),
//! and the small files beside them (configuration, tokenizer, templates, code). Weights in folders
//! count only where there are none at the root: there, repositories keep copies for other engines
//! (`original/`, `metal/`, `onnx/`).

use crate::pattern;

/// Folders with what other engines need.
const FOREIGN_FOLDERS: &[&str] =
    &["original", "onnx", "openvino", "metal", "coreml", "gguf", "runs", "flax", "tflite"];

/// Ends of small files that engines read. Code runs only where `model.trustRemoteCode` is set.
const SMALL: &[&str] = &[".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".jsonl"];

/// Why nothing can be chosen. The text follows the name of the repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The pattern fits no file.
    #[error("has no file {pattern:?}; it has {there}")]
    NoMatch {
        /// What was asked for.
        pattern: String,
        /// What is there.
        there: String,
    },
    /// Several models.
    #[error("holds several GGUF models; say in spec.model.files which: {there}")]
    Ambiguous {
        /// The models.
        there: String,
    },
    /// No weights in that format.
    #[error("has no GGUF file; it has {there}")]
    NoGguf {
        /// What is there.
        there: String,
    },
    /// A model that cannot be loaded under another name: each part knows its place by its name.
    #[error("is a model in {count} files; name its first file, {first}, in spec.model.files")]
    Parts {
        /// How many.
        count: usize,
        /// The first one.
        first: String,
    },
    /// Several models where a name or a pattern was given.
    #[error(
        "matches {count} models; name the first file of one of them, such as {first}, in \
         spec.model.files"
    )]
    Several {
        /// How many.
        count: usize,
        /// The first file of one.
        first: String,
    },
    /// No weights.
    #[error("holds no weights that an engine can load; it has {there}")]
    NoWeights {
        /// What is there.
        there: String,
    },
}

/// The names that are needed, in the order in which they came. With `gguf`, and where no files are
/// named, only GGUF files count.
pub fn select<'a>(
    names: &[&'a str],
    wanted: Option<&str>,
    gguf: bool,
) -> Result<Vec<&'a str>, SelectError> {
    match wanted {
        Some(wanted) => matching(names, wanted),
        None if gguf => needed_gguf(names),
        None => needed(names),
    }
}

/// The only file of the GGUF model among these, if there is one model and it has one file.
pub fn one_file<'a>(names: &[&'a str]) -> Result<&'a str, SelectError> {
    let gguf: Vec<_> = names.iter().copied().filter(|name| has_end(name, ".gguf")).collect();
    let mut files = models(&gguf);
    files.sort_unstable();
    let Some(&first) = files.first() else {
        return Err(SelectError::NoGguf { there: some(names) });
    };
    if files.len() == 1 {
        return Ok(first);
    }
    let mut models: Vec<_> = files.iter().map(|name| split(name).ok_or(name)).collect();
    // Sorted as the names are, so parts of one model follow each other.
    models.dedup();
    let first = first.to_owned();
    Err(match models.len() {
        1 => SelectError::Parts { count: files.len(), first },
        count => SelectError::Several { count, first },
    })
}

fn matching<'a>(names: &[&'a str], wanted: &str) -> Result<Vec<&'a str>, SelectError> {
    let hits: Vec<_> =
        names.iter().copied().filter(|name| pattern::matches(wanted, name)).collect();
    if hits.is_empty() {
        return Err(SelectError::NoMatch { pattern: wanted.to_owned(), there: some(names) });
    }
    let splits: Vec<_> = hits.iter().filter_map(|name| split(name)).collect();
    let is_part = |name: &str| split(name).is_some_and(|of| splits.contains(&of));
    Ok(names.iter().copied().filter(|name| hits.contains(name) || is_part(name)).collect())
}

fn needed<'a>(names: &[&'a str]) -> Result<Vec<&'a str>, SelectError> {
    let own: Vec<_> = names.iter().copied().filter(|name| !is_foreign(name)).collect();
    for end in [".safetensors", ".gguf", ".bin", ".pt"] {
        let weights = weights(&own, end);
        if weights.is_empty() {
            continue;
        }
        if end == ".gguf" {
            return one_gguf(&weights);
        }
        let small = |name: &str| SMALL.iter().any(|end| has_end(name, end));
        return Ok(own.into_iter().filter(|name| small(name) || weights.contains(name)).collect());
    }
    Err(SelectError::NoWeights { there: some(names) })
}

fn needed_gguf<'a>(names: &[&'a str]) -> Result<Vec<&'a str>, SelectError> {
    let own: Vec<_> = names.iter().copied().filter(|name| !is_foreign(name)).collect();
    // A folder for other engines is where this one looks last.
    let weights = [&own[..], names].map(|names| weights(names, ".gguf"));
    match weights.iter().find(|weights| !weights.is_empty()) {
        Some(weights) => one_gguf(weights),
        None => Err(SelectError::NoGguf { there: some(names) }),
    }
}

/// Weights of one format: those at the root, or else those in folders.
fn weights<'a>(names: &[&'a str], end: &str) -> Vec<&'a str> {
    let training = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or(name);
        ["training_args", "optimizer", "scheduler", "rng_state"].iter().any(|s| file.starts_with(s))
    };
    let all: Vec<_> =
        names.iter().copied().filter(|name| has_end(name, end) && !training(name)).collect();
    let mut root: Vec<_> = all.iter().copied().filter(|name| !name.contains('/')).collect();
    if root.is_empty() {
        return all;
    }
    // Mistral's own format beside the usual one: the same weights once more.
    if root.iter().any(|name| name.starts_with("model")) {
        root.retain(|name| !name.starts_with("consolidated"));
    }
    root
}

/// GGUF files that are not projectors for images, which belong to a model and are none.
fn models<'a>(weights: &[&'a str]) -> Vec<&'a str> {
    let model = |name: &str| !name.rsplit('/').next().unwrap_or(name).starts_with("mmproj");
    let models: Vec<_> = weights.iter().copied().filter(|name| model(name)).collect();
    if models.is_empty() { weights.to_vec() } else { models }
}

/// The files of the only model among GGUF files, without projectors for images.
pub fn of_one_gguf<'a>(weights: &[&'a str]) -> Result<Vec<&'a str>, SelectError> {
    one_gguf(&models(weights))
}

/// The only model among GGUF files.
fn one_gguf<'a>(weights: &[&'a str]) -> Result<Vec<&'a str>, SelectError> {
    let models = models(weights);
    let first = models.first().copied().unwrap_or_default();
    let same = |name: &str| name == first || split(name).is_some_and(|s| split(first) == Some(s));
    if models.iter().all(|name| same(name)) {
        return Ok(weights.iter().copied().filter(|name| same(name)).collect());
    }
    Err(SelectError::Ambiguous { there: some(&models) })
}

/// A split GGUF: everything in the name but the number of the part.
fn split(name: &str) -> Option<(&str, &str)> {
    let stem = has_end(name, ".gguf").then(|| &name[..name.len() - ".gguf".len()])?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, part) = rest.rsplit_once('-')?;
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (number(part) && number(count)).then_some((base, count))
}

fn is_foreign(name: &str) -> bool {
    let mut folders: Vec<_> = name.split('/').collect();
    folders.pop();
    folders.iter().any(|folder| FOREIGN_FOLDERS.contains(folder) || folder.starts_with('.'))
        || name.starts_with('.')
}

fn has_end(name: &str, end: &str) -> bool {
    let (name, end) = (name.as_bytes(), end.as_bytes());
    name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// A few names, for people.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> =
        names.iter().take(SHOWN).map(|name| name.chars().take(80).collect()).collect();
    match names.len() {
        0 => "no files at all".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<'a>(names: &[&'a str], wanted: Option<&str>) -> Vec<&'a str> {
        select(names, wanted, false).unwrap()
    }

    #[test]
    fn safetensors_and_what_is_beside_them() {
        let names = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "config.json",
            "chat_template.jinja",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "flax_model.msgpack",
            "modeling_x.py",
            "tokenizer.model",
            "1_Pooling/config.json",
            "original/consolidated.00.pth",
            "original/model.safetensors",
            "original/params.json",
            "onnx/model.onnx",
            "figure.png",
        ];
        let expected = [
            "config.json",
            "chat_template.jinja",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "modeling_x.py",
            "tokenizer.model",
            "1_Pooling/config.json",
        ];
        assert_eq!(chosen(&names, None), expected);
        // Mistral's format alone.
        let names = ["consolidated.safetensors", "params.json", "tekken.json"];
        assert_eq!(chosen(&names, None), names);
        let names = ["config.json", "unet/x.safetensors"];
        assert_eq!(chosen(&names, None), names);
    }

    #[test]
    fn other_formats_where_there_are_no_safetensors() {
        let names = ["config.json", "pytorch_model.bin", "training_args.bin", "tf_model.h5"];
        assert_eq!(chosen(&names, None), ["config.json", "pytorch_model.bin"]);
        let names = ["README.md", "x.Q4_K_M.gguf", "mmproj-x.gguf"];
        assert_eq!(chosen(&names, None), ["x.Q4_K_M.gguf"]);
        let names = ["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf", "config.json"];
        assert_eq!(chosen(&names, None), names[..2]);
    }

    #[test]
    fn one_of_many() {
        let names = [
            "config.json",
            "x-Q4_K_M.gguf",
            "x-Q8_0-00001-of-00002.gguf",
            "x-Q8_0-00002-of-00002.gguf",
            "y-Q8_0-00001-of-00002.gguf",
        ];
        assert_eq!(chosen(&names, Some("x-Q4_K_M.gguf")), ["x-Q4_K_M.gguf"]);
        assert_eq!(chosen(&names, Some("x-Q8_0-00001-of-00002.gguf")), names[2..4]);
        assert_eq!(chosen(&names, Some("x-Q8*")), names[2..4]);
        let error = select(&names, None, false).unwrap_err();
        assert!(error.to_string().contains("x-Q4_K_M.gguf, x-Q8_0"), "{error}");
        let error = select(&names, Some("*Q5*"), false).unwrap_err();
        assert!(error.to_string().contains("no file \"*Q5*\""), "{error}");
        let error = select(&["README.md"], None, false).unwrap_err();
        assert!(error.to_string().contains("no weights"), "{error}");
    }

    #[test]
    fn gguf_alone() {
        let gguf = |names: &[&'static str]| select(names, None, true);
        let names = ["config.json", "model.safetensors", "x.Q4_K_M.GGUF", "mmproj-x.gguf"];
        assert_eq!(gguf(&names), Ok(vec!["x.Q4_K_M.GGUF"]));
        let names = ["config.json", "model.safetensors", "gguf/x.gguf"];
        assert_eq!(gguf(&names), Ok(vec!["gguf/x.gguf"]));
        let error = gguf(&["config.json", "model.safetensors"]).unwrap_err();
        assert_eq!(error.to_string(), "has no GGUF file; it has config.json, model.safetensors");
        assert!(matches!(gguf(&["a.gguf", "b.gguf"]), Err(SelectError::Ambiguous { .. })));
    }

    #[test]
    fn one_file_or_what_to_name() {
        assert_eq!(one_file(&["config.json", "a/x.gguf", "a/mmproj-x.gguf"]), Ok("a/x.gguf"));
        let parts = ["x-00002-of-00003.gguf", "x-00001-of-00003.gguf", "x-00003-of-00003.gguf"];
        let error = one_file(&parts).unwrap_err().to_string();
        assert!(
            error.starts_with("is a model in 3 files; name its first file, x-00001-of"),
            "{error}"
        );
        let error = one_file(&[&parts[..], &["y.gguf"]].concat()).unwrap_err().to_string();
        assert!(error.starts_with("matches 2 models; name the first"), "{error}");
        let error = one_file(&["y.gguf", "x.gguf"]).unwrap_err().to_string();
        assert!(error.contains("matches 2 models") && error.contains("such as x.gguf"), "{error}");
        assert!(matches!(one_file(&["config.json"]), Err(SelectError::NoGguf { .. })));
    }
}
