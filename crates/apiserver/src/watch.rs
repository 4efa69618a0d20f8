//! Watches: each reads its collection's window at its own pace; a watcher that falls out of it is ended with 410.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::Response;
use rand::Rng;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::cache::Collection;
use crate::content::{self, Body};
use crate::object::{Change, EventType, Object, Selection, encode, frame};
use crate::read::narrowed;
use crate::request::{ApiRequest, Form, WatchOptions};
use crate::resource::Resource;
use crate::server::Inner;
use crate::status::{Failure, Result};

/// Changes taken from the window at once.
const BATCH: usize = 256;
/// Between bookmarks. As in Kubernetes: often enough that a client whose watch breaks is rarely too old.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts where the client does not say, in seconds; spread so that clients do not return together.
const LASTS: std::ops::Range<u64> = 1800..3600;

/// One client's watch.
struct Watcher {
    inner: Arc<Inner>,
    resource: Arc<Resource>,
    collection: Arc<Collection>,
    namespace: String,
    selection: Selection,
    form: Form,
    bookmarks: bool,
    /// Everything up to here was told.
    told: u64,
    changed: Receiver<u64>,
    /// Objects of the beginning that were not told yet; each is rendered when it is its turn, since all together may be
    /// large.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Lines that are sent next.
    ready: VecDeque<Bytes>,
    columns_sent: bool,
    bookmark_due: BoxFuture<'static, ()>,
    timeout: BoxFuture<'static, ()>,
    end: CancellationToken,
    ended: bool,
}

impl Inner {
    /// A watch that ends with `end` at the latest.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        r: &ApiRequest,
        options: &WatchOptions,
        end: CancellationToken,
    ) -> Result<Response<Body>> {
        let selection = narrowed(r, &options.list)?;
        let asked = options.list.resource_version.unwrap_or(0);
        if options.initial_events {
            self.reach(asked).await?;
        } else {
            self.fresh().await?;
        }
        let collection = self.collection(&r.resource)?;
        let changed = collection.subscribe();
        let lasts = options.timeout.unwrap_or_else(|| Duration::from_secs(rand::rng().random_range(LASTS)));
        let mut watcher = Watcher {
            inner: self.clone(),
            resource: r.resource.clone(),
            collection,
            namespace: r.namespace.clone(),
            selection,
            form: r.form,
            bookmarks: options.bookmarks,
            told: asked,
            changed,
            initial: Vec::new().into_iter(),
            ready: VecDeque::new(),
            columns_sent: false,
            bookmark_due: self.clock.sleep(BOOKMARK_EVERY),
            timeout: self.clock.sleep(lasts),
            end,
            ended: false,
        };
        // Without a revision, a watch begins with what there is.
        if options.initial_events || asked == 0 {
            watcher.tell_all(options.initial_events).await?;
        }
        let stream = futures::stream::unfold(watcher, |mut watcher| async move {
            watcher.next().await.map(|bytes| (Ok(bytes), watcher))
        });
        Ok(content::json(200, Body::Stream(stream.boxed())))
    }
}

impl Watcher {
    /// Tells every object there is as new.
    async fn tell_all(&mut self, then_say_so: bool) -> Result<()> {
        let applied = self.inner.cache.applied();
        let (resource, selection) = (&self.resource, &self.selection);
        let snapshot =
            self.inner.select_from(resource, &self.collection, &self.namespace, 0, selection).await?;
        self.told = snapshot.revision.max(applied);
        self.initial = snapshot.objects.into_iter();
        if then_say_so {
            let bookmark = self.bookmark(json!({"k8s.io/initial-events-end": "true"}));
            self.ready.push_back(bookmark);
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(object) = self.initial.next() {
                return Some(self.event_of(EventType::Added, &object));
            }
            self.initial = Vec::new().into_iter();
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            // Seen before the window is read, so that a change in between wakes at once.
            self.changed.borrow_and_update();
            let applied = self.inner.cache.applied();
            match self.collection.changes(self.told, BATCH) {
                Err(oldest) => self.end_with(&Failure::too_old(self.told, oldest)),
                Ok(changes) if changes.is_empty() => {
                    self.told = self.told.max(applied);
                    self.idle().await;
                }
                Ok(changes) => {
                    let last = changes.last().map(|change| change.revision);
                    match self.converted(changes).await {
                        Ok(changes) => changes.iter().for_each(|change| self.tell(change)),
                        Err(failure) => self.end_with(&failure),
                    }
                    self.told = last.unwrap_or(self.told);
                }
            }
        }
    }

    /// Waits for a change, or for what is due.
    async fn idle(&mut self) {
        tokio::select! {
            biased;
            () = self.end.cancelled() => self.ended = true,
            () = self.inner.cache.ended() => self.ended = true,
            changed = self.changed.changed() => self.ended = changed.is_err(),
            () = &mut self.timeout => {
                self.ended = true;
                if self.bookmarks {
                    let bookmark = self.bookmark(json!({}));
                    self.ready.push_back(bookmark);
                }
            }
            () = &mut self.bookmark_due => {
                self.bookmark_due = self.inner.clock.sleep(BOOKMARK_EVERY);
                if self.bookmarks {
                    let bookmark = self.bookmark(json!({}));
                    self.ready.push_back(bookmark);
                }
            }
        }
    }

    /// The changes with their objects in the version of the watch, without those in other Namespaces and of other names.
    async fn converted(&mut self, mut changes: Vec<Arc<Change>>) -> Result<Vec<Arc<Change>>> {
        changes.retain(|change| {
            (self.namespace.is_empty() || change.namespace() == self.namespace)
                && self.selection.may_mean(change.place())
        });
        if self.resource.has_one_form() {
            return Ok(changes);
        }
        // What was before matters to a selection only.
        let before = |change: &Change| change.previous.clone().filter(|_| !self.selection.is_everything());
        let objects =
            changes.iter().flat_map(|change| [Some(change.object.clone()), before(change)]).flatten();
        let mut shown = self.inner.present(&self.resource, objects.collect()).await?.into_iter();
        let convert = |change: &Arc<Change>| {
            let object = shown.next()?;
            let previous = match before(change) {
                Some(_) => shown.next(),
                None => change.previous.clone(),
            };
            Some(Arc::new(Change::new(change.place(), change.revision, object, previous, change.deleted)))
        };
        Ok(changes.iter().filter_map(convert).collect())
    }

    fn tell(&mut self, change: &Change) {
        let Some(event) = change.event(&self.selection) else { return };
        let bytes = if self.form == Form::Object {
            change.frame(event)
        } else {
            let shown = change.shown(event);
            self.event_of(event, &shown)
        };
        self.ready.push_back(bytes);
    }

    fn event_of(&mut self, event: EventType, object: &Object) -> Bytes {
        let with_columns = !std::mem::replace(&mut self.columns_sent, true);
        frame(event.name(), &self.inner.render(&self.resource, self.form, object, with_columns))
    }

    /// An object of which only the revision counts.
    fn bookmark(&self, annotations: serde_json::Value) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.told.to_string(), "creationTimestamp": null});
        if annotations.as_object().is_some_and(|a| !a.is_empty()) {
            metadata["annotations"] = annotations;
        }
        let object = match self.form {
            Form::Object => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [],
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}],
            }),
        };
        frame("BOOKMARK", &encode(&object))
    }

    fn end_with(&mut self, failure: &Failure) {
        self.ready.push_back(frame("ERROR", &encode(&failure.status())));
        self.ended = true;
    }
}
