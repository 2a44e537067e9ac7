//! Asks an OpenAI-compatible server, from where it is started: tests start it in a real node's
//! network (`nsenter`), as nothing outside of that can reach a Service there.
//!
//! With a prompt it streams one answer to standard output, and ends with a line of JSON. With
//! `--load` it asks, half of it streaming, until its standard input ends, and prints what it
//! counted, then and for each line of input: [`berth_e2e::load::Counts`].

use std::{io::Write as _, net::SocketAddr};

use anyhow::Result;
use berth_e2e::{
    chat::{Question, ask},
    load,
};
use clap::Parser;
use serde_json::json;

/// Asks an OpenAI-compatible server.
#[derive(Parser)]
struct Args {
    /// IP:PORT of the server.
    #[arg(long)]
    to: SocketAddr,
    /// What the model is called there.
    #[arg(long, default_value = "tiny")]
    model: String,
    /// Tokens to generate for the prompt.
    #[arg(long, default_value_t = 48)]
    tokens: u32,
    /// The answer in one piece.
    #[arg(long)]
    plain: bool,
    /// So many at once ask until standard input ends.
    #[arg(long)]
    load: Option<u32>,
    /// Milliseconds between two requests of one of them.
    #[arg(long, default_value_t = 50)]
    pause: u64,
    /// What to ask.
    #[arg(default_value = "Where is the ship?")]
    prompt: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args { to, model, tokens, plain, load, pause, prompt } = Args::parse();
    let question = Question { address: to, model, prompt, tokens, stream: !plain };
    if let Some(workers) = load {
        let tell = |counts: &load::Counts| println!("{}", json!(counts));
        let counts = load::until_stdin_ends(&question, workers, pause, tell).await;
        tell(&counts);
        return Ok(());
    }
    let answer = ask(&question, |piece| {
        // What a model says must not steer the terminal.
        print!("{}", piece.replace(|c: char| c.is_control() && c != '\n', "·"));
        let _ = std::io::stdout().flush();
    });
    let answer = answer.await?;
    let first = answer.first.as_secs_f64();
    println!("\n{}", json!({"tokens": answer.tokens, "pieces": answer.pieces, "first": first}));
    Ok(())
}
