//! Who waits, and what is kept for those ahead.

use berth_planner::{
    DeploymentId, Request, place,
    queue::{MAX_AHEAD, Queue, Waiting, reserve_for_earlier},
};

use crate::fixtures::{fleet, node, request};

fn id(name: &str) -> DeploymentId {
    DeploymentId::new("default", name, format!("uid-of-{name}"))
}

fn waiting(name: &str, priority: i32, since: i64, requests: Vec<Request>) -> Waiting {
    Waiting { key: id(name), priority, since, requests }
}

#[test]
fn priority_then_age_then_name() {
    let mut queue = Queue::new();
    for (name, priority, since) in
        [("young", 0, 9), ("b", 0, 5), ("a", 0, 5), ("urgent", 10, 99), ("low", -1, 0)]
    {
        queue.upsert(waiting(name, priority, since, Vec::new()));
    }
    let order: Vec<_> = queue.iter().map(|waiting| waiting.key.name.as_str()).collect();
    assert_eq!(order, ["urgent", "a", "b", "young", "low"]);
    assert_eq!(queue.position(&id("urgent")), Some(0));
    assert_eq!(queue.position(&id("young")), Some(3));
    assert_eq!(queue.position(&id("nobody")), None);
    let ahead: Vec<_> = queue.ahead_of(&id("b")).map(|ahead| ahead.key.name.as_str()).collect();
    assert_eq!(ahead, ["urgent", "a"]);
    assert_eq!(queue.ahead_of(&id("nobody")).count(), 5);

    queue.upsert(waiting("young", 20, 9, Vec::new()));
    assert_eq!(queue.len(), 5);
    assert_eq!(queue.position(&id("young")), Some(0));
    assert!(queue.remove(&id("young")).is_some());
    assert!(queue.remove(&id("young")).is_none());
    assert_eq!(queue.position(&id("urgent")), Some(0));
    assert_eq!(queue.get(&id("low")).unwrap().priority, -1);
    assert!(!queue.is_empty());
}

#[test]
fn a_later_one_gets_only_what_earlier_ones_cannot_use() {
    let fleet = fleet([node("gpu-1", 8, 80)]);
    let mut queue = Queue::new();
    // The head does not fit and blocks nobody; the second takes two of its three replicas.
    queue.upsert(waiting("head", 5, 0, vec![request(16, 40)]));
    queue.upsert(waiting("second", 1, 0, vec![request(3, 40); 3]));
    queue.upsert(waiting("third", 0, 0, vec![request(2, 40)]));
    queue.upsert(waiting("fourth", 0, 1, vec![request(1, 40)]));

    let fits = |key: &str, gpus| {
        place(&reserve_for_earlier(&fleet, &queue, &id(key)), &request(gpus, 40)).is_ok()
    };
    assert!(fits("head", 8));
    assert!(fits("second", 8));
    assert!(fits("third", 2));
    assert!(!fits("third", 3));
    assert!(!fits("fourth", 1));
    assert!(!fits("nobody", 1));
    assert!(place(&fleet, &request(8, 40)).is_ok(), "the fleet itself is untouched");
}

#[test]
fn only_so_many_are_looked_at() {
    let nodes = u32::try_from(MAX_AHEAD).unwrap() + 1;
    let fleet = fleet((0..nodes).map(|index| node(&format!("gpu-{index}"), 1, 80)));
    let mut queue = Queue::new();
    for since in 0..=i64::from(nodes) {
        queue.upsert(waiting(&format!("w{since}"), 0, since, vec![request(1, 40)]));
    }
    let last = id(&format!("w{nodes}"));
    assert_eq!(queue.position(&last), Some(MAX_AHEAD + 1));
    place(&reserve_for_earlier(&fleet, &queue, &last), &request(1, 40)).unwrap();
}
