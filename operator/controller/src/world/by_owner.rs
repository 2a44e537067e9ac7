//! Objects of a kind by the object that controls each, so that a reconcile takes its own and looks
//! at no others. A watch feeds it; [`super::watch::by_owner`] makes both.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

/// Objects by their owners, shared.
pub struct ByOwner<K> {
    index: Mutex<Index<K>>,
    ready: watch::Sender<bool>,
}

/// What else objects are looked up by, beside their namespace.
pub type Tag<K> = fn(&K) -> Option<String>;

impl<K: Resource> ByOwner<K> {
    /// None yet. Those that have a tag are found by it too.
    pub fn new(tag: Tag<K>) -> Self {
        Self { index: Mutex::new(Index::new(tag)), ready: watch::Sender::new(false) }
    }

    /// The objects of a namespace that have that tag, by name.
    pub fn tagged(&self, namespace: &str, tag: &str) -> Vec<Arc<K>> {
        self.lock().tagged(namespace, tag).cloned().collect()
    }

    /// The objects that the object of that UID controls, by name.
    pub fn of(&self, uid: &str) -> Vec<Arc<K>> {
        self.lock().of(uid).cloned().collect()
    }

    /// Waits until all that there is has been listed once.
    pub async fn wait_until_ready(&self) {
        // An error means that the sender is gone, which is here.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes in an event; the objects that came, changed or went by it.
    pub(super) fn take(&self, event: Event<K>) -> Vec<Arc<K>> {
        let is_listed = matches!(event, Event::InitDone);
        let touched = self.lock().take(event);
        if is_listed {
            self.ready.send_replace(true);
        }
        touched
    }

    fn lock(&self) -> MutexGuard<'_, Index<K>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Namespace and name.
type Key = (String, String);

/// What the last complete list held, and what happened since. Pure.
struct Index<K> {
    owned: HashMap<String, BTreeMap<Key, Arc<K>>>,
    /// The UIDs under which the objects stand there.
    owners: HashMap<Key, String>,
    tag: Tag<K>,
    /// By namespace and tag.
    tagged: HashMap<(String, String), BTreeMap<Key, Arc<K>>>,
    /// The tags under which the objects stand there.
    tags: HashMap<Key, String>,
    /// What a list that is under way has brought so far.
    listed: Vec<Arc<K>>,
}

impl<K: Resource> Index<K> {
    fn new(tag: Tag<K>) -> Self {
        Self {
            owned: HashMap::new(),
            owners: HashMap::new(),
            tag,
            tagged: HashMap::new(),
            tags: HashMap::new(),
            listed: Vec::new(),
        }
    }

    fn tagged(&self, namespace: &str, tag: &str) -> impl Iterator<Item = &Arc<K>> {
        let known = self.tagged.get(&(namespace.to_owned(), tag.to_owned()));
        known.into_iter().flat_map(BTreeMap::values)
    }

    fn of(&self, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        self.owned.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// A list counts once it is complete, and then nothing else does: what it lacks went unseen.
    fn take(&mut self, event: Event<K>) -> Vec<Arc<K>> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.push(Arc::new(object));
                Vec::new()
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let mut before = std::mem::replace(self, Self::new(self.tag));
                for object in &listed {
                    before.remove(&key(&**object));
                    self.put(Arc::clone(object));
                }
                let lost = before.owned.into_values().flat_map(BTreeMap::into_values);
                listed.into_iter().chain(lost).collect()
            }
            Event::Apply(object) => {
                let object = Arc::new(object);
                self.put(Arc::clone(&object));
                vec![object]
            }
            Event::Delete(object) => {
                self.remove(&key(&object));
                vec![Arc::new(object)]
            }
        }
    }

    fn put(&mut self, object: Arc<K>) {
        let key = key(&*object);
        self.remove(&key);
        let mut owners = object.owner_references().iter();
        let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else { return };
        let uid = owner.uid.clone();
        if let Some(tag) = (self.tag)(&object) {
            self.tags.insert(key.clone(), tag.clone());
            let with = self.tagged.entry((key.0.clone(), tag)).or_default();
            with.insert(key.clone(), Arc::clone(&object));
        }
        self.owners.insert(key.clone(), uid.clone());
        self.owned.entry(uid).or_default().insert(key, object);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(tag) = self.tags.remove(key) {
            let place = (key.0.clone(), tag);
            if let Some(with) = self.tagged.get_mut(&place) {
                with.remove(key);
                if with.is_empty() {
                    self.tagged.remove(&place);
                }
            }
        }
        let Some(uid) = self.owners.remove(key) else { return };
        let Some(of) = self.owned.get_mut(&uid) else { return };
        of.remove(key);
        if of.is_empty() {
            self.owned.remove(&uid);
        }
    }
}

