//! The flags with which an engine takes its claim and no more.

use std::fmt;

use berth_units::Bytes;

use crate::{Breakdown, Engine, Version, Workload};

/// A part of a GPU's memory, in ten-thousandths: what vLLM and `SGLang` are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryFraction(u16);

impl MemoryFraction {
    const WHOLE: u64 = 10_000;

    /// The largest fraction of `total` that is not more than `part`; none for less than one
    /// ten-thousandth. More than all is all.
    pub fn of(part: Bytes, total: Bytes) -> Option<Self> {
        let parts = u128::from(part.get()) * u128::from(Self::WHOLE);
        let fraction = parts.checked_div(u128::from(total.get()))?.min(u128::from(Self::WHOLE));
        u16::try_from(fraction).ok().filter(|&fraction| fraction > 0).map(Self)
    }

    /// So much of `total` is taken, as vLLM rounds it: up to a byte.
    pub fn taken(self, total: Bytes) -> Bytes {
        (total * u64::from(self.0)).div_ceil(Self::WHOLE)
    }
}

/// As a flag: `0.95`, `0.4317`.
impl fmt::Display for MemoryFraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 10_000.0)
    }
}

/// Since this version vLLM counts CUDA graphs as part of what it was given; before, they came on
/// top. (The logs of 0.20 show it: KV cache and weights of the same model add up to the graphs less.)
const COUNTS_GRAPHS: Version = Version::new(0, 20);

/// The flags that make an engine take `claim` bytes of a GPU of `total`, and no more: an exclusive
/// claim is the whole usable GPU, a shared one what the estimate says. `parts` is that estimate.
///
/// None if the claim is too small for what the engine takes beside weights and cache. llama.cpp has
/// no such flag: it takes what it needs. A custom engine is told in words of its own.
pub fn memory_flags(
    workload: &Workload,
    parts: &Breakdown,
    claim: Bytes,
    total: Bytes,
) -> Option<Vec<(&'static str, String)>> {
    let fraction = |part: Bytes| MemoryFraction::of(part, total).map(|part| part.to_string());
    Some(match workload.engine {
        Engine::Vllm => {
            let version = workload.version.unwrap_or(super::vllm::RENDERED);
            let beside = if version >= COUNTS_GRAPHS { Bytes::ZERO } else { parts.graphs };
            vec![("--gpu-memory-utilization", fraction(claim - beside)?)]
        }
        Engine::Sglang => {
            vec![("--mem-fraction-static", fraction(claim - parts.overheads())?)]
        }
        Engine::LlamaCpp | Engine::Custom => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parallelism, catalogue, estimate};

    /// What the driver of an H100 80GB reports.
    const H100: Bytes = Bytes(85_027_979_264);

    #[test]
    fn a_fraction_never_takes_more_than_its_part() {
        for part in [1, 8_502_797, 8_502_798, 1 << 30, 40 << 30, 80_776_580_301, u64::MAX] {
            let Some(fraction) = MemoryFraction::of(Bytes(part), H100) else {
                assert!(part < 8_502_798);
                continue;
            };
            assert!(fraction.taken(H100) <= Bytes(part), "{part} {fraction}");
            assert!(fraction.taken(H100) <= H100);
        }
        assert_eq!(MemoryFraction::of(H100.scale(0.95), H100).unwrap().to_string(), "0.95");
        assert_eq!(MemoryFraction::of(H100, Bytes::ZERO), None);
    }

    #[test]
    fn engines_are_told_their_claim() {
        let facts = &catalogue().find("meta-llama/Llama-3.1-8B-Instruct", None).unwrap().facts;
        let flags = |engine, version, claim| {
            let workload = Workload { version, ..Workload::new(engine, 8192, 1) };
            let parts = estimate(facts, &workload, Parallelism::SINGLE).unwrap().per_gpu;
            memory_flags(&workload, &parts, claim, H100)
        };
        let exclusive = H100.scale(0.95);
        let vllm = |version, claim| flags(Engine::Vllm, version, claim).unwrap();
        assert_eq!(vllm(None, exclusive), [("--gpu-memory-utilization", "0.95".to_owned())]);
        assert_eq!(vllm(None, Bytes::gib(20)), [("--gpu-memory-utilization", "0.2525".to_owned())]);
        // Graphs of 0.9 GiB come on top of what an older version is given.
        let before = vllm(Some(Version::new(0, 19)), Bytes::gib(20));
        assert_eq!(before, [("--gpu-memory-utilization", "0.2415".to_owned())]);
        let sglang = flags(Engine::Sglang, None, exclusive).unwrap();
        assert_eq!(sglang, [("--mem-fraction-static", "0.7842".to_owned())]);
        assert_eq!(flags(Engine::Sglang, None, Bytes::gib(10)), None);
    }
}
