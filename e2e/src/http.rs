//! The least HTTP that reads an operator's endpoints.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The status and body of `GET path`.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    timeout(PATIENCE, request(address, path))
        .await
        .with_context(|| format!("http://{address}{path} does not answer"))?
        .with_context(|| format!("http://{address}{path}"))
}

async fn request(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the body ends with the connection, and is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).context("no HTTP status")?;
    Ok((status.parse()?, body.to_owned()))
}
