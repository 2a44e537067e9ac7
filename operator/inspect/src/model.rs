//! What a model is, from as few bytes of its files as will do: the same for hubs, directories and
//! artifacts.

use std::future::Future;

use berth_vram::{
    ModelFacts,
    read::{self, ReadError, gguf, safetensors},
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    error::InspectError,
    listing,
    select::{self, SelectError},
};

/// Longest text that is read: of a `config.json`, which is refused above it by its reader.
const CONFIG: u64 = 4 << 20;

/// Longest index that is read: 60 files of single experts need some 16 MiB.
const INDEX: u64 = 32 << 20;

/// How much is read of a file to find its header.
#[derive(Clone, Copy)]
struct Bounds {
    /// At first.
    first: u64,
    /// At once after that, unless more is known to be needed.
    step: u64,
    /// All in all.
    most: u64,
}

/// Safetensors: first the header of some 130 tensors, then the rest of it. The longest known are some
/// 200 KiB.
const SAFETENSORS: Bounds = Bounds { first: 16 << 10, step: 16 << 20, most: 16 << 20 };

/// GGUF: the vocabulary is in the header, some 8 MiB and up to 20, and nothing says how long it is.
const GGUF: Bounds = Bounds { first: 1 << 20, step: 2 << 20, most: 48 << 20 };

/// The other files of a split GGUF, without a vocabulary.
const GGUF_PART: Bounds = Bounds { first: 64 << 10, ..GGUF };

/// The most files whose headers are asked for. Above, the files' sizes say how large the model is
/// (their headers are a hundred-thousandth of it), and the architecture how it is divided.
pub(crate) const MOST_HEADERS: usize = 64;

/// Requests at once.
const PARALLEL: usize = 8;

/// Bytes that are read of one model, all files together.
pub(crate) const MOST: u64 = 64 << 20;

/// Which of the files are meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// A name or a pattern (`spec.model.files`); else what an engine needs.
    pub files: Option<&'a str>,
    /// Where there is none: whether only GGUF files count, as for llama.cpp.
    pub gguf: bool,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its path in the model.
    pub name: String,
    /// Its size in bytes, where that is known beforehand.
    pub size: Option<u64>,
}

/// A part of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piece {
    /// The bytes from where they were asked for; fewer only at the end of the file.
    pub bytes: Vec<u8>,
    /// How large the file is, where the answer says so.
    pub size: Option<u64>,
}

/// The files of one model, wherever they are.
pub(crate) trait Files: Sync {
    /// The model and where it is, for people.
    fn whole(&self) -> String;

