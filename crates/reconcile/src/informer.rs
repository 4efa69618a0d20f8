//! Informers: a watch keeps a cache of the objects of a kind current; one per kind is shared by all readers of the process.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch as signal;
use tokio_util::sync::{CancellationToken, DropGuard};
use yado_types::key::ObjectKey;

use crate::change::Change;
use crate::decoded::Decoded;
use crate::queue::is_worth_a_warning;
use crate::{Index, Queue, Tasks};

/// A kind that can be watched: every type of `k8s-openapi` that has metadata.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind for K {}

type Feed<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// An informer: a cache of the objects of a kind, or of those that match a field selector, kept current by one watch.
pub struct Informer<K> {
    objects: RwLock<BTreeMap<ObjectKey, Arc<K>>>,
    /// Called for every change. Locked during an update, so that a feed that is added sees each object exactly once.
    feeds: Mutex<Vec<Feed<K>>>,
    progress: signal::Sender<Progress>,
    /// Counts the times that an object was left out because it could not be decoded.
    undecodable: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    synced: bool,
    /// Highest resource version that was received.
    revision: u64,
    /// Counts updates, so that each of them wakes waiting tasks.
    updates: u64,
}

impl<K: Kind> Informer<K> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::default(),
            feeds: Mutex::default(),
            progress: signal::Sender::new(Progress::default()),
            undecodable: AtomicU64::new(0),
        })
    }

    /// The cached object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.read().get(key).cloned()
    }

    /// All cached objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.read().values().cloned().collect()
    }

    /// All cached objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = ObjectKey::new(namespace, "");
        let objects = self.objects.read();
        let from_here = objects.range(start..);
        from_here.take_while(|(k, _)| k.namespace == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// Waits until the first list is complete, so that the cache has every object.
    pub fn synced(&self) -> impl Future<Output = ()> + Send + use<K> {
        let mut progress = self.progress.subscribe();
        async move {
            // This fails only after the informer was dropped, when nobody can read the cache any more.
            let _ = progress.wait_for(|p| p.synced).await;
        }
    }

    /// Waits until the change with the resource version `revision` has arrived, so that the next decision sees the caller's
    /// own write. Returns false if it has not after `timeout`. Deciding on an older state is then safe if the writes carry
    /// a resource version, but not if they create objects.
    pub fn seen(&self, revision: u64, timeout: Duration) -> impl Future<Output = bool> + Send + use<K> {
        let mut progress = self.progress.subscribe();
        async move {
            let arrived = progress.wait_for(|p| p.revision >= revision);
            matches!(tokio::time::timeout(timeout, arrived).await, Ok(Ok(_)))
        }
    }

    /// The highest resource version that has arrived.
    pub fn revision(&self) -> u64 {
        self.progress.borrow().revision
    }

    /// How many times an object was left out because it could not be decoded.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// Waits until `holds` is true for the object at `key`, which is `None` while it does not exist. Returns false if it is
    /// not after `timeout`.
    pub fn until<'a>(
        &'a self,
        key: &'a ObjectKey,
        timeout: Duration,
        holds: impl Fn(Option<&K>) -> bool + Send + 'a,
    ) -> BoxFuture<'a, bool> {
        let mut progress = self.progress.subscribe();
        let holding = async move {
            // The sender lives in self, so waiting for a change cannot fail.
            while !holds(self.get(key).as_deref()) {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        async move { tokio::time::timeout(timeout, holding).await.is_ok() }.boxed()
    }

    /// Calls `feed` for each cached object, as if it had been added, and then for every change, in order. It runs on the
    /// watch's task under a lock: it must be quick and must not block.
    pub fn feed(&self, feed: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut feeds = self.feeds.lock();
        for (key, object) in self.objects.read().iter() {
            feed(&Change { key: key.clone(), old: None, new: Some(object.clone()) });
        }
        feeds.push(Box::new(feed));
    }

    /// Adds the keys that `map` computes from each change to `queue`.
    pub fn feed_queue<Q, I>(
        &self,
        queue: &Arc<Queue<Q>>,
        map: impl Fn(&Change<K>) -> I + Send + Sync + 'static,
    ) where
        Q: Clone + Eq + Ord + Hash + Send + Sync + 'static,
        I: IntoIterator<Item = Q>,
    {
        // The feed outlives the queue's workers, where these end before the informer.
        let queue = Arc::downgrade(queue);
        self.feed(move |change| {
            if let Some(queue) = queue.upgrade() {
                map(change).into_iter().for_each(|key| queue.add(key));
            }
        });
    }

    /// Creates an index over the cached objects by the values that `of` computes. It is updated with the cache as long as
    /// somebody has it.
    pub fn index<I>(&self, of: impl Fn(&K) -> Vec<I> + Send + Sync + 'static) -> Arc<Index<I, K>>
    where
        I: Clone + Eq + Hash + Send + Sync + 'static,
    {
        let index = Arc::new(Index::default());
        let filled = Arc::downgrade(&index);
        self.feed(move |change| {
            if let Some(index) = filled.upgrade() {
                index.update(change, &of);
            }
        });
        index
    }

    fn update(&self, key: ObjectKey, new: Option<Arc<K>>, revision: u64) {
        let feeds = self.feeds.lock();
        let old = {
            let mut objects = self.objects.write();
            match &new {
                Some(object) => objects.insert(key.clone(), object.clone()),
                None => objects.remove(&key),
            }
        };
        let change = Change { key, old, new };
        feeds.iter().for_each(|feed| feed(&change));
        self.progress.send_modify(|p| {
            p.revision = p.revision.max(revision);
            p.updates += 1;
        });
    }

    /// Replaces the cache by a complete list, and reports the differences to feeds.
    fn replace(&self, listed: Vec<K>) {
        let listed: BTreeMap<_, _> =
            listed.into_iter().map(|o| (ObjectKey::of(o.meta()), Arc::new(o))).collect();
        let gone: Vec<_> = self.objects.read().keys().filter(|k| !listed.contains_key(k)).cloned().collect();
        gone.into_iter().for_each(|key| self.update(key, None, 0));
        let mut highest = 0;
        for (key, object) in listed {
            let revision = revision_of(object.meta().resource_version.as_deref());
            highest = highest.max(revision);
            let known =
                self.objects.read().get(&key).map(|o| revision_of(o.meta().resource_version.as_deref()));
            if known != Some(revision) || revision == 0 {
                // A list is ordered by key and not by resource version: its versions count only after all of it.
                self.update(key, Some(object), 0);
            }
        }
        self.progress.send_modify(|p| {
            p.synced = true;
            p.revision = p.revision.max(highest);
        });
    }

    async fn drive(self: Arc<Self>, api: Api<Decoded<K>>, config: watcher::Config) {
        let mut events = pin!(kube::runtime::watcher(api, config).default_backoff());
        let mut listed = Vec::new();
        let mut failures = 0;
        while let Some(event) = events.next().await {
            if !matches!(event, Err(_) | Ok(Event::Init)) {
                failures = 0;
            }
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(self.decoded(object)),
                Ok(Event::InitDone) => self.replace(std::mem::take(&mut listed)),
                Ok(Event::Apply(object)) => {
                    let revision = revision_of(object.meta().resource_version.as_deref());
                    match self.decoded(object) {
                        Some(object) => {
                            self.update(ObjectKey::of(object.meta()), Some(Arc::new(object)), revision);
                        }
                        None => self.reached(revision),
                    }
                }
                Ok(Event::Delete(object)) => {
                    let revision = revision_of(object.meta().resource_version.as_deref());
                    self.update(ObjectKey::of(object.meta()), None, revision);
                }
                Err(error) => {
                    failures += 1;
                    if is_worth_a_warning(failures) {
                        tracing::warn!(kind = %K::kind(&()), failures, %error, "a watch keeps failing");
                    } else {
                        tracing::debug!(kind = %K::kind(&()), %error, "the watch broke and starts again");
                    }
                }
            }
        }
    }

    /// The decoded object without its `managedFields`, which take several times the memory of the rest and which only the
    /// API server reads. An undecodable one is logged, and its last decodable version, if any, is kept.
    fn decoded(&self, object: Decoded<K>) -> Option<K> {
        match object {
            Decoded::Object(mut object) => {
                object.meta_mut().managed_fields = None;
                Some(object)
            }
            Decoded::Undecodable { metadata, error } => {
                let key = ObjectKey::of(&metadata);
                let count = self.undecodable.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::error!(
                    kind = %K::kind(&()), namespace = key.namespace, name = key.name, error, count,
                    "an object cannot be decoded and is left out: mend or delete it",
                );
                self.get(&key).map(|known| K::clone(&known))
            }
        }
    }

    /// Records that all changes up to `revision` have arrived.
    fn reached(&self, revision: u64) {
        self.progress.send_modify(|p| {
            p.revision = p.revision.max(revision);
            p.updates += 1;
        });
    }
}

