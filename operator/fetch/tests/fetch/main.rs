//! The binary against a mirror that speaks the hub's file API, and misbehaves on demand. Everything
//! is on loopback, on ports that are free.

mod cache;
mod disk;
mod faults;
#[path = "../../../vram/tests/files/mod.rs"]
mod files;
mod inspect;
mod keep;
mod memory;
mod mirror;
mod node;
mod resume;
mod run;
mod selection;
mod tls;
mod together;
