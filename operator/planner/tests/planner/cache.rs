//! Nodes' caches, case by case.

use std::collections::{BTreeMap, BTreeSet};

use berth_planner::{
    Assumed, CacheKey, CacheNeed, CacheUse, Cached, Fleet, Overlay, Violation, could_ever, place,
    queue::{Queue, Waiting, reserve_for_earlier},
};
use berth_units::Bytes;

use crate::fixtures::{
    assumed, cached_request, caching, claim, entry, fleet, key, lying, name, need, node, request,
    using,
};

fn keys<const N: usize>(entries: [&str; N]) -> BTreeSet<CacheKey> {
    entries.into_iter().map(entry).collect()
}

fn order<const N: usize>(entries: [&str; N]) -> Vec<CacheKey> {
    entries.into_iter().map(entry).collect()
}

fn mark(fleet: &mut Fleet, on: &str, leaving: &[CacheKey]) {
    let mut cached = fleet.cached(&name(on)).clone();
    for key in leaving {
        cached.get_mut(key).unwrap().leaving = true;
    }
    fleet.set_cached(&name(on), cached);
}

#[test]
fn an_entry_counts_once_however_many_use_it_with_the_most_that_is_said_of_it() {
    let mut fleet = fleet([caching("gpu-1", 100)]);
    let on = name("gpu-1");
    fleet.upsert_occupant(using("a", "gpu-1", "llm", 30));
    fleet.upsert_occupant(using("b", "gpu-1", "llm", 30));
    assert_eq!(fleet.cache_use(&on).protected, Bytes::gib(30));
    // The download has begun; then it turns out larger than was said.
    fleet.set_cached(&on, lying([("llm", 10, 0)]));
    assert_eq!(fleet.cache_use(&on).protected, Bytes::gib(30));
    fleet.set_cached(&on, lying([("llm", 31, 0), ("old", 5, 0)]));
    let (size, protected, evictable) = (Bytes::gib(100), Bytes::gib(31), Bytes::gib(5));
    let figures = CacheUse { size, protected, evictable, leaving: Bytes::ZERO };
    assert_eq!(fleet.cache_use(&on), figures);
    fleet.remove_occupant(&"uid-of-a".into());
    assert!(fleet.protects(&on, &entry("llm")));
    fleet.remove_occupant(&"uid-of-b".into());
    assert!(!fleet.protects(&on, &entry("llm")));
    assert_eq!(fleet.cache_use(&on).evictable, Bytes::gib(36));
}

#[test]
fn what_a_rollback_may_need_is_protected_where_the_deployment_is() {
    let mut fleet = fleet([caching("gpu-1", 40), caching("gpu-2", 40)]);
    let llm = claim("llm").deployment;
    fleet.set_kept(&llm, keys(["v1", "v2"]));
    fleet.set_cached(&name("gpu-1"), lying([("v1", 15, 0)]));
    fleet.set_cached(&name("gpu-2"), lying([("v1", 15, 0)]));
    fleet.upsert_occupant(using("llm", "gpu-1", "v2", 15));
    assert!(fleet.protects(&name("gpu-1"), &entry("v1")));
    assert!(!fleet.protects(&name("gpu-2"), &entry("v1")));
    // On the first there is room for neither; what does not lie there takes no room.
    assert_eq!(place(&fleet, &cached_request("big", 30)).unwrap().node, name("gpu-2"));
    assert_eq!(fleet.evictions(&name("gpu-2"), &need("big", 30)), order(["v1"]));
    assert_eq!(fleet.evictions(&name("gpu-1"), &need("big", 30)), []);

    fleet.set_kept(&llm, BTreeSet::new());
    assert_eq!(fleet.evictions(&name("gpu-1"), &need("big", 20)), order(["v1"]));
    assert_eq!(*fleet.kept(&llm), BTreeSet::new());
}