/// The informer of one object. Its watch ends when this is dropped.
pub struct ObjectInformer<K> {
    key: ObjectKey,
    informer: Arc<Informer<K>>,
    _watch: DropGuard,
}

impl<K: Kind> ObjectInformer<K> {
    /// The object, if it exists.
    pub fn get(&self) -> Option<Arc<K>> {
        self.informer.get(&self.key)
    }

    /// Waits until it is known whether the object exists.
    pub fn synced(&self) -> impl Future<Output = ()> + Send + use<K> {
        self.informer.synced()
    }
}

/// Parses a resource version as a number; 0 if it is absent or not a number.
pub fn revision_of(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(|v| v.parse().ok()).unwrap_or_default()
}

/// The informers of one component. Those of whole kinds are shared by all components of the process.
///
/// A shared informer reads with the identity that the process has for this purpose, whichever component asks for it, so
/// that its rights are stated in one place. Everything else, which are the informers of selected objects and all writes,
/// uses the component's own client.
#[derive(Clone)]
pub struct Informers {
    /// The client of the shared informers.
    reader: Client,
    /// The client of the component.
    client: Client,
    /// Owner of the shared informers' watches.
    tasks: Tasks,
    /// Owner of the component's own watches.
    own: Tasks,
    shared: Arc<Mutex<HashMap<TypeId, Shared>>>,
}

