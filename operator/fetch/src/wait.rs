//! Waiting for what others do on the node: the folder that is prepared while this pod starts, the
//! room that is made for it.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Between two words about waiting.
const WORD: Duration = Duration::from_secs(30);

/// How long is waited, from the first look in vain.
#[derive(Debug)]
pub struct Patience {
    span: Duration,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Patience {
    /// For this long.
    pub fn new(span: Duration) -> Self {
        Self { span, since: None, said: None }
    }

    /// Waits until the next look; at once, and with `false`, if there should be none.
    pub async fn look_again(&mut self, why: impl fmt::Display) -> bool {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = self.span.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return false;
        };
        if self.said.is_none_or(|said| said.elapsed() >= WORD) {
            self.said = Some(Instant::now());
            tracing::info!("{why}; waiting for it, {} s so far", waited.as_secs());
        }
        tokio::time::sleep(LOOK.min(left)).await;
        true
    }
}

/// A span of time as the command line has it.
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.as_millis());
        if millis % 1000 != 0 {
            write!(f, "{millis}ms")
        } else if seconds.is_multiple_of(60) && seconds > 0 {
            write!(f, "{}m", seconds / 60)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends() {
        assert!(!Patience::new(Duration::ZERO).look_again("never").await);
        let (started, mut looks) = (Instant::now(), 0);
        let span = LOOK + LOOK / 2;
        let mut patience = Patience::new(span);
        while patience.look_again("soon").await {
            looks += 1;
        }
        assert!(started.elapsed() >= span);
        assert!((1..=2).contains(&looks), "{looks}");
    }

    #[test]
    fn spans() {
        let text = |millis| Span(Duration::from_millis(millis)).to_string();
        assert_eq!(
            [0, 300, 1500, 90_000, 120_000].map(text),
            ["0s", "300ms", "1500ms", "90s", "2m"]
        );
    }
}