#[test]
fn the_least_recently_used_go_first_and_none_in_vain() {
    let mut fleet = fleet([caching("gpu-1", 100)]);
    let on = name("gpu-1");
    fleet.set_cached(
        &on,
        lying([("new", 20, 9), ("b", 10, 3), ("a", 10, 3), ("large", 30, 5), ("oldest", 10, 1)]),
    );
    let goes = |gib| fleet.evictions(&on, &need("llm", gib));
    assert_eq!(goes(20), []);
    assert_eq!(goes(21), order(["oldest"]));
    assert_eq!(goes(40), order(["oldest", "a"]));
    assert_eq!(goes(41), order(["oldest", "a", "b"]));
    // The large one has to go, and beside it only one small one.
    assert_eq!(goes(60), order(["oldest", "large"]));
    assert_eq!(goes(100), order(["oldest", "a", "b", "large", "new"]));
    assert_eq!(goes(101), [], "it does not fit whatever goes");
    assert_eq!(fleet.evictions(&on, &need("large", 30)), [], "it is there");
    assert_eq!(fleet.evictions(&on, &need("large", 51)), order(["oldest"]), "a part is there");
    assert_eq!(fleet.evictions(&name("gpu-2"), &need("llm", 1)), []);
}

#[test]
fn what_is_leaving_makes_room_in_the_plan_but_is_not_used() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    fleet.set_cached(&name("gpu-1"), lying([("old", 30, 0), ("other", 10, 1)]));
    mark(&mut fleet, "gpu-1", &order(["old"]));
    assert_eq!(fleet.evictions(&name("gpu-1"), &need("llm", 30)), []);
    assert_eq!(fleet.evictions(&name("gpu-1"), &need("llm", 31)), order(["other"]));
    place(&fleet, &cached_request("llm", 40)).unwrap();
    place(&fleet, &cached_request("old", 30)).unwrap_err();
    could_ever(&fleet, &cached_request("old", 30)).unwrap();
    let freed = fleet.freed();
    fleet.set_cached(&name("gpu-1"), lying([("other", 10, 1)]));
    assert!(fleet.freed() > freed);
    place(&fleet, &cached_request("old", 30)).unwrap();
}

#[test]
fn of_equal_nodes_the_one_that_has_the_model() {
    let mut fleet = fleet([caching("gpu-1", 40), caching("gpu-2", 40), caching("gpu-3", 40)]);
    let request = cached_request("llm", 15);
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-1"));
    fleet.set_cached(&name("gpu-2"), lying([("llm", 5, 0)]));
    fleet.set_cached(&name("gpu-3"), lying([("llm", 15, 0)]));
    let placed = place(&fleet, &request).unwrap();
    assert_eq!((placed.node, placed.score.download), (name("gpu-3"), Bytes::ZERO));
    // Where it is being downloaded for another it need not be downloaded again.
    fleet.assume(Assumed { gpus: 1, ..uses_assumed("a", "gpu-2", "llm", 15) }).unwrap();
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-2"), "the fullest node first");
}

fn uses_assumed(pod: &str, on: &str, key: &str, gib: u64) -> Assumed {
    Assumed { cache: Some((entry(key), Bytes::gib(gib))), ..assumed(pod, on, 0) }
}

#[test]
fn two_models_of_one_plan_do_not_share_what_can_be_evicted() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    let on = name("gpu-1");
    fleet.set_cached(&on, lying([("a", 20, 0), ("b", 20, 1)]));
    let mut overlay = Overlay::new(&fleet);
    let first = place(&overlay, &cached_request("b", 20)).unwrap();
    overlay.carry_out(&first, &cached_request("b", 20));
    assert_eq!(overlay.evictions(&on, &need("c", 20)), order(["a"]), "the first uses the other");
    place(&overlay, &cached_request("c", 21)).unwrap_err();
    let second = place(&overlay, &cached_request("c", 20)).unwrap();
    overlay.carry_out(&second, &cached_request("c", 20));
    assert_eq!(
        place(&overlay, &cached_request("a", 20)).unwrap_err().to_string(),
        "1 node: its copy of the model is being removed"
    );
    place(&overlay, &cached_request("d", 1)).unwrap_err();
    place(&overlay, &cached_request("c", 20)).unwrap();
    place(&fleet, &cached_request("a", 20)).unwrap();
}

#[test]
fn a_pod_thought_away_protects_nothing() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    let (on, llm) = (name("gpu-1"), claim("llm").deployment);
    fleet.set_kept(&llm, keys(["v0"]));
    fleet.set_cached(&on, lying([("v0", 10, 0), ("v1", 20, 1)]));
    fleet.upsert_occupant(using("llm", "gpu-1", "v1", 20));
    place(&fleet, &cached_request("v2", 11)).unwrap_err();
    let mut overlay = Overlay::new(&fleet);
    overlay.remove(&"uid-of-llm".into());
    assert_eq!(overlay.evictions(&on, &need("v2", 11)), order(["v0"]));
    overlay.keep_for(&on, &llm);
    assert_eq!(overlay.evictions(&on, &need("v2", 11)), order(["v1"]));
    overlay.claim_cache(&on, &need("v2", 11));
    place(&overlay, &cached_request("v1", 20)).unwrap_err();
}

