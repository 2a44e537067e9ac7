//! The methods by their configs: `quantization_config` of a `config.json`, or `ModelOpt`'s
//! `hf_quant_config.json`.

use serde_json::{Map, Value};

use super::{
    Scheme,
    patterns::Patterns,
    storage::{Shares, Storage},
};
use crate::{
    KvDtype, Quantization,
    read::{ReadError, fields::Fields},
};

/// The keys under which methods list what they leave alone.
const IGNORED: [&str; 8] = [
    "ignore",
    "modules_to_not_convert",
    "ignored_layers",
    "exclude_modules",
    "llm_int8_skip_modules",
    "exclude",
    "modules_to_not_quantize",
    "skip_modules",
];

/// Reads a quantisation's config.
pub(super) fn scheme(config: &Map<String, Value>) -> Result<Scheme, ReadError> {
    let fields = Fields::new(vec![config], None, "");
    let method = fields.text(&["quant_method"]).unwrap_or_default();
    let mut scheme = match method {
        "fp8" | "fbgemm_fp8" | "ptpc_fp8" if fields.get(&["quant_algo"]).is_none() => {
            fp8(&fields, method)
        }
        "awq" => awq(&fields)?,
        "gptq" | "gptq_marlin" => gptq(&fields)?,
        "auto-round" | "intel/auto-round" | "auto_round" => auto_round(&fields)?,
        "bitsandbytes" => bitsandbytes(&fields),
        "mxfp4" | "gpt_oss_mxfp4" => experts(Storage::MXFP4, Quantization::Mxfp4),
        "experts_int8" => experts(Storage::eight(Shares::Channel), Quantization::Int8),
        "quark" => quark(&fields)?,
        "compressed-tensors" | "compressed_tensors" | "sparseml" => compressed_tensors(&fields)?,
        "modelopt" | "modelopt_fp4" | "fp8" | "modelopt_mixed" | "modelopt_mxfp8" => {
            modelopt(&fields)?
        }
        "" if fields.get(&["quant_algo", "quantized_layers"]).is_some() => modelopt(&fields)?,
        "" if fields.get(&["config_groups"]).is_some() => compressed_tensors(&fields)?,
        "" if fields.flag(&["load_in_4bit", "load_in_8bit"]).is_some() => bitsandbytes(&fields),
        _ => other(&fields, method)?,
    };
    for key in IGNORED {
        if let Some(list) = fields.list(&[key]) {
            let words = list.iter().filter_map(Value::as_str);
            let more = Patterns::of(words)?;
            scheme.ignored = if scheme.ignored.is_empty() { more } else { scheme.ignored };
        }
    }
    scheme.kv_cache = kv_cache(&fields);
    Ok(scheme)
}

fn kv_cache(fields: &Fields<'_>) -> Option<KvDtype> {
    let eight = |scheme: &Value| match scheme {
        Value::String(word) => word.eq_ignore_ascii_case("fp8"),
        other => other["num_bits"].as_u64() == Some(8) && other["type"].as_str() == Some("float"),
    };
    ["kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_config"]
        .into_iter()
        .any(|key| fields.get(&[key]).is_some_and(eight))
        .then_some(KvDtype::Fp8)
}

fn all(storage: Storage, quantization: Quantization) -> Scheme {
    Scheme { main: Some(storage), quantization, ..Scheme::default() }
}

fn experts(storage: Storage, quantization: Quantization) -> Scheme {
    Scheme { experts_only: true, ..all(storage, quantization) }
}

/// Modules that are stored otherwise, by how: names are then looked up and not tried, however many
/// there are.
#[derive(Default)]
struct Rules(Vec<(Option<Storage>, Vec<String>)>);

impl Rules {
    fn add(&mut self, storage: Option<Storage>, pattern: String) -> Result<(), ReadError> {
        const MOST: usize = 64;
        match self.0.iter().position(|(known, _)| *known == storage) {
            Some(at) => self.0[at].1.push(pattern),
            None if self.0.len() == MOST => {
                return Err(ReadError::TooLarge {
                    what: "a list of ways to store a module",
                    size: MOST as u64 + 1,
                    limit: MOST as u64,
                });
            }
            None => self.0.push((storage, vec![pattern])),
        }
        Ok(())
    }

