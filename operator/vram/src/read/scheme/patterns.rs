//! Which modules a config means: names, parts of names, globs, and regular expressions.
//!
//! Quantisation tools write lists of modules in their own ways, against names that differ by model.
//! A module is therefore known by all the names that checkpoints give it, from `layers.` on.

use std::collections::{HashMap, HashSet};

use regex_lite::{Regex, RegexBuilder};

use crate::read::ReadError;

/// Most patterns of the kinds that have to be tried one after the other. The longest known list has
/// some 3,000 plain names and 200 globs.
const MOST_TRIED: usize = 4096;
const MOST_EXPRESSIONS: usize = 64;

/// What stands before `layers.` in checkpoints: regular expressions may ask for it.
const TRUNKS: [&str; 3] = ["model.", "language_model.model.", "model.language_model."];

/// A list of modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    /// Whole names, and names of what holds modules: `layers.3`, `lm_head`, `self_attn`.
    names: HashSet<String>,
    globs: Vec<String>,
    /// Globs that begin with a layer's number.
    layer_globs: HashMap<u32, Vec<String>>,
    expressions: Vec<Regex>,
    /// Whether a pattern has a number: it may mean one layer and not another.
    numbered: bool,
    /// Whether a regular expression asks for a trunk that few models have.
    nested: bool,
}

impl Patterns {
    pub(super) fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, ReadError> {
        let mut list = Self::default();
        for pattern in patterns {
            list.add(pattern)?;
        }
        Ok(list)
    }

    fn add(&mut self, pattern: &str) -> Result<(), ReadError> {
        self.numbered |= pattern.contains(|c: char| c.is_ascii_digit());
        if let Some(expression) = pattern.strip_prefix("re:") {
            // As Python's re.match: from the beginning, not to the end. What this kind of regular
            // expression has no word for (looking ahead) matches nothing.
            self.nested |= expression.contains("language");
            let anchored = format!("^(?:{expression})");
            let built = RegexBuilder::new(&anchored).size_limit(1 << 16).nest_limit(32).build();
            if let Ok(expression) = built {
                self.expressions.push(expression);
            }
        } else {
            let pattern = from_layers(pattern);
            if !pattern.contains(['*', '?']) {
                self.names.insert(pattern.to_owned());
            } else if let Some(layer) = layer_of(pattern) {
                self.layer_globs.entry(layer).or_default().push(pattern.to_owned());
            } else {
                self.globs.push(pattern.to_owned());
            }
        }
        let tried = self.globs.len() + self.layer_globs.values().map(Vec::len).max().unwrap_or(0);
        if tried > MOST_TRIED || self.expressions.len() > MOST_EXPRESSIONS {
            return Err(ReadError::TooLarge {
                what: "a list of module patterns",
                size: (tried + self.expressions.len()) as u64,
                limit: MOST_TRIED as u64,
            });
        }
        Ok(())
    }

    /// How many patterns are tried for each name; a regular expression takes the time of many.
    pub(super) fn tried(&self) -> usize {
        let of_layer = self.layer_globs.values().map(Vec::len).max().unwrap_or(0);
        self.globs.len() + of_layer + 32 * self.expressions.len()
    }

    /// Whether the list may mean a module of one layer and not that of another.
    pub(super) const fn is_numbered(&self) -> bool {
        self.numbered
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.globs.is_empty()
            && self.layer_globs.is_empty()
            && self.expressions.is_empty()
    }

    /// Whether the list means the module of this name (within its layer, if it is in one).
    pub(super) fn mean(&self, name: &str, layer: Option<u32>) -> bool {
        !self.is_empty() && aliases(name).iter().any(|alias| self.mean_alias(alias, layer))
    }

    fn mean_alias(&self, name: &str, layer: Option<u32>) -> bool {
        let full = layer.map_or_else(|| name.to_owned(), |layer| format!("layers.{layer}.{name}"));
        if self.names_hold(&full) {
            return true;
        }
        let of_layer = layer.and_then(|layer| self.layer_globs.get(&layer));
        let mut globs = self.globs.iter().chain(of_layer.into_iter().flatten());
        if globs.any(|glob| matches_glob(glob, &full)) {
            return true;
        }
        let nested = self.nested;
        self.expressions.iter().any(|expression| {
            let trunks = TRUNKS.iter().take(if nested { TRUNKS.len() } else { 1 });
            expression.is_match(&full)
                || trunks.into_iter().any(|trunk| expression.is_match(&format!("{trunk}{full}")))
        })
    }

    /// Whether a run of the name's parts is in the list: `layers.3`, `self_attn`, `mlp.gate`.
    fn names_hold(&self, full: &str) -> bool {
        if self.names.is_empty() {
            return false;
        }
        let starts = std::iter::once(0).chain(full.match_indices('.').map(|(at, _)| at + 1));
        starts.into_iter().any(|start| {
            let rest = &full[start..];
            let ends = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|end| self.names.contains(&rest[..end]))
        })
    }
}

/// A pattern without the trunk that differs from model to model, unless that is a wild card.
fn from_layers(pattern: &str) -> &str {
    let known = ["layers.", "h.", "blocks."].iter().find_map(|word| {
        let at = pattern.find(word)?;
        let trunk = &pattern[..at];
        (trunk.is_empty() || trunk.ends_with('.') && !trunk.contains(['*', '?'])).then_some(at)
    });
    match known {
        // Towers have layers too: their patterns stay whole.
        Some(at) if !pattern[..at].contains("vision") && !pattern[..at].contains("visual") => {
            &pattern[at..]
        }
        _ => ["language_model.", "model.", "backbone."]
            .iter()
            .find_map(|trunk| pattern.strip_prefix(trunk))
            .unwrap_or(pattern),
    }
}

