//! GGUF: what the model is and what every tensor takes, from the first bytes of each file.
//!
//! A header has key-value pairs (the architecture, the vocabulary) and each tensor's type and shape.
//! A model may be split over files, each with a header of its own. [`with_gguf`] makes facts of
//! them: exact whatever the file's name says about its type.

mod facts;
mod metadata;
mod names;
mod reader;
mod types;

use std::collections::HashSet;

pub use facts::with_gguf;
pub use metadata::Metadata;
pub use types::GgmlType;

use self::reader::Reader;
use super::ReadError;

/// More tensors than any file has: some thousands are usual.
const MOST_TENSORS: u64 = 1 << 20;

/// Most dimensions of a tensor, in ggml.
const MOST_DIMENSIONS: u32 = 4;

/// Longest name of a tensor; ggml's is 64.
const LONGEST_NAME: usize = 256;

/// A file's header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// The key-value pairs that matter.
    pub metadata: Metadata,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// Which part of a split model this file is.
    pub part: Part,
    /// Where the tensors' bytes begin in the file.
    pub data_start: u64,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: Box<str>,
    /// The type of its weights.
    pub kind: GgmlType,
    /// Its shape, the length of a row first; unused dimensions are 1.
    pub shape: [u64; 4],
    /// How many bytes it takes.
    pub bytes: u64,
}

impl Tensor {
    /// How many weights it has.
    pub fn weights(&self) -> u64 {
        self.shape.iter().fold(1, |product, &size| product.saturating_mul(size))
    }
}

/// Which part of a split model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 0.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl Default for Part {
    fn default() -> Self {
        Self { number: 0, count: 1 }
    }
}

/// Reads the header from the first bytes of a file; [`ReadError::NeedMore`] says how many to give
/// where there are too few.
pub fn header(prefix: &[u8], file_size: Option<u64>) -> Result<Header, ReadError> {
    let mut reader = Reader::new(prefix, file_size);
    if reader.take(4)? != b"GGUF" {
        return Err(problem("it does not begin with GGUF"));
    }
    let version = reader.u32()?;
    match version {
        2 | 3 => {}
        1 => return Err(problem("version 1 is no longer read by llama.cpp: convert it anew")),
        _ if (2..=3).contains(&version.swap_bytes()) => {
            return Err(problem("it is for big-endian machines"));
        }
        _ => return Err(problem(&format!("version {version} is unknown"))),
    }
    let count = reader.u64()?;
    if count > MOST_TENSORS {
        return Err(ReadError::TooLarge {
            what: "a list of tensors",
            size: count,
            limit: MOST_TENSORS,
        });
    }
    let pairs = reader.u64()?;
    let metadata = Metadata::read(&mut reader, pairs)?;
    let alignment = metadata.number("general.alignment").unwrap_or(32);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(problem("its alignment is no power of two"));
    }
    // A tensor takes 24 bytes at least, so no more are taken in than the bytes can hold.
    if count > reader.remaining() / 24 {
        return Err(reader.need(count.saturating_mul(24)));
    }
    let (mut tensors, mut end) = (Vec::new(), 0_u64);
    for _ in 0..count {
        let (tensor, offset) = tensor(&mut reader)?;
        if !offset.is_multiple_of(alignment) {
            return Err(problem(&format!("{:.100} is not aligned", tensor.name)));
        }
        let last = offset.checked_add(tensor.bytes);
        end = end.max(last.ok_or_else(|| problem("a tensor ends beyond everything"))?);
        tensors.push(tensor);
    }
    let data_start = reader.position().next_multiple_of(alignment);
    if file_size.is_some_and(|size| data_start.saturating_add(end) > size) {
        return Err(problem("its tensors are longer than the file"));
    }
    // Bytes that two tensors share would count twice.
    let sum = tensors.iter().fold(0_u64, |sum, tensor| sum.saturating_add(tensor.bytes));
    let names: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    if sum > end || names.len() < tensors.len() {
        return Err(problem("its tensors overlap, or have the same name"));
    }
    Ok(Header { part: part(&metadata)?, metadata, tensors, data_start })
}

fn part(metadata: &Metadata) -> Result<Part, ReadError> {
    let Some(count) = metadata.number("split.count").filter(|&count| count > 1) else {
        return Ok(Part::default());
    };
    let number = metadata.number("split.no").unwrap_or(0);
    match (u32::try_from(number), u32::try_from(count)) {
        (Ok(number), Ok(count)) if number < count && count <= 1 << 12 => Ok(Part { number, count }),
        _ => Err(problem(&format!("it says that it is part {number} of {count}"))),
    }
}

fn tensor(reader: &mut Reader<'_>) -> Result<(Tensor, u64), ReadError> {
    let name = reader.string()?;
    let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= LONGEST_NAME);
    let name = name.ok_or_else(|| problem("a tensor's name is no short text"))?;
    let wrong = |what: &str| Err(problem(&format!("{name:.100}: {what}")));
    let dimensions = reader.u32()?;
    if dimensions > MOST_DIMENSIONS {
        return wrong("more than 4 dimensions");
    }
    let mut shape = [1; 4];
    for size in shape.iter_mut().take(dimensions as usize) {
        *size = reader.u64()?;
    }
    let number = reader.u32()?;
    let offset = reader.u64()?;
    let Some(kind) = GgmlType::of(number) else {
        return wrong(&format!("llama.cpp has no type {number}"));
    };
    if !shape[0].is_multiple_of(kind.block) {
        return wrong(&format!("rows of {} are not whole blocks of {}", shape[0], kind.name));
    }
    let blocks = [shape[0] / kind.block, shape[1], shape[2], shape[3]];
    let bytes = blocks.iter().try_fold(kind.bytes, |product, &size| product.checked_mul(size));
    match bytes.filter(|&bytes| i64::try_from(bytes).is_ok()) {
        Some(bytes) => Ok((Tensor { name: name.into(), kind, shape, bytes }, offset)),
        None => wrong("its shape is out of all proportion"),
    }
}

fn problem(problem: &str) -> ReadError {
    ReadError::Format { format: "a GGUF file", problem: problem.to_owned() }
}
