//! Requests that controllers send: each names its field manager and applies only to the observed object, by its uid.

use std::fmt::Debug;
use std::future::Future;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum number of writes in flight in one reconcile pass. More gain nothing within one process, and a remote server
/// would throttle them with 429.
pub const PARALLEL: usize = 16;

/// A namespaced kind.
pub trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// The API of a kind in the namespace of `meta`.
pub fn api_in_namespace_of<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Api<K> {
    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default())
}

/// Creates an object and returns it as stored by the server.
pub async fn create<K: Namespaced>(client: &Client, object: &K) -> Result<K, Error> {
    api_in_namespace_of::<K>(client, object.meta()).create(&PostParams::default(), object).await
}

/// Applies a JSON merge patch to an object, with `component` as field manager.
pub async fn merge<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    patch: &serde_json::Value,
) -> Result<K, Error> {
    let name = meta.name.as_deref().unwrap_or_default();
    api_in_namespace_of::<K>(client, meta).patch(name, &params(component), &Patch::Merge(patch)).await
}

/// Whether the server still has the object with this metadata's uid and it is not being deleted. Asked before an object is
/// adopted: watches of two kinds are not in step, and an owner that is being deleted must not adopt again what it has
/// just orphaned.
pub async fn still_exists<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Result<bool, Error> {
    let found = api_in_namespace_of::<K>(client, meta)
        .get_metadata_opt(meta.name.as_deref().unwrap_or_default())
        .await?;
    let same = |o: &ObjectMeta| o.uid == meta.uid && o.deletion_timestamp.is_none();
    Ok(found.is_some_and(|o| same(&o.metadata)))
}

/// Merges `status` into an object's status. Each status has one writer, so the precondition is the uid alone and not the
/// resource version.
pub async fn status<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    status: &impl Serialize,
) -> Result<K, Error> {
    let same = serde_json::json!({ "uid": meta.uid });
    patch_status(client, meta, component, &serde_json::json!({ "metadata": same, "status": status })).await
}

/// [`status`], unless the object has changed since. The server rejects it with 409 then.
pub async fn status_of_version<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    status: &impl Serialize,
) -> Result<K, Error> {
    let same = serde_json::json!({ "uid": meta.uid, "resourceVersion": meta.resource_version });
    patch_status(client, meta, component, &serde_json::json!({ "metadata": same, "status": status })).await
}

async fn patch_status<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    patch: &serde_json::Value,
) -> Result<K, Error> {
    let name = meta.name.as_deref().unwrap_or_default();
    api_in_namespace_of::<K>(client, meta).patch_status(name, &params(component), &Patch::Merge(patch)).await
}

/// The condition of a Pod that tells, as Kubernetes does, that the cluster and not the Pod is why it ends.
pub fn disruption(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Timestamp::from_second(now.as_second()).ok().map(Time),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// Merges fields into a Pod's status. Its conditions are merged by their type: others write some of them, too. A Pod that is
/// gone needs none.
pub async fn pod_status(
    client: &Client,
    pod: &Pod,
    component: &str,
    status: &serde_json::Value,
) -> Result<(), Error> {
    let patch = serde_json::json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api = api_in_namespace_of::<Pod>(client, &pod.metadata);
    let written = api.patch_status(name, &params(component), &Patch::Strategic(&patch)).await;
    ignore_not_found(written.map(drop))
}

/// Deletes the object with this metadata's uid, in the background. An object that is gone or has been replaced by another
/// counts as deleted.
pub async fn delete<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Result<(), Error> {
    let params = DeleteParams { preconditions: same_object(meta), ..DeleteParams::background() };
    let name = meta.name.as_deref().unwrap_or_default();
    ignore_not_found(api_in_namespace_of::<K>(client, meta).delete(name, &params).await.map(drop))
}

/// The precondition that the object has the uid of this metadata.
pub fn same_object(meta: &ObjectMeta) -> Option<Preconditions> {
    Some(Preconditions { resource_version: None, uid: meta.uid.clone() })
}

/// Turns 404 (not found) and 409 (precondition failed) into success, for deletions.
pub fn ignore_not_found(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if has_code(&error, 404) || has_code(&error, 409) => Ok(()),
        other => other,
    }
}

/// Whether the server answered with this HTTP status code.
pub fn has_code(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}

/// Whether a creation was rejected because its namespace is being deleted.
pub fn namespace_is_terminating(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let named = causes.into_iter().any(|c| c.reason == "NamespaceTerminating");
    status.code == 403 && (named || status.message.contains("because it is being terminated"))
}

/// The server's message, without what the client adds to it; the whole error if it is not the server's.
pub fn reason(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Patch parameters with `component` as field manager.
pub fn params(component: &str) -> PatchParams {
    PatchParams { field_manager: Some(component.to_owned()), ..PatchParams::default() }
}

/// Runs all writes, at most [`PARALLEL`] at a time, and returns their results in order of completion.
pub async fn in_parallel<T, F: Future<Output = T>>(writes: Vec<F>) -> Vec<T> {
    let mut writes = writes.into_iter();
    let mut running: FuturesUnordered<F> = writes.by_ref().take(PARALLEL).collect();
    let mut results = Vec::new();
    while let Some(result) = running.next().await {
        results.push(result);
        running.extend(writes.next());
    }
    results
}
