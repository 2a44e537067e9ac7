//! Kubernetes quantities and durations as the API takes them: checked by the API server.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A Kubernetes quantity, such as `8`, `1500m` or `80Gi`. A number or a string; kept as a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Amount(pub String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(u64),
            String(String),
        }
        Ok(Self(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text,
        }))
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Not negative, and short: the digits bound the value, so no sum of them overflows.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            // Holds for numbers, the pattern for strings.
            "minimum": 0,
            "maximum": 1_000_000_000_000_000_u64,
            "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
        })
    }
}

/// A span of time, such as `90s`, `10m` or `1h30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub String);

impl Period {
    /// The whole seconds of this span; `None` where it is no span of time, or is over a year.
    pub fn seconds(&self) -> Option<u32> {
        let mut total: u32 = 0;
        let mut rest = self.0.as_str();
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u32 = rest[..end].parse().ok()?;
            let unit = match &rest[end..=end] {
                "h" => 3600,
                "m" => 60,
                "s" => 1,
                _ => return None,
            };
            total = total.checked_add(number.checked_mul(unit)?)?;
            rest = &rest[end + 1..];
        }
        (total <= 366 * 86_400).then_some(total)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 16,
            "pattern": r"^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_seconds() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("1h30m", Some(5400)),
            ("", None),
            ("10", None),
            ("1d", None),
            ("99999999h", None),
        ] {
            assert_eq!(Period(text.into()).seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn an_amount_is_a_number_or_a_string() {
        assert_eq!(serde_json::from_str::<Amount>("8").unwrap(), Amount("8".into()));
        assert_eq!(serde_json::from_str::<Amount>("\"80Gi\"").unwrap(), Amount("80Gi".into()));
        assert!(serde_json::from_str::<Amount>("-8").is_err());
    }
}
