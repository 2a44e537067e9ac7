//! The matrices that a layer is made of.

use crate::read::tensors::Class;

/// What a matrix is, as far as quantisation cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A linear layer: what quantisation is about.
    Linear,
    /// Tables, routers, convolutions: quantised only where a config names them.
    Table,
    /// Norms, biases and the like: never.
    Small,
}

/// One matrix, or `count` equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub class: Class,
    /// As the checkpoint names it, within its layer: `self_attn.q_proj`.
    pub name: &'static str,
    pub inputs: u64,
    pub outputs: u64,
    pub count: u64,
    pub kind: Kind,
}

impl Module {
    /// Its parameters. Saturates.
    pub(crate) fn parameters(&self) -> u64 {
        self.inputs.saturating_mul(self.outputs).saturating_mul(self.count)
    }
}

/// The matrices of a layer, or of what stands outside of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modules(pub Vec<Module>);

impl Modules {
    /// A linear layer from `inputs` to `outputs`, with a bias or without.
    pub(super) fn linear(
        &mut self,
        class: Class,
        name: &'static str,
        inputs: u64,
        outputs: u64,
        bias: bool,
    ) {
        self.push(class, name, [inputs, outputs, 1], Kind::Linear);
        if bias {
            self.small(
                if class == Class::KvProjection { class } else { Class::Replicated },
                outputs,
            );
        }
    }

    /// Equal linear layers: experts.
    pub(super) fn experts(&mut self, name: &'static str, inputs: u64, outputs: u64, count: u64) {
        self.push(Class::Experts, name, [inputs, outputs, count], Kind::Linear);
    }

    /// A table, a router or a convolution.
    pub(super) fn table(&mut self, class: Class, name: &'static str, rows: u64, columns: u64) {
        self.push(class, name, [columns, rows, 1], Kind::Table);
    }

    /// Norms, biases, scalars.
    pub(super) fn small(&mut self, class: Class, parameters: u64) {
        self.push(class, "", [1, parameters, 1], Kind::Small);
    }

    fn push(&mut self, class: Class, name: &'static str, sizes: [u64; 3], kind: Kind) {
        let [inputs, outputs, count] = sizes;
        if inputs > 0 && outputs > 0 && count > 0 {
            self.0.push(Module { class, name, inputs, outputs, count, kind });
        }
    }
}
