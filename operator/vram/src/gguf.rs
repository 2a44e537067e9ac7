//! The types of GGUF files, and how many bits a weight takes in each.
//!
//! A type names a mixture: "`Q4_K_M`" stores most tensors in 4.5 bits, half of the sensitive ones in
//! 6.56, the output layer in 6.56. What a file really holds stands in its header, and goes before
//! this (`weightBytes`); labels have been wrong. The bits of the embedding and output tables follow
//! llama.cpp's `llama_tensor_get_type`; those of the layers are derived from the bits a weight that
//! its `tools/quantize/README.md` publishes for Llama-3.1-8B.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! gguf_types {
    ($($variant:ident = $name:literal, $base:literal, $output:literal, $whole:expr;)+) => {
        /// The type of a GGUF file, as its name spells it (`…-Q4_K_M.gguf`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum GgufType {
            $(
                #[doc = concat!("`", $name, "`.")]
                #[serde(rename = $name)]
                $variant,
            )+
        }

        impl GgufType {
            /// Every type, smallest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As file names spell it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Bits of the input embedding table and of most tensors.
            pub(crate) const fn base_bits(self) -> f64 {
                match self { $(Self::$variant => $base),+ }
            }

            /// Bits of the output layer.
            pub(crate) const fn output_bits(self) -> f64 {
                match self { $(Self::$variant => $output),+ }
            }

            /// Bits a weight over the whole of Llama-3.1-8B; none for types without a mixture.
            const fn whole_bits(self) -> Option<f64> {
                match self { $(Self::$variant => $whole),+ }
            }
        }
    };
}

// Name, bits of the embedding table, bits of the output layer, published bits a weight of
// Llama-3.1-8B. Q3_K_M stands in that table by its size alone (3.74 GiB for Llama-3-8B).
gguf_types! {
    Iq1S = "IQ1_S", 2.625, 5.5, Some(2.0042);
    Iq1M = "IQ1_M", 2.625, 5.5, Some(2.1460);
    Iq2Xxs = "IQ2_XXS", 2.625, 5.5, Some(2.3824);
    Iq2Xs = "IQ2_XS", 2.625, 5.5, Some(2.5882);
    Iq2S = "IQ2_S", 3.4375, 5.5, Some(2.7403);
    Iq2M = "IQ2_M", 3.4375, 5.5, Some(2.9294);
    Q2KS = "Q2_K_S", 2.625, 6.5625, Some(2.9697);
    Q2K = "Q2_K", 2.625, 6.5625, Some(3.1593);
    Iq3Xxs = "IQ3_XXS", 3.4375, 5.5, Some(3.2548);
    Iq3Xs = "IQ3_XS", 3.4375, 6.5625, Some(3.4977);
    Q3KS = "Q3_K_S", 3.4375, 6.5625, Some(3.6429);
    Iq3S = "IQ3_S", 3.4375, 6.5625, Some(3.6606);
    Iq3M = "IQ3_M", 3.4375, 6.5625, Some(3.7628);
    Q3KM = "Q3_K_M", 3.4375, 6.5625, Some(4.0006);
    Mxfp4 = "MXFP4", 8.5, 8.5, None;
    Q3KL = "Q3_K_L", 3.4375, 6.5625, Some(4.2979);
    Iq4Xs = "IQ4_XS", 4.25, 6.5625, Some(4.4597);
    Q4_0 = "Q4_0", 4.5, 6.5625, None;
    Q4KS = "Q4_K_S", 4.5, 6.5625, Some(4.6672);
    Iq4Nl = "IQ4_NL", 4.5, 6.5625, Some(4.6818);
    Q4KM = "Q4_K_M", 4.5, 6.5625, Some(4.8944);
    Q4_1 = "Q4_1", 5.0, 6.5625, None;
    Q5_0 = "Q5_0", 5.5, 6.5625, None;
    Q5KS = "Q5_K_S", 5.5, 6.5625, Some(5.5704);
    Q5KM = "Q5_K_M", 5.5, 6.5625, Some(5.7036);
    Q5_1 = "Q5_1", 6.0, 6.5625, None;
    Q6K = "Q6_K", 6.5625, 6.5625, None;
    Q8_0 = "Q8_0", 8.5, 8.5, None;
    F16 = "F16", 16.0, 16.0, None;
    Bf16 = "BF16", 16.0, 16.0, None;
    F32 = "F32", 32.0, 32.0, None;
}

