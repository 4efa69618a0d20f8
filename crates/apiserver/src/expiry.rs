//! Expiry: Events and the history of changes are kept for a limited time and in a limited number, so that an idle
//! server returns to the memory of what its objects need.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::object::{Object, meta};
use crate::request::DeleteOptions;
use crate::resource::{self, Resource};
use crate::server::Inner;
use crate::write::context::{Operation, WriteContext};

/// How often Events are checked for expiry.
const EVENTS_EVERY: Duration = Duration::from_secs(60);
/// Events in all Namespaces, beyond which the oldest are deleted before their time. An Event takes about 1.6 KiB of
/// memory, so all of them take 5 MiB; a Pod's life makes about five.
const MAX_EVENTS: usize = 3072;
/// How long changes stay available to watches that start at an older revision. As long as Kubernetes keeps etcd's
/// history: `--etcd-compaction-interval` is 5 minutes.
const HISTORY: Duration = Duration::from_secs(300);
/// How many times within [`HISTORY`] old changes are dropped: they live at most a tenth longer than it.
const MARKS: usize = 10;

/// Deletes Events that were not written for [`Config::event_ttl`](crate::server::Config::event_ttl), and the oldest
/// beyond [`MAX_EVENTS`]. Ends with the server.
pub(crate) async fn expire_events(server: Arc<Inner>) {
    let Some(events) = resource::find("", "v1", "events") else { return };
    let mut times = Times::default();
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = server.clock.sleep(EVENTS_EVERY) => {}
        }
        let Ok(collection) = server.collection(events) else { return };
        let known = collection.list("", None, 0, |_| true).objects;
        let oldest = server.clock.now() - server.config.event_ttl;
        for event in times.expired(known, oldest, MAX_EVENTS) {
            delete_event(&server, events, &event).await;
        }
    }
}

/// When each known Event was last written, by the revision of that write. One table: an allocation with each Event would
/// outlive its neighbours, and keep the memory around it.
#[derive(Default)]
struct Times(HashMap<u64, Option<Timestamp>>);

impl Times {
    /// The Events that were last written before `oldest`, and of the others the oldest beyond `most`.
    fn expired(&mut self, events: Vec<Arc<Object>>, oldest: Timestamp, most: usize) -> Vec<Arc<Object>> {
        let time = |event: &Arc<Object>| {
            let known = self.0.get(&event.revision).copied();
            (event.revision, known.unwrap_or_else(|| last_written(&event.value())))
        };
        self.0 = events.iter().map(time).collect();
        let written = |event: &Object| self.0.get(&event.revision).copied().flatten();
        let mut events = events;
        // One without a readable time was written by hand: its revision says how old it is.
        events.sort_by_key(|event| (written(event).unwrap_or(oldest), event.revision));
        let beyond = events.len().saturating_sub(most);
        let is_expired = |(at, event): &(usize, Arc<Object>)| {
            *at < beyond || written(event).is_some_and(|written| written < oldest)
        };
        events.into_iter().enumerate().filter(is_expired).map(|(_, event)| event).collect()
    }
}

async fn delete_event(server: &Inner, events: &Resource, event: &Object) {
    let only_this =
        DeleteOptions { resource_version: Some(event.revision.to_string()), ..DeleteOptions::default() };
    let value = event.value();
    let (namespace, name) = (meta(&value, "namespace"), meta(&value, "name"));
    let ctx = WriteContext::internal(server, events, Operation::Delete);
    match server.delete_object(&ctx, namespace, name, &only_this).await {
        Ok(_) => {}
        // It was written or deleted meanwhile.
        Err(failure) if matches!(failure.code, 404 | 409) => {}
        Err(failure) => tracing::warn!(%failure, namespace, name, "an old Event could not be deleted"),
    }
}

/// The time at which an Event was last written, if it has one.
fn last_written(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["lastTimestamp"],
        &event["series"]["lastObservedTime"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.into_iter().filter_map(Value::as_str).filter_map(|t| t.parse().ok()).max()
}

/// Drops changes older than [`HISTORY`] from the windows of all collections. Ends with the server.
pub(crate) async fn forget_history(server: Arc<Inner>) {
    let mut marks = VecDeque::with_capacity(MARKS);
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = server.clock.sleep(HISTORY / MARKS as u32) => {}
        }
        if marks.len() == MARKS
            && let Some(before) = marks.pop_front()
        {
            server.cache.forget_changes(before);
        }
        marks.push_back(server.cache.applied());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_expire_by_age_and_the_oldest_by_number() {
        let event = |(revision, minute): (u64, Option<u32>)| {
            let time = minute.map(|m| format!("2026-01-01T00:{m:02}:00Z"));
            let value = json!({"apiVersion": "v1", "kind": "Event", "metadata": {}, "lastTimestamp": time});
            Arc::new(Object::unwritten(value, revision))
        };
        let oldest: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let events = [(7, Some(30)), (2, Some(9)), (3, None), (4, Some(10)), (5, Some(20)), (6, Some(1))];
        for (most, expect) in [(9, vec![6, 2]), (4, vec![6, 2]), (3, vec![6, 2, 3]), (1, vec![6, 2, 3, 4, 5])]
        {
            let events = events.into_iter().map(event).collect();
            let found = Times::default().expired(events, oldest, most);
            assert_eq!(found.iter().map(|e| e.revision).collect::<Vec<_>>(), expect, "at most {most}");
        }
    }
}
