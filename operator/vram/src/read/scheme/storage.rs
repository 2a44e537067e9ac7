//! How one matrix is stored: bits a weight, and what is kept beside the weights.

/// What shares a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shares {
    /// The whole matrix.
    Tensor,
    /// A row: all inputs of one output.
    Channel,
    /// So many inputs of one output.
    Group(u32),
    /// So many outputs by so many inputs.
    Block(u32, u32),
}

/// A format for matrices. A "scale" is everything that comes once for each group: the scale and,
/// where there is one, the zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Thousandths of a bit for each weight: some formats take a fraction.
    weight_millibits: u64,
    shares: Shares,
    scale_bits: u64,
    /// More for each input: the order of groups that GPTQ keeps.
    input_bits: u64,
}

impl Storage {
    /// 16 bits and nothing else.
    pub(super) const PLAIN: Self = Self::new(16, Shares::Tensor, 0);

    pub(super) const fn new(bits: u32, shares: Shares, scale_bits: u64) -> Self {
        Self { weight_millibits: bits as u64 * 1000, shares, scale_bits, input_bits: 0 }
    }

    /// A format of a fraction of a bit, without scales.
    pub(super) const fn millibits(weight_millibits: u64) -> Self {
        Self { weight_millibits, shares: Shares::Tensor, scale_bits: 0, input_bits: 0 }
    }

    pub(super) const fn with_input_bits(self, input_bits: u64) -> Self {
        Self { input_bits, ..self }
    }

    /// 8-bit floats or integers with an fp32 scale for each of what shares one.
    pub(super) const fn eight(shares: Shares) -> Self {
        Self::new(8, shares, 32)
    }

    /// MXFP4: an 8-bit exponent for 32 weights.
    pub(super) const MXFP4: Self = Self::new(4, Shares::Group(32), 8);

    /// MXFP8: an 8-bit exponent for 32 weights.
    pub(super) const MXFP8: Self = Self::new(8, Shares::Group(32), 8);

    /// NVFP4: an fp8 scale for `group` weights; one fp32 scale a matrix is too little to count.
    pub(super) const fn nvfp4(group: u32) -> Self {
        Self::new(4, Shares::Group(group), 8)
    }

    /// Integers of `bits` bits with a 16-bit scale, and a zero point of as many bits where there is
    /// one.
    pub(super) fn integers(bits: u32, group: Option<u32>, zero_point: bool) -> Self {
        let shares = group.map_or(Shares::Channel, Shares::Group);
        Self::new(bits, shares, 16 + if zero_point { u64::from(bits) } else { 0 })
    }

    /// Bytes of `count` matrices. Saturates.
    pub(crate) fn bytes(&self, inputs: u64, outputs: u64, count: u64) -> u64 {
        let groups = match self.shares {
            Shares::Tensor => 1,
            Shares::Channel => outputs,
            Shares::Group(size) => outputs.saturating_mul(inputs.div_ceil(u64::from(size.max(1)))),
            Shares::Block(rows, columns) => outputs
                .div_ceil(u64::from(rows.max(1)))
                .saturating_mul(inputs.div_ceil(u64::from(columns.max(1)))),
        };
        let weights = u128::from(inputs) * u128::from(outputs);
        let bits = weights.saturating_mul(u128::from(self.weight_millibits)) / 1000;
        let beside = u128::from(groups) * u128::from(self.scale_bits)
            + u128::from(inputs) * u128::from(self.input_bits);
        let bytes = bits.saturating_add(beside).div_ceil(8).saturating_mul(u128::from(count));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_their_files_do() {
        let (inputs, outputs) = (4096, 14336);
        let each = |storage: Storage| {
            storage.bytes(inputs, outputs, 1) as f64 * 8.0 / (inputs * outputs) as f64
        };
        let close = |actual: f64, expected: f64| {
            assert!((actual - expected).abs() < 1e-3, "{actual} is not {expected}");
        };
        close(each(Storage::PLAIN), 16.0);
        close(each(Storage::eight(Shares::Block(128, 128))), 8.0 + 32.0 / 16384.0);
        close(each(Storage::integers(4, Some(128), true)), 4.0 + 20.0 / 128.0);
        close(each(Storage::MXFP4), 4.25);
        close(each(Storage::nvfp4(16)), 4.5);
        assert_eq!(Storage::PLAIN.bytes(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