/// Parameters of Llama-3.1-8B in its layers, and in one of its two tables (128,256 × 4,096).
const REFERENCE_LAYERS: f64 = 6.9795e9;
const REFERENCE_TABLE: f64 = 0.5253e9;

impl GgufType {
    /// Bits a weight of the layers takes, on average over their tensors.
    pub(crate) fn layer_bits(self) -> f64 {
        match (self.whole_bits(), self) {
            (Some(whole), _) => {
                let all = whole * (REFERENCE_LAYERS + 2.0 * REFERENCE_TABLE);
                let tables = (self.base_bits() + self.output_bits()) * REFERENCE_TABLE;
                (all - tables) / REFERENCE_LAYERS
            }
            // 32 weights of 4 bits share an 8-bit scale; only the tables are stored wider.
            (None, Self::Mxfp4) => 4.25,
            (None, _) => self.base_bits(),
        }
    }

    /// The type that a file name or a file pattern tells: `*Q4_K_M.gguf`, `model-q8_0.gguf`,
    /// `Q4_K_M/*.gguf`, `…-UD-Q4_K_XL-00001-of-00002.gguf` (as the next type up, `Q4_K_M`).
    pub fn from_file_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        // Everything but letters, digits and underscores parts words; the last match is the type,
        // since the model's own name comes before it.
        upper
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter_map(|word| word.parse().ok())
            .next_back()
    }
}

/// A word that is no GGUF type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GGUF type such as Q4_K_M or Q8_0")]
pub struct ParseGgufTypeError(String);

impl FromStr for GgufType {
    type Err = ParseGgufTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.trim().to_ascii_uppercase();
        // Sizes beyond L and names without a size, as some publishers write them.
        let known = match upper.as_str() {
            "FP16" => "F16",
            "MXFP4_MOE" => "MXFP4",
            "Q2_K_L" | "Q2_K_XL" => "Q3_K_S",
            "Q3_K" => "Q3_K_M",
            "Q3_K_XL" => "Q3_K_L",
            "Q4_K" | "Q4_K_L" | "Q4_K_XL" => "Q4_K_M",
            "Q5_K" | "Q5_K_L" | "Q5_K_XL" => "Q5_K_M",
            "Q6_K_L" | "Q6_K_XL" => "Q6_K",
            "Q8_K_XL" => "Q8_0",
            other => other,
        };
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == known)
            .ok_or_else(|| ParseGgufTypeError(text.to_owned()))
    }
}

impl fmt::Display for GgufType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_type() {
        for (name, kind) in [
            ("*Q4_K_M.gguf", Some(GgufType::Q4KM)),
            ("qwen2.5-7b-instruct-q8_0.gguf", Some(GgufType::Q8_0)),
            ("Meta-Llama-3.1-8B-Instruct-IQ4_XS.gguf", Some(GgufType::Iq4Xs)),
            ("mistral-7b-instruct-v0.2.Q5_K_S.gguf", Some(GgufType::Q5KS)),
            ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", Some(GgufType::Mxfp4)),
            ("Q6_K/DeepSeek-R1-Q6_K-*.gguf", Some(GgufType::Q6K)),
            ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", Some(GgufType::Q4KM)),
            ("model-bf16.gguf", Some(GgufType::Bf16)),
            ("*.gguf", None),
            ("", None),
        ] {
            assert_eq!(GgufType::from_file_name(name), kind, "{name}");
        }
    }

    #[test]
    fn every_type_is_named_and_sorted() {
        for kind in GgufType::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert!(kind.layer_bits() > 1.5 && kind.layer_bits() <= 32.0, "{kind}");
        }
        // The layers of Q4_K_M: half of the value and down projections at 6.56 bits, the rest 4.5.
        assert!((GgufType::Q4KM.layer_bits() - 4.80).abs() < 0.01);
        assert!("Q9_K".parse::<GgufType>().is_err());
    }
}
