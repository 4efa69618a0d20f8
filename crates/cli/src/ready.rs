//! Waiting until what was applied is ready.
//!
//! The decision is [`judge`], a pure function of what is [`Observed`]; here is the loop around it that watches, asks for
//! warnings, and turns the cause of a failure into an error with the last words of the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Event as Warning, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, LogParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use yado_types::clock::SystemClock;

use crate::{
    args::{READY_TIMEOUT, SETTLE_TIME},
    connect::failed,
    progress::{Progress, Step},
    text::{harmless, next_line},
    workloads,
};

mod container;
mod judge;
mod observed;

pub use judge::{Cause, LogOf, Readiness, Verdict, component, depends_on, judge, newest_pods};
pub use observed::{Key, Observed, Seen};

/// Lines of a log to show with a failure: enough for most stack traces' ends.
const LAST_WORDS: i64 = 10;
/// Time also passes where nothing changes; short, as a start is waited for.
const TICK: Duration = Duration::from_millis(50);
/// How often warnings are asked for while something is not ready: they are words for causes, which nobody reads sooner.
const WARNINGS_EVERY: Duration = Duration::from_secs(1);

/// How long to wait, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// After this, what is not ready is an error.
    pub timeout: Duration,
    /// How long a process that nothing probes must have run.
    pub settle: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Wait { timeout: READY_TIMEOUT, settle: SETTLE_TIME }
    }
}

/// Waits until all that runs among `objects`, and every port that they publish, is ready: see [`judge`].
///
/// # Errors
///
/// As soon as one can never become ready, and after the timeout: the first of them, why, and the last words of its
/// process.
pub async fn wait_ready(
    client: &Client,
    namespace: &str,
    objects: &[Value],
    wait: Wait,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut by_namespace: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
    for object in objects {
        let Some(key) = awaited(object) else { continue };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        by_namespace.entry(namespace).or_default().push(key);
    }
    for (namespace, keys) in by_namespace {
        wait_in(client, namespace, keys, wait, progress).await?;
    }
    Ok(())
}

/// The key of an object that is waited for: one that runs something, or publishes ports.
pub fn awaited(object: &Value) -> Option<Key> {
    let kind = object["kind"].as_str()?;
    let published = kind == judge::SERVICE && object["spec"]["type"] == "LoadBalancer";
    let name = object["metadata"]["name"].as_str()?;
    (published || workloads::KINDS.contains(&kind)).then(|| (kind.to_owned(), name.to_owned()))
}

async fn wait_in(
    client: &Client,
    namespace: &str,
    keys: Vec<Key>,
    wait: Wait,
    progress: &Progress,
) -> anyhow::Result<()> {
    let total = keys.iter().filter(|(kind, _)| kind != judge::SERVICE).count();
    let step = progress.step("start", format!("{total} process types"));
    let (observed, listed) = (Observed::default(), BTreeMap::new());
    let mut waiting = Waiting { client, namespace, keys, observed, listed, wait };
    let outcome = waiting.run(&step).await;
    match outcome {
        Ok(()) if total == 1 => step.done("1 process type is ready"),
        Ok(()) => step.done(format!("{total} process types are ready")),
        Err(_) => step.fail(),
    }
    outcome
}

struct Waiting<'a> {
    client: &'a Client,
    namespace: &'a str,
    keys: Vec<Key>,
    observed: Observed,
    /// Names found by the listing of a kind that is under way.
    listed: BTreeMap<String, BTreeSet<String>>,
    wait: Wait,
}

type Changes = stream::BoxStream<'static, (String, watcher::Result<Event<DynamicObject>>)>;

