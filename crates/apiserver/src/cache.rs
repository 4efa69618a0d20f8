//! Every object in memory, fed by one watch on the store, with a window of recent changes for watchers.
//!
//! ```text
//! [writer] -> store -> [feed] -> collections (objects + window) -> [get, list, watch]
//!      ^__________________|
//!        its object, once readers can see it
//! ```
//!
//! Invariants: changes are applied in the order of their revisions; once [`Cache::applied`] says R, every change up to
//! R is visible; a writer is answered only after that, so that whoever it tells can read what it wrote.

pub mod feed;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use yado_store::Store;

use crate::object::{Change, Object, Selection};
use crate::resource::Resource;
use crate::schema::Storage;

/// Changes kept for watchers, in each collection. A watcher that reads none of so many in a row has stalled; a burst of
/// 8,192 is nearly a second of the fastest writing measured.
const WINDOW_CHANGES: usize = 8192;
/// Bytes of JSON in a window: what a collection of large objects may hold beside the objects that exist. The
/// lines for watchers come on top, see [`RECENT_FRAMES`].
const WINDOW_BYTES: usize = 4 << 20;
/// Changes of a collection whose lines for watchers are kept: watchers usually read a change within moments of each other.
const RECENT_FRAMES: usize = 256;
/// Bytes of JSON of the objects whose decoded form is kept because they were written last: the next write of an object
/// usually follows soon, and reads all of it. Decoded, they take about 4 MiB.
const RECENT_BYTES: usize = 512 << 10;
/// How long a request waits for a revision it names. As in Kubernetes.
pub const REVISION_WAIT: Duration = Duration::from_secs(3);

/// State that is derived from collections and has to be as current as they are.
pub trait Observer: Send + Sync {
    /// Whether it is derived from the collection of the keys with this prefix (`/registry/GROUP/RESOURCE/`).
    fn observes(&self, prefix: &str) -> bool;

    /// All objects of a collection were read from the store, by their places; what was known before is void.
    fn loaded(&self, prefix: &str, objects: &BTreeMap<Box<str>, Arc<Object>>);

    /// The object at this place was written; `None`: it went. Called in the order of the changes, and before their
    /// writers are answered, so it must be quick.
    fn changed(&self, prefix: &str, place: &str, object: Option<&Object>);
}

/// The objects of one resource.
pub struct Collection {
    prefix: Box<str>,
    observers: Vec<Arc<dyn Observer>>,
    state: RwLock<State>,
    /// The revision of its last change.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// By `NAMESPACE/NAME`, or `NAME` where there are no Namespaces: the order of the store's keys.
    objects: BTreeMap<Box<str>, Arc<Object>>,
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    /// The window holds every change after this revision.
    window_start: u64,
    revision: u64,
}

/// Objects of a collection at one revision.
pub struct Snapshot {
    /// In the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// Every change up to here is in them, and none after.
    pub revision: u64,
    /// There are more behind the last one.
    pub more: bool,
    /// How many more.
    pub remaining: usize,
}

impl Collection {
    fn new(prefix: &str, observers: Vec<Arc<dyn Observer>>, revision: u64) -> Self {
        let state = State { window_start: revision, revision, ..State::default() };
        let changed = watch::Sender::new(revision);
        Self { prefix: prefix.into(), observers, state: RwLock::new(state), changed }
    }