    fn done(self) -> Result<Vec<(Patterns, Option<Storage>)>, ReadError> {
        let of = |(storage, patterns): (_, Vec<String>)| {
            Ok((Patterns::of(patterns.iter().map(String::as_str))?, storage))
        };
        self.0.into_iter().map(of).collect()
    }
}

fn unsupported(what: String) -> ReadError {
    ReadError::Unsupported {
        what,
        advice: "let the headers of the weight files be read, or give spec.model.facts",
    }
}

/// Two numbers: rows and columns that share a scale.
fn block(fields: &Fields<'_>, key: &str) -> Option<(u32, u32)> {
    let list = fields.numbers(&[key])?;
    let size = |at: usize| u32::try_from(*list.get(at)?).ok().filter(|&size| size > 0);
    Some((size(0)?, size(1)?))
}

fn fp8_in_blocks((rows, columns): (u32, u32)) -> Scheme {
    let quantization =
        if (rows, columns) == (128, 128) { Quantization::Fp8Block } else { Quantization::Fp8 };
    all(Storage::eight(Shares::Block(rows, columns)), quantization)
}

fn fp8(fields: &Fields<'_>, method: &str) -> Scheme {
    match block(fields, "weight_block_size") {
        Some(size) => fp8_in_blocks(size),
        None if method == "fp8" => all(Storage::eight(Shares::Tensor), Quantization::Fp8),
        None => all(Storage::eight(Shares::Channel), Quantization::Fp8),
    }
}

/// Bits and group size; −1 is a whole row.
fn grouped(fields: &Fields<'_>) -> Result<(u32, Option<u32>), ReadError> {
    let bits = fields.number(&["bits", "w_bit", "num_bits", "wbits"])?.unwrap_or(4);
    let group = match fields.get(&["group_size", "q_group_size"]).and_then(Value::as_i64) {
        Some(group) if group > 0 => Some(u32::try_from(group).unwrap_or(u32::MAX).min(1 << 20)),
        _ => None,
    };
    if !(1..=16).contains(&bits) {
        return Err(ReadError::Invalid {
            field: "quantization_config.bits".to_owned(),
            problem: format!("is {bits}; it must be from 1 to 16"),
        });
    }
    Ok((bits, group))
}

/// What people call integers in groups. Whole rows limit no split, as a group of 1 does not.
fn integers(awq: bool, bits: u32, group: Option<u32>) -> Quantization {
    let (bits, group_size) = (u8::try_from(bits).unwrap_or(16), group.unwrap_or(1));
    match (awq, bits, group) {
        (true, ..) => Quantization::Awq { bits, group_size },
        (false, 8, None) => Quantization::Int8,
        (false, ..) if (2..=8).contains(&bits) => Quantization::Gptq { bits, group_size },
        _ => Quantization::None,
    }
}

fn awq(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let (bits, group) = grouped(fields)?;
    let zero = fields.flag(&["zero_point"]).unwrap_or(true);
    Ok(all(Storage::integers(bits, group, zero), integers(true, bits, group)))
}

/// GPTQ stores zero points even where they are all alike, and which group each input belongs to.
fn gptq_storage(bits: u32, group: Option<u32>) -> Storage {
    Storage::integers(bits, group, true).with_input_bits(32)
}

fn gptq(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let (bits, group) = grouped(fields)?;
    let mut scheme = all(gptq_storage(bits, group), integers(false, bits, group));
    let mut rules = Rules::default();
    if fields.flag(&["lm_head"]) == Some(true) {
        rules.add(scheme.main, "lm_head".to_owned())?;
    }
    if let Some(Value::Object(dynamic)) = fields.get(&["dynamic"]) {
        // GPTQModel: "-:expression" leaves modules alone, "+:expression" stores them otherwise.
        for (pattern, values) in dynamic {
            let (expression, alone) = match pattern.strip_prefix("-:") {
                Some(expression) => (expression, true),
                None => (pattern.strip_prefix("+:").unwrap_or(pattern), false),
            };
            let own = values.as_object().map(|own| Fields::new(vec![own], None, ""));
            let storage = match own {
                Some(own) if !alone => {
                    let own_bits = own.number(&["bits"])?.unwrap_or(bits).clamp(1, 16);
                    let own_group = own.number(&["group_size"])?.or(group);
                    Some(gptq_storage(own_bits, own_group))
                }
                _ => None,
            };
            rules.add(storage, format!("re:{expression}"))?;
        }
    }
    scheme.rules = rules.done()?;
    Ok(scheme)
}

