//! What replicas say of themselves: what they serve, and before that how far their downloads are.
//!
//! [`sample`] reads what an engine says; [`counters`] and [`ledger`] add it up over restarts of pods
//! and of this operator; [`download`] reads what the init step says; [`page`] is what both are read
//! from; [`scrape`] asks them, and alone of all talks to anybody: to the replicas' own metrics, at
//! the addresses that the kubelet reported.

pub mod counters;
pub mod download;
pub mod ledger;
pub mod page;
pub mod sample;
pub mod scrape;
