//! `config.json`, and after a zero byte `hf_quant_config.json`. Mostly mutates JSON as JSON: bytes
//! alone rarely make a config that is one.

#![no_main]

use std::sync::LazyLock;

use berth_vram::read;
use berth_vram_fuzz::use_facts;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use serde_json::{Map, Value, json};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (config, quantization) = match text.split_once('\0') {
        Some((config, quantization)) => (config, Some(quantization)),
        None => (&*text, None),
    };
    if let Ok(facts) = read::config(config, quantization) {
        use_facts(&facts);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(u64::from(seed) << 1 | 1);
    if random.below(4) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&data[..size]) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(3) {
        let count = nodes(&value);
        let mut at = random.below(count);
        change(&mut value, &mut at, &mut random);
    }
    let text = value.to_string();
    if text.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
});

/// Xorshift: the fuzzer gives the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most.max(1) as u64).unwrap_or(0)
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Changes the node of this number, counted from the root.
fn change(value: &mut Value, at: &mut usize, random: &mut Random) -> bool {
    if *at == 0 {
        *value = changed(value, random);
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|inner| change(inner, at, random)),
        Value::Object(map) => map.values_mut().any(|inner| change(inner, at, random)),
        _ => false,
    }
}

fn changed(value: &Value, random: &mut Random) -> Value {
    const NUMBERS: [i64; 14] =
        [0, 1, 2, 3, 7, 8, 64, 128, 4096, 65_536, 1 << 24, (1 << 31) - 1, 1 << 32, -1];
    match (value, random.below(8)) {
        (Value::Object(map), 0..=4) => {
            let mut map = map.clone();
            for _ in 0..=random.below(2) {
                edit(&mut map, random);
            }
            Value::Object(map)
        }
        (Value::Array(list), 0..=4) => {
            let mut list = list.clone();
            match (list.is_empty(), random.below(3)) {
                (false, 0) => drop(list.remove(random.below(list.len()))),
                (false, 1) => {
                    let one = list[random.below(list.len())].clone();
                    list.insert(random.below(list.len()), one);
                }
                _ => list.push(json!(NUMBERS[random.below(NUMBERS.len())])),
            }
            Value::Array(list)
        }
        (Value::Number(number), 0..=2) => {
            json!(number.as_i64().unwrap_or(0).wrapping_add(random.below(3) as i64 - 1))
        }
        (_, 3) => Value::Null,
        (_, 4) => json!(random.below(2) == 0),
        (_, 5) => json!(WORDS[random.below(WORDS.len())]),
        _ => json!(NUMBERS[random.below(NUMBERS.len())]),
    }
}

fn edit(map: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    if !keys.is_empty() && random.below(3) == 0 {
        map.remove(&keys[random.below(keys.len())]);
        return;
    }
    let value = match random.below(6) {
        0 => json!({}),
        1 => json!([1, 0, 1]),
        2 => json!(WORDS[random.below(WORDS.len())]),
        3 => json!([WORDS[random.below(WORDS.len())]]),
        4 if !keys.is_empty() => map[&keys[random.below(keys.len())]].clone(),
        _ => {
            let most = 1 << random.below(20);
            json!(random.below(most))
        }
    };
    map.insert(WORDS[random.below(WORDS.len())].to_owned(), value);
}

/// Fields, kinds of models and words that the reader knows: those of the property tests.
static WORDS: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../../../tests/words.txt").lines().collect());
