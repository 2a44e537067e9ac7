//! The key-value pairs of a header: those that matter are kept, the vocabulary is passed over.

use std::collections::BTreeMap;

use super::reader::Reader;
use crate::read::ReadError;

/// More pairs than any file has: some 60 are usual.
const MOST_PAIRS: u64 = 1 << 16;

/// Longest key, as the format says.
const LONGEST_KEY: usize = 65_535;

/// Longest word and list that are kept: a name, a number a layer.
const LONGEST_WORD: usize = 256;
const LONGEST_LIST: u64 = 4096;

/// Most values that are kept.
const MOST_KEPT: usize = 512;

/// Depth of lists in lists.
const DEEPEST: u32 = 4;

/// A value that is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Float(f64),
    Word(String),
    Numbers(Vec<i64>),
}

/// The pairs, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn read(reader: &mut Reader<'_>, pairs: u64) -> Result<Self, ReadError> {
        if pairs > MOST_PAIRS {
            return Err(ReadError::TooLarge {
                what: "GGUF metadata",
                size: pairs,
                limit: MOST_PAIRS,
            });
        }
        let mut kept = BTreeMap::new();
        for _ in 0..pairs {
            let key = reader.string()?;
            let kind = reader.u32()?;
            let value = value(reader, kind, 0)?;
            let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= LONGEST_KEY);
            let Some(key) = key else { return Err(problem("a key is no text")) };
            if let Some(value) = value
                && kept.len() < MOST_KEPT
                && key.len() <= LONGEST_WORD
            {
                kept.insert(key.to_owned(), value);
            }
        }
        Ok(Self(kept))
    }

    /// A whole number that is not negative; the first where it is a list.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            Value::Numbers(numbers) => {
                numbers.first().and_then(|number| u64::try_from(*number).ok())
            }
            Value::Float(float) if float.fract() == 0.0 && (0.0..1e15).contains(float) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked"
                )]
                Some(*float as u64)
            }
            _ => None,
        }
    }

    /// A whole number that may be one for each layer.
    pub(super) fn number_at(&self, key: &str, layer: u32) -> Option<u64> {
        match self.0.get(key)? {
            Value::Numbers(numbers) => {
                let number = numbers.get(layer as usize).or(numbers.last())?;
                u64::try_from(*number).ok()
            }
            _ => self.number(key),
        }
    }

    /// A list of numbers.
    pub(super) fn numbers(&self, key: &str) -> Option<&[i64]> {
        match self.0.get(key)? {
            Value::Numbers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// A word.
    pub(super) fn word(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// Bytes of a value whose size its type tells.
const fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// One value; none if it is not kept.
fn value(reader: &mut Reader<'_>, kind: u32, depth: u32) -> Result<Option<Value>, ReadError> {
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    if let Some(size) = size(kind) {
        return Ok(Some(scalar(kind, reader.take(size)?)));
    }
    match kind {
        STRING => {
            let word = reader.string()?;
            let short = Some(word).filter(|word| word.len() <= LONGEST_WORD);
            Ok(short
                .and_then(|word| std::str::from_utf8(word).ok())
                .map(|word| Value::Word(word.to_owned())))
        }
        ARRAY if depth < DEEPEST => list(reader, depth),
        ARRAY => Err(problem("lists in lists, too deep")),
        other => Err(problem(&format!("a value of the unknown type {other}"))),
    }
}

fn list(reader: &mut Reader<'_>, depth: u32) -> Result<Option<Value>, ReadError> {
    let kind = reader.u32()?;
    let count = reader.u64()?;
    if let Some(size) = size(kind) {
        let bytes = reader.take(count.saturating_mul(size))?;
        if count > LONGEST_LIST {
            return Ok(None);
        }
        let each = usize::try_from(size).unwrap_or(1);
        let numbers = bytes.chunks_exact(each).map(|bytes| match scalar(kind, bytes) {
            Value::Number(number) => number,
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            Value::Float(float) => float as i64,
            Value::Word(_) | Value::Numbers(_) => 0,
        });
        return Ok(Some(Value::Numbers(numbers.collect())));
    }
    // Strings and lists have a length of 8 bytes at least: no loop of more turns than bytes.
    if count > reader.remaining() / 8 {
        return Err(reader.need(count.saturating_mul(8)));
    }
    for _ in 0..count {
        value(reader, kind, depth + 1)?;
    }
    Ok(None)
}

/// A number of one of the types; false and true are 0 and 1.
fn scalar(kind: u32, bytes: &[u8]) -> Value {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let signed = |bits: u32| unsigned.cast_signed() << (64 - bits) >> (64 - bits);
    match kind {
        1 => Value::Number(signed(8)),
        3 => Value::Number(signed(16)),
        5 => Value::Number(signed(32)),
        11 => Value::Number(signed(64)),
        #[expect(clippy::cast_possible_truncation, reason = "it has 4 bytes")]
        6 => Value::Float(f64::from(f32::from_bits(unsigned as u32))),
        12 => Value::Float(f64::from_bits(unsigned)),
        _ => Value::Number(i64::try_from(unsigned).unwrap_or(i64::MAX)),
    }
}

fn problem(problem: &str) -> ReadError {
    ReadError::Format { format: "a GGUF file", problem: problem.to_owned() }
}
