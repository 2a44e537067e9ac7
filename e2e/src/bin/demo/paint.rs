//! Colours, on a terminal only and unless `NO_COLOR` is set.

use std::{io::IsTerminal as _, sync::LazyLock};

static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    let no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !no
});

fn paint(code: &str, text: &str) -> String {
    if *COLOURS { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// What matters.
pub fn bold(text: &str) -> String {
    paint("1", text)
}

/// What is good to know.
pub fn dim(text: &str) -> String {
    paint("2", text)
}

/// What is well.
pub fn green(text: &str) -> String {
    paint("32", text)
}

/// What is under way.
pub fn yellow(text: &str) -> String {
    paint("33", text)
}

/// What is not well.
pub fn red(text: &str) -> String {
    paint("31", text)
}

/// Begins a part.
pub fn heading(text: &str) {
    println!("\n{}", bold(&format!("== {text}")));
}

/// A text in lines of at most `width` characters, each begun with `indent`.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}

/// Rows in columns as wide as their widest cell; columns after the first are aligned to the right
/// where `right` says so.
pub fn columns(rows: &[Vec<String>], right: &[bool]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right.get(column) == Some(&true) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