    /// The number of objects and the bytes of their JSON.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.objects.len(), state.objects.values().map(|o| o.json_len()).sum())
    }

    /// Whether it has no objects.
    pub fn is_empty(&self) -> bool {
        self.state.read().objects.is_empty()
    }

    /// One object, by its place in the collection.
    pub fn get(&self, place: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(place).cloned()
    }

    /// The objects of a Namespace (of all, where it is empty) behind `after`, that `wanted` holds for, at most `limit`
    /// of them (0: all).
    pub fn list(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Object) -> bool,
    ) -> Snapshot {
        self.list_with(namespace, after, limit, |_, object| wanted(object))
    }

    /// The objects of a Namespace (of all, where it is empty) that a selection means, at most `limit` of them (0: all).
    pub fn select(&self, namespace: &str, limit: usize, selection: &Selection) -> Snapshot {
        self.list_with(namespace, None, limit, |place, object| {
            selection.may_mean(place) && selection.matches(object)
        })
    }

    /// The objects of a Namespace (of all, where it is empty) at places that `wanted` holds for, at most `limit` of them (0:
    /// all).
    pub fn list_places(&self, namespace: &str, limit: usize, wanted: impl Fn(&str) -> bool) -> Snapshot {
        self.list_with(namespace, None, limit, |place, _| wanted(place))
    }

    /// [`Collection::list`], where `wanted` also gets the object's place.
    fn list_with(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&str, &Object) -> bool,
    ) -> Snapshot {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let state = self.state.read();
        let (first, end) = bounds(namespace);
        let start = match after {
            Some(after) => Excluded(after),
            None if namespace.is_empty() => Unbounded,
            None => Included(first.as_str()),
        };
        let end = if namespace.is_empty() { Unbounded } else { Excluded(end.as_str()) };
        let mut found = state
            .objects
            .range::<str, _>((start, end))
            .filter(|(place, object)| wanted(place, object))
            .map(|(_, object)| object);
        let objects: Vec<_> = if limit == 0 {
            found.by_ref().cloned().collect()
        } else {
            found.by_ref().take(limit).cloned().collect()
        };
        let remaining = if limit == 0 { 0 } else { found.count() };
        Snapshot { objects, revision: state.revision, more: remaining > 0, remaining }
    }

    /// The changes after `revision`, at most `limit`; `Err` with the oldest possible start where some of them are no
    /// longer kept.
    pub fn changes(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Change>>, u64> {
        let state = self.state.read();
        if revision < state.window_start {
            return Err(state.window_start);
        }
        let from = state.window.partition_point(|c| c.revision <= revision);
        let mut changes: Vec<_> = state.window.range(from..).take(limit).cloned().collect();
        // Never a part of a revision: the next call starts after the last one's.
        if let Some(last) = changes.last().map(|c| c.revision) {
            let rest = state.window.range(from + changes.len()..).take_while(|c| c.revision == last);
            changes.extend(rest.cloned());
        }
        Ok(changes)
    }

    /// Wakes at every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The objects that were written last, in the order of their writes: only these keep their decoded form.
#[derive(Default)]
struct Recent {
    objects: VecDeque<Arc<Object>>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, object: Arc<Object>) {
        self.bytes += object.stored_len();
        self.objects.push_back(object);
        while self.bytes > RECENT_BYTES {
            let Some(oldest) = self.objects.pop_front() else { break };
            self.bytes -= oldest.stored_len();
            oldest.forget_value();
        }
    }

    /// Drops the objects that were written up to `revision`: when nothing is written, none of them stays decoded.
    fn forget(&mut self, revision: u64) {
        let forgotten = self.objects.partition_point(|object| object.revision <= revision);
        for object in self.objects.drain(..forgotten) {
            self.bytes -= object.stored_len();
            object.forget_value();
        }
        self.objects.shrink_to_fit();
    }
}

impl State {
    /// Drops the changes up to `revision` from the window: who watches from before has to list again.
    fn forget(&mut self, revision: u64) {
        let forgotten = self.window.partition_point(|change| change.revision <= revision);
        for change in self.window.drain(..forgotten) {
            self.window_bytes -= change.object.stored_len();
            self.window_start = change.revision;
        }
        if self.window.is_empty() {
            self.window.shrink_to_fit();
        }
    }

    fn push(&mut self, change: Change) {
        self.window_bytes += change.object.stored_len();
        self.window.push_back(Arc::new(change));
        if let Some(aged) = self.window.len().checked_sub(RECENT_FRAMES + 1) {
            self.window[aged].forget_frames();
        }
        while self.window.len() > WINDOW_CHANGES || self.window_bytes > WINDOW_BYTES && self.window.len() > 1
        {
            let Some(oldest) = self.window.pop_front() else { break };
            self.window_bytes -= oldest.object.stored_len();
            self.window_start = oldest.revision;
        }
    }
}

/// `NAMESPACE/` and the first text after everything that starts with it.
fn bounds(namespace: &str) -> (String, String) {
    (format!("{namespace}/"), format!("{namespace}0"))
}

