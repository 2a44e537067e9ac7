//! Small model files, written as their formats say.

#![allow(dead_code, reason = "each test takes what it needs")]

/// A value of GGUF metadata.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    Bool(bool),
    Text(&'static str),
    U32s(Vec<u32>),
    Bools(Vec<bool>),
    Texts(usize),
}

/// A GGUF file's header: pairs, and tensors as name, shape and type's number.
pub fn gguf(pairs: &[(&str, Meta)], tensors: &[(String, Vec<u64>, u32)]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        text(&mut file, key);
        meta(&mut file, value);
    }
    let mut offset = 0_u64;
    for (name, shape, kind) in tensors {
        text(&mut file, name);
        file.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
        file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
        let (block, bytes) = block(*kind);
        offset += (shape.iter().product::<u64>() / block * bytes).next_multiple_of(32);
    }
    file
}

/// Weights and bytes of a block, for the types that tests use.
pub fn block(kind: u32) -> (u64, u64) {
    match kind {
        0 => (1, 4),
        1 => (1, 2),
        8 => (32, 34),
        12 => (256, 144),
        14 => (256, 210),
        39 => (32, 17),
        other => panic!("no block of type {other}"),
    }
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn meta(file: &mut Vec<u8>, value: &Meta) {
    let kind = |file: &mut Vec<u8>, kind: u32| file.extend(kind.to_le_bytes());
    let list = |file: &mut Vec<u8>, of: u32, count: usize| {
        kind(file, 9);
        kind(file, of);
        file.extend((count as u64).to_le_bytes());
    };
    match value {
        Meta::U32(number) => {
            kind(file, 4);
            file.extend(number.to_le_bytes());
        }
        Meta::Bool(flag) => {
            kind(file, 7);
            file.push(u8::from(*flag));
        }
        Meta::Text(word) => {
            kind(file, 8);
            text(file, word);
        }
        Meta::U32s(numbers) => {
            list(file, 4, numbers.len());
            file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Meta::Bools(flags) => {
            list(file, 7, flags.len());
            file.extend(flags.iter().map(|&flag| u8::from(flag)));
        }
        Meta::Texts(count) => {
            list(file, 8, *count);
            for number in 0..*count {
                text(file, &format!("▁token{number}"));
            }
        }
    }
}

/// A safetensors file's header: tensors as name, type, shape and bytes.
pub fn safetensors(tensors: &[(String, &str, Vec<u64>, u64)]) -> Vec<u8> {
    let mut offset = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let begin = offset;
            offset += bytes;
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{offset}]}}"#)
        })
        .collect();
    let json = format!("{{{}}}", entries.join(","));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    file
}
