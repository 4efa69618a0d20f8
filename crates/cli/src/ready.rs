//! Waiting until what was applied serves.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, LogParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;

use crate::{
    connect::failed,
    process,
    progress::{Progress, Step},
    workloads::{self, Rest},
};

/// As long as Kubernetes' own progress deadline of a Deployment.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Lines of a log to show with a failure: enough for most stack traces' ends.
const LAST_WORDS: i64 = 10;

/// Waits until all that runs among `objects` has come to rest: every Deployment, StatefulSet and DaemonSet has its Pods
/// of the newest revision ready, every Job and bare Pod serves or has ended well.
///
/// # Errors
///
/// As soon as a Pod can never start, as its image cannot be had or its process keeps ending; and after `patience`, with
/// what holds the first of them up.
pub async fn wait_ready(
    client: &Client,
    namespace: &str,
    objects: &[Value],
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut by_namespace: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
    for object in objects {
        let Some(kind) = workloads::KINDS.into_iter().find(|k| object["kind"] == *k) else { continue };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        by_namespace.entry(namespace).or_default().push((kind, name.into()));
    }
    for (namespace, keys) in by_namespace {
        wait_in(client, namespace, keys, patience, progress).await?;
    }
    Ok(())
}

/// Kind and name.
type Key = (&'static str, String);

async fn wait_in(
    client: &Client,
    namespace: &str,
    keys: Vec<Key>,
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let total = keys.len();
    let step = progress.step("start", format!("{total} process types"));
    let mut waiting = Waiting { of: keys.into_iter().map(|key| (key, None)).collect(), total, trouble: None };
    let watched = waiting.watch(client, namespace, &step);
    let failure = match tokio::time::timeout(patience, watched).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(waiting.late(client, namespace, patience).await),
    };
    if let Some(failure) = failure {
        step.fail();
        return Err(failure);
    }
    step.done(if total == 1 {
        "1 process type is ready".into()
    } else {
        format!("{total} process types are ready")
    });
    Ok(())
}

/// What is waited for.
struct Waiting {
    /// Each with its last known state.
    of: BTreeMap<Key, Option<Value>>,
    total: usize,
    /// What holds one of them up just now.
    trouble: Option<String>,
}

impl Waiting {
    /// Ends when all have come to rest, or with the reason why one never will.
    async fn watch(&mut self, client: &Client, namespace: &str, step: &Step) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut kinds: Vec<&'static str> = self.of.keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        let mut watched = Vec::new();
        for kind in kinds {
            let Some(resource) = workloads::resource(kind) else { continue };
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            // Known before the first Pod is looked at, so that it is seen whose it is.
            let listed = api.list(&ListParams::default()).await;
            let listed = listed.map_err(failed(format!("{kind}s cannot be listed")))?;
            for object in listed {
                self.object(client, namespace, kind, &object).await?;
            }
            let changes = watcher(api, watcher::Config::default()).default_backoff();
            watched.push(changes.map(move |change| (kind, change)).boxed());
        }
        let mut watched = stream::select_all(watched);
        let mut pods = pin!(watcher(pods, watcher::Config::default()).default_backoff());
        while !self.of.is_empty() {
            // A watcher starts again by itself after an error, with growing pauses.
            tokio::select! {
                Some((kind, change)) = watched.next() => {
                    if let Ok(Event::Apply(object) | Event::InitApply(object)) = change {
                        self.object(client, namespace, kind, &object).await?;
                    }
                }
                Some(change) = pods.next() => {
                    if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = change {
                        self.pod(client, &pod).await?;
                    }
                }
                else => break,
            }
            step.detail(self.summary());
        }
        Ok(())
    }

    async fn object(
        &mut self,
        client: &Client,
        namespace: &str,
        kind: &'static str,
        object: &DynamicObject,
    ) -> anyhow::Result<()> {
        let key = (kind, object.name_any());
        let Some(last) = self.of.get_mut(&key) else { return Ok(()) };
        let mut value = serde_json::to_value(object)?;
        value["kind"] = kind.into();
        match workloads::rest(&value) {
            Rest::Ready => drop(self.of.remove(&key)),
            Rest::Moving => *last = Some(value),
            Rest::Failed(reason) => {
                let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
                let pods = pods.list(&ListParams::default()).await;
                let words = match pods.iter().flat_map(|list| &list.items).find(|p| selects(&value, p)) {
                    Some(pod) => last_words(client, pod, false).await,
                    None => String::new(),
                };
                anyhow::bail!("{kind} {} has failed: {reason}{words}", key.1);
            }
        }
        Ok(())
    }

    async fn pod(&mut self, client: &Client, pod: &Pod) -> anyhow::Result<()> {
        let ours = self.of.values().flatten().any(|object| selects(object, pod));
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if let Some(reason) = process::hopeless(pod) {
            let words = last_words(client, pod, true).await;
            anyhow::bail!("Pod {} does not start: {reason}{words}", pod.name_any());
        }
        self.trouble = process::trouble(pod).map(|trouble| format!("Pod {}: {trouble}", pod.name_any()));
        Ok(())
    }

    /// `2 of 4 ready, waiting for guestbook-web 1/3`.
    fn summary(&self) -> String {
        let part = |((_, name), object): (&Key, &Option<Value>)| match object {
            Some(object) => format!("{name} {}", workloads::count(object)),
            None => name.clone(),
        };
        let parts: Vec<String> = self.of.iter().map(part).collect();
        let (ready, total) = (self.total - self.of.len(), self.total);
        let trouble = self.trouble.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
        format!("{ready} of {total} ready, waiting for {}{trouble}", parts.join(", "))
    }

    /// What the first that is not ready waits for.
    async fn late(self, client: &Client, namespace: &str, patience: Duration) -> anyhow::Error {
        let Some(((kind, name), object)) = self.of.into_iter().next() else {
            return anyhow::anyhow!("what was started is ready only now");
        };
        let cause = match object {
            Some(object) => cause(client, namespace, &object).await,
            None => format!("the API server has no such {kind}"),
        };
        anyhow::anyhow!("{kind} {name} is not ready after {} s: {cause}", patience.as_secs())
    }
}

