//! GPU products: what their makers publish, and the names people and node labels give them.
//!
//! `products.json` holds the table, each row with its source. Memory is what the driver reports,
//! bandwidth and arithmetic are the maker's peaks without sparsity: good for upper bounds, not for
//! forecasts.

use std::{fmt, sync::LazyLock};

use berth_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{KvDtype, Quantization, Vendor};

/// A kind of GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Product {
    /// The short name: `H100-80GB`.
    pub name: String,
    /// Who makes it.
    pub vendor: Vendor,
    /// What nodes are labelled with: `NVIDIA-H100-80GB-HBM3`.
    pub labels: Vec<String>,
    /// Other names that people use.
    #[serde(default)]
    pub other_names: Vec<String>,
    /// Memory in MiB, as the driver reports it.
    pub vram_mib: u64,
    /// Peak memory bandwidth in GB/s.
    pub gigabytes_per_second: f64,
    /// Peak arithmetic, dense.
    pub teraflops: Teraflops,
    /// Whether it computes in bf16; without it engines fall back to fp16.
    pub bf16: bool,
    /// Where the figures are from.
    pub source: String,
    /// Whether the source was not at hand when the table was last checked: its figures are as people
    /// know them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unconfirmed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Peak arithmetic by the type that is multiplied, in 10^12 operations a second, without sparsity.
/// Absent where the GPU has none of that type.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Teraflops {
    /// 16-bit floats, both kinds.
    pub fp16: f64,
    /// 8-bit floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fp8: Option<f64>,
    /// 8-bit integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<f64>,
    /// 4-bit floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fp4: Option<f64>,
}

/// All products that are known, the makers' newest first.
pub fn products() -> &'static [Product] {
    static PRODUCTS: LazyLock<Vec<Product>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("products.json"))
            .unwrap_or_else(|error| panic!("the embedded products.json: {error}"))
    });
    &PRODUCTS
}

/// The product of that name: a short name, another name of people's, or a node's label, whatever
/// the case and the punctuation (`h100 80gb`).
pub fn product(name: &str) -> Option<&'static Product> {
    let wanted = plain(name);
    products().iter().find(|product| product.names().any(|name| plain(name) == wanted))
}

impl Product {
    /// Every name: the short one, people's, the labels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.other_names).chain(&self.labels).map(String::as_str)
    }

    /// Its memory.
    pub fn vram(&self) -> Bytes {
        Bytes::mib(self.vram_mib)
    }

    /// Whether the engines serve weights stored so on it. Unpacking 8- and 4-bit floats without
    /// arithmetic of their type takes bf16 (vLLM's Marlin kernels: Ampere and newer; on AMD there
    /// are none); AWQ, GPTQ and bitsandbytes are left out on Volta (vLLM wants compute capability
    /// 7.5), 8-bit integers on Blackwell ("Int8 not supported on SM100", vLLM's
    /// `scaled_mm_helper.hpp`), and what is only made for NVIDIA on AMD.
    pub fn serves(&self, stored: Quantization) -> bool {
        let nvidia = self.vendor == Vendor::Nvidia;
        match stored {
            Quantization::Fp8 | Quantization::Fp8Block => {
                self.teraflops.fp8.is_some() || (nvidia && self.bf16)
            }
            Quantization::Mxfp4 => self.bf16 && (nvidia || self.teraflops.fp8.is_some()),
            Quantization::Nvfp4 => nvidia && self.bf16,
            Quantization::Int8 => self.teraflops.int8.is_some() && !self.is_blackwell(),
            Quantization::Awq { .. } | Quantization::Gptq { .. } => self.teraflops.int8.is_some(),
            Quantization::Bnb4 => nvidia && self.teraflops.int8.is_some(),
            _ => true,
        }
    }

    /// NVIDIA's first with arithmetic for 4-bit floats.
    fn is_blackwell(&self) -> bool {
        self.vendor == Vendor::Nvidia && self.teraflops.fp4.is_some()
    }

    /// Whether it can be given a cache stored so: fp8 wants arithmetic of that type.
    pub fn keeps(&self, kv_dtype: KvDtype) -> bool {
        kv_dtype != KvDtype::Fp8 || self.teraflops.fp8.is_some()
    }

    /// The most operations a second with weights stored so, at best: whole types that the GPU
    /// multiplies as they are, everything else unpacked to 16 bits.
    pub(crate) fn flops(&self, stored: Quantization) -> f64 {
        let Teraflops { fp16, fp8, int8, fp4 } = self.teraflops;
        let or16 = |rate: Option<f64>| rate.map_or(fp16, |rate| rate.max(fp16));
        let tera = match stored {
            Quantization::Fp8 | Quantization::Fp8Block => or16(fp8),
            // llama.cpp multiplies most types as 8-bit integers.
            Quantization::Int8 | Quantization::Gguf(_) => or16(int8),
            Quantization::Mxfp4 | Quantization::Nvfp4 => or16(fp4.or(fp8)),
            _ => fp16,
        };
        tera * 1e12
    }
}

