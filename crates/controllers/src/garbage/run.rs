//! The I/O of the garbage collector: it discovers and watches all kinds, and applies the graph's decisions.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, Preconditions, PropagationPolicy};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Error};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch as signal;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Next, Queue};

use super::graph::{Action, Graph, KindIndex, KindName, Object, Policy, Uid};
use crate::kinds::{self, AnyMeta, ServedKind};
use crate::{Context, writes};

const COMPONENT: &str = "generic-garbage-collector";
/// Objects processed concurrently: as many as any controller has writes in flight.
const WORKERS: usize = writes::PARALLEL;
/// Interval of the discovery of new kinds; Kubernetes' value.
const REDISCOVER: Duration = Duration::from_secs(30);
/// Failed first lists of a kind after which collection starts without it, so that one broken kind does not stop it for
/// all. Owners of that kind are verified with the server.
const MAX_FAILED_LISTS: u32 = 5;
/// Retry delay after a failed discovery, and before an object is decided on again whose owners could not be verified.
const REDISCOVER_FAILED: Duration = Duration::from_millis(200);

struct Controller {
    context: Context,
    recorder: Recorder,
    graph: Mutex<Graph>,
    queue: Arc<Queue<Uid>>,
    /// Kinds by index. A kind that is removed and added again gets a new index.
    kinds: Mutex<Vec<Watched>>,
    /// Kinds whose first list is not complete; `None` before the first discovery.
    unsynced: signal::Sender<Option<BTreeSet<KindIndex>>>,
}

struct Watched {
    kind: Arc<ServedKind>,
    /// Whether the last discovery listed the kind.
    served: bool,
    /// Whether its watch has ended because the kind was removed.
    ended: bool,
}

/// Starts the garbage collector; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        context: context.clone(),
        recorder: context.recorder(COMPONENT),
        graph: Mutex::default(),
        queue: queue.clone(),
        kinds: Mutex::default(),
        unsynced: signal::Sender::new(None),
    });
    let finder = this.clone();
    context.tasks.spawn("garbage: kinds", async move { finder.find_kinds().await });
    context.run("garbage", &queue, WORKERS, move |uid: Uid| {
        let this = this.clone();
        async move { this.sync(&uid).await }
    });
}

fn policy(policy: Policy) -> PropagationPolicy {
    match policy {
        Policy::Background => PropagationPolicy::Background,
        Policy::Foreground => PropagationPolicy::Foreground,
        Policy::Orphan => PropagationPolicy::Orphan,
    }
}

impl Controller {
    async fn find_kinds(self: Arc<Self>) {
        loop {
            let delay = match kinds::discover(&self.context.client).await {
                Ok(found) => {
                    self.watch_new(found);
                    REDISCOVER
                }
                Err(error) => {
                    tracing::debug!(%error, "the server did not say which kinds it has");
                    REDISCOVER_FAILED
                }
            };
            self.context.clock.sleep(delay).await;
        }
    }

    fn watch_new(self: &Arc<Self>, found: Vec<ServedKind>) {
        let found = found.into_iter().filter(|k| k.can(&["list", "watch", "delete"]) && !k.is_event());
        let mut kinds = self.kinds.lock();
        kinds.iter_mut().for_each(|k| k.served = false);
        let mut new = Vec::new();
        for kind in found {
            let present = kinds.iter().position(|k| !k.ended && k.kind.resource == kind.resource);
            if let Some(i) = present {
                kinds[i].served = true;
            } else {
                new.push(kinds.len());
                kinds.push(Watched { kind: Arc::new(kind), served: true, ended: false });
            }
        }
        self.unsynced.send_modify(|u| u.get_or_insert_default().extend(&new));
        for i in new {
            let (this, kind) = (self.clone(), kinds[i].kind.clone());
            self.context.tasks.spawn("garbage: watch", async move { this.watch(i, &kind).await });
        }
    }