impl Waiting<'_> {
    async fn run(&mut self, step: &Step) -> anyhow::Result<()> {
        let clock = SystemClock::shared();
        let began = clock.monotonic();
        // Everything that the first decision needs, so that it is not made on half of it.
        look(self.client, self.namespace, &self.keys, &mut self.observed).await?;
        let mut changes = self.changes();
        let mut tick = tokio::time::interval(TICK);
        let mut warned = began;
        loop {
            self.observed.now = clock.monotonic();
            self.observed.note();
            let mut verdict = judge(&self.keys, &self.observed, self.wait.settle);
            if verdict.failed.is_some() {
                // The watches of different kinds keep no common pace: a Job may have failed here before its Pod has.
                look(self.client, self.namespace, &self.keys, &mut self.observed).await?;
                self.observed.note();
                verdict = judge(&self.keys, &self.observed, self.wait.settle);
            }
            if let Some((key, cause)) = &verdict.failed {
                return Err(self.failure(key, cause, "has failed").await);
            }
            if verdict.is_ready() {
                return Ok(());
            }
            if self.observed.now.saturating_sub(began) > self.wait.timeout {
                return Err(self.late().await);
            }
            step.detail(self.summary(&verdict));
            tokio::select! {
                Some((kind, change)) = changes.next() => self.apply(&kind, change),
                _ = tick.tick() => {}
            }
            if self.observed.now.saturating_sub(warned) >= WARNINGS_EVERY {
                warned = self.observed.now;
                self.ask_for_warnings().await;
            }
        }
    }

    fn changes(&self) -> stream::SelectAll<Changes> {
        let watched = kinds(&self.keys).into_iter().filter_map(|kind| {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), self.namespace, &workloads::resource(&kind)?);
            // A watcher starts again by itself after an error, with growing pauses.
            let changes = watcher(api, watcher::Config::default()).default_backoff();
            Some(changes.map(move |change| (kind.clone(), change)).boxed())
        });
        stream::select_all(watched)
    }

    fn apply(&mut self, kind: &str, change: watcher::Result<Event<DynamicObject>>) {
        match change {
            Ok(Event::Apply(object)) => insert(&mut self.observed, kind, &object),
            Ok(Event::InitApply(object)) => {
                self.listed.entry(kind.to_owned()).or_default().insert(object.name_any());
                insert(&mut self.observed, kind, &object);
            }
            Ok(Event::Delete(object)) => self.forget(kind, &object.name_any()),
            Ok(Event::Init) => drop(self.listed.insert(kind.to_owned(), BTreeSet::new())),
            Ok(Event::InitDone) => {
                let there = self.listed.remove(kind).unwrap_or_default();
                let known = self.observed.objects.keys().filter(|(k, _)| k == kind);
                let gone: Vec<String> =
                    known.map(|(_, name)| name.clone()).filter(|name| !there.contains(name)).collect();
                gone.iter().for_each(|name| self.forget(kind, name));
            }
            Err(_) => {}
        }
    }

    fn forget(&mut self, kind: &str, name: &str) {
        self.observed.objects.remove(&(kind.to_owned(), name.to_owned()));
        let pod = self.observed.pods.get(name).filter(|_| kind == "Pod");
        // A Job that fails may delete its Pods: they still tell why.
        if pod.is_some_and(|pod| pod.owner_references().iter().all(|owner| owner.kind != "Job")) {
            self.observed.pods.remove(name);
        }
    }

    /// Those who may not list events wait without their words.
    async fn ask_for_warnings(&mut self) {
        if let Some(events) = warnings(self.client, self.namespace).await {
            self.observed.events = events;
        }
    }

    /// `2 of 4 ready, waiting for web 1/3`.
    fn summary(&self, verdict: &Verdict) -> String {
        let part =
            |((kind, name), _): &(Key, Cause)| match self.observed.objects.get(&(kind.clone(), name.clone()))
            {
                Some(object) if kind != judge::SERVICE => format!("{name} {}", workloads::count(object)),
                _ => name.clone(),
            };
        let parts: Vec<String> = verdict.moving.iter().map(part).collect();
        let why =
            verdict.moving.first().map(|(_, cause)| format!(" ({})", cause.sentence)).unwrap_or_default();
        format!("{} of {} ready, waiting for {}{why}", verdict.ready, self.keys.len(), parts.join(", "))
    }

    /// The first that is not ready after the timeout: what others depend on comes first.
    async fn late(&mut self) -> anyhow::Error {
        self.ask_for_warnings().await;
        let verdict = judge(&self.keys, &self.observed, self.wait.settle);
        let seconds = self.wait.timeout.as_secs();
        let first = verdict.failed.or_else(|| verdict.moving.into_iter().next());
        match first {
            Some((key, cause)) => {
                self.failure(&key, &cause, &format!("is not ready after {seconds} s")).await
            }
            None => anyhow::anyhow!("what was started was ready only after {seconds} s"),
        }
    }

    async fn failure(&self, key: &Key, cause: &Cause, what: &str) -> anyhow::Error {
        let words = match &cause.log {
            Some(log) => last_words(self.client, self.namespace, log).await,
            None => String::new(),
        };
        let waits = dependents(key, &self.keys, &self.observed);
        let waits = if waits.is_empty() { waits } else { format!("; {waits} for it") };
        anyhow::anyhow!("{} {} {what}: {}{waits}{words}", key.0, key.1, harmless(&cause.sentence, false))
    }
}

