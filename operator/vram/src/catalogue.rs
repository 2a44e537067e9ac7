//! The embedded catalogue of well-known open models.
//!
//! The last resort where a model's facts are given neither by the manifest nor by its files: it
//! works without any network. Each entry cites where its `config.json` was read. A GGUF repository
//! names the model that it was made from; the type comes from the file's name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;

use crate::{GgufType, InvalidFact, ModelFacts, Quantization};

/// What a checkpoint is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Safetensors, with a `config.json`.
    Safetensors,
    /// GGUF.
    Gguf,
}

/// A model that the catalogue knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The repository, spelled as its owner does: `Qwen/Qwen2.5-7B-Instruct`.
    pub id: String,
    /// What is known about the model.
    pub facts: ModelFacts,
    /// The licence: an SPDX identifier where there is one, else its name.
    pub licence: String,
    /// Where the facts were read.
    pub source: String,
    /// What the checkpoint is stored as.
    pub format: Format,
    /// The commit that the facts were read at, where that matters.
    pub revision: Option<String>,
}

/// All models that the catalogue knows.
#[derive(Clone, Debug)]
pub struct Catalogue {
    safetensors: HashMap<String, Entry>,
    gguf: HashMap<String, BTreeMap<GgufType, Entry>>,
}

/// The catalogue, one file a family of models.
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::from_files(FILES));
    &CATALOGUE
}

const FILES: &[(&str, &str)] = &[
    ("deepseek", include_str!("catalogue/deepseek.json")),
    ("gemma", include_str!("catalogue/gemma.json")),
    ("llama", include_str!("catalogue/llama.json")),
    ("mistral", include_str!("catalogue/mistral.json")),
    ("openai", include_str!("catalogue/openai.json")),
    ("phi_granite", include_str!("catalogue/phi_granite.json")),
    ("qwen2_5", include_str!("catalogue/qwen2_5.json")),
    ("qwen3", include_str!("catalogue/qwen3.json")),
];

/// A catalogue file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// No JSON, or of another shape.
    #[error("not a list of models: {0}")]
    Json(#[from] serde_json::Error),
    /// Facts that contradict each other.
    #[error("{model}: {problem}")]
    Facts {
        /// The model.
        model: String,
        /// What is wrong.
        problem: InvalidFact,
    },
}

/// One entry of a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Model {
    id: String,
    /// Other repositories with the same architecture, size and storage.
    #[serde(default)]
    aliases: Vec<String>,
    /// GGUF repositories made from it.
    #[serde(default)]
    gguf: Vec<String>,
    licence: String,
    source: String,
    #[serde(default)]
    revision: Option<String>,
    facts: ModelFacts,
}

impl Catalogue {
    fn from_files(files: &[(&str, &str)]) -> Self {
        let mut catalogue = Self { safetensors: HashMap::new(), gguf: HashMap::new() };
        for (name, text) in files {
            let models: Vec<Model> = serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("the embedded catalogue's {name}: {error}"));
            for model in models {
                catalogue.add(model);
            }
        }
        catalogue
    }

    /// Adds the models of a JSON file of the same shape as the embedded ones: a list of objects with
    /// `id`, `licence`, `source`, `facts`, and optionally `aliases`, `gguf` and `revision`. Models
    /// known already are replaced.
    pub fn add_json(&mut self, text: &str) -> Result<(), CatalogueError> {
        let models: Vec<Model> = serde_json::from_str(text)?;
        for model in &models {
            model
                .facts
                .validate()
                .map_err(|problem| CatalogueError::Facts { model: model.id.clone(), problem })?;
        }
        for model in models {
            self.add(model);
        }
        Ok(())
    }

    fn add(&mut self, model: Model) {
        let Model { id, aliases, gguf, licence, source, revision, facts } = model;
        let entry = Entry { id, facts, licence, source, format: Format::Safetensors, revision };
        for repository in gguf {
            let files = GgufType::ALL.iter().map(|&kind| (kind, entry.as_gguf(&repository, kind)));
            self.gguf.insert(repository.to_lowercase(), files.collect());
        }
        for id in aliases {
            let alias = Entry { id: id.clone(), revision: None, ..entry.clone() };
            self.safetensors.insert(id.to_lowercase(), alias);
        }
        self.safetensors.insert(entry.id.to_lowercase(), entry);
    }

    /// The entry of a repository, whatever its case, with or without `hf://` and a revision after
    /// `@`. A GGUF repository needs `file` (a name or a pattern such as `*Q4_K_M.gguf`), from which
    /// the type is read.
    pub fn find(&self, uri_or_repo: &str, file: Option<&str>) -> Option<&Entry> {
        let key = key(uri_or_repo);
        if let Some(types) = self.gguf.get(&key) {
            return types.get(&GgufType::from_file_name(file?)?);
        }
        self.safetensors.get(&key)
    }

    /// Whether this is a GGUF repository that the catalogue knows (so that a file has to be named).
    pub fn is_gguf(&self, uri_or_repo: &str) -> bool {
        self.gguf.contains_key(&key(uri_or_repo))
    }

    /// The safetensors entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.safetensors.values()
    }

    /// How many repositories the catalogue knows, GGUF ones included.
    pub fn len(&self) -> usize {
        self.safetensors.len() + self.gguf.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    /// The entry for a GGUF file of this type, made from this model.
    fn as_gguf(&self, repository: &str, kind: GgufType) -> Self {
        let quantization = Quantization::Gguf(kind);
        Self {
            id: repository.to_owned(),
            // The text model alone: projectors and prediction heads are files of their own.
            facts: ModelFacts {
                quantization,
                parameters: None,
                other_parameters: 0,
                weight_bytes: None,
                ..self.facts.clone()
            },
            format: Format::Gguf,
            revision: None,
            ..self.clone()
        }
    }
}