#[test]
fn room_is_kept_for_those_ahead() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    let (first, second) = (claim("first").deployment, claim("second").deployment);
    fleet.set_kept(&first, keys(["old"]));
    fleet.set_cached(&name("gpu-1"), lying([("old", 10, 0)]));
    let mut queue = Queue::new();
    let requests = vec![cached_request("llm", 20)];
    queue.upsert(Waiting { key: first, priority: 0, since: 0, requests });
    let overlay = reserve_for_earlier(&fleet, &queue, &second);
    place(&overlay, &cached_request("other", 10)).unwrap();
    place(&overlay, &cached_request("other", 11)).unwrap_err();
}

#[test]
fn evictions_that_were_never_told_to_anybody_are_found_again() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    let on = name("gpu-1");
    fleet.set_cached(&on, lying([("a", 10, 0), ("b", 10, 2), ("kept", 10, 1)]));
    let decided = fleet.evictions(&on, &need("llm", 20));
    fleet.assume(uses_assumed("llm", "gpu-1", "llm", 20)).unwrap();
    assert_eq!(fleet.evictions(&on, &need("llm", 20)), [], "it uses it already");
    assert_eq!(fleet.evictions_due(&on), decided);
    mark(&mut fleet, "gpu-1", &decided);
    assert_eq!(fleet.evictions_due(&on), []);
    // A smaller cache: what is not protected, then what is kept, never what is used.
    fleet.set_kept(&claim("llm").deployment, keys(["kept"]));
    fleet.upsert_node(caching("gpu-1", 35));
    assert_eq!(fleet.evictions_due(&on), order(["b"]));
    fleet.upsert_node(caching("gpu-1", 25));
    assert_eq!(fleet.evictions_due(&on), order(["b", "kept"]));
    fleet.upsert_node(caching("gpu-1", 1));
    assert_eq!(fleet.evictions_due(&on), order(["b", "kept"]));
    fleet.upsert_node(node("gpu-1", 8, 80));
    assert_eq!(fleet.evictions_due(&on), [], "it has no cache");
}

#[test]
fn caches_are_known_before_and_after_their_node() {
    let mut fleet = fleet([]);
    let on = name("gpu-1");
    fleet.set_cached(&on, lying([("llm", 15, 0)]));
    assert_eq!(fleet.cache_use(&on).size, Bytes::ZERO);
    fleet.upsert_node(caching("gpu-1", 20));
    fleet.remove_node(&on);
    fleet.upsert_node(caching("gpu-1", 20));
    assert_eq!(place(&fleet, &cached_request("llm", 15)).unwrap().score.download, Bytes::ZERO);
    fleet.remove_node(&on);
    fleet.set_cached(&on, lying([]));
    assert_eq!(fleet, Fleet::new());
}

#[test]
fn more_protected_than_there_is_room_for_is_a_violation() {
    let mut fleet = fleet([caching("gpu-1", 100)]);
    fleet.set_kept(&claim("a").deployment, keys(["old"]));
    fleet.set_cached(&name("gpu-1"), lying([("old", 50, 0), ("unused", 60, 0)]));
    fleet.upsert_occupant(using("a", "gpu-1", "new", 50));
    assert_eq!(fleet.check(), []);
    fleet.upsert_occupant(using("b", "gpu-1", "newer", 10));
    let violations: Vec<String> = fleet.check().iter().map(Violation::to_string).collect();
    assert_eq!(
        violations,
        ["node gpu-1 is over-committed: 110.0 GiB of 100.0 GiB model cache are held"]
    );
}

