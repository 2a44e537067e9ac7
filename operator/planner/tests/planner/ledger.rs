//! The ledger, event by event.

use berth_planner::{
    Free, NodeTotals, Occupant, OccupantId, Resources, Shortage, Vendor, Violation, place, usable,
};
use berth_units::{Bytes, MilliCpu};

use crate::fixtures::{assumed, fleet, foreign, key, name, node, ours, request};

#[test]
fn pods_count_before_and_after_their_node() {
    let mut fleet = fleet([]);
    fleet.upsert_occupant(ours("a", "gpu-1", 2));
    assert_eq!(fleet.free(&name("gpu-1")), Free::default());
    assert_eq!(fleet.nodes().count(), 0);
    fleet.upsert_node(node("gpu-1", 8, 80));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 6);
    fleet.remove_node(&name("gpu-1"));
    assert_eq!(fleet.free(&name("gpu-1")), Free::default());
    assert_eq!(fleet.occupants_of(&name("gpu-1")).count(), 1);
    fleet.upsert_node(node("gpu-1", 4, 40));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 2);
    assert_eq!(fleet.check(), []);
}

#[test]
fn a_node_that_returns_with_fewer_gpus_than_are_claimed_has_none_free() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    fleet.upsert_occupant(ours("a", "gpu-1", 6));
    fleet.upsert_node(node("gpu-1", 4, 80));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 0);
    assert!(place(&fleet, &request(1, 10)).is_err());
    let shortage = Shortage::Gpus(6, 4);
    let violation = Violation::OverCommitted { node: name("gpu-1"), shortage };
    assert_eq!(violation.to_string(), "node gpu-1 is over-committed: 6 of 4 GPUs are held");
    assert_eq!(fleet.check(), [violation]);
    fleet.remove_occupant(&"uid-of-a".into());
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 4);
    assert_eq!(fleet.check(), []);
}

#[test]
fn an_assumed_claim_counts_until_its_pod_does() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    fleet.assume(assumed("a", "gpu-1", 3)).unwrap();
    fleet.assume(assumed("a", "gpu-1", 3)).unwrap();
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 5);
    let version = fleet.version();

    fleet.upsert_occupant(ours("a", "gpu-1", 3));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 5);
    assert_eq!(fleet.assumed().count(), 0);
    assert!(fleet.version() > version);

    // A late confirmation, a late release: nothing more happens.
    fleet.confirm(&key("a"), ours("a", "gpu-1", 3));
    fleet.release(&key("a"));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 5);
    fleet.remove_occupant(&"uid-of-a".into());
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 8);
}

#[test]
fn a_released_assumption_frees_what_it_held() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    fleet.assume(assumed("a", "gpu-1", 3)).unwrap();
    let freed = fleet.freed();
    fleet.release(&key("a"));
    fleet.release(&key("a"));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 8);
    assert_eq!(fleet.freed(), freed + 1);
}

#[test]
fn the_name_of_a_living_pod_cannot_be_assumed() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    fleet.upsert_occupant(ours("a", "gpu-1", 3));
    let before = fleet.clone();
    let refused = fleet.assume(assumed("a", "gpu-1", 3)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a pod named default/a exists already (UID uid-of-a); plan again from what is there now"
    );
    assert_eq!(fleet, before);
}

#[test]
fn a_pod_takes_the_place_of_its_namesake() {
    let mut fleet = fleet([node("gpu-1", 8, 80), node("gpu-2", 8, 80)]);
    fleet.upsert_occupant(foreign("a", "gpu-1", 3));
    fleet.upsert_occupant(Occupant { id: "second".into(), ..foreign("a", "gpu-2", 4) });
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 8);
    assert_eq!(fleet.free(&name("gpu-2")).gpus, 4);
    // The first one's end, told late, does not end the second.
    fleet.remove_occupant(&"uid-of-a".into());
    assert_eq!(fleet.free(&name("gpu-2")).gpus, 4);
    assert_eq!(fleet.check(), []);
}

#[test]
fn a_pod_seen_elsewhere_than_assumed_counts_where_it_is() {
    let mut fleet = fleet([node("gpu-1", 8, 80), node("gpu-2", 8, 80)]);
    fleet.assume(assumed("a", "gpu-1", 3)).unwrap();
    let freed = fleet.freed();
    fleet.upsert_occupant(ours("a", "gpu-2", 3));
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 8);
    assert_eq!(fleet.free(&name("gpu-2")).gpus, 5);
    assert_eq!(fleet.freed(), freed + 1);
}

