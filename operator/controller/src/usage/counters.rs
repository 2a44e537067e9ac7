//! What engines count from their own start, and how counters add up. Pure.

use berth_crds::llm_deployment::FirstTokenUsage;

/// What an engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// What requests waited for their first token, where the engine tells.
    pub first_tokens: Option<FirstTokens>,
}

/// How long requests waited for their first token, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstTokens {
    /// Milliseconds, all requests together.
    pub milliseconds: u64,
    /// Requests.
    pub requests: u64,
}

impl Counters {
    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens + self.generated_tokens
    }

    /// What was counted since `then`. A counter that went backwards began anew.
    #[must_use]
    pub fn since(self, then: Self) -> Self {
        let since = |now: u64, then: u64| if now < then { now } else { now - then };
        let first = then.first_tokens.unwrap_or_default();
        Self {
            prompt_tokens: since(self.prompt_tokens, then.prompt_tokens),
            generated_tokens: since(self.generated_tokens, then.generated_tokens),
            first_tokens: self.first_tokens.map(|now| FirstTokens {
                milliseconds: since(now.milliseconds, first.milliseconds),
                requests: since(now.requests, first.requests),
            }),
        }
    }

    /// Adds what was counted elsewhere or later.
    pub fn add(&mut self, more: Self) {
        self.prompt_tokens += more.prompt_tokens;
        self.generated_tokens += more.generated_tokens;
        if let Some(more) = more.first_tokens {
            let first = self.first_tokens.get_or_insert_default();
            first.milliseconds += more.milliseconds;
            first.requests += more.requests;
        }
    }
}

impl From<FirstTokens> for FirstTokenUsage {
    fn from(first: FirstTokens) -> Self {
        Self { milliseconds: written(first.milliseconds), requests: written(first.requests) }
    }
}

impl From<&FirstTokenUsage> for FirstTokens {
    fn from(first: &FirstTokenUsage) -> Self {
        Self { milliseconds: read(first.milliseconds), requests: read(first.requests) }
    }
}

/// A count as status has it.
pub fn written(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that status has.
pub fn read(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(tokens: u64, first: Option<(u64, u64)>) -> Counters {
        Counters {
            prompt_tokens: tokens,
            generated_tokens: tokens * 2,
            first_tokens: first
                .map(|(milliseconds, requests)| FirstTokens { milliseconds, requests }),
        }
    }

    #[test]
    fn what_is_new_is_the_difference_or_all_after_a_new_start() {
        let then = counters(10, Some((500, 5)));
        let later = counters(12, Some((700, 6)));
        assert_eq!(later.since(then), counters(2, Some((200, 1))));
        let anew = counters(3, Some((90, 1)));
        assert_eq!(anew.since(then), anew);
        assert_eq!(later.since(counters(10, None)).first_tokens, later.first_tokens);
        assert_eq!(counters(12, None).since(then), counters(2, None));
    }

    #[test]
    fn what_nobody_tells_stays_unknown_and_not_zero() {
        let mut total = Counters::default();
        total.add(counters(1, None));
        assert_eq!(total, counters(1, None));
        total.add(counters(1, Some((30, 2))));
        total.add(counters(1, Some((40, 2))));
        assert_eq!(total, counters(3, Some((70, 4))));
    }
}
