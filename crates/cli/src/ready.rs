//! Waiting until what was applied serves.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;

use crate::{process, progress::Progress};

/// As long as Kubernetes' own progress deadline of a Deployment.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until every Deployment among `objects` has all its Pods of the newest revision available.
///
/// # Errors
///
/// After `patience`, with what holds the first one up: a missing image, a crash, no room on any node.
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
    let mut waiting: BTreeMap<String, Option<Deployment>> = names.into_iter().map(|n| (n, None)).collect();
    let step = progress.step("start", summary(&waiting, total));
    let watched = async {
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            // The watcher starts again by itself after an error, with growing pauses.
            let Ok(Event::Apply(deployment) | Event::InitApply(deployment)) = event else { continue };
            let name = deployment.name_any();
            if is_available(&deployment) {
                waiting.remove(&name);
            } else if let Some(last) = waiting.get_mut(&name) {
                *last = Some(deployment);
            }
            step.detail(summary(&waiting, total));
            if waiting.is_empty() {
                return;
            }
        }
    };
    if tokio::time::timeout(patience, watched).await.is_err() {
        let (name, deployment) = waiting.into_iter().next().unwrap_or_default();
        step.fail();
        let cause = match deployment {
            Some(deployment) => cause(client, namespace, &deployment).await,
            None => "the API server has no such Deployment".into(),
        };
        anyhow::bail!("Deployment {name} is not ready after {} s: {cause}", patience.as_secs());
    }
    step.done(if total == 1 {
        "1 process type is ready".into()
    } else {
        format!("{total} process types are ready")
    });
    Ok(())
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

/// `2 of 4 ready, waiting for guestbook-web 1/3`.
fn summary(waiting: &BTreeMap<String, Option<Deployment>>, total: usize) -> String {
    let mut parts = Vec::new();
    for (name, deployment) in waiting {
        let status = deployment.as_ref().and_then(|d| d.status.as_ref());
        let available = status.and_then(|s| s.available_replicas).unwrap_or(0);
        let wanted = deployment.as_ref().and_then(|d| d.spec.as_ref()?.replicas).unwrap_or(1);
        parts.push(format!("{name} {available}/{wanted}"));
    }
    let ready = total - waiting.len();
    if parts.is_empty() {
        format!("{ready} ready")
    } else {
        format!("{ready} of {total} ready, waiting for {}", parts.join(", "))
    }
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
