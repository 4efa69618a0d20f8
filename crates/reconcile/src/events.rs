//! The event recorder: writes Kubernetes Events, which `kubectl describe` and `kubectl get events` show.
//!
//! ```text
//! event() --> Aggregator --dirty keys--> writer task --create or patch--> API server
//! ```
//!
//! Recording neither waits nor fails. Repetitions are combined into one Event with a count; events of one object above a
//! rate limit are dropped, as are those that the API server rejects or that cannot be written after several attempts.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
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
/// Interval of the search for Events to forget.
const FORGET_EVERY: Duration = Duration::from_secs(60);
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
        let mut cleaned = self.clock.monotonic();
        loop {
            let wake = self.wake.notified();
            let due = self.aggregator.lock().take();
            match due {
                Some((key, write)) => self.write(key, write).await,
                None if self.aggregator.lock().is_empty() => wake.await,
                None => {
                    let since = self.clock.monotonic().saturating_sub(cleaned);
                    tokio::select! {
                        () = wake => {}
                        () = self.clock.sleep(FORGET_EVERY.saturating_sub(since)) => {
                            self.aggregator.lock().forget_old(self.clock.now());
                            cleaned = self.clock.monotonic();
                        }
                    }
                }
            }
        }
    }

    async fn write(&self, key: Fingerprint, mut write: Write) {
        let mut delay = RETRY_FIRST;
        for attempt in 1..=TRIES {
            let error = match self.write_once(&write).await {
                Ok(()) => {
                    self.aggregator.lock().written(key);
                    return;
                }
                Err(Error::Api(status)) if status.code == 404 && write.exists => {
                    // The Event has expired on the server: create a new one with a count of 1.
                    write.exists = false;
                    write.count = 1;
                    write.first = write.last;
                    self.aggregator.lock().forget_written(key);
                    continue;
                }
                Err(error) => error,
            };
            let refused = matches!(&error, Error::Api(status) if status.code < 500 && status.code != 429);
            if refused || attempt == TRIES {
                let Content { object, reason, .. } = &*write.content;
                tracing::debug!(reason, object = ?object.name, %error, "an event was dropped");
                return;
            }
            self.clock.sleep(delay).await;
            delay *= 2;
        }
    }

    async fn write_once(&self, write: &Write) -> Result<(), Error> {
        let object = &write.content.object;
        let namespace = object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if write.exists {
            let patch = serde_json::json!({
                "count": write.count,
                "lastTimestamp": Time(write.last),
                "message": write.content.message,
            });
            api.patch(&write.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        } else {
            api.create(&PostParams::default(), &self.object(write, namespace)).await?;
        }
        Ok(())
    }

    fn object(&self, write: &Write, namespace: &str) -> Event {
        let Content { object, kind, reason, message } = &*write.content;
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(write.name()),
                ..Default::default()
            },
            involved_object: object.clone(),
            type_: Some(kind.as_str().to_owned()),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            count: Some(write.count),
            first_timestamp: Some(Time(write.first)),
            last_timestamp: Some(Time(write.last)),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Default::default()
        }
    }
}

/// A hash that stands for what it was computed from, which takes ten times the memory. Of [`MAX_REMEMBERED`] Events, two
/// have the same hash with a probability of 1 in 2^40; they would be counted as one.
type Fingerprint = u64;

/// The parts of an object's reference that identify it. Its resource version is not among them.
fn identity(object: &ObjectReference) -> [Option<&str>; 5] {
    [&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path].map(Option::as_deref)
}

/// What an Event says.
#[derive(Clone, Debug)]
struct Content {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// An Event in the state in which it is to be written.
#[derive(Clone, Debug)]
struct Write {
    content: Box<Content>,
    unique: u64,
    count: i32,
    first: Timestamp,
    last: Timestamp,
    /// Whether the Event exists on the API server.
    exists: bool,
}

impl Write {
    fn name(&self) -> String {
        event_name(self.content.object.name.as_deref().unwrap_or_default(), self.unique)
    }
}

/// An Event whose repetitions are counted. A repetition brings the content again, so it is kept only until it is written.
#[derive(Debug)]
struct Remembered {
    /// The number in the Event's name.
    unique: u64,
    count: i32,
    first: Timestamp,
    last: Timestamp,
    /// Whether the Event exists on the API server.
    written: bool,
    /// What is queued to be written.
    unwritten: Option<Box<Content>>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    texts: Texts,
    last: Timestamp,
}

/// Different messages. The first lies in place: most groups have no second one, and an allocation for each would keep the
/// memory around it.
#[derive(Default)]
struct Texts {
    first: Option<Fingerprint>,
    others: Vec<Fingerprint>,
}

impl Texts {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn contains(&self, text: Fingerprint) -> bool {
        self.first == Some(text) || self.others.contains(&text)
    }

    fn push(&mut self, text: Fingerprint) {
        match self.first {
            None => self.first = Some(text),
            Some(_) => self.others.push(text),
        }
    }
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
    hasher: RandomState,
    /// By object, type, reason and message; without the message for an Event that combines similar ones.
    remembered: HashMap<Fingerprint, Remembered>,
    dirty: VecDeque<Fingerprint>,
    /// By object.
    buckets: HashMap<Fingerprint, Bucket>,
    /// By object, type and reason.
    similar: HashMap<Fingerprint, Similar>,
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
        let identity = identity(object);
        if !self.take_token(self.hasher.hash_one(identity), now) {
            return;
        }
        let group = self.hasher.hash_one((identity, kind, reason));
        let text = self.hasher.hash_one(&message);
        let key = if self.is_one_of_many(group, text, now) {
            message = format!("(combined from similar events): {message}");
            group
        } else {
            self.hasher.hash_one((group, text))
        };
        if !self.remembered.contains_key(&key) && !self.make_room() {
            return;
        }
        self.unique = (self.unique + 1).max(now.as_nanosecond() as u64);
        let new = Remembered {
            unique: self.unique,
            count: 0,
            first: now,
            last: now,
            written: false,
            unwritten: None,
        };
        let entry = self.remembered.entry(key).or_insert(new);
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        let content = Content { object: object.clone(), kind, reason: reason.to_owned(), message };
        if entry.unwritten.replace(Box::new(content)).is_none() {
            self.dirty.push_back(key);
        }
    }