fn auto_round(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let (bits, group) = grouped(fields)?;
    let as_awq = fields.text(&["packing_format"]).is_some_and(|format| format.contains("awq"));
    let storage =
        if as_awq { Storage::integers(bits, group, true) } else { gptq_storage(bits, group) };
    let mut scheme = all(storage, integers(as_awq, bits, group));
    let mut rules = Rules::default();
    if let Some(Value::Object(extra)) = fields.get(&["extra_config"]) {
        for (name, values) in extra {
            let own_bits = values["bits"].as_u64().unwrap_or(u64::from(bits));
            let own_bits = u32::try_from(own_bits).unwrap_or(16).clamp(1, 16);
            let storage = (own_bits < 16).then(|| Storage::integers(own_bits, group, true));
            rules.add(storage, name.clone())?;
        }
    }
    scheme.rules = rules.done()?;
    Ok(scheme)
}

/// NF4 and FP4 in blocks of 64 with an fp32 scale, or, quantised once more, an 8-bit one (and an
/// fp32 one for 256 of them); LLM.int8 with a scale a row.
fn bitsandbytes(fields: &Fields<'_>) -> Scheme {
    let four = fields.flag(&["load_in_4bit", "_load_in_4bit"]) == Some(true);
    let eight = fields.flag(&["load_in_8bit", "_load_in_8bit"]) == Some(true);
    if eight && !four {
        return all(Storage::eight(Shares::Channel), Quantization::Int8);
    }
    let twice = fields.flag(&["bnb_4bit_use_double_quant"]) == Some(true);
    let scale = if twice { 8 } else { 32 };
    all(Storage::new(4, Shares::Group(64), scale), Quantization::Bnb4)
}

/// Weights of one group in compressed-tensors: how they are stored, and what that is called.
fn weights(weights: &Value, format: &str) -> Result<Option<(Storage, Quantization)>, ReadError> {
    let Some(object) = weights.as_object() else { return Ok(None) };
    let own = Fields::new(vec![object], None, "");
    let (bits, group) = grouped(&own)?;
    let float = own.text(&["type"]) == Some("float");
    let zero = own.flag(&["symmetric"]) == Some(false);
    let strategy = own.text(&["strategy"]).unwrap_or_default();
    Ok(Some(match (float, bits) {
        (true, 4) if format.contains("mxfp4") || group == Some(32) => {
            (Storage::MXFP4, Quantization::Mxfp4)
        }
        (true, 4) => (Storage::nvfp4(group.unwrap_or(16)), Quantization::Nvfp4),
        (true, 8) if format.contains("mxfp8") || group == Some(32) => {
            (Storage::MXFP8, Quantization::Fp8)
        }
        (true, 8) => {
            if let Some(size) = block(&own, "block_structure").filter(|_| strategy != "tensor") {
                let Scheme { main, quantization, .. } = fp8_in_blocks(size);
                (main.unwrap_or(Storage::PLAIN), quantization)
            } else {
                let shares = match (strategy, group) {
                    ("tensor", _) => Shares::Tensor,
                    ("group", Some(group)) => Shares::Group(group),
                    _ => Shares::Channel,
                };
                (Storage::eight(shares), Quantization::Fp8)
            }
        }
        (false, 8) if group.is_none() => (Storage::eight(Shares::Channel), Quantization::Int8),
        (_, bits) if bits >= 16 => return Ok(None),
        (_, bits) => (Storage::integers(bits, group, zero), integers(false, bits, group)),
    }))
}

/// Groups of modules, each with its own storage: compressed-tensors, and `ModelOpt` in the same form.
fn compressed_tensors(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let (mut scheme, mut rules) = (Scheme::default(), Rules::default());
    let format = fields.text(&["format"]).unwrap_or_default();
    let groups = fields.object(&["config_groups"]);
    let Some(Value::Object(groups)) = groups.and_then(|_| fields.get(&["config_groups"])) else {
        return Ok(scheme);
    };
    for group in groups.values() {
        let format = group["format"].as_str().unwrap_or(format);
        let stored = weights(&group["weights"], format)?;
        let targets: Vec<_> = group["targets"]
            .as_array()
            .map_or(Vec::new(), |targets| targets.iter().filter_map(Value::as_str).collect());
        // "Linear" and its like are classes; the rest are names.
        let (classes, names): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|target| is_class(target));
        if !classes.is_empty() || names.is_empty() {
            scheme.main = stored.map(|(storage, _)| storage);
        }
        for name in names {
            rules.add(stored.map(|(storage, _)| storage), name.to_owned())?;
        }
        if let Some((_, quantization)) =
            stored.filter(|_| scheme.quantization == Quantization::None)
        {
            scheme.quantization = quantization;
        }
    }
    scheme.rules = rules.done()?;
    Ok(scheme)
}

