//! The units that Berth's crates share: bytes and CPU, with their conversions in one place.
//!
//! Pure. A quantity crosses a crate border as one of these types, never as a bare `u64`.

mod bytes;
mod cpu;

pub use bytes::{Bytes, GIB, MIB, ParseBytesError};
pub use cpu::{MilliCpu, ParseCpuError};
