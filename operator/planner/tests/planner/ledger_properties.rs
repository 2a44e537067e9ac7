//! The ledger against a model that counts everything anew.

use std::collections::BTreeSet;

use berth_planner::{CacheNeed, Fleet, Request, Resources, Violation, place};
use berth_units::Bytes;
use proptest::{option, prelude::*, sample::Index};

use crate::{
    events::{Model, NODES, any_entry, apply, event, node_name, rebuilt},
    fixtures::{name, request},
};

fn agree(fleet: &Fleet, model: &Model) {
    for index in 0..NODES {
        let on = name(&node_name(index));
        let pods = model.pods.values().filter(|pod| pod.node == on);
        let assumed = model.assumed.values().filter(|pod| pod.node == on);
        let held: Vec<(u32, Resources)> = pods
            .clone()
            .map(|pod| (pod.gpus, pod.resources))
            .chain(assumed.map(|pod| (pod.gpus, pod.resources)))
            .collect();
        let free = fleet.free(&on);
        let there = model.nodes.get(&index);
        let gpus = there.map_or(0, |node| node.gpus.as_ref().unwrap().count);
        assert_eq!(free.gpus, gpus.saturating_sub(held.iter().map(|(gpus, _)| gpus).sum()));
        let cpu = there.map_or(0, |node| node.allocatable.cpu.get());
        let cpu_held = held.iter().fold(0_u64, |sum, (_, more)| sum.saturating_add(more.cpu.get()));
        assert_eq!(free.resources.cpu.get(), cpu.saturating_sub(cpu_held));
        let pods: BTreeSet<_> = pods.map(|pod| &pod.id).collect();
        assert_eq!(fleet.occupants_of(&on).map(|pod| &pod.id).collect::<BTreeSet<_>>(), pods);
    }
    for violation in fleet.check() {
        assert!(matches!(violation, Violation::OverCommitted { .. }), "{violation}");
    }
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_fresh_count_and_with_its_rebuild(
        events in prop::collection::vec(event(), 0..60),
        order in prop::collection::vec(any::<Index>(), 20),
    ) {
        let (mut fleet, mut model) = (Fleet::new(), Model::default());
        for event in &events {
            apply(event, &mut fleet, &mut model);
            agree(&fleet, &model);
            // Everything may come twice.
            let once = fleet.clone();
            apply(event, &mut fleet, &mut model);
            prop_assert_eq!(&fleet, &once);
            prop_assert_eq!(fleet.freed(), once.freed());
            prop_assert_eq!(fleet.version(), once.version());
        }
        prop_assert_eq!(rebuilt(&model, &order), fleet);
    }

    #[test]
    fn what_was_refused_stays_refused_until_something_is_freed(
        events in prop::collection::vec(event(), 1..60),
        gpus in 0..6_u32,
        uses in option::weighted(0.8, (any_entry(), 0..20_u64)),
    ) {
        let (mut fleet, mut model) = (Fleet::new(), Model::default());
        let cache = uses.map(|(key, gib)| CacheNeed { key, bytes: Bytes::gib(gib), offline: false });
        let request = Request { cache, ..request(gpus, 40) };
        let mut refused_at = None;
        for event in &events {
            apply(event, &mut fleet, &mut model);
            match place(&fleet, &request) {
                Ok(_) => {
                    prop_assert_ne!(refused_at, Some(fleet.freed()));
                    refused_at = None;
                }
                Err(_) => refused_at = Some(fleet.freed()),
            }
        }
    }
}
