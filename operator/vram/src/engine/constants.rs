//! The figures that no formula gives: fitted to what engines printed.
//!
//! `berth-bench fit` computes them from logs and prints this table; a test of its compares. Few, each
//! with a physical meaning, and none that hangs on a single case. What can be counted from an
//! engine's own code stands in its formulas instead.

macro_rules! constants {
    ($($(#[$doc:meta])+ $variant:ident = $value:literal, $unit:literal;)+) => {
        /// A fitted figure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Constant {
            $($(#[$doc])+ $variant,)+
        }

        impl Constant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            /// What it is counted in.
            pub const fn unit(self) -> &'static str {
                match self {
                    $(Self::$variant => $unit,)+
                }
            }
        }

        impl Constants {
            /// As `berth-bench fit` found them.
            pub const FITTED: Self = Self([$($value),+]);
        }
    };
}

constants! {
    /// vLLM: what the profiling run allocates whatever the model (attention's metadata, positions).
    ActivationBase = 35.0, "MiB";
    /// vLLM: hidden states that are alive at the peak of a forward pass.
    HiddenStates = 3.65, "states";
    /// vLLM: values of the pixels behind one token of an image, kept while the model is profiled.
    PixelsPerToken = 8600.0, "values";
    /// vLLM before 0.17: bytes of a logit while the sampler sorts (keys, indices, and both again).
    SortedLogit = 38.0, "bytes";
    /// vLLM: outside of `PyTorch`'s allocator, on one GPU.
    NonTorchAlone = 265.0, "MiB";
    /// vLLM: the same on each of several GPUs, with NCCL and the all-reduce's buffers.
    NonTorchTogether = 2135.0, "MiB";
    /// vLLM before 0.17, on one GPU.
    NonTorchAloneBefore = 140.0, "MiB";
    /// vLLM before 0.17, on each of several.
    NonTorchTogetherBefore = 555.0, "MiB";
    /// vLLM on AMD: what its builds take more.
    NonTorchAmd = 1535.0, "MiB";
    /// vLLM: CUDA graphs of any model.
    Graphs = 400.0, "MiB";
    /// vLLM: more for each layer.
    GraphsLayer = 15.4, "MiB";
    /// vLLM: more for a mixture of experts.
    GraphsExperts = 245.0, "MiB";
    /// vLLM: more for each layer of latent attention.
    GraphsLatentLayer = 20.4, "MiB";
    /// vLLM before 0.17: capture gave back nearly as much of the allocator's cache as it took.
    GraphsBefore = 85.0, "MiB";
    /// vLLM on AMD.
    GraphsAmd = 5255.0, "MiB";
    /// Margin: mean size of the errors where constants were fitted, the model left out.
    ErrorFitted = 180.0, "MiB";
    /// Margin: the same for vLLM before 0.17.
    ErrorOlder = 600.0, "MiB";
    /// Margin: the same for what complete logs do not show, by what budgets of vLLM tell.
    ErrorBudgets = 760.0, "MiB";
    /// Margin: the same on AMD.
    ErrorAmd = 1400.0, "MiB";
    /// Margin: mean size of the error of weights, as a part of them.
    ErrorWeights = 0.002, "of them";
}

/// A value for each [`Constant`].
#[derive(Clone, Debug, PartialEq)]
pub struct Constants([f64; Constant::ALL.len()]);

impl Constants {
    /// The value of one.
    pub const fn get(&self, constant: Constant) -> f64 {
        self.0[constant as usize]
    }

    /// Sets one.
    pub fn set(&mut self, constant: Constant, value: f64) {
        self.0[constant as usize] = value;
    }

    /// One that is counted in MiB, in bytes.
    pub(crate) const fn mib(&self, constant: Constant) -> f64 {
        self.get(constant) * (1 << 20) as f64
    }
}
