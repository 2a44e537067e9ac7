//! JSON from strangers: bounded, and with the numbers that Python writes though JSON has none.

use std::borrow::Cow;

use serde_json::Value;

use super::ReadError;

/// Parses a text of at most `limit` bytes. Nesting is bounded by `serde_json` (128 levels).
///
/// Python's `NaN` and `Infinity` are read as null: a time step's limit in a `config.json`, nothing
/// that matters here.
pub(super) fn parse(text: &str, what: &'static str, limit: usize) -> Result<Value, ReadError> {
    if text.len() > limit {
        return Err(ReadError::TooLarge { what, size: text.len() as u64, limit: limit as u64 });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(&without_python_numbers(text))
        .map_err(|error| ReadError::Format { format: "JSON", problem: error.to_string() })
}

/// Replaces the words outside of strings.
fn without_python_numbers(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !text.contains("Infinity") && !text.contains("NaN") {
        return Cow::Borrowed(text);
    }
    let (mut clean, mut rest, mut quoted) = (String::with_capacity(text.len()), text, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !quoted && rest.starts_with(**word));
        if let Some(word) = word {
            clean.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = c.len_utf8();
        if quoted && c == '\\' {
            taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
        } else if c == '"' {
            quoted = !quoted;
        }
        clean.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_python_are_null() {
        // As Nemotron 3's config.json has it.
        let text = r#"{"time_step_limit": [0.0, Infinity], "a": -Infinity, "b": NaN}"#;
        let value = parse(text, "a text", 1000).unwrap();
        assert_eq!(value, json!({"time_step_limit": [0.0, null], "a": null, "b": null}));
        let text = r#"{"NaN \" Infinity": "-Infinity", "é\\": NaN}"#;
        let value = parse(text, "a text", 1000).unwrap();
        assert_eq!(value, json!({"NaN \" Infinity": "-Infinity", "é\\": null}));
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        let long = format!("[{}1]", "1,".repeat(1000));
        assert!(matches!(parse(&long, "a text", 1000), Err(ReadError::TooLarge { .. })));
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&deep, "a text", 1 << 20), Err(ReadError::Format { .. })));
        assert!(parse("", "a text", 10).is_err());
        assert!(parse("\u{feff}{}", "a text", 10).is_ok());
    }
}
