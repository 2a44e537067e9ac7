//! Printing an answer.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use crate::args::Output;

/// The answer as text.
pub fn render<T: Serialize>(
    answer: &T,
    output: Output,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(answer),
        Output::Json => serde_json::to_string_pretty(answer)? + "\n",
        // By way of JSON, so that both have the same shape.
        Output::Yaml => serde_saphyr::to_string(&serde_json::to_value(answer)?)?,
    })
}

/// Writes it. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer")
        }
        _ => Ok(()),
    }
}