    /// The bytes of a file from one on to before another.
    fn read(
        &self,
        item: &Item,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Piece, InspectError>> + Send;

    /// A file and where it is, for people.
    fn what(&self, name: &str) -> String {
        format!("{name} of {}", self.whole())
    }
}

/// What the files tell.
#[derive(Debug)]
pub(crate) struct Learnt {
    /// What the model is.
    pub facts: ModelFacts,
    /// Whether all headers were read.
    pub exact: bool,
}

/// Reads what the model is.
pub(crate) async fn learn(
    files: &impl Files,
    items: &[Item],
    selection: Selection<'_>,
) -> Result<Learnt, InspectError> {
    let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
    known_to_be_none(files, &names, selection)?;
    let chosen = select::select(&names, selection.files, selection.gguf)
        .map_err(|error| refused(files, &error))?;
    let weights = |end: &str| -> Vec<&Item> {
        let is = |item: &&Item| chosen.contains(&item.name.as_str()) && ends(&item.name, end);
        items.iter().filter(is).collect()
    };
    let gguf = weights(".gguf");
    let safetensors = weights(".safetensors");
    if safetensors.is_empty() && !gguf.is_empty() {
        return of_gguf(files, &gguf).await;
    }
    let others = [weights(".bin"), weights(".pt")].concat();
    let Some(first) = safetensors.first().or(others.first()) else {
        let why = format!(
            "has no weights among the files {:?} that an engine can load; name them in \
             spec.model.files",
            selection.files.unwrap_or_default()
        );
        return Err(InspectError::NotAModel { what: files.whole(), why });
    };
    let counted = config(files, items, &first.name).await?;
    if safetensors.is_empty() || safetensors.len() > MOST_HEADERS {
        let weights = if safetensors.is_empty() { &others } else { &safetensors };
        return Ok(sized(counted, weights));
    }
    of_safetensors(files, items, &safetensors, &counted).await
}

/// Says what it is where it is known to be no model, in better words than those for missing files.
fn known_to_be_none(
    files: &impl Files,
    names: &[&str],
    selection: Selection<'_>,
) -> Result<(), InspectError> {
    let has = |name: &str| names.contains(&name);
    let gguf = names.iter().any(|name| ends(name, ".gguf"));
    if gguf || has("config.json") || selection.files.is_some() {
        return Ok(());
    }
    let why = if has("adapter_config.json") {
        "is an adapter (LoRA) and no model of its own; name the model that it was made for in \
         spec.model.uri"
    } else if has("model_index.json") {
        "is a pipeline for images (diffusers), which no engine of Berth's serves"
    } else if has("params.json") {
        "is in Mistral's own format (params.json without a config.json), which is not read; say in \
         spec.model.facts what the model is"
    } else {
        return Ok(());
    };
    Err(InspectError::NotAModel { what: files.whole(), why: why.to_owned() })
}

fn refused(files: &impl Files, error: &SelectError) -> InspectError {
    InspectError::NotFound(format!("{} {error}", files.whole()))
}

/// The facts of the `config.json` that belongs to a file of weights.
async fn config(
    files: &impl Files,
    items: &[Item],
    weights: &str,
) -> Result<ModelFacts, InspectError> {
    let find = |name: &str| {
        let beside = beside(weights, name);
        let item = |wanted: &str| items.iter().find(|item| item.name == wanted);
        item(&beside).or_else(|| item(name))
    };
    let Some(config) = find("config.json") else {
        let why =
            "has no config.json beside its weights; say in spec.model.facts what the model is";
        return Err(InspectError::NotAModel { what: files.whole(), why: why.to_owned() });
    };
    let text = text(files, config, CONFIG).await?;
    // NVIDIA's ModelOpt says how it quantised in a file beside it.
    let quantization = match find("hf_quant_config.json") {
        Some(item) => Some(self::text(files, item, CONFIG).await?),
        None => None,
    };
    read::config(&text, quantization.as_deref())
        .map_err(|source| unreadable(files, &config.name, source))
}

/// Facts that were counted, with the size of the files where it is known.
fn sized(counted: ModelFacts, weights: &[&Item]) -> Learnt {
    let size = weights.iter().try_fold(0_u64, |sum, item| sum.checked_add(item.size?));
    let sized = ModelFacts { weight_bytes: size.or(counted.weight_bytes), ..counted.clone() };
    let facts = if sized.validate().is_ok() { sized } else { counted };
    Learnt { facts, exact: false }
}

async fn of_safetensors(
    files: &impl Files,
    items: &[Item],
    weights: &[&Item],
    counted: &ModelFacts,
) -> Result<Learnt, InspectError> {
    let index = index(files, items, weights).await?;
    let named = |item: &&&Item| {
        let name = item.name.rsplit('/').next().unwrap_or_default();
        index.as_ref().is_none_or(|index| index.files.contains(name))
    };
    let loaded: Vec<Item> = weights.iter().filter(named).copied().cloned().collect();
    // Each owns its item: what borrows it could not be sent to another thread.
    let header =
        |item: Item| async move { header(files, &item, SAFETENSORS, safetensors::header).await };
    let headers: Vec<_> =
        stream::iter(loaded.into_iter().map(header)).buffered(PARALLEL).try_collect().await?;
    let whole = index.map_or(Ok(()), |index| index.check(&headers));
    whole
        .and_then(|()| read::with_safetensors(counted, &headers))
        .map(|facts| Learnt { facts, exact: true })
        .map_err(|source| InspectError::Unreadable { what: files.whole(), source })
}

/// The index of several files, where there is one.
async fn index(
    files: &impl Files,
    items: &[Item],
    weights: &[&Item],
) -> Result<Option<safetensors::Index>, InspectError> {
    let Some(first) = weights.first().filter(|_| weights.len() > 1) else { return Ok(None) };
    let name = beside(&first.name, "model.safetensors.index.json");
    let Some(item) = items.iter().find(|item| item.name == name) else { return Ok(None) };
    let text = text(files, item, INDEX).await?;
    let index = safetensors::index(&text).map_err(|source| unreadable(files, &name, source))?;
    Ok(Some(index))
}

async fn of_gguf(files: &impl Files, weights: &[&Item]) -> Result<Learnt, InspectError> {
    let names: Vec<&str> = weights.iter().map(|item| item.name.as_str()).collect();
    let model = select::of_one_gguf(&names).map_err(|error| refused(files, &error))?;
    if model.len() > MOST_HEADERS {
        let why = format!(
            "is split into {} GGUF files, more than the {MOST_HEADERS} whose headers are read; say \
             in spec.model.facts what the model is",
            model.len()
        );
        return Err(InspectError::NotAModel { what: files.whole(), why });
    }
    let header = |(at, item): (usize, Item)| async move {
        let bounds = if at == 0 { GGUF } else { GGUF_PART };
        header(files, &item, bounds, gguf::header).await
    };
    let of_model = |item: &&Item| model.contains(&item.name.as_str());
    let mut parts: Vec<Item> = weights.iter().copied().filter(of_model).cloned().collect();
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    let headers: Vec<_> = stream::iter(parts.into_iter().enumerate().map(header))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    read::with_gguf(&headers)
        .map(|facts| Learnt { facts, exact: true })
        .map_err(|source| InspectError::Unreadable { what: files.whole(), source })
}

/// A small file's text.
async fn text(files: &impl Files, item: &Item, most: u64) -> Result<String, InspectError> {
    let what = || files.what(&item.name);
    if item.size.is_some_and(|size| size > most) {
        return Err(InspectError::TooMuch { what: what(), limit: most });
    }
    let piece = files.read(item, 0, most + 1).await?;
    if piece.bytes.len() as u64 > most {
        return Err(InspectError::TooMuch { what: what(), limit: most });
    }
    let format = |problem: &str| {
        let source = ReadError::Format { format: "JSON", problem: problem.to_owned() };
        InspectError::Unreadable { what: what(), source }
    };
    if let Some(problem) = stands_for_another(&piece.bytes) {
        return Err(format(problem));
    }
    String::from_utf8(piece.bytes).map_err(|_| format("it is no text"))
}

/// A file's header, by as few of its first bytes as will do.
async fn header<T>(
    files: &impl Files,
    item: &Item,
    Bounds { first, step, most }: Bounds,
    parse: impl Fn(&[u8], Option<u64>) -> Result<T, ReadError>,
) -> Result<T, InspectError> {
    let unreadable = |source| unreadable(files, &item.name, source);
    let (mut bytes, mut size, mut wanted) = (Vec::new(), item.size, first);
    loop {
        let from = bytes.len() as u64;
        let to = wanted.min(most).min(size.unwrap_or(u64::MAX));
        let mut ended = to <= from;
        if !ended {
            let piece = files.read(item, from, to).await?;
            size = size.or(piece.size);
            ended = (piece.bytes.len() as u64) < to - from;
            bytes.extend_from_slice(&piece.bytes);
        }
        if from == 0
            && let Some(problem) = stands_for_another(&bytes)
        {
            let problem = problem.to_owned();
            return Err(unreadable(ReadError::Format { format: "a file of weights", problem }));
        }
        match parse(&bytes, size) {
            Err(ReadError::NeedMore { needed }) if needed > most => {
                return Err(InspectError::TooMuch { what: files.what(&item.name), limit: most });
            }
            Err(ReadError::NeedMore { needed }) if ended => {
                let problem = format!(
                    "it ends after {} bytes, and its header takes {needed} at least",
                    bytes.len()
                );
                return Err(unreadable(ReadError::Format { format: "a whole file", problem }));
            }
            Err(ReadError::NeedMore { needed }) => {
                let read = bytes.len() as u64;
                wanted = needed.clamp(read + 1, read + step);
            }
            other => return other.map_err(unreadable),
        }
    }
}

/// What is there in place of a file.
fn stands_for_another(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("it is a pointer of Git LFS in place of the file: run `git lfs pull` there");
    }
    listing::looks_like_html(bytes).then_some("it is a web page (HTML) in place of the file")
}

fn unreadable(files: &impl Files, name: &str, source: ReadError) -> InspectError {
    InspectError::Unreadable { what: files.what(name), source }
}

/// The path of a file in the folder of another.
fn beside(path: &str, name: &str) -> String {
    path.rsplit_once('/').map_or_else(|| name.to_owned(), |(folder, _)| format!("{folder}/{name}"))
}

fn ends(name: &str, end: &str) -> bool {
    let (name, end) = (name.as_bytes(), end.as_bytes());
    name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
}
