//! How a checkpoint stores its matrices: which are quantised, and to what.
//!
//! One scheme for all methods: a storage for what is quantised, modules that are stored otherwise,
//! and modules that are left alone. Tables, norms and routers are left alone unless a config names
//! them: that is what quantisation tools do.

mod methods;
mod patterns;
mod storage;

use std::{cell::RefCell, collections::HashMap};

use serde_json::{Map, Value};

use self::{patterns::Patterns, storage::Storage};
use super::{
    ReadError,
    config::{Kind, Module},
    tensors::Class,
};
use crate::{KvDtype, Quantization};

/// The scheme of a checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Scheme {
    /// What quantised modules are stored as; none if nothing is.
    main: Option<Storage>,
    /// Whether only routed experts are quantised.
    experts_only: bool,
    /// Modules that are stored otherwise, the first match counts; none: not quantised.
    rules: Vec<(Patterns, Option<Storage>)>,
    /// Modules that are left alone.
    ignored: Patterns,
    quantization: Quantization,
    kv_cache: Option<KvDtype>,
    /// What was looked up already.
    known: RefCell<HashMap<Key, Option<Storage>>>,
}

/// A module's name, class and kind, and how many digits its layer's number has.
type Key = (&'static str, Class, Kind, Option<u32>);

/// How many digits a layer's number has.
pub(super) fn digits(layer: u32) -> u32 {
    layer.checked_ilog10().unwrap_or(0)
}

impl Scheme {
    /// The scheme of a config: its own quantisation, that of the whole model, or a file beside it.
    pub(super) fn of(
        inner: Option<&Map<String, Value>>,
        root: &Map<String, Value>,
        beside: Option<&Value>,
    ) -> Result<Self, ReadError> {
        let names = ["quantization_config", "compression_config"];
        let own = inner.into_iter().chain([root]).find_map(|map| {
            names.iter().find_map(|name| map.get(*name)?.as_object().filter(|q| !q.is_empty()))
        });
        let beside = beside.and_then(|file| file.get("quantization").unwrap_or(file).as_object());
        match own.or(beside) {
            Some(config) => methods::scheme(config),
            None => Ok(Self::default()),
        }
    }

    /// Whether modules of the same name may be stored otherwise in another layer.
    pub(super) fn varies_by_layer(&self) -> bool {
        self.ignored.is_numbered() || self.rules.iter().any(|(rule, _)| rule.is_numbered())
    }

    /// Refuses lists that would take long for so many layers: the longest known take a fifth.
    pub(super) fn check_work(&self, layers: u32) -> Result<(), ReadError> {
        const MOST: u64 = 1 << 16;
        let rules = self.rules.iter().map(|(rule, _)| rule).chain([&self.ignored]);
        let tried: usize = rules.map(Patterns::tried).sum();
        let size = (tried as u64).saturating_mul(u64::from(layers));
        if self.varies_by_layer() && size > MOST {
            return Err(ReadError::TooLarge {
                what: "a list of module patterns, times layers,",
                size,
                limit: MOST,
            });
        }
        Ok(())
    }

    /// The bytes of a module, of layer `layer` if it is in one.
    pub(super) fn bytes(&self, module: &Module, layer: Option<u32>) -> u64 {
        let storage = self.storage(module, layer).unwrap_or(Storage::PLAIN);
        storage.bytes(module.inputs, module.outputs, module.count)
    }

    fn storage(&self, module: &Module, layer: Option<u32>) -> Option<Storage> {
        if module.kind == Kind::Small || self.main.is_none() && self.rules.is_empty() {
            return None;
        }
        if self.varies_by_layer() {
            return self.look_up(module, layer);
        }
        // Patterns without a number can tell two layers apart by how many digits they have only.
        let key = (module.name, module.class, module.kind, layer.map(digits));
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let storage = self.look_up(module, layer);
        self.known.borrow_mut().insert(key, storage);
        storage
    }

    fn look_up(&self, module: &Module, layer: Option<u32>) -> Option<Storage> {
        if let Some((_, storage)) =
            self.rules.iter().find(|(rule, _)| rule.mean(module.name, layer))
        {
            return *storage;
        }
        let quantised = module.kind == Kind::Linear
            && (module.class == Class::Experts || !self.experts_only)
            && !self.ignored.mean(module.name, layer);
        self.main.filter(|_| quantised)
    }

    /// The scheme by the name that people give it.
    pub(super) fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// How the KV cache is to be stored, if the checkpoint says so.
    pub(super) fn kv_cache(&self) -> Option<KvDtype> {
        self.kv_cache
    }
}
