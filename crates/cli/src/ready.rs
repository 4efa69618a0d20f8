//! Waiting until what was applied serves.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
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
};

/// As long as Kubernetes' own progress deadline of a Deployment.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Lines of a log to show with a failure: enough for most stack traces' ends.
const LAST_WORDS: i64 = 10;

/// Waits until every Deployment among `objects` has all its Pods of the newest revision available.
///
/// # Errors
///
/// As soon as a Pod can never start, as its image cannot be had or its process keeps ending; and after `patience`, with
/// what holds the first Deployment up.
pub async fn wait_ready(
    client: &Client,
    namespace: &str,
    objects: &[Value],
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut by_namespace: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for object in objects.iter().filter(|o| o["kind"] == "Deployment") {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        by_namespace.entry(namespace).or_default().push(name.into());
    }
    for (namespace, names) in by_namespace {
        wait_deployments(client, namespace, names, patience, progress).await?;
    }
    Ok(())
}

async fn wait_deployments(
    client: &Client,
    namespace: &str,
    names: Vec<String>,
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let total = names.len();
    let step = progress.step("start", format!("{total} process types"));
    let mut waiting = Waiting { of: names.into_iter().map(|n| (n, None)).collect(), total, trouble: None };
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

/// Deployments that are waited for.
struct Waiting {
    /// Each with its last known state.
    of: BTreeMap<String, Option<Deployment>>,
    total: usize,
    /// What holds one of them up just now.
    trouble: Option<String>,
}

impl Waiting {
    /// Ends when all are available, or with the reason why one never will be.
    async fn watch(&mut self, client: &Client, namespace: &str, step: &Step) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        // Known before the first Pod is looked at, so that it is seen whose it is.
        let listed = deployments.list(&ListParams::default()).await;
        let listed = listed.map_err(failed("Deployments cannot be listed"))?;
        listed.into_iter().for_each(|d| self.deployment(d));
        let mut deployments = pin!(watcher(deployments, watcher::Config::default()).default_backoff());
        let mut pods = pin!(watcher(pods, watcher::Config::default()).default_backoff());
        while !self.of.is_empty() {
            // A watcher starts again by itself after an error, with growing pauses.
            tokio::select! {
                Some(event) = deployments.next() => {
                    if let Ok(Event::Apply(deployment) | Event::InitApply(deployment)) = event {
                        self.deployment(deployment);
                    }
                }
                Some(event) = pods.next() => {
                    if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event {
                        self.pod(client, &pod).await?;
                    }
                }
                else => break,
            }
            step.detail(self.summary());
        }
        Ok(())
    }

    fn deployment(&mut self, deployment: Deployment) {
        let name = deployment.name_any();
        if is_available(&deployment) {
            self.of.remove(&name);
        } else if let Some(last) = self.of.get_mut(&name) {
            *last = Some(deployment);
        }
    }

    async fn pod(&mut self, client: &Client, pod: &Pod) -> anyhow::Result<()> {
        let ours = self.of.values().flatten().any(|d| selects(d, pod));
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if let Some(reason) = process::hopeless(pod) {
            let words = last_words(client, pod).await;
            anyhow::bail!("Pod {} does not start: {reason}{words}", pod.name_any());
        }
        self.trouble = process::trouble(pod).map(|trouble| format!("Pod {}: {trouble}", pod.name_any()));
        Ok(())
    }

    /// `2 of 4 ready, waiting for guestbook-web 1/3`.
    fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (name, deployment) in &self.of {
            let status = deployment.as_ref().and_then(|d| d.status.as_ref());
            let available = status.and_then(|s| s.available_replicas).unwrap_or(0);
            let wanted = deployment.as_ref().and_then(|d| d.spec.as_ref()?.replicas).unwrap_or(1);
            parts.push(format!("{name} {available}/{wanted}"));
        }
        let (ready, total) = (self.total - self.of.len(), self.total);
        let trouble = self.trouble.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
        format!("{ready} of {total} ready, waiting for {}{trouble}", parts.join(", "))
    }

    /// What the first that is not ready waits for.
    async fn late(self, client: &Client, namespace: &str, patience: Duration) -> anyhow::Error {
        let (name, deployment) = self.of.into_iter().next().unwrap_or_default();
        let cause = match deployment {
            Some(deployment) => cause(client, namespace, &deployment).await,
            None => "the API server has no such Deployment".into(),
        };
        anyhow::anyhow!("Deployment {name} is not ready after {} s: {cause}", patience.as_secs())
    }
}

/// Whether a Pod is a Deployment's and runs what its template now says: Pods of earlier revisions are on their way out,
/// and what is wrong with them may be what this revision mends.
fn selects(deployment: &Deployment, pod: &Pod) -> bool {
    let Some(spec) = &deployment.spec else { return false };
    let Some(labels) = &spec.selector.match_labels else { return false };
    let selected = labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let wanted = spec.template.spec.iter().flat_map(|s| &s.containers);
    let runs = |c: &Container| {
        let mut containers = pod.spec.iter().flat_map(|s| &s.containers);
        containers
            .any(|p| (&p.name, &p.image, &p.command, &p.args) == (&c.name, &c.image, &c.command, &c.args))
    };
    selected && wanted.into_iter().all(runs)
}

/// The last lines that a Pod's process wrote before it ended, as an addition to a sentence.
async fn last_words(client: &Client, pod: &Pod) -> String {
    let Some(namespace) = pod.namespace() else { return String::new() };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let container = pod.spec.as_ref().and_then(|s| s.containers.first()).map(|c| c.name.clone());
    let params =
        LogParams { container, tail_lines: Some(LAST_WORDS), previous: true, ..LogParams::default() };
    match api.logs(&pod.name_any(), &params).await {
        Ok(text) if !text.trim().is_empty() => format!("; its last words:\n{}", text.trim_end()),
        // An image that cannot be had has no log.
        _ => String::new(),
    }
}

/// Whether all of a Deployment's Pods are of the newest revision and take requests.
fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return wanted == 0 };
    let seen = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0) >= wanted;
    let old = status.replicas.unwrap_or(0) > status.updated_replicas.unwrap_or(0);
    seen && updated && !old && status.available_replicas.unwrap_or(0) >= wanted
}

/// What a Deployment waits for, from the first of its Pods that is in trouble.
async fn cause(client: &Client, namespace: &str, deployment: &Deployment) -> String {
    let labels = deployment.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Ok(pods) = api.list(&ListParams::default().labels(&selector.join(","))).await else {
        return "the API server does not answer".into();
    };
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
