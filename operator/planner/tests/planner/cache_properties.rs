//! Caches against sums made anew from single pods and entries.

use std::collections::{BTreeMap, BTreeSet};

use berth_planner::{
    Assumed, CacheKey, CacheNeed, Cached, Fleet, Node, NodeName, Occupant, Overlay, Owner, Request,
    could_ever, place,
};
use berth_units::Bytes;
use proptest::{prelude::*, sample::Index};

use crate::{
    events::{Model, NODES, after, any_entry, apply, deployment, event, node_name},
    fixtures::{assumed, caching, claim, entry, fleet, name, need, request, using},
};

/// What is true of one entry on one node, from the pods and the files.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    bytes: u128,
    protected: bool,
    used: bool,
    leaving: bool,
    last_used: i64,
}

fn truths(fleet: &Fleet, on: &NodeName) -> BTreeMap<CacheKey, Truth> {
    let mut truths: BTreeMap<CacheKey, Truth> = BTreeMap::new();
    let mut keeps: BTreeSet<CacheKey> = BTreeSet::new();
    let pods = fleet.occupants_of(on).map(|pod| {
        let owner = match &pod.owner {
            Owner::Ours(claim) => Some(&claim.deployment),
            Owner::Foreign => None,
        };
        (owner, &pod.cache)
    });
    let coming = fleet.assumed_of(on).map(|pod| (Some(&pod.claim.deployment), &pod.cache));
    for (owner, uses) in pods.chain(coming) {
        keeps.extend(owner.into_iter().flat_map(|owner| fleet.kept(owner)).cloned());
        if let Some((key, bytes)) = uses {
            let truth = truths.entry(key.clone()).or_default();
            (truth.protected, truth.used) = (true, true);
            truth.bytes = truth.bytes.max(bytes.get().into());
        }
    }
    for (key, Cached { bytes, last_used, complete: _, leaving }) in fleet.cached(on) {
        let truth = truths.entry(key.clone()).or_default();
        truth.protected |= keeps.contains(key) && !leaving;
        truth.bytes = truth.bytes.max(bytes.get().into());
        (truth.leaving, truth.last_used) = (*leaving, *last_used);
    }
    truths
}

/// The bytes of all entries that stay, but for one.
fn staying(truths: &BTreeMap<CacheKey, Truth>, beside: Option<&CacheKey>) -> u128 {
    let stays = |(key, truth): &(&CacheKey, &Truth)| {
        Some(*key) != beside && (truth.protected || !truth.leaving)
    };
    truths.iter().filter(stays).map(|(_, truth)| truth.bytes).sum()
}

fn size(fleet: &Fleet, on: &NodeName) -> u128 {
    fleet.node(on).map_or(0, |node| node.cache.get().into())
}

/// Whether the need fits the cache: spelled out.
fn fits(fleet: &Fleet, on: &NodeName, need: &CacheNeed) -> bool {
    fits_beside(&truths(fleet, on), size(fleet, on), need)
}

fn fits_beside(truths: &BTreeMap<CacheKey, Truth>, size: u128, need: &CacheNeed) -> bool {
    let there = truths.get(&need.key).copied().unwrap_or_default();
    let bytes = there.bytes.max(need.bytes.get().into());
    let others = truths.iter().filter(|(key, truth)| truth.protected && **key != need.key);
    let others: u128 = others.map(|(_, truth)| truth.bytes).sum();
    let shares = there.protected && bytes == there.bytes;
    size > 0
        && size >= need.bytes.get().into()
        && !there.leaving
        && (shares || others + bytes <= size)
}

/// Every need there could be that fits on some node: where, what, how many GiB.
fn all_that_fit(fleet: &Fleet) -> BTreeSet<(NodeName, CacheKey, u64)> {
    let keys = (0..5).map(|model| entry(&format!("model-{model}")));
    let needs: Vec<_> = keys.flat_map(|key| (0..20).map(move |gib| (key.clone(), gib))).collect();
    let mut fitting = BTreeSet::new();
    for node in fleet.nodes() {
        let (truths, size) = (truths(fleet, &node.name), size(fleet, &node.name));
        for (key, gib) in &needs {
            let need = CacheNeed { key: key.clone(), bytes: Bytes::gib(*gib), offline: false };
            if fits_beside(&truths, size, &need) {
                fitting.insert((node.name.clone(), key.clone(), *gib));
            }
        }
    }
    fitting
}

