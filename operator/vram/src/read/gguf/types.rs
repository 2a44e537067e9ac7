//! ggml's types: how many weights make a block, and what it takes.

use crate::GgufType;

/// A type of tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgmlType {
    /// Its name, as ggml spells it.
    pub name: &'static str,
    /// Weights of a block.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
    /// The type of file that is mostly of it.
    file: GgufType,
}

const fn of(name: &'static str, block: u64, bytes: u64, file: GgufType) -> GgmlType {
    GgmlType { name, block, bytes, file }
}

impl GgmlType {
    /// The type of this number: `enum ggml_type` of ggml.h, sizes as gguf-py's `GGML_QUANT_SIZES`
    /// (ggml, MIT). Numbers that ggml gave up are none.
    pub(super) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => of("F32", 1, 4, GgufType::F32),
            1 => of("F16", 1, 2, GgufType::F16),
            // With rows interleaved for some processors: of the same size.
            2 | 31..=33 => of("Q4_0", 32, 18, GgufType::Q4_0),
            3 => of("Q4_1", 32, 20, GgufType::Q4_1),
            6 => of("Q5_0", 32, 22, GgufType::Q5_0),
            7 => of("Q5_1", 32, 24, GgufType::Q5_1),
            8 => of("Q8_0", 32, 34, GgufType::Q8_0),
            9 => of("Q8_1", 32, 40, GgufType::Q8_0),
            10 => of("Q2_K", 256, 84, GgufType::Q2K),
            11 => of("Q3_K", 256, 110, GgufType::Q3KM),
            12 => of("Q4_K", 256, 144, GgufType::Q4KM),
            13 => of("Q5_K", 256, 176, GgufType::Q5KM),
            14 => of("Q6_K", 256, 210, GgufType::Q6K),
            15 => of("Q8_K", 256, 292, GgufType::Q8_0),
            16 => of("IQ2_XXS", 256, 66, GgufType::Iq2Xxs),
            17 => of("IQ2_XS", 256, 74, GgufType::Iq2Xs),
            18 => of("IQ3_XXS", 256, 98, GgufType::Iq3Xxs),
            19 => of("IQ1_S", 256, 50, GgufType::Iq1S),
            20 | 36..=38 => of("IQ4_NL", 32, 18, GgufType::Iq4Nl),
            21 => of("IQ3_S", 256, 110, GgufType::Iq3S),
            22 => of("IQ2_S", 256, 82, GgufType::Iq2S),
            23 => of("IQ4_XS", 256, 136, GgufType::Iq4Xs),
            24 => of("I8", 1, 1, GgufType::Q8_0),
            25 => of("I16", 1, 2, GgufType::F16),
            26 => of("I32", 1, 4, GgufType::F32),
            27 => of("I64", 1, 8, GgufType::F32),
            28 => of("F64", 1, 8, GgufType::F32),
            29 => of("IQ1_M", 256, 56, GgufType::Iq1M),
            30 => of("BF16", 1, 2, GgufType::Bf16),
            34 => of("TQ1_0", 256, 54, GgufType::Iq1S),
            35 => of("TQ2_0", 256, 66, GgufType::Iq2Xxs),
            39 => of("MXFP4", 32, 17, GgufType::Mxfp4),
            40 => of("NVFP4", 64, 36, GgufType::Mxfp4),
            41 => of("Q1_0", 128, 18, GgufType::Iq1S),
            _ => return None,
        })
    }

    /// The type of file that is mostly of this: its name for people.
    pub(super) const fn file(self) -> GgufType {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_a_weight_are_the_published_ones() {
        for (number, bits) in [
            (0, 32.0),
            (2, 4.5),
            (8, 8.5),
            (10, 2.625),
            (12, 4.5),
            (14, 6.5625),
            (39, 4.25),
            (34, 1.6875),
        ] {
            let kind = GgmlType::of(number).unwrap();
            let each = kind.bytes as f64 * 8.0 / kind.block as f64;
            assert!((each - bits).abs() < 1e-9, "{}: {each}", kind.name);
        }
        assert_eq!((GgmlType::of(4), GgmlType::of(144)), (None, None));
    }
}
