//! The event recorder: writes Kubernetes Events, which `kubectl describe` and `kubectl get events` show.
//!
//! ```text
//! event() --> Aggregator --dirty keys--> writer task --create or patch--> API server
//! ```
//!
//! Recording neither waits nor fails. Repetitions are combined into one Event with a count; events of one object above a
//! rate limit are dropped, as are those that the API server rejects or that cannot be written after several attempts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use parking_lot::Mutex;
use tokio::sync::Notify;
use yado_types::clock::Clock;

use crate::Tasks;

/// Maximum number of Events whose repetitions are counted; the value of Kubernetes' recorder.
const MAX_REMEMBERED: usize = 4096;
/// Token bucket of one object: maximum number of events in a burst; one more is allowed per [`REFILL`]. Kubernetes' values.
const BURST: f64 = 25.0;
/// See [`BURST`].
const REFILL: Duration = Duration::from_secs(300);
/// Number of events of one object and reason with different messages above which further ones are combined into one.
const MAX_SIMILAR: usize = 10;
/// Maximum time between similar events that are combined.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Time without a repetition after which an Event is forgotten, so that a later repetition creates a new Event. It is
/// longer than the maximum restart delay of a container (5 minutes), whose Events must be counted.
const FORGET_AFTER: Duration = SIMILAR_WITHIN;
/// Attempts to write an Event. Events are best effort: objects' statuses carry the same information more reliably.
const TRIES: u32 = 5;
/// Retry delay after the first failed attempt; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Maximum length of an Event's message in bytes; Kubernetes' limit. Longer messages are truncated.
const MAX_MESSAGE: usize = 1024;

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// An expected event.
    Normal,
    /// An event that may need a person's attention.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events with one component as their source. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    source: EventSource,
    clock: Arc<dyn Clock>,
    aggregator: Mutex<Aggregator>,
    wake: Notify,
}

impl Recorder {
    /// Creates a recorder for `component` (`kubelet`, `deployment-controller`) on the node `host`, which is empty for
    /// components that are not part of a node. `tasks` owns the task that writes the Events.
    pub fn new(client: Client, component: &str, host: &str, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let host = (!host.is_empty()).then(|| host.to_owned());
        let source = EventSource { component: Some(component.to_owned()), host };
        let (aggregator, wake) = (Mutex::default(), Notify::new());
        let inner = Arc::new(Inner { client, source, clock, aggregator, wake });
        let writer = inner.clone();
        tasks.spawn("events", async move { writer.write_all().await });
        Self { inner }
    }

    /// Records an event about `object`, whose reference [`kube::Resource::object_ref`] gives. `reason` is an identifier in
    /// upper camel case for programs, `message` a sentence for people, which must not contain secrets.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE - 3).rev().find(|i| message.is_char_boundary(*i)).unwrap_or_default();
            message.truncate(end);
            message.push_str("...");
        }
        let now = self.inner.clock.now();
        self.inner.aggregator.lock().observe(object, kind, reason, message, now);
        self.inner.wake.notify_one();
    }
}

impl Inner {
    async fn write_all(&self) {
        loop {
            let wake = self.wake.notified();
            let due = self.aggregator.lock().take();
            match due {
                Some((key, remembered)) => self.write(key, remembered).await,
                None if self.aggregator.lock().is_empty() => wake.await,
                None => tokio::select! {
                    () = wake => {}
                    () = self.clock.sleep(FORGET_AFTER) => self.aggregator.lock().forget_old(self.clock.now()),
                },
            }
        }
    }

