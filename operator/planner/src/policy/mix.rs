//! The demand seen so far, and draws from it.

use std::collections::BTreeMap;

use crate::room::Demand;

/// How many different demands are kept apart, the most frequent ones.
const MOST: usize = 256;

/// How often each demand was seen.
#[derive(Clone, Debug, Default)]
pub struct Mix {
    seen: BTreeMap<Demand, u64>,
    total: u64,
}

impl Mix {
    /// One more.
    pub fn add(&mut self, demand: &Demand) {
        match self.seen.get_mut(demand) {
            Some(count) => *count += 1,
            None => drop(self.seen.insert(demand.clone(), 1)),
        }
        self.total += 1;
    }

    /// How many were seen.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The demands with their counts, the most frequent first.
    pub fn ranked(&self) -> Vec<(Demand, f64)> {
        let mut all: Vec<_> = self.seen.iter().collect();
        all.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        all.truncate(MOST);
        all.into_iter().map(|(demand, count)| (demand.clone(), *count as f64)).collect()
    }
}

/// Repeatable draws: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// From that seed on.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// From 0 up to but not 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to but not `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let product = u128::from(self.bits()) * end as u128;
        usize::try_from(product >> 64).unwrap_or_default()
    }
}
