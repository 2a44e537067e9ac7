//! Reading what is to be known about a model from its own files.
//!
//! Pure: texts and bytes go in, [`ModelFacts`](crate::ModelFacts) and [`Tensors`] come out; whoever
//! calls fetches them. [`config()`] reads a `config.json`; [`with_safetensors`] makes its weights
//! exact by the headers of all files (their names are in an index: [`safetensors::index`]);
//! [`with_gguf`] needs nothing but the headers of the GGUF files. Headers are read from the first
//! bytes of a file, and say how many they need ([`ReadError::NeedMore`]).
//!
//! Files come from strangers, so every reader is bounded: sizes, counts and depths that no model has
//! are refused before memory is taken for them.

mod config;
mod error;
mod fields;
pub mod gguf;
mod json;
pub mod safetensors;
mod scheme;
mod tensors;

pub use config::config;
pub use error::ReadError;
pub use gguf::with_gguf;
pub use safetensors::with_safetensors;
pub use tensors::{Classes, LayerCache, LayerRun, Tensors};