fn is_class(target: &str) -> bool {
    !target.contains(['.', ':', '*', '_']) && target.starts_with(|c: char| c.is_ascii_uppercase())
}

/// One of `ModelOpt`'s algorithms.
fn algorithm(name: &str, group: Option<u32>) -> Option<(Storage, Quantization)> {
    Some(match name.to_ascii_uppercase().as_str() {
        "FP8" | "FP8_PER_TENSOR" => (Storage::eight(Shares::Tensor), Quantization::Fp8),
        "FP8_PER_CHANNEL_PER_TOKEN" => (Storage::eight(Shares::Channel), Quantization::Fp8),
        "FP8_PB_WO" | "FP8_BLOCK_SCALES" | "FP8_PB" => {
            (Storage::eight(Shares::Block(128, 128)), Quantization::Fp8Block)
        }
        "NVFP4" | "W4A16_NVFP4" | "NVFP4_AWQ" | "W4A8_NVFP4_FP8" => {
            (Storage::nvfp4(group.unwrap_or(16)), Quantization::Nvfp4)
        }
        "MXFP4" | "W4A8_MXFP4_FP8" | "W4A16_MXFP4" => (Storage::MXFP4, Quantization::Mxfp4),
        "MXFP8" => (Storage::MXFP8, Quantization::Fp8),
        "W4A16_AWQ" | "W4A8_AWQ" | "INT4_AWQ" | "W4A16" => {
            let group = Some(group.unwrap_or(128));
            (Storage::integers(4, group, false), integers(true, 4, group))
        }
        "W8A16" | "W8A8_SQ_PER_CHANNEL" | "INT8" | "INT8_SQ" | "W8A8" => {
            (Storage::eight(Shares::Channel), Quantization::Int8)
        }
        _ => return None,
    })
}

fn modelopt(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let group = fields.number(&["group_size"])?.filter(|&group| group > 0);
    let mut scheme = Scheme::default();
    let name = fields.text(&["quant_algo"]).unwrap_or_default();
    if let Some((storage, quantization)) = algorithm(name, group) {
        scheme = all(storage, quantization);
    } else if let Some(size) = block(fields, "weight_block_size") {
        // Mixed: fp8 in blocks where nothing else is said (DeepSeek-V4).
        scheme = fp8_in_blocks(size);
    }
    let listed = fields.get(&["quantized_layers"]);
    if let Some(Value::Object(layers)) = listed {
        let mut rules = Rules::default();
        let mut smallest: Option<(u64, Quantization)> = None;
        for (module, own) in layers {
            let own_group = own["group_size"].as_u64().and_then(|size| u32::try_from(size).ok());
            let name = own["quant_algo"].as_str().unwrap_or_default();
            let Some((storage, quantization)) = algorithm(name, own_group.or(group)) else {
                continue;
            };
            let size = storage.bytes(4096, 4096, 1);
            if smallest.is_none_or(|(known, _)| size < known) {
                smallest = Some((size, quantization));
            }
            rules.add(Some(storage), module.clone())?;
        }
        // It is called what most of it is: the one in the fewest bits.
        if let Some((_, quantization)) = smallest {
            scheme.quantization = quantization;
        }
        scheme.rules = rules.done()?;
    } else if scheme.main.is_none() {
        if fields.get(&["config_groups"]).is_none() {
            return Err(unsupported(format!("the quantisation {name:?} of ModelOpt")));
        }
        scheme = compressed_tensors(fields)?;
    }
    Ok(scheme)
}