fn any_need() -> impl Strategy<Value = CacheNeed> {
    (any_entry(), 0..20_u64).prop_map(|(key, gib)| CacheNeed {
        key,
        bytes: Bytes::gib(gib),
        offline: false,
    })
}

/// Places with GPUs out of the way.
fn light(need: &CacheNeed) -> Request {
    Request { cache: Some(need.clone()), ..request(0, 0) }
}

fn marked(fleet: &mut Fleet, on: &NodeName, leaving: &[CacheKey]) {
    let mut cached = fleet.cached(on).clone();
    for key in leaving {
        cached.get_mut(key).unwrap().leaving = true;
    }
    fleet.set_cached(on, cached);
}

/// That those entries may go, suffice, and that none of them could stay.
fn good(
    truths: &BTreeMap<CacheKey, Truth>,
    evicted: &[CacheKey],
    needed: u128,
    except: Option<&CacheKey>,
) {
    let bytes = |keys: &[&CacheKey]| keys.iter().map(|key| truths[*key].bytes).sum::<u128>();
    let all: Vec<&CacheKey> = evicted.iter().collect();
    for key in &all {
        assert!(!truths[*key].protected && !truths[*key].leaving && Some(*key) != except);
        let others: Vec<_> = all.iter().copied().filter(|other| other != key).collect();
        assert!(bytes(&others) < needed, "{key} could stay");
    }
    assert!(bytes(&all) >= needed);
    let order = |key: &CacheKey| (truths[key].last_used, key.clone());
    assert!(evicted.is_sorted_by_key(&order));
    // All that were used less recently than the last one are not enough without it.
    if let Some(last) = evicted.last() {
        let before = |(key, truth): &(&CacheKey, &Truth)| {
            !truth.protected && !truth.leaving && Some(*key) != except && order(key) < order(last)
        };
        let before: Vec<_> = truths.iter().filter(before).map(|(key, _)| key).collect();
        assert!(bytes(&before) < needed, "{last} is used too recently");
    }
}