/// The short name.
impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A name without case, punctuation and makers' words, so that `NVIDIA H100 80GB HBM3` is its label.
fn plain(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !matches!(*word, "nvidia" | "amd" | "tesla" | "geforce" | "instinct"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_nodes_name_them_alike() {
        for (name, short) in [
            ("H100-80GB", "H100-80GB"),
            ("h100", "H100-80GB"),
            ("NVIDIA-H100-80GB-HBM3", "H100-80GB"),
            ("NVIDIA H100 80GB HBM3", "H100-80GB"),
            ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
            ("Tesla-T4", "T4"),
            ("rtx4090", "RTX-4090"),
            ("NVIDIA GeForce RTX 4090", "RTX-4090"),
            ("AMD_Instinct_MI300X_OAM", "MI300X"),
            ("mi300x", "MI300X"),
            ("NVIDIA-B300-SXM6-AC", "B300"),
            ("NVIDIA-GH200-480GB", "GH200-96GB"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-Server"),
            ("AMD Instinct MI355X", "MI355X"),
        ] {
            let found = product(name).map(|product| product.name.as_str());
            assert_eq!(found, Some(short), "{name}");
        }
        assert_eq!(product("H1000"), None);
        assert_eq!(product(""), None);
    }

    #[test]
    fn no_two_share_a_name_and_all_are_cited() {
        for a in products() {
            assert!(!a.source.is_empty() && !a.labels.is_empty(), "{a}");
            assert!(a.vram_mib > 8 << 10 && a.gigabytes_per_second > 100.0, "{a}");
            for name in a.names() {
                assert_eq!(product(name), Some(a), "{name}");
            }
        }
        assert!(products().len() >= 38);
    }

    #[test]
    fn figures_are_of_one_kind() {
        for product in products() {
            let Teraflops { fp16, fp8, int8, fp4 } = product.teraflops;
            // Half the bits, twice the rate, where a GPU has the type; B300 gave up its integers, and
            // a rate with sparsity would stand out.
            for (rate, of) in [(fp8, Some(fp16)), (fp4, fp8)] {
                let Some((rate, of)) = rate.zip(of) else { continue };
                assert!((1.9..4.1).contains(&(rate / of)), "{product}: {rate} / {of}");
            }
            if let Some(int8) = int8 {
                assert!(int8 <= 4.1 * fp16, "{product}: {int8}");
            }
            // What a GPU has is read in 8 to 115 ms.
            let milliseconds =
                product.vram().as_gib_f64() * 1.073_741_824 / product.gigabytes_per_second * 1e3;
            assert!((8.0..115.0).contains(&milliseconds), "{product}: {milliseconds}");
        }
    }

    #[test]
    fn weights_are_served_where_engines_have_kernels() {
        use Quantization as Q;
        let awq = Q::Awq { bits: 4, group_size: 128 };
        let gptq = Q::Gptq { bits: 4, group_size: 128 };
        let all = [Q::None, Q::Fp8, Q::Fp8Block, Q::Int8, awq, gptq, Q::Mxfp4, Q::Nvfp4, Q::Bnb4];
        for (name, not) in [
            ("H100", &[][..]),
            ("L40S", &[]),
            ("A100", &[]),
            ("RTX-3090", &[]),
            ("B200", &[Q::Int8]),
            ("B300", &[Q::Int8]),
            ("RTX-5090", &[Q::Int8]),
            ("T4", &[Q::Fp8, Q::Fp8Block, Q::Mxfp4, Q::Nvfp4]),
            ("V100", &[Q::Fp8, Q::Fp8Block, Q::Int8, awq, gptq, Q::Mxfp4, Q::Nvfp4, Q::Bnb4]),
            ("MI300X", &[Q::Nvfp4, Q::Bnb4]),
            ("MI355X", &[Q::Nvfp4, Q::Bnb4]),
            ("MI210", &[Q::Fp8, Q::Fp8Block, Q::Mxfp4, Q::Nvfp4, Q::Bnb4]),
        ] {
            let product = product(name).unwrap();
            for stored in all {
                assert_eq!(product.serves(stored), !not.contains(&stored), "{name}: {stored}");
            }
        }
    }

    #[test]
    fn arithmetic_follows_the_type() {
        let h100 = product("H100").unwrap();
        assert!((h100.flops(Quantization::None) - 989e12).abs() < 1.0);
        assert!((h100.flops(Quantization::Fp8) - 1979e12).abs() < 1.0);
        let a100 = product("A100").unwrap();
        assert!((a100.flops(Quantization::Fp8) - 312e12).abs() < 1.0);
        assert!(
            a100.serves(Quantization::Fp8) && !product("T4").unwrap().serves(Quantization::Fp8)
        );
        assert!(!product("MI210").unwrap().serves(Quantization::Fp8));
    }
}