fn key(uri_or_repo: &str) -> String {
    let repository = uri_or_repo.trim();
    let repository = repository.strip_prefix("hf://").unwrap_or(repository);
    let repository = repository.split('@').next().unwrap_or(repository);
    repository.trim_end_matches('/').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Parallelism, Workload, estimate, tensor_degrees};

    #[test]
    fn well_known_models_are_there() {
        assert!(catalogue().iter().count() >= 120, "{}", catalogue().iter().count());
        assert!(catalogue().len() >= 300, "{}", catalogue().len());
        for id in include_str!("catalogue/expected.txt").lines() {
            let file = catalogue().is_gguf(id).then_some("*Q4_K_M.gguf");
            assert!(catalogue().find(id, file).is_some(), "{id}");
        }
    }

    #[test]
    fn lookup_takes_what_manifests_write() {
        let find = |uri| catalogue().find(uri, None).map(|entry| entry.id.as_str());
        let qwen = Some("Qwen/Qwen2.5-7B-Instruct");
        assert_eq!(find("Qwen/Qwen2.5-7B-Instruct"), qwen);
        assert_eq!(find("hf://qwen/qwen2.5-7b-instruct"), qwen);
        assert_eq!(find("hf://Qwen/Qwen2.5-7B-Instruct@main"), qwen);
        assert_eq!(find("hf://acme/secret-model"), None);
        assert_eq!(find("pvc://models/qwen"), None);
    }

    #[test]
    fn gguf_repositories_need_a_file() {
        let repository = "hf://Qwen/Qwen2.5-7B-Instruct-GGUF";
        assert!(catalogue().is_gguf(repository));
        assert_eq!(catalogue().find(repository, None), None);
        assert_eq!(catalogue().find(repository, Some("README.md")), None);
        let entry = catalogue().find(repository, Some("*q4_k_m*.gguf")).unwrap();
        assert_eq!(entry.format, Format::Gguf);
        assert_eq!(entry.facts.quantization, Quantization::Gguf(GgufType::Q4KM));
    }

    #[test]
    fn every_entry_is_valid_cited_and_can_be_estimated() {
        for entry in catalogue().iter() {
            assert_eq!(entry.facts.validate(), Ok(()), "{}", entry.id);
            assert!(!entry.source.is_empty() && !entry.licence.is_empty(), "{}", entry.id);
            let degrees = tensor_degrees(&entry.facts, 8);
            let workload = Workload::new(Engine::Vllm, 2048, 1);
            for &degree in &degrees {
                let result = estimate(&entry.facts, &workload, Parallelism::tensor(degree));
                assert!(result.is_ok(), "{}: {result:?}", entry.id);
            }
            assert_eq!(degrees.first(), Some(&1), "{}", entry.id);
        }
    }
}