/// A shared informer.
struct Shared {
    kind: String,
    progress: signal::Receiver<Progress>,
    /// An `Arc<Informer<K>>` of the kind.
    informer: Arc<dyn Any + Send + Sync>,
}

impl Informers {
    /// Creates a factory without informers. Shared informers read with `reader`, and `tasks` will own all watch tasks.
    pub fn new(reader: Client, tasks: Tasks) -> Self {
        Self { client: reader.clone(), reader, own: tasks.clone(), tasks, shared: Arc::default() }
    }

    /// The same shared informers for the component of another client.
    pub fn acting_as(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// The same, where `tasks` own the watches that are not shared, so that these end with the component.
    pub fn owned_by(&self, tasks: Tasks) -> Self {
        Self { own: tasks, ..self.clone() }
    }

    /// The component's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The owner of the watch tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The shared informer of all objects of a kind, in all namespaces. Not for kinds that few may read, such as Secrets:
    /// all components of the process see what it reads.
    pub fn all<K: Kind>(&self) -> Arc<Informer<K>> {
        let mut shared = self.shared.lock();
        let entry = shared.entry(TypeId::of::<K>()).or_insert_with(|| {
            let informer = Informer::<K>::new();
            let config = watcher::Config::default().streaming_lists();
            self.tasks.spawn("watch", informer.clone().drive(Api::all(self.reader.clone()), config));
            let (kind, progress) = (K::plural(&()).into_owned(), informer.progress.subscribe());
            Shared { kind, progress, informer }
        });
        // The key is K's type id, so the value has that type and the fallback is not reached.
        entry.informer.clone().downcast().unwrap_or_else(|_| Informer::new())
    }

    /// The plurals of the kinds whose shared informers have not synced yet.
    pub fn unsynced(&self) -> Vec<String> {
        let shared = self.shared.lock();
        let unsynced = shared.values().filter(|shared| !shared.progress.borrow().synced);
        unsynced.map(|shared| shared.kind.clone()).collect()
    }

    /// A new informer of the objects of a kind that match a field selector such as `spec.nodeName=a`. It reads with the
    /// component's own client.
    pub fn selected<K: Kind>(&self, fields: &str) -> Arc<Informer<K>> {
        let informer = Informer::<K>::new();
        let config = watcher::Config::default().streaming_lists().fields(fields);
        self.own.spawn("watch", informer.clone().drive(Api::all(self.client.clone()), config));
        informer
    }

    /// A new informer of one object, for kinds of which a reader needs a few among many. It reads with the component's own
    /// client. `changed` is called for every change after the first look, in the way of [`Informer::feed`].
    pub fn object<K>(
        &self,
        key: &ObjectKey,
        changed: impl Fn(&Change<K>) + Send + Sync + 'static,
    ) -> ObjectInformer<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let informer = Informer::<K>::new();
        let progress = informer.progress.subscribe();
        informer.feed(move |change| {
            if progress.borrow().synced {
                changed(change);
            }
        });
        let api = Api::namespaced(self.client.clone(), &key.namespace);
        let config =
            watcher::Config::default().streaming_lists().fields(&format!("metadata.name={}", key.name));
        let (watch, stop) = (informer.clone().drive(api, config), CancellationToken::new());
        let _watch = stop.clone().drop_guard();
        self.own.spawn("watch", async move {
            stop.run_until_cancelled(watch).await;
        });
        ObjectInformer { key: key.clone(), informer, _watch }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(name: &str, revision: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some("n".into()),
            name: Some(name.into()),
            resource_version: Some(revision.into()),
            labels: Some([("app".to_owned(), name[..1].to_owned())].into()),
            ..Default::default()
        };
        ConfigMap { metadata, ..Default::default() }
    }

