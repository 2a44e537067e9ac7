//! Which node is best, case by case.

use berth_planner::{
    Gpus, Node, Overlay, Placement, Request, Score, Strategy, Vendor, could_ever, place, place_all,
    usable,
};
use berth_units::Bytes;

use crate::fixtures::{assumed, claim, fleet, foreign, key, name, node, ours, request};

#[test]
fn the_smallest_gpu_that_holds_it_then_the_fullest_node_then_the_first_name() {
    let mut fleet = fleet([node("a100-1", 8, 80), node("l40s-2", 8, 48), node("l40s-10", 8, 48)]);
    let placed = place(&fleet, &request(2, 40)).unwrap();
    assert_eq!(
        placed,
        Placement {
            node: name("l40s-2"),
            vendor: Some(Vendor::Nvidia),
            product: "Test-GPU".to_owned(),
            gpus: 2,
            vram_per_gpu: usable(Bytes::gib(48)),
            total_vram_per_gpu: Bytes::gib(48),
            score: Score {
                siblings: 0,
                wasted_vram_per_gpu: usable(Bytes::gib(48)) - Bytes::gib(40),
                stranded: placed.score.stranded,
                download: Bytes::ZERO,
                gpus_left: 6,
            },
        }
    );
    fleet.upsert_occupant(foreign("a", "l40s-10", 3));
    assert_eq!(place(&fleet, &request(2, 40)).unwrap().node, name("l40s-10"));
    fleet.upsert_occupant(foreign("b", "l40s-10", 4));
    assert_eq!(place(&fleet, &request(2, 40)).unwrap().node, name("l40s-2"));
    assert_eq!(place(&fleet, &request(2, 46)).unwrap().node, name("a100-1"));
}

#[test]
fn what_is_known_of_a_product_counts_there_and_nowhere_else() {
    let product = |name: &str, product: &str, gib| {
        let node = node(name, 1, gib);
        let gpus = Gpus { product: product.to_owned(), ..node.gpus.clone().unwrap() };
        Node { gpus: Some(gpus), ..node }
    };
    let fleet = fleet([product("small", "S", 48), product("large", "L", 80)]);
    let on = |product: &str, gib| Request {
        vram_on: [(product.to_owned(), Bytes::gib(gib))].into(),
        ..request(1, 60)
    };
    let small = place(&fleet, &on("S", 40)).unwrap();
    assert_eq!(small.node, name("small"));
    assert_eq!(small.score.wasted_vram_per_gpu, usable(Bytes::gib(48)) - Bytes::gib(40));
    assert_eq!(place(&fleet, &on("L", 40)).unwrap().node, name("large"));
    let refusal = place(&fleet, &on("L", 100)).unwrap_err();
    assert_eq!(refusal.nearest.unwrap().vram_per_gpu, Bytes::gib(100));
    assert!(could_ever(&fleet, &on("L", 100)).is_err());
}

#[test]
fn equal_nodes_are_told_apart_by_name_whatever_their_product() {
    let mut other = node("gpu-1", 8, 80);
    other.gpus = Some(Gpus { product: "Z-GPU".to_owned(), ..other.gpus.unwrap() });
    let fleet = fleet([other, node("gpu-2", 8, 80)]);
    assert_eq!(place(&fleet, &request(1, 40)).unwrap().node, name("gpu-1"));
}

#[test]
fn spread_goes_where_the_fewest_siblings_are_and_pack_does_not_care() {
    let fleet = fleet([node("gpu-1", 8, 48), node("gpu-2", 8, 80)]);
    let mut request = request(1, 40);
    request.siblings.insert(name("gpu-1"), 1);
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-1"));
    request.strategy = Strategy::Spread;
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-2"));
    request.siblings.insert(name("gpu-2"), 2);
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-1"));
}

#[test]
fn several_replicas_see_each_other() {
    let fleet = fleet([node("gpu-1", 2, 80), node("gpu-2", 2, 80)]);
    let nodes = |strategy, replicas: usize| {
        let requests = vec![Request { strategy, ..request(1, 40) }; replicas];
        place_all(&mut Overlay::new(&fleet), &requests)
            .into_iter()
            .map(|result| result.map_or_else(|_| "none".to_owned(), |placed| placed.node.into()))
            .collect::<Vec<_>>()
    };
    assert_eq!(nodes(Strategy::Pack, 3), ["gpu-1", "gpu-1", "gpu-2"]);
    assert_eq!(nodes(Strategy::Spread, 5), ["gpu-1", "gpu-2", "gpu-1", "gpu-2", "none"]);
}

#[test]
fn an_overlay_thinks_pods_and_assumptions_away() {
    let mut fleet = fleet([node("gpu-1", 4, 80)]);
    fleet.upsert_occupant(ours("a", "gpu-1", 2));
    fleet.assume(assumed("b", "gpu-1", 2)).unwrap();
    assert!(place(&fleet, &request(1, 40)).is_err());

    let mut overlay = Overlay::new(&fleet);
    assert!(overlay.remove(&"uid-of-a".into()));
    assert!(overlay.remove(&"uid-of-a".into()));
    assert!(!overlay.remove(&"nobody".into()));
    assert_eq!(overlay.free(&name("gpu-1")).gpus, 2);
    place(&overlay, &request(2, 40)).unwrap();
    assert!(place(&overlay, &request(3, 40)).is_err());

    assert!(overlay.remove_assumed(&key("b")));
    place(&overlay, &request(4, 40)).unwrap();
    overlay.claim(&name("gpu-1"), 3, &request(3, 40).resources);
    assert_eq!(overlay.free(&name("gpu-1")).gpus, 1);
    assert_eq!(fleet.free(&name("gpu-1")).gpus, 0, "the fleet below is untouched");
    assert_eq!(fleet.assumption(&key("b")).unwrap().claim, claim("b"));
}

#[test]
fn without_gpus_any_node_will_do_and_those_without_come_first() {
    let mut cpu_only = node("z", 0, 0);
    cpu_only.gpus = None;
    let mut fleet = fleet([node("gpu-1", 4, 80), cpu_only]);
    let placed = place(&fleet, &request(0, 0)).unwrap();
    assert_eq!((placed.node, placed.vendor), (name("z"), None));
    fleet.remove_node(&name("z"));
    let placed = place(&fleet, &request(0, 0)).unwrap();
    assert_eq!((placed.node, placed.vram_per_gpu), (name("gpu-1"), Bytes::ZERO));
}