/// Which others wait for an object, directly or through others: `web waits`, `seed and web wait`.
fn dependents(key: &Key, keys: &[Key], observed: &Observed) -> String {
    let object = |key: &Key| observed.objects.get(key);
    let Some(first) = object(key).and_then(component) else { return String::new() };
    let mut found = vec![first];
    let mut names = Vec::new();
    // Each pass finds those one step further away.
    for _ in keys {
        for other in keys.iter().filter_map(object) {
            let Some(name) = component(other).filter(|name| !found.contains(name)) else { continue };
            if depends_on(other).keys().any(|needed| found.contains(&needed.as_str())) {
                found.push(name);
                names.push(name);
            }
        }
    }
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("{one} waits"),
        [first @ .., last] => format!("{} and {last} wait", first.join(", ")),
    }
}

/// Kinds to watch for a decision on `keys`.
fn kinds(keys: &[Key]) -> Vec<String> {
    let mut kinds: Vec<String> = keys.iter().map(|(kind, _)| kind.clone()).collect();
    if kinds.iter().any(|kind| kind == "Deployment") {
        kinds.push("ReplicaSet".into());
    }
    if kinds.iter().any(|kind| kind != judge::SERVICE) {
        kinds.push("Pod".into());
    }
    kinds.sort();
    kinds.dedup();
    kinds
}

fn insert(observed: &mut Observed, kind: &str, object: &DynamicObject) {
    // What the API server sends is JSON.
    let Ok(mut value) = serde_json::to_value(object) else { return };
    value["kind"] = kind.into();
    let name = object.name_any();
    if kind == "Pod"
        && let Ok(pod) = serde_json::from_value::<Pod>(value.clone())
    {
        observed.pods.insert(name.clone(), pod);
    }
    observed.objects.insert((kind.into(), name), value);
}

async fn warnings(client: &Client, namespace: &str) -> Option<Vec<Warning>> {
    let api: Api<Warning> = Api::namespaced(client.clone(), namespace);
    let found = api.list(&ListParams::default().fields("type=Warning")).await;
    found.ok().map(|list| list.items)
}

async fn look(client: &Client, namespace: &str, keys: &[Key], observed: &mut Observed) -> anyhow::Result<()> {
    for kind in kinds(keys) {
        let Some(resource) = workloads::resource(&kind) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = api.list(&ListParams::default()).await;
        let found = found.map_err(failed(format!("{kind}s cannot be listed")))?;
        found.iter().for_each(|object| insert(observed, &kind, object));
    }
    Ok(())
}

/// A single look at what `keys` need for a decision: everything counts as having been as it is for long.
///
/// # Errors
///
/// The API server does not answer.
pub async fn observe(client: &Client, namespace: &str, keys: &[Key]) -> anyhow::Result<Observed> {
    let mut observed = Observed { seen: Seen::for_long(), ..Observed::default() };
    look(client, namespace, keys, &mut observed).await?;
    observed.events = warnings(client, namespace).await.unwrap_or_default();
    Ok(observed)
}

/// Why a Pod is not ready, and whether it can become so by itself, as far as the Pod itself tells at a single look.
pub fn of_pod(pod: &Pod) -> Readiness {
    let observed = Observed { seen: Seen::for_long(), ..Observed::default() };
    container::pod(
        &observed,
        pod,
        container::Expectation { settle: Duration::ZERO, owner_counts_failures: false },
    )
}

/// The last lines that a process wrote, as an addition to a sentence; those of the run before where the present one has
/// written nothing yet.
async fn last_words(client: &Client, namespace: &str, log: &LogOf) -> String {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let runs = if log.previous { [true, false] } else { [false, true] };
    for previous in runs {
        let params = LogParams {
            container: Some(log.container.clone()),
            tail_lines: Some(LAST_WORDS),
            previous,
            ..LogParams::default()
        };
        // An image that cannot be had has no log.
        let Ok(stream) = api.log_stream(&log.pod, &params).await else { continue };
        let (mut stream, mut text) = (pin!(stream), String::new());
        while let Ok(Some(line)) = next_line(&mut stream).await {
            text.push_str(&harmless(&line, false));
            text.push('\n');
        }
        if !text.trim().is_empty() {
            return format!("; its last words:\n{}", text.trim_end());
        }
    }
    String::new()
}