#[test]
fn a_placement_that_finds_room_is_nobody_elses_news() {
    let mut fleet = fleet([caching("gpu-1", 40)]);
    let on = name("gpu-1");
    let grows = |fleet: &mut Fleet, event: &dyn Fn(&mut Fleet)| {
        let before = fleet.freed();
        event(fleet);
        fleet.freed() > before
    };
    let llm = claim("llm").deployment;
    // Not known to be complete: that would be news for those who must not download.
    let lying = |entries: &[(&str, u64, i64)]| -> BTreeMap<CacheKey, Cached> {
        let cached = entries.iter().flat_map(|&entry| lying([entry]));
        cached.map(|(key, cached)| (key, Cached { complete: false, ..cached })).collect()
    };
    let all = || lying(&[("old", 20, 0), ("llm", 20, 0)]);
    let used_later = || {
        let mut cached = all();
        for cached in cached.values_mut() {
            cached.last_used = 9;
        }
        cached
    };
    let assumption = || uses_assumed("llm", "gpu-1", "llm", 20);
    assert!(!grows(&mut fleet, &|fleet| fleet.set_cached(&on, lying(&[("old", 20, 0)]))));
    assert!(!grows(&mut fleet, &|fleet| fleet.assume(assumption()).unwrap()));
    assert!(!grows(&mut fleet, &|fleet| fleet.set_cached(&on, all())));
    assert!(!grows(&mut fleet, &|fleet| fleet.set_cached(&on, used_later())));
    let pod = || using("llm", "gpu-1", "llm", 20);
    assert!(!grows(&mut fleet, &|fleet| fleet.confirm(&key("llm"), pod())));
    assert!(!grows(&mut fleet, &|fleet| fleet.set_kept(&llm, keys(["old"]))));
    assert!(grows(&mut fleet, &|fleet| fleet.set_kept(&llm, keys(["new"]))));
    assert!(!grows(&mut fleet, &|fleet| mark(fleet, "gpu-1", &order(["old"]))));
    assert!(grows(&mut fleet, &|fleet| fleet.set_cached(&on, lying(&[("llm", 20, 9)]))));
    assert!(grows(&mut fleet, &|fleet| fleet.remove_occupant(&"uid-of-llm".into())));
    assert!(grows(&mut fleet, &|fleet| fleet.upsert_node(caching("gpu-1", 50))));

    // A rollback's copy goes while the model in use grows: its last bytes have room only now.
    let mut fleet = self::fleet([caching("gpu-1", 25)]);
    fleet.set_kept(&llm, keys(["old"]));
    fleet.upsert_occupant(using("llm", "gpu-1", "llm", 10));
    fleet.set_cached(&on, lying(&[("llm", 10, 0), ("old", 5, 0)]));
    place(&fleet, &cached_request("llm", 21)).unwrap_err();
    assert!(grows(&mut fleet, &|fleet| fleet.set_cached(&on, lying(&[("llm", 16, 0)]))));
    place(&fleet, &cached_request("llm", 21)).unwrap();
}

#[test]
fn offline_only_a_node_with_the_whole_model_will_do() {
    let mut fleet = fleet([caching("gpu-1", 40), caching("gpu-2", 40)]);
    let mut request = request(1, 40);
    request.cache = Some(CacheNeed { offline: true, ..need("llm", 20) });
    let partly = lying([("llm", 20, 0)])
        .into_iter()
        .map(|(key, cached)| (key, Cached { complete: false, ..cached }))
        .collect();
    fleet.set_cached(&name("gpu-1"), partly);
    let refusal = place(&fleet, &request).unwrap_err();
    assert_eq!(refusal.to_string(), "2 nodes: model not there, and downloads are off");
    let freed = fleet.freed();
    fleet.set_cached(&name("gpu-2"), lying([("llm", 20, 0)]));
    assert!(fleet.freed() > freed);
    assert_eq!(place(&fleet, &request).unwrap().node, name("gpu-2"));
}

#[test]
fn who_makes_way_keeps_its_model_until_it_is_gone() {
    let mut fleet = fleet([caching("gpu-1", 30)]);
    let old = using("old", "gpu-1", "old", 20);
    let id = old.id.clone();
    fleet.upsert_occupant(old);
    let mut request = request(8, 40);
    request.cache = Some(need("new", 20));
    let mut overlay = Overlay::new(&fleet);
    assert!(overlay.vacate(&id));
    let refusal = place(&overlay, &request).unwrap_err();
    assert!(refusal.to_string().contains("model cache"), "{refusal}");
    request.cache = Some(need("new", 10));
    assert!(place(&overlay, &request).is_ok());
}
