//! Requests without a pause, counted: what a service's users see while it is changed.

use std::{
    fmt,
    io::{BufRead as _, stdin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::{task::LocalSet, time::Instant};

use crate::chat::{Answer, Question, Tokens, ask};

/// Failures that are told in full.
const TOLD: usize = 20;

/// What was counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were answered in full.
    pub answered: u64,
    /// Those of them that were streamed.
    pub streamed: u64,
    /// Requests that were not.
    pub failed: u64,
    /// The first failures: seconds since the start, and what was seen.
    pub failures: Vec<(f64, String)>,
    /// What the answers took.
    pub tokens: Tokens,
    /// The longest that an answer took, in seconds.
    pub slowest: f64,
    /// How long all of it took, in seconds.
    pub seconds: f64,
}

impl Counts {
    fn add(&mut self, question: &Question, begun: Instant, at: Instant, outcome: Result<Answer>) {
        self.slowest = self.slowest.max(at.elapsed().as_secs_f64());
        match outcome {
            Ok(answer) => {
                self.answered += 1;
                self.streamed += u64::from(question.stream);
                self.tokens += answer.tokens;
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < TOLD {
                    let kind = if question.stream { "stream" } else { "plain" };
                    let took = at.elapsed().as_millis();
                    let text = format!("{kind}, after {took} ms: {error:#}");
                    self.failures.push(((at - begun).as_secs_f64(), text));
                }
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, streamed, failed, slowest, seconds, .. } = self;
        write!(
            f,
            "{} requests in {seconds:.0} s, {streamed} of them streamed, {failed} failed, the \
             slowest took {slowest:.2} s",
            answered + failed,
        )
    }
}

/// Asks until standard input ends: so many workers at once, every other request streaming, with
/// short and long answers. For each line of input, tells what was counted so far.
pub async fn until_stdin_ends(
    question: &Question,
    workers: u32,
    pause_ms: u64,
    tell: impl Fn(&Counts) + Send + 'static,
) -> Counts {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let local = LocalSet::new();
    for worker in 0..workers {
        let (counts, stop, mut question) =
            (Arc::clone(&counts), Arc::clone(&stop), question.clone());
        local.spawn_local(async move {
            let mut number = worker;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                question.stream = number.is_multiple_of(2);
                question.tokens = [8, 24, 64, 160][(number / 2 % 4) as usize];
                let at = Instant::now();
                let outcome = ask(&question, |_| {}).await;
                lock(&counts).add(&question, begun, at, outcome);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        });
    }
    let all = Arc::clone(&counts);
    std::thread::spawn(move || {
        for line in stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            tell(&since(begun, &all));
        }
        stop.store(true, Ordering::Relaxed);
    });
    local.await;
    since(begun, &counts)
}

fn since(begun: Instant, counts: &Mutex<Counts>) -> Counts {
    let mut counts = lock(counts).clone();
    counts.seconds = begun.elapsed().as_secs_f64();
    counts
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
