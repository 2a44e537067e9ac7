//! Numbers for people.

use berth_units::Bytes;

/// `32,768`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `15.0 GiB`.
pub fn gib(bytes: Bytes) -> String {
    format!("{:.1} GiB", bytes.as_gib_f64())
}

/// `128.0 KiB`.
pub fn kib(bytes: Bytes) -> String {
    format!("{:.1} KiB", bytes.get() as f64 / 1024.0)
}

/// A rate with three digits that count: `28,300`, `95.3`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and saturates"
)]
pub fn rate(rate: f64) -> String {
    if rate < 99.95 {
        return format!("{rate:.1}");
    }
    let unit = 10_f64.powi((rate.log10().floor() as i32 - 2).max(0));
    thousands(((rate / unit).round() * unit) as u64)
}

/// `1 GPU`, `4 GPUs`.
pub fn count(number: u32, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number.into()))
}

/// A number of parameters: `8.0 billion`.
pub fn billions(parameters: u64) -> String {
    match parameters as f64 / 1e9 {
        less if less < 1.0 => format!("{:.0} million", less * 1e3),
        more => format!("{more:.1} billion"),
    }
}

/// A paragraph, broken at spaces after at most 100 characters, and ended.
pub fn paragraph(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= 100 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(["7", "999", "1,000", "1,234,567"], [7, 999, 1000, 1_234_567].map(thousands));
        assert_eq!(["0.5", "95.3", "208", "28,300"], [0.5, 95.32, 208.4, 28_349.0].map(rate));
        assert_eq!(billions(494_032_768), "494 million");
        assert_eq!((count(1, "GPU"), count(4, "GPU")), ("1 GPU".into(), "4 GPUs".into()));
    }
}
