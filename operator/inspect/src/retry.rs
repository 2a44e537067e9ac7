//! When to try again. Pure.

use std::time::Duration;

/// How often, and with which pauses.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// The first pause; each further one is twice as long.
    pub pause: Duration,
}

/// The longest pause of our own.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest pause that a server may ask for: the hub counts requests over five minutes.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// Bytes that make an attempt one that brought something.
pub const SOMETHING: u64 = 1 << 20;

/// Attempts at one thing.
#[derive(Clone, Debug)]
pub struct Attempts {
    policy: Policy,
    failed: u32,
}

impl Attempts {
    /// None yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, failed: 0 }
    }

    /// Another one failed after it had brought so many bytes. `jitter` is between 0 and 1. Says how
    /// long to pause; `None` is the end.
    pub fn failed(
        &mut self,
        brought: u64,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        // A line that is cut every few megabytes still brings the file.
        self.failed = if brought >= SOMETHING { 1 } else { self.failed + 1 };
        if self.failed >= self.policy.attempts {
            return None;
        }
        let doubled = self.policy.pause.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST);
        let own = doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        Some(own.max(asked.unwrap_or_default().min(LONGEST_ASKED)))
    }

    /// Attempts in a row that brought nothing.
    pub fn count(&self) -> u32 {
        self.failed
    }
}

/// Between 0 and 1, another one each time: pods that start together should not ask together.
pub fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    f64::from(u16::try_from(RandomState::new().hash_one(0) >> 48).unwrap_or(0))
        / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { attempts: 4, pause: Duration::from_secs(1) };

    #[test]
    fn pauses_grow_and_end() {
        let mut attempts = Attempts::new(POLICY);
        let pauses: Vec<_> = std::iter::from_fn(|| attempts.failed(0, None, 1.0)).collect();
        assert_eq!(pauses, [1, 2, 4].map(Duration::from_secs));
        let mut many = Attempts::new(Policy { attempts: u32::MAX, ..POLICY });
        let longest = (0..100).filter_map(|_| many.failed(0, None, 1.0)).max();
        assert_eq!(longest, Some(LONGEST));
    }

    #[test]
    fn what_the_server_asks_for_is_bounded() {
        let pause = |asked| Attempts::new(POLICY).failed(0, Some(Duration::from_secs(asked)), 0.0);
        assert_eq!(pause(0), Some(Duration::from_millis(500)));
        assert_eq!(pause(7), Some(Duration::from_secs(7)));
        assert_eq!(pause(u64::MAX), Some(LONGEST_ASKED));
    }

    #[test]
    fn progress_starts_the_count_anew() {
        let mut attempts = Attempts::new(POLICY);
        assert!((0..1000).all(|_| attempts.failed(SOMETHING, None, 0.5).is_some()));
        assert!((0..1000).any(|_| attempts.failed(SOMETHING - 1, None, 0.5).is_none()));
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
