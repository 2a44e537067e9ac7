//! What deployments serve: tokens and requests, by the engines' own counters.
//!
//! [`sample`] reads what an engine says; [`counters`] and [`ledger`] add it up over restarts of pods
//! and of this operator; [`scrape`] asks the engines, and alone of them talks to anybody: to the
//! replicas' own metrics, at the addresses that the kubelet reported.

pub mod counters;
pub mod ledger;
pub mod sample;
pub mod scrape;