    async fn write(&self, key: Key, mut remembered: Remembered) {
        let mut delay = RETRY_FIRST;
        for attempt in 1..=TRIES {
            let error = match self.write_once(&key, &remembered).await {
                Ok(()) => {
                    self.aggregator.lock().written(&key);
                    return;
                }
                Err(Error::Api(status)) if status.code == 404 && remembered.written => {
                    // The Event has expired on the server: create a new one with a count of 1.
                    remembered.written = false;
                    remembered.count = 1;
                    remembered.first = remembered.last;
                    self.aggregator.lock().forget_written(&key);
                    continue;
                }
                Err(error) => error,
            };
            let refused = matches!(&error, Error::Api(status) if status.code < 500 && status.code != 429);
            if refused || attempt == TRIES {
                tracing::debug!(reason = key.reason, object = ?key.object.name, %error, "an event was dropped");
                return;
            }
            self.clock.sleep(delay).await;
            delay *= 2;
        }
    }

    async fn write_once(&self, key: &Key, remembered: &Remembered) -> Result<(), Error> {
        let namespace = key.object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if remembered.written {
            let patch = serde_json::json!({
                "count": remembered.count,
                "lastTimestamp": Time(remembered.last),
                "message": remembered.message,
            });
            api.patch(&remembered.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        } else {
            api.create(&PostParams::default(), &self.object(key, remembered, namespace)).await?;
        }
        Ok(())
    }

    fn object(&self, key: &Key, remembered: &Remembered, namespace: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(remembered.name.clone()),
                ..Default::default()
            },
            involved_object: key.object.clone(),
            type_: Some(key.kind.as_str().to_owned()),
            reason: Some(key.reason.clone()),
            message: Some(remembered.message.clone()),
            count: Some(remembered.count),
            first_timestamp: Some(Time(remembered.first)),
            last_timestamp: Some(Time(remembered.last)),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Default::default()
        }
    }
}

/// Identity of an Event: events with equal keys are counted as repetitions. `text` is empty for an Event that combines
/// similar ones.
#[derive(Clone, Debug)]
struct Key {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    text: String,
}

impl Key {
    /// The parts that are compared. An object's resource version is not among them.
    fn parts(&self) -> (Identity, EventType, &str, &str) {
        (identity(&self.object), self.kind, &self.reason, &self.text)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

type Identity = [String; 5];

fn identity(object: &ObjectReference) -> Identity {
    [&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path]
        .map(|part| part.clone().unwrap_or_default())
}

#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    message: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
    /// Whether the Event exists on the API server.
    written: bool,
    /// Whether the Event is queued to be written.
    dirty: bool,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    texts: HashSet<String>,
    last: Timestamp,
}

/// Name of an Event: `OBJECT.NUMBER` with 16 hexadecimal digits; the object's name is truncated so that the whole has at
/// most 253 characters.
fn event_name(object: &str, unique: u64) -> String {
    const MAX_NAME: usize = 253;
    let unique = format!(".{unique:016x}");
    // Names are ASCII. What is left must not end in what cannot stand before the dot.
    let cut = object.get(..MAX_NAME - unique.len()).map(|cut| cut.trim_end_matches(['.', '-']));
    format!("{}{unique}", cut.unwrap_or(object))
}

/// The pure core: combines recorded events into Events to write.
#[derive(Default)]
struct Aggregator {
    remembered: HashMap<Key, Remembered>,
    dirty: VecDeque<Key>,
    buckets: HashMap<Identity, Bucket>,
    similar: HashMap<(Identity, EventType, String), Similar>,
    /// Number in the last Event's name: the time in nanoseconds when it was recorded, or one more than the last number.
    unique: u64,
}

impl Aggregator {
    fn observe(
        &mut self,
        object: &ObjectReference,
        kind: EventType,
        reason: &str,
        mut message: String,
        now: Timestamp,
    ) {
        if !self.take_token(identity(object), now) {
            return;
        }
        let mut text = message.clone();
        if self.is_one_of_many(object, kind, reason, &message, now) {
            message = format!("(combined from similar events): {message}");
            text.clear();
        }
        let key = Key { object: object.clone(), kind, reason: reason.to_owned(), text };
        if !self.remembered.contains_key(&key) && !self.make_room() {
            return;
        }
        self.unique = (self.unique + 1).max(now.as_nanosecond() as u64);
        let unique = self.unique;
        let entry = self.remembered.entry(key.clone()).or_insert_with(|| Remembered {
            name: event_name(object.name.as_deref().unwrap_or_default(), unique),
            message: String::new(),
            count: 0,
            first: now,
            last: now,
            written: false,
            dirty: false,
        });
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        entry.message = message;
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push_back(key);
        }
    }