fn key(object: &impl Resource) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ControllerRevision;
    use serde_json::json;

    use super::*;

    fn object(name: &str, owner: &str, number: i64) -> ControllerRevision {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "other", "uid": "elsewhere"},
                {"apiVersion": "v1", "kind": "Owner", "name": "o", "uid": owner, "controller": true},
            ]},
            "revision": number,
        }))
        .unwrap()
    }

    fn names<'a>(objects: impl IntoIterator<Item = &'a Arc<ControllerRevision>>) -> Vec<String> {
        objects.into_iter().map(|object| object.name_any()).collect()
    }

    fn listed(objects: &[ControllerRevision]) -> Index<ControllerRevision> {
        let mut index =
            Index::new(|object: &ControllerRevision| object.annotations().get("tag").cloned());
        relist(&mut index, objects);
        index
    }

    fn relist(
        index: &mut Index<ControllerRevision>,
        objects: &[ControllerRevision],
    ) -> Vec<String> {
        index.take(Event::Init);
        for object in objects {
            assert_eq!(names(&index.take(Event::InitApply(object.clone()))), [""; 0]);
        }
        names(&index.take(Event::InitDone))
    }

    #[test]
    fn each_owner_has_its_own_by_name() {
        let mut orphan = object("orphan", "a", 1);
        orphan.metadata.owner_references = None;
        let index =
            listed(&[object("a-2", "a", 2), object("b-1", "b", 1), object("a-1", "a", 1), orphan]);
        assert_eq!(names(index.of("a")), ["a-1", "a-2"]);
        assert_eq!(names(index.of("b")), ["b-1"]);
        assert_eq!(names(index.of("elsewhere")), [""; 0], "an owner that does not control");
    }

    #[test]
    fn events_add_change_and_take_away() {
        let mut index = listed(&[object("a-1", "a", 1)]);
        assert_eq!(names(&index.take(Event::Apply(object("a-2", "a", 2)))), ["a-2"]);
        index.take(Event::Apply(object("a-1", "a", 3)));
        let numbers: Vec<_> = index.of("a").map(|object| object.revision).collect();
        assert_eq!(numbers, [Some(3), Some(2)]);
        assert_eq!(names(&index.take(Event::Delete(object("a-1", "a", 3)))), ["a-1"]);
        assert_eq!(names(index.of("a")), ["a-2"]);
        index.take(Event::Delete(object("a-2", "a", 2)));
        assert!(index.owned.is_empty() && index.owners.is_empty(), "nothing is left behind");
        assert!(index.tagged.is_empty() && index.tags.is_empty(), "nothing is left behind");
    }

    #[test]
    fn those_with_a_tag_are_found_by_it_in_their_namespace() {
        let tagged = |name: &str, owner: &str, tag: &str| {
            let mut object = object(name, owner, 1);
            object.annotations_mut().insert("tag".to_owned(), tag.to_owned());
            object
        };
        let mut elsewhere = tagged("c-1", "c", "x");
        elsewhere.metadata.namespace = Some("other".to_owned());
        let plain = object("a-2", "a", 1);
        let mut index =
            listed(&[tagged("b-1", "b", "x"), tagged("a-1", "a", "x"), plain, elsewhere]);
        assert_eq!(names(index.tagged("team", "x")), ["a-1", "b-1"]);
        assert_eq!(names(index.tagged("other", "x")), ["c-1"]);
        index.take(Event::Apply(tagged("a-1", "a", "y")));
        assert_eq!(names(index.tagged("team", "x")), ["b-1"]);
        assert_eq!(names(index.tagged("team", "y")), ["a-1"]);
        index.take(Event::Delete(tagged("b-1", "b", "x")));
        assert_eq!(names(index.tagged("team", "x")), [""; 0]);
        relist(&mut index, &[]);
        assert!(index.tagged.is_empty() && index.tags.is_empty(), "nothing is left behind");
    }

    #[test]
    fn one_of_the_same_name_and_another_owner_is_the_other_owners() {
        let mut index = listed(&[object("llm-1", "old", 1)]);
        index.take(Event::Apply(object("llm-1", "new", 1)));
        assert_eq!(names(index.of("old")), [""; 0]);
        assert_eq!(names(index.of("new")), ["llm-1"]);
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_what_it_lacks_is_gone() {
        let mut index = listed(&[object("a-1", "a", 1), object("b-1", "b", 1)]);
        index.take(Event::Init);
        index.take(Event::InitApply(object("a-2", "a", 2)));
        assert_eq!(names(index.of("a")), ["a-1"], "half a list says nothing yet");
        assert_eq!(names(index.of("b")), ["b-1"]);
        // The watch broke off; the next list begins from nothing.
        let mut touched = relist(&mut index, &[object("a-3", "a", 3), object("b-1", "b", 1)]);
        touched.sort();
        assert_eq!(touched, ["a-1", "a-3", "b-1"], "those that went are told of too");
        assert_eq!(names(index.of("a")), ["a-3"]);
        assert_eq!(names(index.of("b")), ["b-1"]);
    }
}