/// AMD's Quark: one config for all weights, others for some layers.
fn quark(fields: &Fields<'_>) -> Result<Scheme, ReadError> {
    let stored = |config: &Value| -> Result<Option<(Storage, Quantization)>, ReadError> {
        let weight = match &config["weight"] {
            Value::Array(list) => list.first().unwrap_or(&Value::Null),
            other => other,
        };
        let Some(object) = weight.as_object() else { return Ok(None) };
        let own = Fields::new(vec![object], None, "");
        let group = own.number(&["group_size"])?.filter(|&group| group > 0);
        let whole = own.text(&["qscheme"]) == Some("per_tensor");
        let shares = if whole { Shares::Tensor } else { Shares::Channel };
        Ok(match own.text(&["dtype"]).unwrap_or_default() {
            "fp4" | "mxfp4" | "mx_fp4" => Some((Storage::MXFP4, Quantization::Mxfp4)),
            "mx6" | "fp6_e2m3" | "fp6_e3m2" => {
                Some((Storage::new(6, Shares::Group(32), 8), Quantization::Fp8))
            }
            "fp8_e4m3" | "fp8_e5m2" | "fp8" => Some((Storage::eight(shares), Quantization::Fp8)),
            "int8" | "uint8" => Some((Storage::eight(shares), Quantization::Int8)),
            "int4" | "uint4" => Some((Storage::integers(4, group, true), integers(true, 4, group))),
            _ => None,
        })
    };
    let global = fields.get(&["global_quant_config"]).unwrap_or(&Value::Null);
    let mut scheme = match stored(global)? {
        Some((storage, quantization)) => all(storage, quantization),
        None => return Err(unsupported("this quantisation of Quark".to_owned())),
    };
    let mut rules = Rules::default();
    if let Some(Value::Object(layers)) = fields.get(&["layer_quant_config"]) {
        for (pattern, own) in layers {
            let storage = stored(own)?.map(|(storage, _)| storage);
            rules.add(storage, pattern.clone())?;
        }
    }
    scheme.rules = rules.done()?;
    Ok(scheme)
}

/// Methods that few checkpoints use: by their bits.
fn other(fields: &Fields<'_>, method: &str) -> Result<Scheme, ReadError> {
    Ok(match method {
        "aqlm" => {
            let number = |names: &[&str], default| {
                fields.number(names).map(|n| u64::from(n.unwrap_or(default)))
            };
            let codes = number(&["nbits_per_codebook"], 16)?.min(64)
                * number(&["num_codebooks"], 1)?.min(64);
            let storage = Storage::millibits(codes * 1000 / number(&["in_group_size"], 8)?.max(1));
            all(storage, Quantization::Gptq { bits: 2, group_size: 1 })
        }
        "bitnet" => {
            all(Storage::new(2, Shares::Tensor, 16), Quantization::Gptq { bits: 2, group_size: 1 })
        }
        "eetq" | "quanto_int8" | "int8" | "w8a8_int8" | "tpu_int8" => {
            all(Storage::eight(Shares::Channel), Quantization::Int8)
        }
        "w8a8_fp8" => all(Storage::eight(Shares::Channel), Quantization::Fp8),
        "hqq" => {
            let inner = fields
                .object(&["quant_config"])
                .and_then(|inner| inner.object(&["weight_quant_params"]));
            let bits = inner
                .as_ref()
                .map_or(Ok(None), |inner| inner.number(&["nbits"]))?
                .or(fields.number(&["nbits", "bits"])?)
                .unwrap_or(4)
                .clamp(1, 8);
            let group = inner
                .map_or(Ok(None), |inner| inner.number(&["group_size"]))?
                .or(fields.number(&["group_size"])?)
                .unwrap_or(64);
            all(Storage::new(bits, Shares::Group(group), 32), integers(false, bits, Some(group)))
        }
        "torchao" => torchao(fields),
        "" | "none" => Scheme::default(),
        _ if fields.get(&["bits", "w_bit", "num_bits"]).is_some() => {
            let (bits, group) = grouped(fields)?;
            all(Storage::integers(bits, group, true), integers(false, bits, group))
        }
        _ => return Err(unsupported(format!("the quantisation method {method:?}"))),
    })
}

/// torchao names its type in a word: `int4_weight_only`, `Float8WeightOnlyConfig`.
fn torchao(fields: &Fields<'_>) -> Scheme {
    let kind =
        fields.get(&["quant_type"]).map(ToString::to_string).unwrap_or_default().to_lowercase();
    if kind.contains("int4") {
        all(Storage::integers(4, Some(128), true), integers(false, 4, Some(128)))
    } else if kind.contains("float8") || kind.contains("fp8") {
        all(Storage::eight(Shares::Channel), Quantization::Fp8)
    } else {
        all(Storage::eight(Shares::Channel), Quantization::Int8)
    }
}