    /// Takes the next Event to write out of the queue, in its current state.
    fn take(&mut self) -> Option<(Key, Remembered)> {
        let key = self.dirty.pop_front()?;
        let entry = self.remembered.get_mut(&key)?;
        entry.dirty = false;
        let entry = entry.clone();
        Some((key, entry))
    }

    fn written(&mut self, key: &Key) {
        if let Some(entry) = self.remembered.get_mut(key) {
            entry.written = true;
        }
    }

    fn forget_written(&mut self, key: &Key) {
        if let Some(entry) = self.remembered.get_mut(key) {
            entry.written = false;
            entry.count = 1;
            entry.first = entry.last;
        }
    }

    fn take_token(&mut self, object: Identity, now: Timestamp) -> bool {
        if self.buckets.len() >= MAX_REMEMBERED {
            // A full bucket is as good as none.
            self.buckets.retain(|_, b| b.tokens + refilled(b.at, now) < BURST);
            if self.buckets.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, at: now });
        bucket.tokens = (bucket.tokens + refilled(bucket.at, now)).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn is_one_of_many(
        &mut self,
        object: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> bool {
        let recent = |s: &Similar| now.duration_since(s.last).unsigned_abs() <= SIMILAR_WITHIN;
        if self.similar.len() >= MAX_REMEMBERED {
            self.similar.retain(|_, s| recent(s));
            if self.similar.len() >= MAX_REMEMBERED {
                self.similar.clear();
            }
        }
        let key = (identity(object), kind, reason.to_owned());
        let group = self.similar.entry(key).or_insert_with(|| Similar { texts: HashSet::new(), last: now });
        if !recent(group) {
            group.texts.clear();
        }
        group.last = now;
        if group.texts.len() < MAX_SIMILAR {
            group.texts.insert(message.to_owned());
            return group.texts.len() >= MAX_SIMILAR;
        }
        !group.texts.contains(message)
    }

    fn is_empty(&self) -> bool {
        self.remembered.is_empty() && self.buckets.is_empty() && self.similar.is_empty()
    }

    /// Forgets what did not happen for [`FORGET_AFTER`], and gives its memory back.
    fn forget_old(&mut self, now: Timestamp) {
        let recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < FORGET_AFTER;
        self.remembered.retain(|_, r| r.dirty || recent(r.last));
        // A full bucket is as good as none.
        self.buckets.retain(|_, b| b.tokens + refilled(b.at, now) < BURST);
        self.similar.retain(|_, s| recent(s.last));
        self.remembered.shrink_to_fit();
        self.buckets.shrink_to_fit();
        self.similar.shrink_to_fit();
    }

    /// Forgets the older half when there are too many; false if all of them still wait to be written.
    fn make_room(&mut self) -> bool {
        if self.remembered.len() < MAX_REMEMBERED {
            return true;
        }
        let mut ages: Vec<_> = self.remembered.values().filter(|r| !r.dirty).map(|r| r.last).collect();
        if ages.is_empty() {
            return false;
        }
        let middle = ages.len() / 2;
        let median = *ages.select_nth_unstable(middle).1;
        self.remembered.retain(|_, r| r.dirty || r.last > median);
        true
    }
}

fn refilled(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).unsigned_abs().as_secs_f64() / REFILL.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectReference {
        ObjectReference { kind: Some("Pod".into()), name: Some(name.into()), ..Default::default() }
    }