proptest! {
    #[test]
    fn every_figure_is_that_of_the_pods_and_files(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (fleet, _) = after(&events);
        for index in 0..NODES {
            let on = name(&node_name(index));
            let truths = truths(&fleet, &on);
            let sum = |of: fn(&Truth) -> bool| {
                let sum: u128 = truths.values().filter(|truth| of(truth)).map(|t| t.bytes).sum();
                Bytes(u64::try_from(sum).unwrap_or(u64::MAX))
            };
            let figures = fleet.cache_use(&on);
            prop_assert_eq!(u128::from(figures.size.get()), size(&fleet, &on));
            prop_assert_eq!(figures.protected, sum(|truth| truth.protected));
            prop_assert_eq!(figures.evictable, sum(|truth| !truth.protected && !truth.leaving));
            prop_assert_eq!(figures.leaving, sum(|truth| !truth.protected && truth.leaving));
            for (key, truth) in &truths {
                prop_assert_eq!(fleet.protects(&on, key), truth.protected);
            }
        }
    }

    #[test]
    fn placement_looks_at_caches_as_the_oracle_does(
        events in prop::collection::vec(event(), 0..60),
        need in any_need(),
    ) {
        let (fleet, _) = after(&events);
        let request = light(&need);
        let cost = |node: &Node| {
            let there = truths(&fleet, &node.name).get(&need.key).map_or(0, |truth| truth.bytes);
            u128::from(need.bytes.get()).saturating_sub(there)
        };
        let alike = |a: &Node, b: &Node| {
            (&a.gpus, a.allocatable, fleet.free(&a.name))
                == (&b.gpus, b.allocatable, fleet.free(&b.name))
        };
        let has_room = |node: &&Node| {
            let free = fleet.free(&node.name).resources;
            !node.cordoned && free.cpu >= request.resources.cpu
        };
        let fitting: Vec<_> =
            fleet.nodes().filter(has_room).filter(|node| fits(&fleet, &node.name, &need)).collect();
        match place(&fleet, &request) {
            Ok(placed) => {
                let chosen = fleet.node(&placed.node).unwrap();
                prop_assert!(fitting.contains(&chosen), "{placed:#?}");
                let others = fitting.iter().filter(|node| alike(node, chosen));
                prop_assert_eq!(Some(cost(chosen)), others.map(|node| cost(node)).min());
                prop_assert_eq!(u128::from(placed.score.download.get()), cost(chosen));
                prop_assert!(could_ever(&fleet, &request).is_ok());
            }
            Err(refusal) => prop_assert!(fitting.is_empty(), "{refusal} {fitting:#?}"),
        }
        let ever = fleet.nodes().any(|node| node.cache >= need.bytes && node.cache > Bytes::ZERO);
        prop_assert_eq!(could_ever(&fleet, &request).is_ok(), ever);
    }

    #[test]
    fn whatever_fits_for_the_first_time_was_announced(
        events in prop::collection::vec(event(), 0..40),
    ) {
        let (mut fleet, mut model) = (Fleet::new(), Model::default());
        for event in &events {
            let (freed, fitted) = (fleet.freed(), all_that_fit(&fleet));
            apply(event, &mut fleet, &mut model);
            if fleet.freed() == freed {
                let fitting = all_that_fit(&fleet);
                let new: Vec<_> = fitting.difference(&fitted).collect();
                prop_assert!(new.is_empty(), "{event:?} {new:?}");
            }
        }
    }

    #[test]
    fn evictions_suffice_and_none_is_too_many(
        events in prop::collection::vec(event(), 0..60),
        need in any_need(),
    ) {
        let (fleet, _) = after(&events);
        for node in fleet.nodes() {
            let truths = truths(&fleet, &node.name);
            let there = truths.get(&need.key).map_or(0, |truth| truth.bytes);
            let evicted = fleet.evictions(&node.name, &need);
            if !fits(&fleet, &node.name, &need) || there >= need.bytes.get().into() {
                prop_assert_eq!(evicted, []);
                continue;
            }
            let all = staying(&truths, Some(&need.key)) + u128::from(need.bytes.get());
            let needed = all.saturating_sub(size(&fleet, &node.name));
            good(&truths, &evicted, needed, Some(&need.key));
        }
    }

    #[test]
    fn what_is_due_makes_room_for_all_that_stays(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (mut fleet, _) = after(&events);
        for node in fleet.nodes().cloned().collect::<Vec<_>>() {
            let on = &node.name;
            let truths = truths(&fleet, on);
            let due = fleet.evictions_due(on);
            let evictable = fleet.cache_use(on).evictable;
            let needed = staying(&truths, None).saturating_sub(size(&fleet, on));
            if node.cache == Bytes::ZERO {
                prop_assert_eq!(due, []);
            } else if needed <= evictable.get().into() {
                good(&truths, &due, needed, None);
                marked(&mut fleet, on, &due);
                prop_assert!(staying(&self::truths(&fleet, on), None) <= size(&fleet, on));
                prop_assert_eq!(fleet.evictions_due(on), []);
            } else {
                marked(&mut fleet, on, &due);
                let truths = self::truths(&fleet, on);
                let only_used = truths.values().all(|truth| truth.used || truth.leaving);
                prop_assert!(only_used || staying(&truths, None) <= size(&fleet, on));
                prop_assert!(due.iter().all(|key| !truths[key].used));
            }
        }
    }

    /// The plan for a few replicas, and then the same carried out one by one: the same nodes, the
    /// same evictions, each entry evicted once.
    #[test]
    fn a_plan_is_as_good_as_its_steps(
        events in prop::collection::vec(event(), 0..60),
        gone in any::<Index>(),
        needs in prop::collection::vec((any_need(), 0..2_u32), 1..5),
    ) {
        let (fleet, _) = after(&events);
        let (mut overlay, mut copy) = (Overlay::new(&fleet), fleet.clone());
        let ids: Vec<_> = fleet.occupants().map(|pod| pod.id.clone()).collect();
        if !ids.is_empty() {
            overlay.remove(gone.get(&ids));
            copy.remove_occupant(gone.get(&ids));
        }
        if let Some(pod) = fleet.assumed().next() {
            overlay.remove_assumed(&pod.key);
            copy.release(&pod.key);
        }
        for (number, (need, of)) in needs.into_iter().enumerate() {
            let request = light(&need);
            let planned = place(&overlay, &request);
            prop_assert_eq!(&planned, &place(&copy, &request));
            for node in fleet.nodes() {
                prop_assert_eq!(
                    overlay.evictions(&node.name, &need),
                    copy.evictions(&node.name, &need)
                );
            }
            let Ok(planned) = planned else { continue };
            let evicted = overlay.evictions(&planned.node, &need);
            overlay.carry_out(&planned, &request);
            overlay.keep_for(&planned.node, &deployment(of));
            marked(&mut copy, &planned.node, &evicted);
            copy.assume(Assumed {
                resources: request.resources,
                cache: Some((need.key, need.bytes)),
                claim: claim(&format!("llm-{of}")),
                ..assumed(&format!("extra-{number}"), planned.node.as_str(), 0)
            })
            .unwrap();
        }
    }

    /// As long as only planned replicas come, what stays never exceeds a cache, and decided
    /// evictions that got lost are found again.
    #[test]
    fn what_is_planned_never_exceeds_a_cache(
        sizes in prop::collection::vec(1..20_u64, 1..3),
        steps in prop::collection::vec((0..6_u32, any::<Index>(), 0..5_u64, 0..9_i64), 0..60),
    ) {
        let names = (0..sizes.len()).map(|index| format!("gpu-{index}"));
        let nodes = names.zip(&sizes).map(|(name, size)| caching(&name, *size));
        let mut fleet = fleet(nodes.collect::<Vec<_>>());
        for (number, (step, which, model, now)) in steps.into_iter().enumerate() {
            let on = name(&format!("gpu-{}", which.index(sizes.len())));
            let pending: Vec<_> = fleet.assumed().cloned().collect();
            let running: Vec<_> = fleet.occupants().map(|pod| pod.id.clone()).collect();
            let mut cached = fleet.cached(&on).clone();
            match step {
                0 | 1 => {
                    let need = need(&format!("model-{model}"), 1 + 3 * model);
                    let Ok(placed) = place(&fleet, &light(&need)) else { continue };
                    let evicted = fleet.evictions(&placed.node, &need);
                    fleet.assume(Assumed {
                        cache: Some((need.key, need.bytes)),
                        claim: claim(&format!("llm-{model}")),
                        ..assumed(&format!("pod-{number}"), placed.node.as_str(), 0)
                    })
                    .unwrap();
                    let mut lost = fleet.clone();
                    let due = lost.evictions_due(&placed.node);
                    let keeps = fleet.kept(&claim(&format!("llm-{model}")).deployment);
                    prop_assert!(due == evicted || !keeps.is_empty());
                    marked(&mut lost, &placed.node, &due);
                    prop_assert_eq!(lost.check(), []);
                    marked(&mut fleet, &placed.node, &evicted);
                }
                // The pod is seen, the download ends.
                2 if !pending.is_empty() => {
                    let Assumed { key, node, cache, claim, .. } = which.get(&pending).clone();
                    let (entry, bytes) = cache.clone().unwrap();
                    let pod = using(&key.name, node.as_str(), "", 0);
                    fleet.confirm(&key, Occupant {
                        cache,
                        owner: Owner::Ours(claim),
                        ..pod
                    });
                    let mut cached = fleet.cached(&node).clone();
                    cached.insert(entry, Cached { bytes, last_used: now, complete: true, leaving: false });
                    fleet.set_cached(&node, cached);
                }
                3 if !running.is_empty() => fleet.remove_occupant(which.get(&running)),
                // Evictions are carried out.
                4 => {
                    cached.retain(|_, cached| !cached.leaving);
                    fleet.set_cached(&on, cached);
                }
                _ => {
                    let kept = (now % 2 == 0).then(|| entry("model-0"));
                    let deployment = claim(&format!("llm-{model}")).deployment;
                    fleet.set_kept(&deployment, kept.into_iter().collect());
                }
            }
            prop_assert_eq!(fleet.check(), []);
            for node in fleet.nodes() {
                let staying = staying(&truths(&fleet, &node.name), None);
                prop_assert!(staying <= size(&fleet, &node.name), "{}", node.name);
                prop_assert_eq!(fleet.evictions_due(&node.name), []);
            }
        }
    }
}
