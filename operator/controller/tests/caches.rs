//! What comes next on a node's cache.

mod common;

use std::collections::BTreeMap;

use berth_operator::cache::{
    content::{Content, Model, Volume},
    shelves::{Keeper, Next, Shelves, User, cache_key},
};
use berth_planner::{Fleet, NodeName, Occupant, OccupantId, Owner, PodKey, Resources};
use berth_render::cache::{Folder, Work};
use berth_units::Bytes;
use common::node;

const NODE: &str = "gpu-1";
const NOW: i64 = 1_000;

/// A node whose cache holds ten bytes.
fn fleet() -> Fleet {
    let mut node = node(NODE, "H100", 8, Bytes::gib(80));
    node.cache = Bytes(10);
    common::fleet([node])
}

fn model(bytes: u64, last_used: i64) -> Model {
    Model { bytes: Bytes(bytes), last_used, complete: true, ..Model::default() }
}

fn volume(namespace: &str, models: impl IntoIterator<Item = (&'static str, Model)>) -> Volume {
    let models = models.into_iter().map(|(name, model)| (name.to_owned(), model)).collect();
    Volume {
        name: Folder::of(NODE, namespace).name(),
        uid: format!("uid-{namespace}"),
        version: "1".to_owned(),
        node: NodeName::from(NODE),
        namespace: namespace.to_owned(),
        released: false,
        content: Content { prepared: true, models },
    }
}

fn user(namespace: &str, directory: &str, bytes: u64) -> User {
    User { model: (namespace.to_owned(), directory.to_owned()), bytes: Bytes(bytes), ready: false }
}

fn keeper(work: Work, ended: Option<bool>) -> Keeper {
    Keeper {
        key: PodKey::new("berth-system".to_owned(), "keeper".to_owned()),
        uid: "keeper".to_owned(),
        node: NodeName::from(NODE),
        work,
        ended,
    }
}

fn next(shelves: &Shelves, users: &[User]) -> Next {
    let mut fleet = fleet();
    for (at, user) in users.iter().enumerate() {
        let uid = format!("uid-{at}");
        let (namespace, directory) = &user.model;
        fleet.upsert_occupant(Occupant {
            id: OccupantId::from(uid.as_str()),
            pod: PodKey::new(namespace.as_str(), uid.as_str()),
            node: NodeName::from(NODE),
            gpus: 1,
            resources: Resources::default(),
            cache: Some((cache_key(namespace, directory), user.bytes)),
            owner: Owner::Foreign,
        });
    }
    shelves.next(&NodeName::from(NODE), users, &mut fleet, NOW)
}

fn shelves(volumes: impl IntoIterator<Item = Volume>) -> Shelves {
    let mut shelves = Shelves::default();
    volumes.into_iter().for_each(|volume| shelves.saw_volume(volume));
    shelves
}

fn written(next: &Next) -> BTreeMap<&str, &Model> {
    let volumes = next.write.iter();
    volumes
        .flat_map(|volume| volume.content.models.iter().map(|(name, model)| (name.as_str(), model)))
        .collect()
}

fn evict(namespace: &str, directory: &str) -> Work {
    Work { evict: [(namespace.to_owned(), directory.to_owned())].into(), ..Work::default() }
}

#[test]
fn a_new_folder_is_prepared_and_its_first_model_written_down() {
    let mut fresh = volume("a", []);
    fresh.content.prepared = false;
    let mut shelves = shelves([fresh]);
    let first = next(&shelves, &[user("a", "x", 4)]);
    assert_eq!(first.work.prepare, ["a".to_owned()].into());
    let x = written(&first)["x"].clone();
    assert_eq!(x, Model { bytes: Bytes(4), in_use: true, ..Model::default() });

    // It works, so no other is sent; then it is done.
    shelves.saw_keeper(keeper(first.work.clone(), None));
    assert!(next(&shelves, &[user("a", "x", 4)]).work.is_empty());
    shelves.saw_keeper(keeper(first.work, Some(true)));
    let done = next(&shelves, &[user("a", "x", 4)]);
    assert!(done.write[0].content.prepared && done.work.is_empty());
    assert_eq!(done.dismiss.len(), 1);
}

#[test]
fn what_an_engine_answered_from_is_complete_and_what_nobody_uses_any_more_has_a_date() {
    let shelves = shelves([volume(
        "a",
        [
            ("x", Model { in_use: true, complete: false, ..model(4, 0) }),
            ("y", Model { in_use: true, ..model(4, 0) }),
        ],
    )]);
    let next = next(&shelves, &[User { ready: true, ..user("a", "x", 4) }]);
    let models = written(&next);
    assert!(models["x"].complete && models["x"].in_use);
    assert_eq!((models["y"].in_use, models["y"].last_used), (false, NOW));
    assert!(next.work.is_empty());
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let shelves = shelves([volume("a", [("x", Model { in_use: true, ..model(4, 0) })])]);
    assert_eq!(next(&shelves, &[user("a", "x", 4)]), Next::default());
}

#[test]
fn the_least_recently_used_makes_room_in_whosever_folder_it_is() {
    let mut shelves =
        shelves([volume("a", [("x", model(4, 20))]), volume("b", [("y", model(5, 10))])]);
    let users = [user("a", "z", 6)];
    let first = next(&shelves, &users);
    assert_eq!(first.work, evict("b", "y"));
    assert!(written(&first)["y"].leaving && !written(&first)["x"].leaving);

    // Removed: forgotten, once the keeper says so.
    first.write.iter().for_each(|volume| shelves.saw_volume(volume.clone()));
    shelves.saw_keeper(keeper(first.work, Some(true)));
    let done = next(&shelves, &users);
    assert_eq!(done.write.len(), 1);
    assert!(done.write[0].content.models.is_empty() && done.work.is_empty());
}

#[test]
fn what_a_pod_uses_stays_however_full_it_is() {
    let shelves = shelves([volume("a", [("x", model(8, 0))])]);
    let next = next(&shelves, &[user("a", "x", 8), user("a", "y", 8)]);
    assert!(next.work.is_empty(), "{:?}", next.work);
}

#[test]
fn a_folder_whose_namespace_is_gone_is_emptied_and_taken_down() {
    let mut gone = volume("a", [("x", model(4, 0))]);
    gone.released = true;
    let mut shelves = shelves([gone]);
    let first = next(&shelves, &[]);
    assert_eq!(first.work, evict("a", "x"));
    assert!(first.remove.is_empty());
    first.write.iter().for_each(|volume| shelves.saw_volume(volume.clone()));
    shelves.saw_keeper(keeper(first.work, Some(true)));
    let done = next(&shelves, &[]);
    assert_eq!(done.remove.len(), 1);
    assert!(done.write.is_empty());
}

#[test]
fn work_that_failed_is_done_again() {
    let mut shelves = shelves([volume("a", [("x", Model { leaving: true, ..model(4, 0) })])]);
    shelves.saw_keeper(keeper(evict("a", "x"), Some(false)));
    let next = next(&shelves, &[]);
    assert_eq!(next.work, evict("a", "x"));
    assert_eq!(next.dismiss.len(), 1);
    assert!(next.write.is_empty());
}
