//! Many clients at once, with restarts between: what they were told is compared with what watches and lists show. No
//! acknowledged write is lost, no event is lost, told twice or out of order, and no write passes that should conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Body, Config, Identity, NoNodes};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

const CMS: &str = "/api/v1/namespaces/default/configmaps";
/// Few objects, so that clients meet.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const WRITERS: usize = 6;
const WRITES: usize = 400;
/// After so many writes of all clients the server is restarted.
const RESTART_EVERY: usize = 300;
/// Far above what any answer takes: a test that hangs says where.
const LIMIT: Duration = Duration::from_secs(120);

/// A server that is replaced now and then.
struct Cluster {
    current: RwLock<(ApiServer, Arc<Embedded>)>,
    directory: tempfile::TempDir,
    attempts: AtomicUsize,
}

async fn open(directory: &Path) -> (ApiServer, Arc<Embedded>) {
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory)).expect("a store"));
    let server =
        ApiServer::new(Config::default(), store.clone(), SystemClock::shared(), Arc::new(NoNodes)).await;
    (server.expect("a server"), store)
}

impl Cluster {
    async fn close(&self) {
        let (server, store) = self.current.read().clone();
        server.shutdown().await;
        store.close().await;
    }

    async fn restart(&self) {
        self.close().await;
        let next = open(self.directory.path()).await;
        *self.current.write() = next;
    }

    async fn ask(&self, line: &str, body: &Value) -> (u16, Body) {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(target).header("content-type", media);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        request.extensions_mut().insert(Identity::new("test", ["system:masters"]));
        let server = self.current.read().0.clone();
        let Ok(response) = server.oneshot(request).await;
        (response.status().as_u16(), response.into_body())
    }

    async fn json(&self, line: &str, body: &Value) -> (u16, Value) {
        let (code, body) = self.ask(line, body).await;
        // A body that breaks off while the server ends is no answer.
        let Ok(bytes) = body.collect().await else { return (503, Value::Null) };
        (code, serde_json::from_slice(&bytes.to_bytes()).unwrap_or(Value::Null))
    }
}

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    name: String,
    uid: String,
    revision: u64,
    /// The keys of its data: each write adds its own.
    keys: BTreeSet<String>,
    /// Whether it has the label that one of the watches selects.
    is_odd: bool,
}