#[test]
fn freed_grows_only_when_something_may_fit_now() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    let grows = |fleet: &mut berth_planner::Fleet, event: &dyn Fn(&mut berth_planner::Fleet)| {
        let before = fleet.freed();
        event(fleet);
        fleet.freed() > before
    };
    let smaller = || ours("a", "gpu-1", 2);
    let id: OccupantId = "uid-of-a".into();
    assert!(!grows(&mut fleet, &|fleet| fleet.upsert_node(node("gpu-1", 8, 80))));
    assert!(!grows(&mut fleet, &|fleet| fleet.assume(assumed("a", "gpu-1", 3)).unwrap()));
    assert!(!grows(&mut fleet, &|fleet| fleet.upsert_occupant(ours("a", "gpu-1", 3))));
    assert!(!grows(&mut fleet, &|fleet| fleet.upsert_occupant(ours("a", "gpu-1", 3))));
    assert!(grows(&mut fleet, &|fleet| fleet.upsert_occupant(smaller())));
    assert!(grows(&mut fleet, &|fleet| fleet.remove_occupant(&id)));
    assert!(!grows(&mut fleet, &|fleet| fleet.remove_occupant(&id)));
    assert!(!grows(&mut fleet, &|fleet| fleet.remove_node(&name("gpu-1"))));
    assert!(grows(&mut fleet, &|fleet| fleet.upsert_node(node("gpu-1", 8, 80))));
}

#[test]
fn absurd_requests_neither_overflow_nor_stay() {
    let mut fleet = fleet([node("gpu-1", 8, 80)]);
    let before = fleet.free(&name("gpu-1"));
    let resources = Resources {
        cpu: MilliCpu(u64::MAX),
        memory: Bytes(u64::MAX),
        ephemeral_storage: Bytes(u64::MAX),
        pods: u32::MAX,
    };
    for pod in ["a", "b", "c"] {
        fleet.upsert_occupant(Occupant { resources, ..foreign(pod, "gpu-1", u32::MAX) });
    }
    assert_eq!(fleet.free(&name("gpu-1")), Free::default());
    for pod in ["uid-of-a", "uid-of-b", "uid-of-c"] {
        fleet.remove_occupant(&pod.into());
    }
    assert_eq!(fleet.free(&name("gpu-1")), before);
}

#[test]
fn a_claim_beyond_the_gpu_is_a_violation() {
    let mut fleet = fleet([node("gpu-1", 8, 1)]);
    fleet.upsert_occupant(ours("a", "gpu-1", 1));
    let [violation] = fleet.check().try_into().unwrap();
    assert_eq!(
        violation.to_string(),
        "pod default/a claims 1.0 GiB on each GPU of node gpu-1, which has 973 MiB"
    );
}

#[test]
fn totals_add_up() {
    let mut unusable = node("gpu-2", 4, 80);
    unusable.cordoned = true;
    unusable.gpus.as_mut().unwrap().unusable = Some("time-slicing".to_owned());
    let mut cpu_only = node("cpu-1", 0, 0);
    cpu_only.gpus = None;
    let mut fleet = fleet([node("gpu-1", 8, 80), unusable, cpu_only]);
    fleet.upsert_occupant(ours("a", "gpu-1", 2));
    fleet.assume(assumed("b", "gpu-1", 1)).unwrap();
    fleet.upsert_occupant(foreign("c", "gpu-1", 1));
    fleet.upsert_occupant(foreign("d", "gpu-2", 1));
    let totals: Vec<NodeTotals> = fleet.totals().collect();
    let each = usable(Bytes::gib(80));
    assert_eq!(
        totals[0],
        NodeTotals {
            node: name("gpu-1"),
            vendor: Vendor::Nvidia,
            product: "Test-GPU".to_owned(),
            schedulable: true,
            gpus: 8,
            gpus_claimed: 3,
            gpus_foreign: 1,
            gpus_free: 4,
            gpus_unusable: 0,
            vram_total: Bytes::gib(640),
            vram_reserved: (Bytes::gib(80) - each) * 8,
            vram_claimed: each * 3,
            vram_foreign: each,
            vram_free: each * 4,
            vram_unusable: Bytes::ZERO,
        }
    );
    assert_eq!(totals.len(), 2);
    assert!(!totals[1].schedulable);
    assert_eq!((totals[1].gpus_free, totals[1].gpus_unusable), (0, 3));
    for node in totals {
        assert_eq!(
            node.vram_total,
            node.vram_reserved
                + node.vram_claimed
                + node.vram_foreign
                + node.vram_free
                + node.vram_unusable
        );
    }
}
