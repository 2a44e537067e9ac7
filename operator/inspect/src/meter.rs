//! Counts what is read, and ends it at a bound. Pure.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::InspectError;

/// Bytes that were read of one model.
#[derive(Debug)]
pub struct Meter {
    read: AtomicU64,
    limit: u64,
}

impl Meter {
    /// Nothing yet, and at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { read: AtomicU64::new(0), limit }
    }

    /// More bytes of `what`.
    pub fn add(&self, bytes: usize, what: &str) -> Result<(), InspectError> {
        let bytes = bytes as u64;
        let all = self.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if all <= self.limit {
            return Ok(());
        }
        Err(InspectError::TooMuch { what: what.to_owned(), limit: self.limit })
    }

    /// How many it were.
    pub fn total(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
