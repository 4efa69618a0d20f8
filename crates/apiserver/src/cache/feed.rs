//! The one task that brings the store's changes into the collections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use yado_store::{Range, Store, WatchEvent, key_after, prefix_end};

use super::{Cache, Collection, State, split_key};
use crate::object::{Change, Object};

/// Objects are read from the store in parts of so many.
const LOAD_PART: usize = 1000;
/// Revisions applied before readers are woken: enough to share the cost in a burst, too few to be felt.
const BATCH: usize = 64;
/// Until the store's watch is opened again after it could not be reached.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Everything this crate writes lies under it, so that the store's revision is always reached by its events.
const PREFIX: &str = "/registry/";

/// The running feed; ends with [`Feed::stop`] or when dropped.
pub struct Feed {
    tasks: JoinSet<()>,
}

impl Feed {
    pub(super) async fn start(cache: Arc<Cache>, store: Arc<dyn Store>) -> yado_store::Result<Self> {
        let revision = load(&cache, &*store).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(run(cache, store, revision));
        Ok(Self { tasks })
    }

    /// Ends the feed and waits for it.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn run(cache: Arc<Cache>, store: Arc<dyn Store>, mut revision: u64) {
    // Also when this task is aborted or panics, so that nobody waits for ever.
    let _ended = cache.ended.clone().drop_guard();
    loop {
        let error = match store.watch(PREFIX.into(), prefix_end(PREFIX), revision).await {
            Ok(mut watch) => loop {
                match watch.next().await {
                    None => return,
                    Some(Err(error)) => break error,
                    Some(Ok(events)) => {
                        cache.apply(&events, &mut revision);
                        let mut failed = None;
                        for _ in 0..BATCH {
                            match watch.next().now_or_never() {
                                Some(Some(Ok(events))) => cache.apply(&events, &mut revision),
                                Some(Some(Err(error))) => failed = Some(error),
                                Some(None) | None => break,
                            }
                        }
                        cache.publish(revision);
                        if let Some(error) = failed {
                            break error;
                        }
                    }
                }
            },
            Err(error) => error,
        };
        match error {
            yado_store::Error::Lagged { .. } => {
                tracing::warn!(revision, "the cache fell behind the store and catches up")
            }
            yado_store::Error::Compacted { .. } => match load(&cache, &*store).await {
                Ok(loaded) => {
                    tracing::warn!(
                        revision,
                        loaded,
                        "the store forgot changes that the cache had not read: everything was read anew"
                    );
                    revision = loaded;
                }
                Err(error) => {
                    return tracing::error!(%error, "the store cannot be read: answers would be outdated from here on");
                }
            },
            error if error.is_transient() => {
                // From the last revision that was applied on: nothing is lost.
                tracing::warn!(%error, revision, "the store's watch ended and is opened again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            error => {
                return tracing::error!(%error, "the store's watch ended: answers would be outdated from here on");
            }
        }
    }
}

/// Replaces what the collections hold with what the store holds. Watchers of an older state have to list again.
async fn load(cache: &Cache, store: &dyn Store) -> yado_store::Result<u64> {
    let mut loaded: HashMap<Box<str>, BTreeMap<Box<str>, Arc<Object>>> = HashMap::new();
    let (mut start, mut at) = (PREFIX.to_owned(), None);
    let revision = loop {
        let part =
            store.range(Range { start, end: prefix_end(PREFIX), limit: LOAD_PART, revision: at }).await?;
        at = at.or(Some(part.revision));
        for kv in &part.items {
            let Some((prefix, place)) = split_key(&kv.key) else { continue };
            let Some(object) = decode(kv) else { continue };
            loaded.entry(prefix.into()).or_default().insert(place.into(), Arc::new(object));
        }
        match part.items.last().map(|kv| key_after(&kv.key)) {
            Some(next) if part.more => start = next,
            _ => break at.unwrap_or(part.revision),
        }
    };
    for (prefix, _) in cache.all() {
        loaded.entry(prefix).or_default();
    }
    for (prefix, objects) in loaded {
        let collection = cache.of_prefix(&prefix);
        collection.observers.iter().for_each(|observer| observer.loaded(&prefix, &objects));
        *collection.state.write() = State { objects, window_start: revision, revision, ..State::default() };
        collection.changed.send_replace(revision);
    }
    cache.applied.send_replace(revision);
    Ok(revision)
}

fn decode(kv: &yado_store::KeyValue) -> Option<Object> {
    Object::decode(kv.value.clone(), kv.mod_revision)
        .inspect_err(|error| tracing::error!(key = %kv.key, %error, "an object in the store is not JSON and is left out"))
        .ok()
}

/// An event with the place of its object in the collection.
type PlacedEvent<'a> = (&'a str, &'a WatchEvent);

/// A decoded event.
struct Made {
    /// The object; `None`: it went.
    object: Option<Arc<Object>>,
    /// The writer who waits for it.
    waiting: Option<oneshot::Sender<Arc<Object>>>,
}

impl Cache {
    /// Applies the changes of one revision, each collection's as one.
    fn apply(&self, events: &[WatchEvent], revision: &mut u64) {
        let mut groups: Vec<(Arc<Collection>, Vec<PlacedEvent<'_>>)> = Vec::new();
        for event in events {
            *revision = event.revision();
            let Some((collection, place)) = self.collection_of(event.key()) else { continue };
            match groups.iter_mut().find(|(c, _)| Arc::ptr_eq(c, &collection)) {
                Some((_, group)) => group.push((place, event)),
                None => groups.push((collection, vec![(place, event)])),
            }
        }
        for (collection, group) in groups {
            // Objects are made before the lock is taken, so that readers wait for a few map operations only.
            let made: Vec<_> =
                group.into_iter().filter_map(|(place, event)| Some((place, self.made(event)?))).collect();
            for observer in &collection.observers {
                for (place, Made { object, .. }) in &made {
                    observer.changed(&collection.prefix, place, object.as_deref());
                }
            }
            let mut done = Vec::new();
            let mut state = collection.state.write();
            for (place, Made { object, waiting }) in made {
                state.apply(place, object.clone(), *revision);
                done.extend(waiting.zip(object));
            }
            state.revision = *revision;
            drop(state);
            for (waiting, object) in done {
                // A writer that is gone does not mind.
                let _ = waiting.send(object);
            }
        }
    }

    /// Decodes an event; `None` where it cannot be read.
    fn made(&self, event: &WatchEvent) -> Option<Made> {
        let WatchEvent::Put { kv, .. } = event else { return Some(Made { object: None, waiting: None }) };
        let address = kv.value.as_ptr() as usize;
        let pending = self.pending.lock().remove(&address);
        let (object, waiting) = match pending {
            Some(pending) => {
                let object = Arc::new(Object::new(pending.value, pending.stored, kv.mod_revision));
                self.recent.lock().push(object.clone());
                (object, Some(pending.done))
            }
            None => (Arc::new(decode(kv)?), None),
        };
        Some(Made { object: Some(object), waiting })
    }

    /// Tells readers and writers how far the collections are.
    fn publish(&self, revision: u64) {
        for collection in self.collections.read().values() {
            let reached = collection.state.read().revision;
            collection.changed.send_if_modified(|seen| std::mem::replace(seen, reached) != reached);
        }
        self.applied.send_replace(revision);
    }
}

impl State {
    fn apply(&mut self, place: &str, object: Option<Arc<Object>>, revision: u64) {
        match object {
            Some(object) => {
                let previous = self.objects.insert(place.into(), object.clone());
                self.push(Change::new(place, revision, object, previous, false));
            }
            None => {
                if let Some(previous) = self.objects.remove(place) {
                    let last = Arc::new(previous.at_revision(revision));
                    self.push(Change::new(place, revision, last, Some(previous), true));
                }
            }
        }
    }
}