/// An object's place in its collection.
pub fn place(resource: &Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

/// `/registry/GROUP/RESOURCE/` of a key and the place that follows; `None` for keys that hold no object.
fn split_key(key: &str) -> Option<(&str, &str)> {
    let end = key.match_indices('/').nth(3)?.0 + 1;
    Some(key.split_at(end))
}

/// All collections.
pub struct Cache {
    /// By the prefix of their keys in the store. What the store holds makes them, so that the objects of a kind are here
    /// before the kind is served.
    collections: RwLock<HashMap<Box<str>, Arc<Collection>>>,
    observers: Vec<Arc<dyn Observer>>,
    applied: watch::Sender<u64>,
    pending: Mutex<HashMap<usize, Pending>>,
    recent: Mutex<Recent>,
    /// Nothing feeds the collections any more.
    ended: CancellationToken,
}

/// A write on its way: its decoded object, so that the feed need not decode it again, and who waits for it.
struct Pending {
    value: Value,
    /// Keeps the address, by which the feed knows the bytes again, from being used twice.
    stored: Bytes,
    done: oneshot::Sender<Arc<Object>>,
}

/// A writer's claim on the object it is about to write; dropping it gives the claim up.
pub struct Claim<'a> {
    cache: &'a Cache,
    address: usize,
    done: oneshot::Receiver<Arc<Object>>,
}

impl Cache {
    /// A cache without collections, as of `revision`.
    pub fn new(revision: u64, observers: Vec<Arc<dyn Observer>>) -> Self {
        Self {
            collections: RwLock::default(),
            observers,
            applied: watch::Sender::new(revision),
            pending: Mutex::default(),
            recent: Mutex::default(),
            ended: CancellationToken::new(),
        }
    }

    /// The collection of a resource; `None` for what is only answered.
    pub fn collection(&self, resource: &Resource) -> Option<Arc<Collection>> {
        match resource.storage {
            Storage::Stored => Some(self.of_prefix(&resource.prefix)),
            Storage::Answered | Storage::Body => None,
        }
    }

    /// The collection of the keys with that prefix.
    fn of_prefix(&self, prefix: &str) -> Arc<Collection> {
        if let Some(collection) = self.collections.read().get(prefix) {
            return collection.clone();
        }
        let mut collections = self.collections.write();
        // Nothing was ever written under it: the feed makes a collection before it applies a change.
        let observers = self.observers.iter().filter(|o| o.observes(prefix)).cloned().collect();
        let make = || Arc::new(Collection::new(prefix, observers, self.applied()));
        collections.entry(prefix.into()).or_insert_with(make).clone()
    }

    /// Every collection with the prefix of its keys.
    fn all(&self) -> Vec<(Box<str>, Arc<Collection>)> {
        self.collections
            .read()
            .iter()
            .map(|(prefix, collection)| (prefix.clone(), collection.clone()))
            .collect()
    }

    /// Every change up to this revision is visible.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Ready once `revision` is visible, or once that will not happen any more.
    pub async fn wait(&self, revision: u64) -> Result<(), FeedEnded> {
        if self.applied() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        tokio::select! {
            biased;
            // The sender is in `self`, so it cannot be gone.
            _ = applied.wait_for(|applied| *applied >= revision) => Ok(()),
            () = self.ended.cancelled() => Err(FeedEnded),
        }
    }

    /// Drops the changes up to `revision` from all windows, and the decoded form of the objects that they wrote.
    pub fn forget_changes(&self, revision: u64) {
        self.recent.lock().forget(revision);
        for collection in self.collections.read().values() {
            collection.state.write().forget(revision);
        }
    }

    /// Whether the collections are still fed.
    pub fn is_fed(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Ready once the collections are no longer fed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Announces a write of `stored`, the store's form of `value`.
    pub fn claim(&self, value: Value, stored: Bytes) -> Claim<'_> {
        let (sender, done) = oneshot::channel();
        let address = stored.as_ptr() as usize;
        self.pending.lock().insert(address, Pending { value, stored, done: sender });
        Claim { cache: self, address, done }
    }

    fn collection_of<'k>(&self, key: &'k str) -> Option<(Arc<Collection>, &'k str)> {
        let (prefix, place) = split_key(key)?;
        Some((self.of_prefix(prefix), place))
    }
}

impl Claim<'_> {
    /// The object as readers see it, once they do; `revision` is what the store said of the write.
    pub async fn written(mut self, revision: u64) -> Result<Arc<Object>, FeedEnded> {
        tokio::select! {
            biased;
            object = &mut self.done => object.map_err(|_| FeedEnded),
            visible = self.cache.wait(revision) => {
                visible?;
                if let Ok(object) = self.done.try_recv() {
                    return Ok(object);
                }
                // A store that hands out copies: the feed decoded one of them, and this one makes its own.
                let pending = self.cache.pending.lock().remove(&self.address).ok_or(FeedEnded)?;
                Ok(Arc::new(Object::new(pending.value, pending.stored, revision)))
            },
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.cache.pending.lock().remove(&self.address);
    }
}

