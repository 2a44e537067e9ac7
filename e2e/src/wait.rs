//! Waiting for things to become so, with a deadline; never for a time to pass.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long tests wait before they call it a failure. Generous: machines are slow and busy. The
/// environment's `BERTH_PATIENCE` sets other seconds.
pub fn patience() -> Duration {
    let seconds = std::env::var("BERTH_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

/// The pause between two looks.
pub const PAUSE: Duration = Duration::from_millis(200);

/// What a look at something found.
#[derive(Debug)]
pub enum Look<T> {
    /// It is as it should be.
    Done(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

/// Looks again and again until it is as it should be. An error of a look counts as not yet: what
/// is looked at may be starting. At the deadline, fails with what was seen last.
pub async fn until<T>(
    what: impl Display,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let seen = match look().await {
            Ok(Look::Done(value)) => return Ok(value),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() > patience {
            bail!("{what}: not within {} s. Last seen: {seen}", patience.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks again and again for a time, and fails as soon as a look does: for what must stay as it is.
pub async fn throughout(
    what: impl Display,
    time: Duration,
    mut look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Err(error) = look().await {
            let after = begun.elapsed().as_secs();
            return Err(error.context(format!("{what}: no longer so after {after} s")));
        }
        if begun.elapsed() > time {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