impl Version {
    fn read(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().expect("a text").to_owned();
        Self {
            name: text("name"),
            uid: text("uid"),
            revision: text("resourceVersion").parse().expect("a revision"),
            keys: object["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect(),
            is_odd: object["metadata"]["labels"]["odd"] == "yes",
        }
    }
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
enum Ack {
    Created(Version),
    Changed { to: Version, key: String, based_on: Option<u64> },
    Deleted { uid: String, based_on: Option<u64> },
}

/// One client: what it does is drawn, what was acknowledged is returned.
async fn write(cluster: Arc<Cluster>, seed: u64) -> Vec<Ack> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut acks = Vec::new();
    for i in 0..WRITES {
        cluster.attempts.fetch_add(1, Ordering::Relaxed);
        let name = NAMES[random.random_range(0..NAMES.len())];
        let (one, key) = (format!("{CMS}/{name}"), format!("w{seed}-{i}"));
        let odd = if random.random_bool(0.5) { "yes" } else { "no" };
        let metadata = json!({"name": name, "labels": {"odd": odd}});
        let (code, ack) = match random.random_range(0..10) {
            0..=2 => {
                let body = json!({"metadata": metadata, "data": {&key: ""}});
                let (code, made) = cluster.json(&format!("POST {CMS}"), &body).await;
                (code, (code == 201).then(|| Ack::Created(Version::read(&made))))
            }
            3..=5 => {
                let body = json!({"metadata": {"labels": {"odd": odd}}, "data": {&key: ""}});
                let (code, made) = cluster.json(&format!("PATCH {one}"), &body).await;
                let ack = || Ack::Changed { to: Version::read(&made), key, based_on: None };
                (code, (code == 200).then(ack))
            }
            6..=7 => {
                let (code, mut object) = cluster.json(&format!("GET {one}"), &Value::Null).await;
                if code != 200 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                for _ in 0..random.random_range(0..4) {
                    tokio::task::yield_now().await;
                }
                let based_on = Some(Version::read(&object).revision);
                object["data"][&key] = "".into();
                object["metadata"]["labels"]["odd"] = odd.into();
                let (code, made) = cluster.json(&format!("PUT {one}"), &object).await;
                let ack = || Ack::Changed { to: Version::read(&made), key, based_on };
                (code, (code == 200).then(ack))
            }
            kind => {
                let (code, object) = cluster.json(&format!("GET {one}"), &Value::Null).await;
                if code != 200 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                let read = Version::read(&object);
                let based_on = (kind == 8).then_some(read.revision);
                let mut body = json!({"preconditions": {"uid": read.uid}});
                if let Some(revision) = based_on {
                    body["preconditions"]["resourceVersion"] = revision.to_string().into();
                }
                let (code, _) = cluster.json(&format!("DELETE {one}"), &body).await;
                (code, (code == 200).then_some(Ack::Deleted { uid: read.uid, based_on }))
            }
        };
        // Answers of a server that ends tell nothing of what became of the write.
        assert!(ack.is_some() || matches!(code, 404 | 409 | 500..), "{one}: {code}");
        if code >= 500 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Some(Ack::Created(version) | Ack::Changed { to: version, .. }) = &ack {
            let (code, now) = cluster.json(&format!("GET {one}"), &Value::Null).await;
            assert!(
                code != 200 || Version::read(&now).revision >= version.revision,
                "{one} shows an older version"
            );
        }
        acks.extend(ack);
    }
    acks
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: String,
    version: Version,
}

/// What a client saw without a gap: a list, and every event after it.
#[derive(Debug, Default)]
struct Seen {
    list_revision: u64,
    listed: Vec<Version>,
    events: Vec<Told>,
}

/// Lists and watches until the object `end` is there, and begins anew where the server cannot continue.
async fn watch(cluster: Arc<Cluster>, selector: &'static str) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let (code, list) = cluster.json(&format!("GET {CMS}?{selector}"), &Value::Null).await;
        if code != 200 {
            assert!(code >= 500, "a list answers {code}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
        let mut seen = Seen { list_revision: revision.expect("a revision"), ..Seen::default() };
        let items = list["items"].as_array().expect("items");
        seen.listed = items.iter().map(Version::read).filter(|v| NAMES.contains(&v.name.as_str())).collect();
        let mut has_ended = items.iter().any(|item| item["metadata"]["name"] == "end");
        while !has_ended {
            match follow(&cluster, selector, &mut seen).await {
                Followed::End => has_ended = true,
                Followed::Again => {}
                Followed::Gone => break,
            }
        }
        all.push(seen);
        if has_ended {
            return all;
        }
    }
}

enum Followed {
    /// The object `end` was told.
    End,
    /// The connection ended; what comes after can be asked for.
    Again,
    /// The server has not kept what comes after.
    Gone,
}

async fn follow(cluster: &Cluster, selector: &str, seen: &mut Seen) -> Followed {
    let from = last_told(seen);
    let (code, mut body) =
        cluster.ask(&format!("GET {CMS}?watch=1&resourceVersion={from}&{selector}"), &Value::Null).await;
    match code {
        200 => {}
        410 => return Followed::Gone,
        code => {
            assert!(code >= 500, "a watch answers {code}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            return Followed::Again;
        }
    }
    let mut buffer = Vec::new();
    loop {
        let frame = tokio::time::timeout(LIMIT, body.frame()).await.expect("an event or an end");
        let Some(Ok(frame)) = frame else { return Followed::Again };
        buffer.extend_from_slice(&frame.into_data().expect("data"));
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event");
            if event["type"] == "ERROR" {
                assert_eq!(event["object"]["code"], 410, "{event}");
                return Followed::Gone;
            }
            let version = Version::read(&event["object"]);
            if version.name == "end" {
                return Followed::End;
            }
            if NAMES.contains(&version.name.as_str()) {
                seen.events.push(Told { kind: event["type"].as_str().expect("a type").to_owned(), version });
            }
        }
    }
}

/// The revision up to which a client saw everything.
fn last_told(seen: &Seen) -> u64 {
    seen.events.last().map_or(seen.list_revision, |told| told.version.revision)
}

/// All changes of which anybody heard, by revision; `None` is a deletion.
type History = BTreeMap<u64, (String, Option<Version>)>;

/// Joins what two heard of one revision, which must be the same.
fn note(history: &mut History, revision: u64, name: &str, version: Option<&Version>) {
    let heard = (name.to_owned(), version.cloned());
    let before = history.insert(revision, heard.clone());
    assert!(before.is_none() || before == Some(heard), "two accounts of revision {revision}");
}

/// Replays what a client saw: each event follows from the state before it.
fn replay(seen: &Seen) {
    let mut state: BTreeMap<&str, &Version> = seen.listed.iter().map(|v| (v.name.as_str(), v)).collect();
    let mut last = seen.list_revision;
    for Told { kind, version } in &seen.events {
        assert!(version.revision > last, "{version:?} comes after revision {last}");
        last = version.revision;
        let before = state.get(version.name.as_str()).copied();
        match kind.as_str() {
            "ADDED" => assert_eq!(before, None, "{version:?} was there"),
            "MODIFIED" => {
                let before = before.unwrap_or_else(|| panic!("{version:?} was not there"));
                assert_eq!(before.uid, version.uid);
                assert!(before.keys.is_subset(&version.keys), "{version:?} lost a write of {before:?}");
            }
            "DELETED" => assert_eq!(before.map(|b| &b.uid), Some(&version.uid), "{version:?} was not there"),
            other => panic!("an event of type {other}"),
        }
        match kind.as_str() {
            "DELETED" => state.remove(version.name.as_str()),
            _ => state.insert(&version.name, version),
        };
    }
}

/// What a list at `revision` has to show.
fn state_at(history: &History, revision: u64) -> BTreeMap<&str, &Version> {
    let mut state = BTreeMap::new();
    for (name, version) in history.range(..=revision).map(|(_, change)| change) {
        match version {
            Some(version) => state.insert(name.as_str(), version),
            None => state.remove(name.as_str()),
        };
    }
    state
}

/// Whether the object was changed between two revisions.
fn changed_between(history: &History, name: &str, after: u64, before: u64) -> bool {
    history.range(after + 1..before).any(|(_, (changed, _))| changed == name)
}

fn check_acks(history: &History, acks: &[Ack], deletions: &BTreeMap<String, (String, u64)>) {
    for ack in acks {
        match ack {
            Ack::Created(version) => {
                // That it was not there before is for the watches to tell: of a deletion that fell into a restart nobody
                // else knows.
                let mut earlier = history.range(..version.revision).filter_map(|(_, (_, v))| v.as_ref());
                assert!(earlier.all(|v| v.uid != version.uid), "{version:?} was there before");
                assert_eq!(version.keys.len(), 1, "{version:?} has what another one had");
            }
            Ack::Changed { to, key, based_on } => {
                assert!(to.keys.contains(key), "{to:?} lacks {key}");
                if let Some(based_on) = based_on {
                    let changed = changed_between(history, &to.name, *based_on, to.revision);
                    assert!(!changed, "{to:?} should have been a conflict: it is based on {based_on}");
                }
            }
            Ack::Deleted { uid, based_on } => {
                // One that nobody was told of fell into a restart.
                let Some((name, revision)) = deletions.get(uid) else { continue };
                if let Some(based_on) = based_on {
                    let changed = changed_between(history, name, *based_on, *revision);
                    assert!(!changed, "the deletion of {name} at {revision} should have been a conflict");
                }
            }
        }
    }
}

/// The events of a selecting watch that follow from those of one that sees all.
fn selected(all: &Seen, from: u64, to: u64) -> Vec<(String, u64)> {
    let mut state: BTreeMap<&str, bool> = all.listed.iter().map(|v| (v.name.as_str(), v.is_odd)).collect();
    let mut expected = Vec::new();
    for Told { kind, version } in &all.events {
        let was = state.get(version.name.as_str()).copied().unwrap_or(false);
        let is = kind != "DELETED" && version.is_odd;
        state.insert(&version.name, is);
        let kind = match (was, is) {
            (false, false) => continue,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        if version.revision > from && version.revision <= to {
            expected.push((kind.to_owned(), version.revision));
        }
    }
    expected
}

fn check(acks: &[Ack], watched: &[Vec<Seen>], odd: &[Seen]) {
    let mut history = History::new();
    let mut deletions = BTreeMap::new();
    for version in acks.iter().filter_map(|ack| match ack {
        Ack::Created(version) | Ack::Changed { to: version, .. } => Some(version),
        Ack::Deleted { .. } => None,
    }) {
        note(&mut history, version.revision, &version.name, Some(version));
    }
    for seen in watched.iter().flatten() {
        replay(seen);
        for Told { kind, version } in &seen.events {
            let is_deleted = kind == "DELETED";
            note(&mut history, version.revision, &version.name, Some(version).filter(|_| !is_deleted));
            if is_deleted {
                let place = (version.name.clone(), version.revision);
                let before = deletions.insert(version.uid.clone(), place.clone());
                assert!(before.is_none() || before == Some(place), "{version:?} was deleted twice");
            }
        }
    }
    check_acks(&history, acks, &deletions);
    for seen in watched.iter().flatten() {
        // Each acknowledged write in the time that was watched was told.
        let last = last_told(seen);
        let told: BTreeSet<u64> = seen.events.iter().map(|told| told.version.revision).collect();
        for (revision, change) in history.range(seen.list_revision + 1..=last) {
            assert!(told.contains(revision), "{change:?} was not told");
        }
        // A list shows the newest of what was acknowledged before it, or something newer, of which the answer fell into a
        // restart.
        let known = state_at(&history, seen.list_revision);
        for version in &seen.listed {
            let newest = known.get(version.name.as_str()).map_or(0, |known| known.revision);
            let is_known = history.contains_key(&version.revision);
            let holds = if is_known { newest == version.revision } else { newest < version.revision };
            assert!(holds, "the list at {} shows {version:?}; {newest} is known", seen.list_revision);
        }
    }
    let mut compared = 0;
    for seen in odd {
        replay(seen);
        for all in watched.iter().flatten() {
            // The time in which both watched.
            let (from, to) = (seen.list_revision.max(all.list_revision), last_told(seen).min(last_told(all)));
            let is_in = |told: &&Told| told.version.revision > from && told.version.revision <= to;
            let told: Vec<_> =
                seen.events.iter().filter(is_in).map(|t| (t.kind.clone(), t.version.revision)).collect();
            assert_eq!(told, selected(all, from, to));
            compared += told.len();
        }
    }
    let events: usize = watched.iter().flatten().map(|seen| seen.events.len()).sum();
    assert!(
        acks.len() > WRITERS * WRITES / 8 && events > acks.len() && compared > 0,
        "{} {events} {compared}",
        acks.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_are_told_once_in_order_and_conflicts_are_raised() {
    let directory = tempfile::tempdir().expect("a directory");
    let current = RwLock::new(open(directory.path()).await);
    let cluster = Arc::new(Cluster { current, directory, attempts: AtomicUsize::new(0) });
    let watchers: Vec<_> = ["", "", "labelSelector=odd%3Dyes"]
        .map(|selector| tokio::spawn(watch(cluster.clone(), selector)))
        .into();
    let writers: Vec<_> =
        (1..=WRITERS as u64).map(|seed| tokio::spawn(write(cluster.clone(), seed))).collect();
    let mut restarts = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        if cluster.attempts.load(Ordering::Relaxed) > (restarts + 1) * RESTART_EVERY {
            cluster.restart().await;
            restarts += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut acks = Vec::new();
    for writer in writers {
        acks.extend(writer.await.expect("a writer"));
    }
    assert!(restarts >= 3, "{restarts}");
    let end = json!({"metadata": {"name": "end", "labels": {"odd": "yes"}}});
    assert_eq!(cluster.json(&format!("POST {CMS}"), &end).await.0, 201);
    let mut watched = Vec::new();
    for watcher in watchers {
        watched.push(tokio::time::timeout(LIMIT, watcher).await.expect("an end").expect("a watcher"));
    }
    let odd = watched.pop().expect("the selecting watch");
    check(&acks, &watched, &odd);
    cluster.close().await;
}
