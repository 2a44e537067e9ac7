//! How a checkpoint stores its matrices: which are quantised, and to what.

use serde_json::{Map, Value};

use super::{
    ReadError,
    config::{Kind, Module},
};
use crate::{KvDtype, Quantization};

/// The scheme of a checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Scheme {}

impl Scheme {
    pub(super) fn of(
        _inner: Option<&Map<String, Value>>,
        _root: &Map<String, Value>,
        _quantization: Option<&Value>,
    ) -> Result<Self, ReadError> {
        Ok(Self {})
    }

    pub(super) fn bytes(&self, module: &Module, _layer: Option<u32>) -> u64 {
        match module.kind {
            Kind::Linear | Kind::Table | Kind::Small => module.parameters().saturating_mul(2),
        }
    }

    pub(super) fn quantization(&self) -> Quantization {
        Quantization::None
    }

    pub(super) fn kv_cache(&self) -> Option<KvDtype> {
        None
    }
}
