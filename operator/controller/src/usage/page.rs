//! A page of metrics in the Prometheus format, as much of it as is asked for. Pure.

/// Sum of all series of a metric; `None` where there is none.
pub fn sum(text: &str, name: &str) -> Option<f64> {
    values(text, name).reduce(|sum, value| sum + value)
}

/// The greatest of all series of a metric; `None` where there is none.
pub fn greatest(text: &str, name: &str) -> Option<f64> {
    values(text, name).reduce(f64::max)
}

/// A number of whole things.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub fn count(value: f64) -> u64 {
    value.clamp(0.0, 1e18) as u64
}

/// The values of all series of a metric. Nonsense values are left out.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    text.lines().filter_map(move |line| {
        let rest = line.trim_start().strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            // Label values may hold anything, braces too, but a value holds none.
            Some(labels) => &labels[labels.rfind('}')? + 1..],
            None if rest.starts_with(char::is_whitespace) => rest,
            None => return None,
        };
        let value: f64 = value.split_whitespace().next()?.parse().ok()?;
        value.is_finite().then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_of_a_metric_count_and_no_others() {
        let text = "# HELP a_total All of it.\n\
            a_total{model=\"a } b\",engine=\"0\"} 1200.0\n  a_total 5.6e+02 1700000000\n\
            a_total_by_reason 99\na_total{x=\"\"} NaN\na_total{x=\"1\"} +Inf\na_total\n";
        assert_eq!(sum(text, "a_total"), Some(1760.0));
        assert_eq!(greatest(text, "a_total"), Some(1200.0));
        assert_eq!(sum(text, "b_total"), None);
        assert_eq!((count(-1.0), count(2.9)), (0, 2));
    }
}
