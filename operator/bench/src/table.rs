//! A table, for a terminal or for a page.

use std::fmt::Write;

/// Rows under a head.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns under each other: the first to the left, numbers to the right.
    pub fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| lines().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let is_number: Vec<bool> = (0..self.head.len())
            .map(|column| column > 0 && self.rows.iter().all(|row| numeric(&row[column])))
            .collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            for ((cell, width), number) in row.iter().zip(&widths).zip(&is_number) {
                let fill = " ".repeat(width - cell.chars().count());
                let (before, after) =
                    if *number { (fill.as_str(), "") } else { ("", fill.as_str()) };
                let _ = write!(line, "{before}{cell}{after}  ");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// Markdown.
    pub fn markdown(&self) -> String {
        let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
        let mut text = line(&self.head);
        let _ = writeln!(text, "|{}", "---|".repeat(self.head.len()));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

fn numeric(cell: &str) -> bool {
    cell.is_empty()
        || cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '−' | '–'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(["what", "GiB"]);
        table.row(&["weights".to_owned(), "14.99".to_owned()]);
        table.row(&["graphs".to_owned(), "0.9".to_owned()]);
        assert_eq!(table.text(), "what       GiB\nweights  14.99\ngraphs     0.9\n");
        assert_eq!(
            table.markdown(),
            "| what | GiB |\n|---|---|\n| weights | 14.99 |\n| graphs | 0.9 |\n"
        );
    }
}