    /// Takes the next Event to write out of the queue, in its current state.
    fn take(&mut self) -> Option<(Fingerprint, Write)> {
        let key = self.dirty.pop_front()?;
        let entry = self.remembered.get_mut(&key)?;
        let content = entry.unwritten.take()?;
        let Remembered { unique, count, first, last, written: exists, .. } = *entry;
        Some((key, Write { content, unique, count, first, last, exists }))
    }

    fn written(&mut self, key: Fingerprint) {
        if let Some(entry) = self.remembered.get_mut(&key) {
            entry.written = true;
        }
    }

    fn forget_written(&mut self, key: Fingerprint) {
        if let Some(entry) = self.remembered.get_mut(&key) {
            entry.written = false;
            entry.count = 1;
            entry.first = entry.last;
        }
    }

    fn take_token(&mut self, object: Fingerprint, now: Timestamp) -> bool {
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

    /// Whether the message `text` is one of so many different ones in its `group` that they are combined.
    fn is_one_of_many(&mut self, group: Fingerprint, text: Fingerprint, now: Timestamp) -> bool {
        let recent = |s: &Similar| now.duration_since(s.last).unsigned_abs() <= SIMILAR_WITHIN;
        if self.similar.len() >= MAX_REMEMBERED {
            self.similar.retain(|_, s| recent(s));
            if self.similar.len() >= MAX_REMEMBERED {
                self.similar.clear();
            }
        }
        let group =
            self.similar.entry(group).or_insert_with(|| Similar { texts: Texts::default(), last: now });
        if !recent(group) {
            group.texts = Texts::default();
        }
        group.last = now;
        let known = group.texts.contains(text);
        if group.texts.len() >= MAX_SIMILAR {
            return !known;
        }
        if !known {
            group.texts.push(text);
        }
        group.texts.len() >= MAX_SIMILAR
    }

    fn is_empty(&self) -> bool {
        self.remembered.is_empty() && self.buckets.is_empty() && self.similar.is_empty()
    }

    /// Forgets what did not happen for [`FORGET_AFTER`], and gives its memory back.
    fn forget_old(&mut self, now: Timestamp) {
        let recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < FORGET_AFTER;
        self.remembered.retain(|_, r| r.unwritten.is_some() || recent(r.last));
        // A full bucket is as good as none.
        self.buckets.retain(|_, b| b.tokens + refilled(b.at, now) < BURST);
        self.similar.retain(|_, s| recent(s.last));
        self.remembered.shrink_to_fit();
        self.dirty.shrink_to_fit();
        self.buckets.shrink_to_fit();
        self.similar.shrink_to_fit();
    }

    /// Forgets the older half when there are too many; false if all of them still wait to be written.
    fn make_room(&mut self) -> bool {
        if self.remembered.len() < MAX_REMEMBERED {
            return true;
        }
        let mut ages: Vec<_> =
            self.remembered.values().filter(|r| r.unwritten.is_none()).map(|r| r.last).collect();
        if ages.is_empty() {
            return false;
        }
        let middle = ages.len() / 2;
        let median = *ages.select_nth_unstable(middle).1;
        self.remembered.retain(|_, r| r.unwritten.is_some() || r.last > median);
        true
    }
}

fn refilled(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).unsigned_abs().as_secs_f64() / REFILL.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
            .map(|(_, Write { content, count, .. })| {
                format!("{} {} x{count}", content.object.name.unwrap_or_default(), content.message)
            })
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
            aggregator.written(key);
        }
        aggregator.forget_old(at(700));
        assert_eq!(aggregator.remembered.values().map(|r| r.first).collect::<Vec<_>>(), [at(500)]);
        aggregator.forget_old(at(2000));
        assert!(aggregator.is_empty());
    }

    /// A Pod's Events are remembered for ten minutes; thousands of Pods may come and go in that time.
    #[test]
    fn what_is_remembered_of_a_written_event_is_small() {
        let mut aggregator = Aggregator::default();
        aggregator.observe(
            &object("a"),
            EventType::Normal,
            "Test",
            "m".repeat(MAX_MESSAGE),
            Timestamp::UNIX_EPOCH,
        );
        let (key, _) = aggregator.take().expect("an Event to write");
        aggregator.written(key);
        assert!(aggregator.remembered[&key].unwritten.is_none());
        assert!(size_of::<Remembered>() <= 64, "{}", size_of::<Remembered>());
        aggregator.observe(
            &object("a"),
            EventType::Normal,
            "Test",
            "m".repeat(MAX_MESSAGE),
            Timestamp::UNIX_EPOCH,
        );
        let (again, write) = aggregator.take().expect("its repetition");
        assert_eq!((again, write.count, write.exists), (key, 2, true));
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
        let names: HashSet<_> = std::iter::from_fn(|| aggregator.take()).map(|(_, w)| w.name()).collect();
        assert_eq!(names.len(), 3);
    }
}
