//! What a hub tells of a model, how few bytes that takes, and what becomes of hubs that refuse, lie,
//! dawdle and break off.

mod faults;
#[path = "../../../vram/tests/files/mod.rs"]
mod files;
mod learnt;
mod models;
mod redirects;
mod server;