/// The store's changes no longer reach the collections: the server stops, or the store failed (which was logged).
#[derive(Debug, thiserror::Error)]
#[error("the server is shutting down or has lost its store; what was written stays written")]
pub struct FeedEnded;

/// Loads everything and starts the feed, which keeps the observers as current as the collections.
pub async fn start(
    store: Arc<dyn Store>,
    observers: Vec<Arc<dyn Observer>>,
) -> yado_store::Result<(Arc<Cache>, feed::Feed)> {
    let cache = Arc::new(Cache::new(0, observers));
    let feed = feed::Feed::start(cache.clone(), store).await?;
    Ok((cache, feed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(revision: u64, size: usize) -> Arc<Object> {
        let value = json!({"apiVersion": "v1", "metadata": {"name": "a"}, "data": "x".repeat(size)});
        Arc::new(Object::unwritten(value, revision))
    }

    #[test]
    fn the_window_is_bounded_and_says_where_it_starts() {
        for (count, size, start) in [(10, 0, 1), (WINDOW_CHANGES + 5, 0, 6), (5, WINDOW_BYTES / 2, 5)] {
            let collection = Collection::new("/registry/core/pods/", Vec::new(), 1);
            for revision in 2..count as u64 + 2 {
                let mut state = collection.state.write();
                state.push(Change::new("a", revision, object(revision, size), None, false));
            }
            assert_eq!(collection.state.read().window_start, start, "{count} changes of {size} bytes");
            assert_eq!(collection.changes(start - 1, 9).err(), Some(start));
            let first = collection.changes(start, 9).expect("kept").first().map(|c| c.revision);
            assert_eq!(first, Some(start + 1));
        }
    }

    #[test]
    fn a_revision_is_never_told_in_part() {
        let collection = Collection::new("/registry/core/pods/", Vec::new(), 1);
        for revision in [2, 3, 3, 3, 4] {
            collection.state.write().push(Change::new("a", revision, object(revision, 0), None, false));
        }
        let told: Vec<_> = collection.changes(1, 2).expect("kept").iter().map(|c| c.revision).collect();
        assert_eq!(told, [2, 3, 3, 3]);
    }

    #[test]
    fn old_changes_are_forgotten_by_revision() {
        let collection = Collection::new("/registry/core/pods/", Vec::new(), 1);
        for revision in [2, 3, 5] {
            let change = Change::new("a", revision, object(revision, 0), None, false);
            collection.state.write().push(change);
        }
        for (forgotten, start, left) in [(1, 1, 3), (4, 3, 1), (5, 5, 0), (9, 5, 0)] {
            collection.state.write().forget(forgotten);
            assert_eq!(collection.changes(start - 1, 9).err(), Some(start));
            assert_eq!(collection.changes(start, 9).expect("kept").len(), left);
        }
        assert_eq!(collection.state.read().window_bytes, 0);
    }

    #[test]
    fn only_the_objects_written_last_stay_decoded() {
        let mut recent = Recent::default();
        let written = |revision| {
            let data = "x".repeat(RECENT_BYTES / 2 - 100);
            let mut value = json!({"apiVersion": "v1", "metadata": {"name": "a"}, "data": data});
            let stored = crate::object::encode_for_store(&mut value);
            Arc::new(Object::new(value, stored, revision))
        };
        let objects: Vec<_> = (1..=3).map(written).collect();
        objects.iter().for_each(|object| recent.push(object.clone()));
        assert!(recent.bytes <= RECENT_BYTES);
        assert_eq!(objects.iter().map(|o| o.is_decoded()).collect::<Vec<_>>(), [false, true, true]);
        recent.forget(2);
        assert_eq!(objects.iter().map(|o| o.is_decoded()).collect::<Vec<_>>(), [false, false, true]);
        recent.forget(3);
        assert_eq!((recent.objects.len(), recent.bytes), (0, 0));
        for (object, revision) in objects.iter().zip(["1", "2", "3"]) {
            assert_eq!(object.value()["metadata"]["resourceVersion"], revision);
        }
    }
}