/// Whether a Pod is an object's and runs what its template now says: Pods of earlier revisions are on their way out,
/// and what is wrong with them may be what this revision mends.
fn selects(object: &Value, pod: &Pod) -> bool {
    if object["kind"] == "Pod" {
        return object["metadata"]["name"].as_str() == Some(pod.name_any().as_str());
    }
    let Some(labels) = object["spec"]["selector"]["matchLabels"].as_object() else { return false };
    let selected =
        labels.iter().all(|(key, value)| pod.labels().get(key).map(String::as_str) == value.as_str());
    let Ok(running) = serde_json::to_value(&pod.spec) else { return false };
    let containers = |spec: &Value| spec["containers"].as_array().cloned().unwrap_or_default();
    let running = containers(&running);
    let runs = |wanted: &Value| {
        let same = |field: &str, there: &Value| there[field] == wanted[field];
        running.iter().any(|there| ["name", "image", "command", "args"].iter().all(|f| same(f, there)))
    };
    selected && containers(&object["spec"]["template"]["spec"]).iter().all(runs)
}

/// The last lines that a Pod's process wrote before it ended, as an addition to a sentence. `previous`: of the run
/// before, as it has been started again.
async fn last_words(client: &Client, pod: &Pod, previous: bool) -> String {
    let Some(namespace) = pod.namespace() else { return String::new() };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let container = pod.spec.as_ref().and_then(|s| s.containers.first()).map(|c| c.name.clone());
    let params = LogParams { container, tail_lines: Some(LAST_WORDS), previous, ..LogParams::default() };
    match api.logs(&pod.name_any(), &params).await {
        Ok(text) if !text.trim().is_empty() => format!("; its last words:\n{}", text.trim_end()),
        // An image that cannot be had has no log.
        _ => String::new(),
    }
}

/// What an object waits for, from the first of its Pods that is in trouble.
async fn cause(client: &Client, namespace: &str, object: &Value) -> String {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Ok(pods) = api.list(&ListParams::default()).await else {
        return "the API server does not answer".into();
    };
    let pods: Vec<&Pod> = pods.iter().filter(|pod| selects(object, pod)).collect();
    if let Some((pod, trouble)) = pods.iter().find_map(|p| Some((p, process::trouble(p)?))) {
        return format!("Pod {}: {trouble}", pod.name_any());
    }
    match pods.iter().find(|p| !process::is_ready(p)) {
        Some(pod) => format!(
            "Pod {} runs but is not ready; does its process listen on its port? See `yado logs {0}`",
            pod.name_any()
        ),
        None => "it has no Pods yet".into(),
    }
}
