//! The sums for the cache of one node: what lies there, what is used, what is kept.

use std::{
    cmp,
    collections::{BTreeMap, BTreeSet},
};

use berth_units::Bytes;

use crate::{CacheKey, CacheNeed, CacheUse, Cached, RefusalReason};

/// What is known of one node's cache, but for its size. Equal when it holds the same, however it
/// came to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shelf {
    lying: BTreeMap<CacheKey, Cached>,
    /// How many pods use an entry, by the bytes that they say it has.
    used: BTreeMap<CacheKey, BTreeMap<Bytes, u32>>,
    /// How many deployments with pods on the node keep an entry, lying or not.
    kept: BTreeMap<CacheKey, u32>,
    sums: Sums,
}

/// Sums of bytes, wide enough for whatever figures come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    protected: u128,
    evictable: u128,
    leaving: u128,
}

/// One entry, lying or still to come.
#[derive(Clone, Copy, Default)]
struct Item {
    /// The most that is said of it.
    bytes: u128,
    protected: bool,
    complete: bool,
    leaving: bool,
}

impl Shelf {
    /// What lies there.
    pub(crate) fn lying(&self) -> &BTreeMap<CacheKey, Cached> {
        &self.lying
    }

    /// What lies there or comes.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &CacheKey> {
        self.lying.keys().chain(self.used.keys().filter(|key| !self.lying.contains_key(*key)))
    }

    /// Nothing is known of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.lying.is_empty() && self.used.is_empty() && self.kept.is_empty()
    }

    /// Replaces what lies there.
    pub(crate) fn set_lying(&mut self, lying: BTreeMap<CacheKey, Cached>) {
        self.lying = lying;
        self.recount();
    }

    /// One pod more uses an entry.
    pub(crate) fn add_user(&mut self, key: &CacheKey, bytes: Bytes) {
        *self.used.entry(key.clone()).or_default().entry(bytes).or_default() += 1;
        self.recount();
    }

    /// One pod less does; it was added before.
    pub(crate) fn remove_user(&mut self, key: &CacheKey, bytes: Bytes) {
        if let Some(users) = self.used.get_mut(key) {
            take_one(users, &bytes);
            if users.is_empty() {
                self.used.remove(key);
            }
        }
        self.recount();
    }

    /// One deployment more keeps these entries.
    pub(crate) fn add_kept(&mut self, keys: &BTreeSet<CacheKey>) {
        for key in keys {
            *self.kept.entry(key.clone()).or_default() += 1;
        }
        self.recount();
    }

    /// One deployment less does; they were added before.
    pub(crate) fn remove_kept(&mut self, keys: &BTreeSet<CacheKey>) {
        for key in keys {
            take_one(&mut self.kept, key);
        }
        self.recount();
    }

    /// As if a replica with that need were placed: what has to go leaves, and it uses its entry.
    pub(crate) fn carry_out(&mut self, need: &CacheNeed, size: Bytes) {
        for key in self.evictions(need, size) {
            if let Some(cached) = self.lying.get_mut(&key) {
                cached.leaving = true;
            }
        }
        self.add_user(&need.key, need.bytes);
    }

    /// Whether an entry is protected.
    pub(crate) fn protects(&self, key: &CacheKey) -> bool {
        self.item(key).protected
    }

    /// What of the need is still to be downloaded.
    pub(crate) fn missing(&self, need: &CacheNeed) -> Bytes {
        let there = self.lying.get(&need.key).map(|cached| cached.bytes);
        let coming = self.used.get(&need.key).and_then(|users| users.keys().next_back().copied());
        need.bytes - cmp::max(there, coming).unwrap_or_default()
    }

    /// Why a replica with that need cannot be placed there now.
    pub(crate) fn refuses(&self, need: &CacheNeed, size: Bytes) -> Option<RefusalReason> {
        let item = self.item(&need.key);
        if item.leaving {
            return Some(RefusalReason::CacheLeaving);
        }
        if need.offline && !item.complete {
            return Some(RefusalReason::CacheMissing);
        }
        let bytes = item.bytes.max(need.bytes.get().into());
        let others = self.protected_beside(&item);
        // What is protected already takes nothing more.
        if item.protected && bytes == item.bytes || others + bytes <= size.get().into() {
            return None;
        }
        let free = u128::from(size.get()).saturating_sub(others);
        Some(RefusalReason::Cache { need: narrow(bytes), free: narrow(free) })
    }

    /// The entries that have to go so that the need fits: least recently used first, and of those
    /// none that could as well stay. Nothing where it does not fit, or needs no more than is there.
    pub(crate) fn evictions(&self, need: &CacheNeed, size: Bytes) -> Vec<CacheKey> {
        if self.missing(need) == Bytes::ZERO || self.refuses(need, size).is_some() {
            return Vec::new();
        }
        let others = self.sums.protected + self.sums.evictable - self.item(&need.key).bytes;
        let all = others + u128::from(need.bytes.get());
        let may_go = |key: &CacheKey| *key != need.key && !self.item(key).protected;
        self.least_recently_used(all.saturating_sub(size.get().into()), may_go)
    }

    /// The entries that have to go so that all that stays has room: with what is not protected
    /// also, last, what is only kept; everything that nobody uses where that is not enough.
    pub(crate) fn evictions_due(&self, size: Bytes) -> Vec<CacheKey> {
        let all = self.sums.protected + self.sums.evictable;
        let may_go = |key: &CacheKey| !self.used.contains_key(key);
        self.least_recently_used(all.saturating_sub(size.get().into()), may_go)
    }

    /// Of what may go so much that `needed` bytes are freed, protected entries last.
    fn least_recently_used(
        &self,
        needed: u128,
        may_go: impl Fn(&CacheKey) -> bool,
    ) -> Vec<CacheKey> {
        if needed == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<((bool, i64, &CacheKey), u128)> = self
            .lying
            .iter()
            .filter(|(key, cached)| !cached.leaving && may_go(key))
            .map(|(key, cached)| {
                let order = (self.item(key).protected, cached.last_used, key);
                (order, cached.bytes.get().into())
            })
            .collect();
        candidates.sort_unstable();
        let mut freed = 0;
        candidates.retain(|(_, bytes)| {
            let more = freed < needed;
            freed += if more { *bytes } else { 0 };
            more
        });
        // Beside a large one that came last, small ones may not matter any more: of those, the most
        // recently used stay first.
        candidates.reverse();
        candidates.retain(|(_, bytes)| {
            let stays = freed >= needed + bytes;
            freed -= if stays { *bytes } else { 0 };
            !stays
        });
        candidates.into_iter().rev().map(|((.., key), _)| key.clone()).collect()
    }

    /// Whether there is a need that did not fit `before` and may fit now.
    pub(crate) fn eased(&self, before: &Self, size: Bytes) -> bool {
        if self == before {
            return false;
        }
        let size = u128::from(size.get());
        if self.sums.protected < before.sums.protected {
            return true;
        }
        let keys = |shelf: &Self| -> BTreeSet<CacheKey> {
            shelf.lying.keys().chain(shelf.used.keys()).cloned().collect()
        };
        keys(before).union(&keys(self)).any(|key| {
            let (was, is) = (before.item(key), self.item(key));
            let others = before.protected_beside(&was);
            let did_not_fit = others + was.bytes.max(is.bytes) > size;
            let shares = is.protected && (!was.protected || is.bytes > was.bytes);
            let shrank = is.bytes < was.bytes;
            !is.leaving
                && (was.leaving
                    || is.complete && !was.complete
                    || self.protected_beside(&is) < others
                    || did_not_fit && (shares || shrank))
        })
    }

    /// In figures.
    pub(crate) fn in_figures(&self, size: Bytes) -> CacheUse {
        let Sums { protected, evictable, leaving } = self.sums;
        CacheUse {
            size,
            protected: narrow(protected),
            evictable: narrow(evictable),
            leaving: narrow(leaving),
        }
    }

    fn item(&self, key: &CacheKey) -> Item {
        let lying = self.lying.get(key);
        let used = self.used.get(key).and_then(|users| users.keys().next_back());
        let leaving = lying.is_some_and(|cached| cached.leaving);
        let bytes = cmp::max(lying.map(|cached| cached.bytes), used.copied()).unwrap_or_default();
        Item {
            bytes: bytes.get().into(),
            protected: used.is_some() || lying.is_some() && !leaving && self.kept.contains_key(key),
            complete: lying.is_some_and(|cached| cached.complete),
            leaving,
        }
    }

    fn protected_beside(&self, item: &Item) -> u128 {
        self.sums.protected - if item.protected { item.bytes } else { 0 }
    }

    fn recount(&mut self) {
        let mut sums = Sums::default();
        let coming = self.used.keys().filter(|key| !self.lying.contains_key(key));
        for key in self.lying.keys().chain(coming) {
            let Item { bytes, protected, leaving, .. } = self.item(key);
            if protected {
                sums.protected += bytes;
            } else if leaving {
                sums.leaving += bytes;
            } else {
                sums.evictable += bytes;
            }
        }
        self.sums = sums;
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn narrow(bytes: u128) -> Bytes {
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}
