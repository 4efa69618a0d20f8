//! How controllers write: on behalf of one component, in parallel within a bound, bound to the object they looked at.

use std::fmt::Debug;
use std::future::Future;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes in flight for one reconciliation. More gain nothing in process, and a remote server answers 429.
pub const PARALLEL: usize = 16;

/// A kind that lives in namespaces.
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

/// The API of a kind within the namespace of `meta`.
pub fn beside<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Api<K> {
    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default())
}

/// Creates an object and gives it as the server made it.
pub async fn create<K: Namespaced>(client: &Client, object: &K) -> Result<K, Error> {
    beside::<K>(client, object.meta()).create(&PostParams::default(), object).await
}

/// Changes an object by a JSON merge patch, under the name of `component`.
pub async fn merge<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    patch: &serde_json::Value,
) -> Result<K, Error> {
    let name = meta.name.as_deref().unwrap_or_default();
    beside::<K>(client, meta).patch(name, &params(component), &Patch::Merge(patch)).await
}

/// Whether the server still has the very object of this metadata, and nobody has asked for its end. Asked before
/// something is taken in for it: the watches of two kinds keep no common pace, and what an owner that is being deleted
/// has just let go must not come back to it.
pub async fn stays<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Result<bool, Error> {
    let found = beside::<K>(client, meta).get_metadata_opt(meta.name.as_deref().unwrap_or_default()).await?;
    let same = |o: &ObjectMeta| o.uid == meta.uid && o.deletion_timestamp.is_none();
    Ok(found.is_some_and(|o| same(&o.metadata)))
}

/// Replaces an object's status. Each status has one writer, so no version is asked for, merely that it is still the
/// same object.
pub async fn status<K: Namespaced>(
    client: &Client,
    meta: &ObjectMeta,
    component: &str,
    status: &impl Serialize,
) -> Result<K, Error> {
    let name = meta.name.as_deref().unwrap_or_default();
    let patch = serde_json::json!({ "metadata": { "uid": meta.uid }, "status": status });
    beside::<K>(client, meta).patch_status(name, &params(component), &Patch::Merge(&patch)).await
}

/// Deletes the very object that has this metadata; one that is gone or another by now counts as deleted.
pub async fn delete<K: Namespaced>(client: &Client, meta: &ObjectMeta) -> Result<(), Error> {
    let params = DeleteParams { preconditions: same_object(meta), ..DeleteParams::background() };
    let name = meta.name.as_deref().unwrap_or_default();
    gone_is_fine(beside::<K>(client, meta).delete(name, &params).await.map(drop))
}

/// The precondition that an object is still the one of this metadata.
pub fn same_object(meta: &ObjectMeta) -> Option<Preconditions> {
    Some(Preconditions { resource_version: None, uid: meta.uid.clone() })
}

/// Turns "not found" and "not that object any more" into success, for deletions.
pub fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_code(&error, 404) || is_code(&error, 409) => Ok(()),
        other => other,
    }
}

/// The server refused with this HTTP status.
pub fn is_code(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}

/// The namespace is being deleted and takes nothing new: there is nothing left to do in it.
pub fn namespace_is_going(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let named = causes.into_iter().any(|c| c.reason == "NamespaceTerminating");
    status.code == 403 && (named || status.message.contains("because it is being terminated"))
}

/// What went wrong in the server's words, without the client's.
pub fn reason(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// How patches name their writer in managed fields.
pub fn params(component: &str) -> PatchParams {
    PatchParams { field_manager: Some(component.to_owned()), ..PatchParams::default() }
}

/// Runs all writes, at most [`PARALLEL`] at once, and gives every result in order of completion.
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