    #[test]
    fn undecodable_objects_are_counted_and_their_last_state_is_kept() {
        let informer = Informer::<ConfigMap>::new();
        informer.replace(vec![object("a1", "1")]);
        for (name, known) in [("a1", true), ("b1", false)] {
            let metadata = Box::new(object(name, "2").metadata);
            let kept = informer.decoded(Decoded::Undecodable { metadata, error: "odd".into() });
            assert_eq!(kept.is_some(), known, "{name}");
        }
        assert_eq!(informer.undecodable(), 2);
    }

    #[test]
    fn what_feeds_nobody_any_more_is_left_alone() {
        let informer = Informer::<ConfigMap>::new();
        let queue = Queue::<ObjectKey>::new(yado_types::clock::SystemClock::shared());
        informer.feed_queue(&queue, |change| [change.key.clone()]);
        let index = informer.index(|config_map| vec![config_map.metadata.name.clone()]);
        let (queue_left, index_left) = (Arc::downgrade(&queue), Arc::downgrade(&index));
        drop((queue, index));
        informer.replace(vec![object("a1", "1")]);
        assert!(queue_left.upgrade().is_none() && index_left.upgrade().is_none());
    }

    #[tokio::test]
    async fn a_relist_reports_what_is_new_changed_and_gone_and_nothing_else() {
        let informer = Informer::<ConfigMap>::new();
        informer.replace(vec![object("a1", "1"), object("a2", "2")]);
        let by_app = informer.index(|c| c.metadata.labels.iter().flatten().map(|(_, v)| v.clone()).collect());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        informer.feed(move |c| sink.lock().push((c.key.name.clone(), c.old.is_some(), c.new.is_some())));
        assert_eq!(
            std::mem::take(&mut *seen.lock()),
            [("a1".into(), false, true), ("a2".into(), false, true)]
        );
        informer.replace(vec![object("a1", "1"), object("b1", "5")]);
        assert_eq!(*seen.lock(), [("a2".into(), true, false), ("b1".into(), false, true)]);
        assert_eq!(by_app.get(&"a".to_owned()).len(), 1);
        assert_eq!(by_app.get(&"b".to_owned()).len(), 1);
        informer.update(ObjectKey::new("n", "b1"), None, 6);
        assert!(by_app.get(&"b".to_owned()).is_empty());
        informer.seen(6, Duration::from_secs(5)).await;
        assert!(informer.until(&ObjectKey::new("n", "b1"), Duration::from_secs(5), |o| o.is_none()).await);
        assert_eq!(informer.in_namespace("n").len(), 1);
        assert!(informer.in_namespace("m").is_empty());
    }
}