/// The layer in `layers.3.self_attn*`.
fn layer_of(pattern: &str) -> Option<u32> {
    let rest = pattern.strip_prefix("layers.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    // `layers.3*` means 3, 30 and 31 too.
    (rest[digits..].starts_with('.')).then(|| rest[..digits].parse().ok())?
}

/// Whether a glob matches a name, or the name of what holds it. Linear in the two lengths' product.
fn matches_glob(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n, mut star) = (0, 0, None);
    loop {
        if g == glob.len() && (n == name.len() || name[n] == b'.') {
            return true;
        }
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
                continue;
            }
            Some(&c) if n < name.len() && (c == b'?' || c == name[n]) => {
                (g, n) = (g + 1, n + 1);
                continue;
            }
            _ => {}
        }
        // Back to the last star, which takes one more.
        match star {
            Some((at, from)) if from < name.len() => {
                (g, n) = (at + 1, from + 1);
                star = Some((at, from + 1));
            }
            _ => return false,
        }
    }
}

/// The names that checkpoints give a module.
fn aliases(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Some(rest) = name.strip_prefix("self_attn.") {
        names.extend(["mixer.", "attention.", "attn."].map(|part| format!("{part}{rest}")));
        if matches!(rest, "q_proj" | "k_proj" | "v_proj") {
            names.push("self_attn.qkv_proj".to_owned());
        }
    } else if let Some(rest) = name.strip_prefix("mlp.") {
        names.extend(
            ["mixer.", "block_sparse_moe.", "feed_forward.", "ffn."]
                .map(|part| format!("{part}{rest}")),
        );
        if let Some(matrix) = rest.strip_prefix("shared_experts.") {
            names.extend(
                [
                    "mlp.shared_expert.",
                    "feed_forward.shared_expert.",
                    "mlp.shared_mlp.",
                    "share_expert.",
                ]
                .map(|part| format!("{part}{matrix}")),
            );
        } else if let Some(matrix) = rest.strip_prefix("experts.0.") {
            let short = match matrix {
                "gate_proj" => "w1",
                "down_proj" => "w2",
                _ => "w3",
            };
            names.extend([
                format!("block_sparse_moe.experts.0.{short}"),
                format!("experts.0.{matrix}"),
                format!("mlp.experts.{matrix}"),
            ]);
            if matrix != "down_proj" {
                names.push("mlp.experts.gate_up_proj".to_owned());
            }
        } else if rest == "gate" {
            names.extend(["mlp.router", "feed_forward.router", "router"].map(str::to_owned));
        } else if matches!(rest, "gate_proj" | "up_proj") {
            names.push("mlp.gate_up_proj".to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_write_names_in_their_own_ways() {
        for (pattern, name, layer, expected) in [
            ("lm_head", "lm_head", None, true),
            ("language_model.lm_head", "lm_head", None, true),
            ("re:.*lm_head.*", "lm_head", None, true),
            ("gate", "mlp.gate", Some(0), true),
            ("gate", "mlp.gate_proj", Some(0), false),
            ("model.layers.3.mlp.gate", "mlp.gate", Some(3), true),
            ("model.layers.3.mlp.gate", "mlp.gate", Some(30), false),
            ("model.layers.*.self_attn", "self_attn.q_proj", Some(7), true),
            ("model.layers.*.self_attn", "mlp.up_proj", Some(7), false),
            ("model.language_model.layers.1.self_attn*", "self_attn.o_proj", Some(1), true),
            ("model.language_model.layers.1.self_attn*", "self_attn.o_proj", Some(11), false),
            ("model.layers.0*", "mlp.up_proj", Some(0), true),
            ("backbone.layers.4.mixer.q_proj", "self_attn.q_proj", Some(4), true),
            ("re:.*self_attn.*", "self_attn.kv_b_proj", Some(4), true),
            (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "mlp.up_proj", Some(0), true),
            (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "mlp.experts.0.up_proj", Some(0), false),
            ("re:.*shared_experts.*", "mlp.shared_experts.up_proj", Some(9), true),
            ("*.mlp.shared_expert.*", "mlp.shared_experts.up_proj", Some(9), true),
            ("re:visual.*", "mlp.up_proj", Some(1), false),
            ("re:(", "mlp.up_proj", Some(1), false),
            ("vision_model.model.layers.0.mlp.fc1", "mlp.up_proj", Some(0), false),
        ] {
            let patterns = Patterns::of([pattern]).unwrap();
            assert_eq!(patterns.mean(name, layer), expected, "{pattern} and {name} in {layer:?}");
        }
    }

    #[test]
    fn globs_match_as_a_slow_oracle_does() {
        fn slow(glob: &[u8], name: &[u8]) -> bool {
            match glob.split_first() {
                None => name.is_empty() || name[0] == b'.',
                Some((b'*', rest)) => (0..=name.len()).any(|at| slow(rest, &name[at..])),
                Some((c, rest)) => name
                    .split_first()
                    .is_some_and(|(n, name)| (*c == b'?' || c == n) && slow(rest, name)),
            }
        }
        let letters = ["a", ".", "*", "?", "b"];
        let word = |mut number: usize, letters: &[&str]| {
            let mut word = String::new();
            while number > 0 {
                word.push_str(letters[number % letters.len()]);
                number /= letters.len();
            }
            word
        };
        for glob in 0..3125 {
            let glob = word(glob, &letters);
            for name in 0..81 {
                let name = word(name, &["a", ".", "b"]);
                let expected = slow(glob.as_bytes(), name.as_bytes());
                assert_eq!(matches_glob(&glob, &name), expected, "{glob} {name}");
            }
        }
    }
}
