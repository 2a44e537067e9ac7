//! One file's header.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use crate::read::ReadError;

/// Longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;

/// The types of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "their names are all there is to say")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    #[serde(rename = "F8_E4M3", alias = "F8_E4M3FN", alias = "F8_E4M3FNUZ")]
    F8E4M3,
    #[serde(rename = "F8_E5M2", alias = "F8_E5M2FNUZ")]
    F8E5M2,
    #[serde(rename = "F8_E8M0")]
    F8E8M0,
    #[serde(rename = "F6_E2M3", alias = "F6_E3M2")]
    F6,
    F4,
    I64,
    U64,
    I32,
    U32,
    I16,
    U16,
    I8,
    U8,
    #[serde(rename = "BOOL")]
    Bool,
    C64,
}

impl Dtype {
    /// Bits of an element.
    pub const fn bits(self) -> u64 {
        match self {
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 64,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 16,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::I8 | Self::U8 | Self::Bool => 8,
            Self::F6 => 6,
            Self::F4 => 4,
        }
    }
}

/// A tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// How many dimensions it has.
    pub dimensions: usize,
    /// How many elements.
    pub elements: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A file's header: its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    entries: Vec<Entry>,
    /// Where the tensors begin in the file.
    pub data_start: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Box<str>,
    dtype: Dtype,
    dimensions: u8,
    elements: u64,
    begin: u64,
    end: u64,
}

impl Header {
    /// The tensors, in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.entries.iter().map(|entry| Tensor {
            name: &entry.name,
            dtype: entry.dtype,
            dimensions: usize::from(entry.dimensions),
            elements: entry.elements,
            bytes: entry.end - entry.begin,
        })
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    /// How large the whole file is.
    pub fn file_size(&self) -> u64 {
        self.data_start.saturating_add(self.bytes())
    }
}

/// Reads the header from the first bytes of a file; [`ReadError::NeedMore`] says how many are
/// needed where there are too few. 8 bytes are enough to learn how long the header is.
pub fn header(prefix: &[u8], file_size: Option<u64>) -> Result<Header, ReadError> {
    let Some((length, rest)) = prefix.split_first_chunk::<8>() else {
        return Err(ReadError::NeedMore { needed: 8 });
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST {
        return Err(ReadError::TooLarge {
            what: "a safetensors header",
            size: length,
            limit: LONGEST,
        });
    }
    let data_start = length + 8;
    if file_size.is_some_and(|size| data_start > size) {
        return Err(problem(format!("its header of {length} bytes is longer than the file")));
    }
    let text = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let Some(text) = text else {
        return Err(ReadError::NeedMore { needed: data_start });
    };
    let Entries(mut entries) =
        serde_json::from_slice(text).map_err(|error| problem(error.to_string()))?;
    entries.sort_unstable_by_key(|entry| (entry.begin, entry.end));
    // Tensors stand one after the other without a gap: the format asks for it.
    let mut end = 0;
    for entry in &entries {
        if entry.begin != end {
            return Err(problem(format!("{:.100} overlaps another or leaves a gap", entry.name)));
        }
        end = entry.end;
    }
    if let Some(size) = file_size
        && data_start.checked_add(end) != Some(size)
    {
        return Err(problem(format!(
            "its tensors of {end} bytes do not fill the file of {size} bytes"
        )));
    }
    Ok(Header { entries, data_start })
}

fn problem(problem: String) -> ReadError {
    ReadError::Format { format: "a safetensors file", problem }
}

/// The header's JSON, taken in one entry at a time.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info: Info = map.next_value()?;
            entries.push(info.entry(name).map_err(M::Error::custom)?);
        }
        Ok(Entries(entries))
    }
}

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Info {
    fn entry(self, name: Box<str>) -> Result<Entry, String> {
        let (begin, end) = self.data_offsets;
        let wrong = |what: &str| Err(format!("{name:.100}: {what}"));
        if self.shape.len() > MOST_DIMENSIONS {
            return wrong("more than 16 dimensions");
        }
        let elements =
            self.shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
        let Some(elements) = elements else { return wrong("its shape is out of all proportion") };
        let bytes = (u128::from(elements) * u128::from(self.dtype.bits())).div_ceil(8);
        if end < begin || u128::from(end - begin) != bytes {
            return wrong("its offsets are not those of its shape");
        }
        let dimensions = u8::try_from(self.shape.len()).unwrap_or(u8::MAX);
        Ok(Entry { name, dtype: self.dtype, dimensions, elements, begin, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> Vec<u8> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F8_E4M3","shape":[2,3],
        "data_offsets":[8,14]},"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_header_gives_each_tensor() {
        let file = file(TWO);
        let header = header(&file, Some(file.len() as u64 + 14)).unwrap();
        let tensors: Vec<_> = header.tensors().map(|t| (t.name, t.elements, t.bytes)).collect();
        assert_eq!(tensors, [("a", 4, 8), ("b", 6, 6)]);
        assert_eq!((header.bytes(), header.file_size()), (14, file.len() as u64 + 14));
    }

    #[test]
    fn too_few_bytes_say_how_many_are_needed() {
        let file = file(TWO);
        assert_eq!(header(&[], None), Err(ReadError::NeedMore { needed: 8 }));
        for length in 8..file.len() {
            let needed = file.len() as u64;
            assert_eq!(header(&file[..length], None), Err(ReadError::NeedMore { needed }));
        }
        assert!(header(&file, None).is_ok());
    }

    #[test]
    fn hostile_headers_are_refused() {
        for length in [1 << 63, u64::MAX, LONGEST + 1] {
            let refused = header(&length.to_le_bytes(), None).unwrap_err();
            assert!(matches!(refused, ReadError::TooLarge { .. }), "{refused}");
        }
        assert!(matches!(header(&file("{}"), Some(9)), Err(ReadError::Format { .. })));
        for json in [
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]},"b":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551616]}}"#,
            "[]",
            "{",
        ] {
            assert!(header(&file(json), None).is_err(), "{json}");
        }
    }
}
