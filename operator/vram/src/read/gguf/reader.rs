//! Bytes from the beginning of a file, taken one value after the other.

use crate::read::ReadError;

/// Longest header that is read. Vocabularies make them some 10 MiB long.
const LONGEST: u64 = 1 << 30;

/// The beginning of a file.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    file_size: Option<u64>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8], file_size: Option<u64>) -> Self {
        Self { bytes, at: 0, file_size }
    }

    /// How far it is.
    pub(super) const fn position(&self) -> u64 {
        self.at as u64
    }

    /// How many bytes are left.
    pub(super) const fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// So many bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], ReadError> {
        let taken = usize::try_from(count)
            .ok()
            .and_then(|count| self.bytes.get(self.at..self.at.checked_add(count)?));
        match taken {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.need(count)),
        }
    }

    /// The error for bytes that are not there: `count` are needed at least. At least twice what was
    /// given is asked for, so that few requests are needed.
    pub(super) fn need(&self, count: u64) -> ReadError {
        let least = self.position().saturating_add(count);
        if least > self.file_size.unwrap_or(LONGEST).min(LONGEST) {
            return match self.file_size {
                Some(size) if least > size => ReadError::Format {
                    format: "a GGUF file",
                    problem: format!("its header is longer than the file of {size} bytes"),
                },
                _ => ReadError::TooLarge { what: "a GGUF header", size: least, limit: LONGEST },
            };
        }
        let twice = (self.bytes.len() as u64).saturating_mul(2).min(LONGEST);
        let needed = least.max(twice);
        ReadError::NeedMore { needed: self.file_size.map_or(needed, |size| needed.min(size)) }
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        let bytes = self.take(4)?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        let bytes = self.take(8)?;
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    /// A length and as many bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], ReadError> {
        let length = self.u64()?;
        self.take(length)
    }
}
