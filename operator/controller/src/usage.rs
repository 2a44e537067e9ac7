//! What deployments serve: tokens and requests, by the engines' own counters.
//!
//! [`sample`] reads what an engine says; [`ledger`] adds it up over restarts of pods and of this
//! operator; [`scrape`] asks the engines, and alone of the three talks to anybody: to the replicas'
//! own metrics, at the addresses that the kubelet reported.

pub mod ledger;
pub mod sample;
pub mod scrape;