    /// Observes `(object, message, second)` and gives what would be written: `message xcount`.
    fn check(observed: &[(&str, &str, i64)], expect: &[&str]) {
        let mut aggregator = Aggregator::default();
        for (name, message, second) in observed {
            let now = Timestamp::from_second(*second).expect("a second of our era");
            aggregator.observe(&object(name), EventType::Normal, "Test", (*message).into(), now);
        }
        let writes: Vec<_> = std::iter::from_fn(|| aggregator.take())
            .map(|(k, r)| format!("{} {} x{}", k.object.name.unwrap_or_default(), r.message, r.count))
            .collect();
        assert_eq!(writes, expect);
    }

    #[test]
    fn repetitions_are_counted_and_other_texts_are_other_events() {
        check(&[("a", "m", 0), ("a", "m", 1), ("a", "n", 2), ("b", "m", 2)], &["a m x2", "a n x1", "b m x1"]);
    }

    #[test]
    fn many_similar_events_are_combined() {
        let texts: Vec<_> = (0..12).map(|i| format!("m{i}")).collect();
        let observed: Vec<_> = texts.iter().map(|t| ("a", t.as_str(), 0)).collect();
        let mut expect: Vec<_> = (0..9).map(|i| format!("a m{i} x1")).collect();
        expect.push("a (combined from similar events): m11 x3".into());
        check(&observed, &expect.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn one_object_cannot_flood_and_recovers_with_time() {
        let mut observed = vec![("a", "m", 0); 40];
        observed.push(("b", "m", 0));
        observed.push(("a", "m", 300));
        observed.push(("a", "m", 301));
        check(&observed, &["a m x26", "b m x1"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut aggregator = Aggregator::default();
        for i in 0..3 * MAX_REMEMBERED as i64 {
            let now = Timestamp::from_second(i * 10_000).expect("a second of our era");
            let target = object(&i.to_string());
            aggregator.observe(&target, EventType::Normal, "Test", "m".into(), now);
            assert!(aggregator.take().is_some());
        }
        assert!(aggregator.remembered.len() <= MAX_REMEMBERED);
        assert!(aggregator.buckets.len() <= MAX_REMEMBERED);
        assert!(aggregator.similar.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn what_does_not_happen_again_is_forgotten() {
        let mut aggregator = Aggregator::default();
        let at = |second| Timestamp::from_second(second).expect("a second of our era");
        for (name, second) in [("a", 0), ("b", 500)] {
            aggregator.observe(&object(name), EventType::Normal, "Test", "m".into(), at(second));
        }
        aggregator.forget_old(at(2000));
        assert_eq!(aggregator.remembered.len(), 2, "what waits to be written stays");
        while let Some((key, _)) = aggregator.take() {
            aggregator.written(&key);
        }
        aggregator.forget_old(at(700));
        assert_eq!(
            aggregator.remembered.keys().map(|k| k.object.name.as_deref()).collect::<Vec<_>>(),
            [Some("b")]
        );
        aggregator.forget_old(at(2000));
        assert!(aggregator.is_empty());
    }

    #[test]
    fn names_stay_within_the_longest_name() {
        assert_eq!(event_name("web", 1), "web.0000000000000001");
        for name in ["a".repeat(253), format!("{}.{}", "a".repeat(235), "b".repeat(17))] {
            let made = event_name(&name, u64::MAX);
            assert_eq!(yado_types::names::dns_subdomain(&made), Ok(()), "{made}");
        }
    }

    #[test]
    fn names_are_unique_within_one_moment() {
        let mut aggregator = Aggregator::default();
        for message in ["a", "b", "c"] {
            aggregator.observe(
                &object("p"),
                EventType::Warning,
                "Test",
                message.into(),
                Timestamp::UNIX_EPOCH,
            );
        }
        let names: HashSet<_> = std::iter::from_fn(|| aggregator.take()).map(|(_, r)| r.name).collect();
        assert_eq!(names.len(), 3);
    }
}
