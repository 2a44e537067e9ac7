//! A model's own files on this machine: their headers are read, never their weights.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use berth_vram::{
    ModelFacts,
    read::{self, ReadError, gguf, safetensors},
};

/// What is read of a file at first: nearly every header is shorter.
const FIRST: u64 = 1 << 20;
/// What is read at most. A GGUF's header holds the vocabulary, some MiB.
const MOST: u64 = 512 << 20;

/// The facts of a GGUF file; of a model that is split, any of its files will do.
pub fn gguf(path: &Path) -> anyhow::Result<ModelFacts> {
    let first = header(path, gguf::header)?;
    let mut headers = Vec::new();
    for number in 0..first.part.count {
        if number != first.part.number {
            let path = part(path, number + 1, first.part.count)?;
            headers.push(header(&path, gguf::header)?);
        }
    }
    headers.push(first);
    read::with_gguf(&headers).with_context(|| format!("{} cannot be used", path.display()))
}

/// The file of another part: `model-00001-of-00003.gguf` is the first of three.
fn part(path: &Path, number: u32, count: u32) -> anyhow::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(stem) = name
        .strip_suffix(&format!("-of-{count:05}.gguf"))
        .and_then(|stem| stem.rsplit_once('-'))
        .map(|(stem, _)| stem)
    else {
        bail!(
            "{} is one of {count} files of a model; the others are found by names such as \
             NAME-{number:05}-of-{count:05}.gguf",
            path.display()
        );
    };
    Ok(path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
}

/// The facts of a checkpoint's folder: its `config.json`, with the exact sizes of its tensors.
pub fn checkpoint(folder: &Path) -> anyhow::Result<ModelFacts> {
    let counted = config(&folder.join("config.json"))?;
    let index_path = folder.join("model.safetensors.index.json");
    let index = if index_path.is_file() {
        let index = safetensors::index(&text(&index_path)?);
        Some(index.with_context(|| format!("{} cannot be used", index_path.display()))?)
    } else {
        None
    };
    let names: Vec<String> = match &index {
        Some(index) => index.files.iter().cloned().collect(),
        None => vec!["model.safetensors".to_owned()],
    };
    let headers = names
        .iter()
        .map(|name| header(&folder.join(name), safetensors::header))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let whole = index.map_or(Ok(()), |index| index.check(&headers));
    whole
        .and_then(|()| read::with_safetensors(&counted, &headers))
        .with_context(|| format!("{} cannot be used", folder.display()))
}

/// The facts of a `config.json`. NVIDIA's `ModelOpt` says how it quantised in a file beside it.
pub fn config(path: &Path) -> anyhow::Result<ModelFacts> {
    let config = text(path)?;
    let beside = path.with_file_name("hf_quant_config.json");
    let quantization = if beside.is_file() { Some(text(&beside)?) } else { None };
    read::config(&config, quantization.as_deref())
        .with_context(|| format!("{} cannot be used", path.display()))
}

/// A file's text; one that is longer than any that is meant for reading is cut, and then refused.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    open(path)?
        .take(MOST)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// A file's header, by as few of its first bytes as will do.
fn header<T>(
    path: &Path,
    parse: impl Fn(&[u8], Option<u64>) -> Result<T, ReadError>,
) -> anyhow::Result<T> {
    let file = open(path)?;
    let reading = || format!("cannot read {}", path.display());
    let size = file.metadata().with_context(reading)?.len();
    let (mut bytes, mut wanted) = (Vec::new(), FIRST);
    loop {
        let more = wanted.min(MOST).saturating_sub(bytes.len() as u64);
        (&file).take(more).read_to_end(&mut bytes).with_context(reading)?;
        match parse(&bytes, Some(size)) {
            // Twice as much at least, so that a header in many pieces is read in few.
            Err(ReadError::NeedMore { needed })
                if needed > bytes.len() as u64 && (bytes.len() as u64) < size.min(MOST) =>
            {
                wanted = needed.max(2 * bytes.len() as u64);
            }
            other => return other.with_context(|| format!("{} cannot be used", path.display())),
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_name() {
        let first = Path::new("/models/big-00001-of-00003.gguf");
        assert_eq!(part(first, 3, 3).unwrap(), Path::new("/models/big-00003-of-00003.gguf"));
        assert!(part(Path::new("/models/big.gguf"), 2, 3).is_err());
    }
}
