//! The estimates that all products share: each variant on each number of GPUs, once.

use berth_units::Bytes;

use super::Question;
use crate::{Estimate, KvDtype, Parallelism, Vendor, estimate, tensor_degrees};

/// One estimate.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub gpus: u32,
    pub kv_dtype: KvDtype,
    /// On NVIDIA.
    pub estimate: Estimate,
    nvidia: Bytes,
    amd: Bytes,
}

impl Row {
    /// What each GPU of a vendor needs.
    pub(super) fn total(&self, vendor: Vendor) -> Bytes {
        match vendor {
            Vendor::Nvidia => self.nvidia,
            Vendor::Amd => self.amd,
        }
    }
}

/// The rows of each variant, by GPU count, the preferred cache first; and the GPU counts that it can
/// be spread over.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Row>>,
    degrees: Vec<Vec<u32>>,
}

impl Table {
    pub(super) fn of(question: &Question<'_>) -> Self {
        let mut table = Self { rows: Vec::new(), degrees: Vec::new() };
        for variant in question.variants {
            let degrees = tensor_degrees(&variant.facts, question.max_gpus);
            let kinds = question.kv_dtypes(variant);
            let mut rows = Vec::with_capacity(degrees.len() * kinds.len());
            for &gpus in &degrees {
                for &kv_dtype in &kinds {
                    let workload = question.workload(variant, kv_dtype);
                    let parallelism = Parallelism::tensor(gpus);
                    let Ok(estimate) = estimate(&variant.facts, &workload, parallelism) else {
                        continue;
                    };
                    let nvidia = estimate.per_gpu.total();
                    let amd = estimate.clone().on(Vendor::Amd).per_gpu.total();
                    rows.push(Row { gpus, kv_dtype, estimate, nvidia, amd });
                }
            }
            table.rows.push(rows);
            table.degrees.push(degrees);
        }
        table
    }

    pub(super) fn degrees(&self, variant: usize) -> impl DoubleEndedIterator<Item = u32> {
        self.degrees[variant].iter().copied()
    }

    /// All rows of a variant that a product could be given, fitting or not.
    pub(super) fn rows<'a>(
        &'a self,
        question: &Question<'a>,
        variant: usize,
        gpu: usize,
    ) -> impl Iterator<Item = &'a Row> {
        let product = question.gpus[gpu].product;
        let served = product.serves(question.variants[variant].facts.quantization);
        self.rows[variant].iter().filter(move |row| served && product.keeps(row.kv_dtype))
    }

    /// Whether a variant can be spread over so many GPUs.
    pub(super) fn spreads(&self, variant: usize, gpus: u32) -> bool {
        self.degrees[variant].contains(&gpus)
    }
}
