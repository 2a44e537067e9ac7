//! The planner from outside: tables for every reason and message, and properties against slow,
//! obviously right counterparts.

mod cache;
mod cache_properties;
mod events;
mod fixtures;
mod index_properties;
mod ledger;
mod ledger_properties;
mod placement;
mod placement_properties;
mod queue;
mod reasons;
mod serialised;
