//! A client of an OpenAI-compatible server that takes nothing for granted: a new connection for
//! each request, no retry, and an answer counts only if it is whole and well-formed. What it
//! counts is what operators' figures are compared with.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// One request.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where to; it connects there, whatever names there are.
    pub address: SocketAddr,
    /// What the model is called there.
    pub model: String,
    /// What is asked.
    pub prompt: String,
    /// So many tokens are generated, not one less.
    pub tokens: u32,
    /// Whether the answer comes in pieces.
    pub stream: bool,
}

/// What the server says that an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens of the prompt that were computed: without those that were in the cache, as the
    /// engine's own counter has them.
    pub prompt: u64,
    /// Tokens of the prompt that were in the cache.
    pub cached: u64,
    /// Tokens generated.
    pub generated: u64,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was generated.
    pub text: String,
    /// What it took.
    pub tokens: Tokens,
    /// From the connection's begin to the first piece (or all of it).
    pub first: Duration,
    /// Pieces that it came in.
    pub pieces: usize,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.generated += other.generated;
    }
}

/// Asks, and calls `piece` with each piece of text as it comes.
pub async fn ask(question: &Question, piece: impl FnMut(&str)) -> Result<Answer> {
    let answer = timeout(PATIENCE, talk(question, piece)).await;
    answer.with_context(|| format!("no whole answer within {} s", PATIENCE.as_secs()))?
}

async fn talk(question: &Question, mut piece: impl FnMut(&str)) -> Result<Answer> {
    let begun = Instant::now();
    let stream = TcpStream::connect(question.address).await.context("connecting")?;
    let mut stream = BufReader::new(stream);
    stream.write_all(request(question).as_bytes()).await.context("sending")?;
    let body = head(&mut stream).await?;
    let mut first = None;
    let mut answer = Answer {
        text: String::new(),
        tokens: Tokens::default(),
        first: begun.elapsed(),
        pieces: 0,
    };
    if !question.stream {
        let mut whole = Vec::new();
        while let Some(part) = next(&mut stream, body, whole.len()).await? {
            whole.extend(part);
        }
        let value: Value = serde_json::from_slice(&whole).context("the answer is no JSON")?;
        let text = value["choices"][0]["message"]["content"].as_str();
        let text = text.context("an answer without content")?;
        piece(text);
        answer.text.push_str(text);
        answer.tokens = tokens(&value["usage"])?;
        answer.pieces = 1;
        answer.first = begun.elapsed();
        return Ok(answer);
    }
    let (mut rest, mut length, mut done, mut usage) = (Vec::new(), 0, false, None);
    while let Some(part) = next(&mut stream, body, length).await? {
        length += part.len();
        rest.extend(part);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim().strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let value: Value = serde_json::from_str(data).context("a piece is no JSON")?;
            ensure!(value["error"].is_null(), "the stream says {}", value["error"]);
            if let Some(text) = value["choices"][0]["delta"]["content"].as_str() {
                first.get_or_insert_with(|| begun.elapsed());
                answer.pieces += 1;
                answer.text.push_str(text);
                piece(text);
            }
            if value["usage"].is_object() {
                usage = Some(tokens(&value["usage"])?);
            }
        }
    }
    ensure!(done, "the stream ended without [DONE], after {} pieces", answer.pieces);
    answer.tokens = usage.context("a stream without usage")?;
    // A short answer of noise may be half a character, of which nothing is shown.
    answer.first = first.unwrap_or_else(|| begun.elapsed());
    Ok(answer)
}

fn request(question: &Question) -> String {
    let mut body = json!({
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": question.tokens,
        // The model is noise and would end anywhere: the amount of work is ours to say.
        "ignore_eos": true,
        "stream": question.stream,
    });
    if question.stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        question.address,
        body.len()
    )
}

fn tokens(usage: &Value) -> Result<Tokens> {
    let generated = usage["completion_tokens"].as_u64().context("an answer without usage")?;
    let prompt = usage["prompt_tokens"].as_u64().context("an answer without prompt_tokens")?;
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
    Ok(Tokens { prompt: prompt - cached.min(prompt), cached, generated })
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug)]
enum Body {
    Length(usize),
    Chunked,
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    let length = stream.read_line(&mut line).await.context("reading")?;
    ensure!(length > 0, "the connection ends early");
    Ok(line.trim_end().to_owned())
}

/// Reads the head of an answer.
async fn head(stream: &mut BufReader<TcpStream>) -> Result<Body> {
    let status = line(stream).await.context("the head")?;
    let mut body = None;
    loop {
        let header = line(stream).await.context("the head")?.to_ascii_lowercase();
        match header.split_once(':') {
            Some(("content-length", length)) => body = Some(Body::Length(length.trim().parse()?)),
            Some(("transfer-encoding", how)) if how.trim() == "chunked" => {
                body = Some(Body::Chunked);
            }
            _ => {}
        }
        if header.is_empty() {
            break;
        }
    }
    let code = status.split_whitespace().nth(1).unwrap_or_default();
    if code != "200" {
        let mut text = Vec::new();
        let _ = stream.take(1000).read_to_end(&mut text).await;
        bail!("{status}: {}", String::from_utf8_lossy(&text));
    }
    body.context("an answer that does not say where it ends")
}

/// The next part of a body of which `read` bytes are read; `None` at its proper end.
async fn next(
    stream: &mut BufReader<TcpStream>,
    body: Body,
    read: usize,
) -> Result<Option<Vec<u8>>> {
    let length = match body {
        Body::Length(length) => length - read,
        Body::Chunked => {
            let size = line(stream).await.context("the body")?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            usize::from_str_radix(digits, 16).with_context(|| format!("a chunk of {size:?}"))?
        }
    };
    let mut part = vec![0; length];
    stream.read_exact(&mut part).await.context("the body ends early")?;
    if matches!(body, Body::Chunked) {
        let end = line(stream).await.context("the body")?;
        ensure!(end.is_empty(), "a chunk ends in {end:?}");
    }
    Ok((length > 0).then_some(part))
}