    /// Keeps the graph current for one kind until the server no longer serves it.
    async fn watch(&self, index: KindIndex, kind: &ServedKind) {
        let api: Api<AnyMeta> = Api::all_with(self.context.client.clone(), &kind.resource);
        let config = watcher::Config::default().streaming_lists();
        let mut events = pin!(kube::runtime::watcher(api, config).default_backoff());
        let (mut unlisted, mut failures) = (HashSet::new(), 0);
        let name =
            Arc::new(KindName { group: kind.resource.group.clone(), kind: kind.resource.kind.clone() });
        while let Some(event) = events.next().await {
            let look = match event {
                Ok(Event::Init) => {
                    unlisted = self.graph.lock().of_kind(index).into_iter().collect();
                    Vec::new()
                }
                Ok(Event::InitApply(object)) => {
                    unlisted.remove(object.metadata.uid.as_deref().unwrap_or_default());
                    self.graph.lock().applied(index, &name, &object.metadata)
                }
                Ok(Event::InitDone) => {
                    let look = self.forget(std::mem::take(&mut unlisted));
                    self.synced(index);
                    look
                }
                Ok(Event::Apply(object)) => self.graph.lock().applied(index, &name, &object.metadata),
                Ok(Event::Delete(object)) => {
                    self.graph.lock().deleted(object.metadata.uid.as_deref().unwrap_or_default())
                }
                Err(error) => {
                    tracing::debug!(kind = kind.name(), %error, "the watch broke and starts again");
                    failures += 1;
                    if failures == MAX_FAILED_LISTS {
                        self.synced(index);
                    }
                    if self.end_if_not_served(index) {
                        let all = self.graph.lock().of_kind(index);
                        self.forget(all).into_iter().for_each(|uid| self.queue.add(uid));
                        self.synced(index);
                        return;
                    }
                    Vec::new()
                }
            };
            look.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    fn end_if_not_served(&self, index: KindIndex) -> bool {
        let kind = &mut self.kinds.lock()[index];
        kind.ended = !kind.served;
        kind.ended
    }

    fn forget(&self, gone: impl IntoIterator<Item = Uid>) -> Vec<Uid> {
        let mut graph = self.graph.lock();
        gone.into_iter().flat_map(|uid| graph.deleted(&uid)).collect()
    }

    fn synced(&self, index: KindIndex) {
        self.unsynced.send_modify(|u| {
            u.get_or_insert_default().remove(&index);
        });
    }

    async fn sync(&self, uid: &str) -> Result<Next, Error> {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.unsynced.subscribe().wait_for(|u| u.as_ref().is_some_and(BTreeSet::is_empty)).await;
        let mut actions = self.graph.lock().decide(uid, &HashSet::new());
        if let [Action::Verify(owners)] = actions.as_slice() {
            let verified = self.verify(uid, owners).await?;
            actions = self.graph.lock().decide(uid, &verified);
        }
        for action in actions {
            let Some((kind, object)) = self.find(uid) else { return Ok(Next::Wait) };
            let api = kind.within(&self.context.client, &object.key.namespace);
            match action {
                // The object's owners have changed since: verify the new ones in another pass.
                Action::Verify(_) => return Ok(Next::After(REDISCOVER_FAILED)),
                Action::Enqueue(other) => self.queue.add(other),
                Action::Delete(how) => {
                    let params = DeleteParams {
                        propagation_policy: Some(policy(how)),
                        preconditions: Some(Preconditions {
                            uid: Some(uid.to_owned()),
                            // The object may have got another owner since: then the decision is void.
                            resource_version: object.resource_version.clone(),
                        }),
                        ..DeleteParams::default()
                    };
                    match api.delete(&object.key.name, &params).await {
                        Err(error) if writes::has_code(&error, 404) => {}
                        other => drop(other?),
                    }
                }
                Action::WarnOfOwners(owners) => self.warn_of(&kind, &object, uid, &owners),
                Action::Unblock => change(&api, &object, uid, non_blocking).await?,
                Action::DropOwners(owners) => {
                    change(&api, &object, uid, |meta| without_owners(meta, &owners)).await?;
                }
                Action::DropFinalizer(name) => {
                    change(&api, &object, uid, |meta| without_finalizer(meta, name)).await?
                }
                Action::Orphan(other) => {
                    if let Some((kind, object)) = self.find(&other) {
                        let api = kind.within(&self.context.client, &object.key.namespace);
                        let owner = BTreeSet::from([uid.to_owned()]);
                        change(&api, &object, &other, |meta| without_owners(meta, &owner)).await?;
                    }
                }
            }
        }
        Ok(Next::Wait)
    }

    /// Records an event that says why an object is deleted although an object with the owner's uid exists.
    fn warn_of(&self, kind: &ServedKind, object: &Object, uid: &str, owners: &[OwnerReference]) {
        let about = ObjectReference {
            api_version: Some(kind.resource.api_version.clone()),
            kind: Some(kind.resource.kind.clone()),
            namespace: Some(object.key.namespace.clone()),
            name: Some(object.key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        for OwnerReference { api_version, kind, name, uid, .. } in owners {
            let message = format!(
                "ownerRef [{api_version}/{kind}, name: {name}, uid: {uid}] does not exist in namespace \"{}\"",
                object.key.namespace
            );
            self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
        }
    }

    fn find(&self, uid: &str) -> Option<(Arc<ServedKind>, Object)> {
        let object = self.graph.lock().get(uid)?.clone();
        let kind = self.kinds.lock().get(object.kind)?.kind.clone();
        Some((kind, object))
    }

    /// Asks the server for owners that no watch has shown, since watches of different kinds are not in step. Returns the
    /// uids that must be taken to exist; owners that do not exist are recorded in the graph.
    async fn verify(&self, uid: &str, owners: &[OwnerReference]) -> Result<HashSet<Uid>, Error> {
        let Some((_, object)) = self.find(uid) else { return Ok(HashSet::new()) };
        let mut verified = HashSet::new();
        for owner in owners {
            let known = {
                let kinds = self.kinds.lock();
                let same = |k: &ServedKind| {
                    k.resource.kind == owner.kind && k.resource.group == KindName::of(owner).group
                };
                kinds.iter().find(|k| k.served && same(&k.kind)).map(|k| k.kind.clone())
            };
            // An owner of a kind that is not watched may exist. A cluster-wide object cannot be owned by a namespaced
            // one: Kubernetes ignores such a reference and keeps the object.
            let Some(kind) = known.filter(|k| !k.namespaced || !object.key.namespace.is_empty()) else {
                verified.insert(owner.uid.clone());
                continue;
            };
            let found = kind.within(&self.context.client, &object.key.namespace).get_opt(&owner.name).await?;
            if found.is_some_and(|o| o.metadata.uid.as_deref() == Some(&owner.uid)) {
                verified.insert(owner.uid.clone());
            } else {
                self.graph.lock().set_gone(&owner.uid);
            }
        }
        Ok(verified)
    }
}

fn without_owners(meta: &ObjectMeta, gone: &BTreeSet<Uid>) -> Option<serde_json::Value> {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    let before = owners.len();
    owners.retain(|o| !gone.contains(&o.uid));
    (owners.len() < before).then(|| json!({ "ownerReferences": none_if_empty(&owners) }))
}

fn non_blocking(meta: &ObjectMeta) -> Option<serde_json::Value> {
    let mut owners = meta.owner_references.clone()?;
    let blocking = owners.iter_mut().filter(|o| o.block_owner_deletion == Some(true));
    let changed = blocking.map(|o| o.block_owner_deletion = Some(false)).count();
    (changed > 0).then(|| json!({ "ownerReferences": owners }))
}

fn without_finalizer(meta: &ObjectMeta, name: &str) -> Option<serde_json::Value> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|f| f != name);
    (finalizers.len() < before).then(|| json!({ "finalizers": none_if_empty(&finalizers) }))
}

/// `None`, which is sent as null and removes the field, for an empty list.
fn none_if_empty<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

/// Reads the current object and patches its metadata, if it still has the uid and `change` still finds a difference.
async fn change(
    api: &Api<AnyMeta>,
    object: &Object,
    uid: &str,
    change: impl Fn(&ObjectMeta) -> Option<serde_json::Value> + Send,
) -> Result<(), Error> {
    let name = &object.key.name;
    let Some(now) = api.get_opt(name).await?.filter(|o| o.metadata.uid.as_deref() == Some(uid)) else {
        return Ok(());
    };
    let Some(mut metadata) = change(&now.metadata) else { return Ok(()) };
    metadata["uid"] = json!(uid);
    metadata["resourceVersion"] = json!(now.metadata.resource_version);
    let patch = json!({ "metadata": metadata });
    match api.patch(name, &writes::params(COMPONENT), &Patch::Merge(&patch)).await {
        Err(error) if writes::has_code(&error, 404) => Ok(()),
        other => other.map(drop),
    }
}
