//! Who waits, in which order, and what those ahead would take.
//!
//! Pure: the time since when somebody waits is an argument. A waiter that cannot be placed now does
//! not block those behind it (backfill), but none of them gets what it could use now.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    DeploymentId, Fleet, Overlay, Request,
    place::{beside, best},
};

/// How many waiters ahead are looked at when room is kept for them. Beyond so many, the ones behind
/// hardly change the answer, and the time that an answer takes stays bounded.
pub const MAX_AHEAD: usize = 256;
/// How many replicas in all are placed for them, for the same reason.
pub const MAX_REPLICAS_AHEAD: usize = 1024;

/// A deployment with replicas that fit nowhere now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which one.
    pub key: DeploymentId,
    /// Its priority: higher goes first.
    pub priority: i32,
    /// Since when it waits, in seconds of Unix time: earlier goes first.
    pub since: i64,
    /// What each of its missing replicas needs.
    pub requests: Vec<Request>,
}

/// Its place in the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: Reverse<i32>,
    since: i64,
    key: DeploymentId,
}

impl Waiting {
    fn rank(&self) -> Rank {
        Rank { priority: Reverse(self.priority), since: self.since, key: self.key.clone() }
    }
}

/// Those who wait: the highest priority first, of equals who waits longest, then by name.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<Rank, Waiting>,
    ranks: BTreeMap<DeploymentId, Rank>,
}

impl Queue {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody waits, or waits for something else than before.
    pub fn upsert(&mut self, waiting: Waiting) {
        self.remove(&waiting.key);
        self.ranks.insert(waiting.key.clone(), waiting.rank());
        self.waiting.insert(waiting.rank(), waiting);
    }

    /// Somebody waits no more. Returns what it waited for, if it did.
    pub fn remove(&mut self, key: &DeploymentId) -> Option<Waiting> {
        self.waiting.remove(&self.ranks.remove(key)?)
    }

    /// What somebody waits for.
    pub fn get(&self, key: &DeploymentId) -> Option<&Waiting> {
        self.waiting.get(self.ranks.get(key)?)
    }

    /// How many wait ahead of it: 0 for the next. Nothing for who does not wait.
    pub fn position(&self, key: &DeploymentId) -> Option<usize> {
        Some(self.waiting.range(..self.ranks.get(key)?).count())
    }

    /// Those ahead of it, in order. Who does not wait stands behind all.
    pub fn ahead_of(&self, key: &DeploymentId) -> impl Iterator<Item = &Waiting> {
        let until = self.ranks.get(key);
        self.iter().take_while(move |waiting| until.is_none_or(|rank| waiting.rank() < *rank))
    }

    /// Everybody, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The fleet as it would be if everybody ahead of `key` took what they can use now: what `key` may
/// have is what fits on that.
///
/// Of each waiter ahead, the replicas that fit are placed and the others passed over. Bounded by
/// [`MAX_AHEAD`] and [`MAX_REPLICAS_AHEAD`].
pub fn reserve_for_earlier<'a>(fleet: &'a Fleet, queue: &Queue, key: &DeploymentId) -> Overlay<'a> {
    let mut overlay = Overlay::new(fleet);
    let mut left = MAX_REPLICAS_AHEAD;
    for waiting in queue.ahead_of(key).take(MAX_AHEAD) {
        let requests = &waiting.requests[..waiting.requests.len().min(left)];
        left -= requests.len();
        let mut placed = Vec::new();
        // The overlay only gets fuller: what did not fit will not fit.
        let mut failed: Option<&Request> = None;
        for request in requests {
            if failed == Some(request) {
                continue;
            }
            match best(&overlay, &beside(request, &placed)) {
                Some(placement) => {
                    overlay.carry_out(&placement, request);
                    overlay.keep_for(&placement.node, &waiting.key);
                    placed.push(placement.node);
                }
                None => failed = Some(request),
            }
        }
    }
    overlay
}
