//! Prometheus metrics as text, and questions about them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// What `/metrics` said.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// All samples.
    pub samples: Vec<Sample>,
    /// The type of each metric: `gauge`, `counter`, `histogram`.
    pub types: BTreeMap<String, String>,
    /// The help of each metric.
    pub help: BTreeMap<String, String>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Reads the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    metrics.types.insert(name.to_owned(), kind.to_owned());
                }
                (Some("#"), Some("HELP"), Some(name), help) => {
                    metrics.help.insert(name.to_owned(), help.unwrap_or_default().to_owned());
                }
                (Some("#"), ..) => {}
                _ => metrics.samples.push(sample(line).with_context(|| line.to_owned())?),
            }
        }
        Ok(metrics)
    }

    /// The samples of a metric with (at least) these labels.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.label(key) == Some(value))
        })
    }

    /// Their sum; fails where there is none, as absent is not zero.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let mut some = self.all(name, labels).peekable();
        ensure!(some.peek().is_some(), "no metric {name} with {labels:?}");
        Ok(some.map(|sample| sample.value).sum())
    }

    /// Their sum, zero where there is none.
    pub fn sum_or_zero(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    /// The names of all metrics.
    pub fn names(&self) -> Vec<&str> {
        self.types.keys().map(String::as_str).collect()
    }
}

impl Sample {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// `name{key="value",…} 1.5`
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while let Some((key, after)) = inner.split_once("=\"") {
            let (value, after) = quoted(after).context("a label without an end")?;
            labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
            inner = after;
            if inner.starts_with('}') {
                break;
            }
        }
        rest = inner.strip_prefix('}').context("labels without an end")?;
    }
    let value = rest.split_whitespace().next().context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse()?,
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read() {
        let text = "# HELP a_bytes How much, and more.\n# TYPE a_bytes gauge\n\
                    a_bytes{node=\"x\",text=\"q\\\"},{\\\\\"} 1.5e3\na_bytes{node=\"y\"} 2 1700000000\n\
                    b_total 3\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.types["a_bytes"], "gauge");
        assert_eq!(metrics.help["a_bytes"], "How much, and more.");
        let sum = |name, labels: &[_]| metrics.sum(name, labels).map(|sum| sum.to_string()).ok();
        assert_eq!(sum("a_bytes", &[]).as_deref(), Some("1502"));
        assert_eq!(sum("a_bytes", &[("node", "y")]).as_deref(), Some("2"));
        assert_eq!(metrics.samples[0].label("text"), Some("q\"},{\\"));
        assert_eq!(sum("b_total", &[]).as_deref(), Some("3"));
        assert_eq!(sum("c_total", &[]), None);
    }
}
