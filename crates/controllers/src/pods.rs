//! What controllers that own Pods have in common: listing their Pods, adopting, creating and deleting them, and waiting
//! until the informer shows these writes, so that no Pod is created or deleted twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ListParams;
use kube::{Error, ResourceExt};
use parking_lot::Mutex;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Informer, Kind, ObjectKey, Queue, revision_of};
use yado_types::pod::is_terminating;

use crate::writes::Namespaced;
use crate::{Context, owners, writes};

/// How long to wait for an own write to arrive through the watch. It takes longer only if the watch is being reopened or
/// the written object was deleted at once.
pub const OWN_WRITES_TIMEOUT: Duration = Duration::from_secs(10);

/// Access of one controller to its Pods.
pub struct Pods {
    context: Context,
    component: &'static str,
    /// Records an event for each created or deleted Pod and for each failure.
    pub recorder: Recorder,
    watch: Arc<Informer<Pod>>,
    /// Pods by their controller's uid.
    pub of: Arc<Index<String, Pod>>,
    /// Pods without a controller, by namespace.
    orphans: Arc<Index<String, Pod>>,
    /// Highest resource version of the Pods created for each owner that the watch may not have shown yet: decisions before
    /// that would create them again. An entry is removed once the watch has shown it, and with its owner.
    created: Mutex<HashMap<ObjectKey, u64>>,
}

impl Pods {
    /// Access for the controller with this name, which its events and managed fields carry.
    pub fn new(context: &Context, component: &'static str) -> Self {
        Self {
            component,
            recorder: context.recorder(component),
            watch: context.informers.all::<Pod>(),
            of: context.pods_of.clone(),
            orphans: context.orphans.clone(),
            created: Mutex::default(),
            context: context.clone(),
        }
    }

    /// Adds owners of the kind `K` to `queue` when their Pods change, or Pods that they may adopt.
    pub fn feed<K: Kind + Namespaced>(&self, queue: &Arc<Queue<ObjectKey>>, owned_by: &Arc<Informer<K>>) {
        let all = owned_by.clone();
        let kind = K::kind(&());
        self.watch.feed_queue(queue, move |change| {
            let mut keys = Vec::new();
            for pod in change.old.iter().chain(&change.new) {
                match owners::controller_of(&pod.metadata) {
                    Some(owner) if owner.kind == kind => {
                        keys.push(ObjectKey::new(change.key.namespace.clone(), owner.name.clone()));
                    }
                    Some(_) => {}
                    // Any owner in the namespace may adopt an orphan. Orphans are rare, so all owners are queued.
                    None => {
                        let owners = all.in_namespace(&change.key.namespace);
                        keys.extend(owners.iter().map(|o| ObjectKey::of(o.meta())));
                    }
                }
            }
            keys.dedup();
            keys
        });
    }

    /// Waits until the watch shows all Pods created for the owner at `key`. Returns false if it does not within
    /// [`OWN_WRITES_TIMEOUT`].
    pub async fn settled(&self, key: &ObjectKey) -> bool {
        self.watch.synced().await;
        let awaited = self.created.lock().get(key).copied();
        match awaited {
            Some(revision) => self.watch.seen(revision, OWN_WRITES_TIMEOUT).await,
            None => true,
        }
    }

    /// Forgets the Pods created for the owner at `key`, so that [`Self::settled`] does not wait for them.
    pub fn forget(&self, key: &ObjectKey) {
        self.created.lock().remove(key);
    }

    /// Pods that `owner` controls, and Pods of its namespace without a controller. They are read from the informer if it is
    /// `settled`, else listed from the server, since creating Pods by an older state would create them twice.
    pub async fn candidates(&self, owner: &ObjectMeta, settled: bool) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = owner.uid.as_deref().unwrap_or_default();
        if settled {
            let mut pods = self.of.get(&uid.to_owned());
            pods.extend(self.orphans.get(&owner.namespace.clone().unwrap_or_default()));
            return Ok(pods);
        }
        let pods = writes::api_in_namespace_of::<Pod>(&self.context.client, owner)
            .list(&ListParams::default())
            .await?;
        let ours = |p: &Pod| owners::controller_uid(&p.metadata).is_none_or(|of| of == uid);
        Ok(pods.items.into_iter().filter(ours).map(Arc::new).collect())
    }

    /// Makes `owner`, whose metadata is `meta`, the controller of a Pod, unless the server says that it is being deleted.
    pub async fn adopt<K: Namespaced>(
        &self,
        meta: &ObjectMeta,
        owner: OwnerReference,
        pod: &Pod,
    ) -> Result<(), Error> {
        self.patch_if_there::<K>(meta, pod, &owners::adoption(owner, &pod.metadata)).await
    }

    /// [`Self::adopt`], which gives the Pod these finalizers, too.
    pub async fn adopt_with<K: Namespaced>(
        &self,
        meta: &ObjectMeta,
        owner: OwnerReference,
        pod: &Pod,
        finalizers: Vec<String>,
    ) -> Result<(), Error> {
        let mut patch = owners::adoption(owner, &pod.metadata);
        patch["metadata"]["finalizers"] = finalizers.into();
        self.patch_if_there::<K>(meta, pod, &patch).await
    }

    /// Patches a Pod unless the server says that its owner-to-be is being deleted.
    async fn patch_if_there<K: Namespaced>(
        &self,
        owner: &ObjectMeta,
        pod: &Pod,
        patch: &serde_json::Value,
    ) -> Result<(), Error> {
        if !writes::still_exists::<K>(&self.context.client, owner).await? {
            return Ok(());
        }
        self.patch(pod, patch).await
    }

    /// Removes the owner with this uid from a Pod's owner references.
    pub async fn release(&self, uid: &str, pod: &Pod) -> Result<(), Error> {
        self.patch(pod, &owners::release(uid, &pod.metadata)).await
    }

    /// Applies a merge patch to a Pod.
    pub async fn patch(&self, pod: &Pod, patch: &serde_json::Value) -> Result<(), Error> {
        writes::merge::<Pod>(&self.context.client, &pod.metadata, self.component, patch).await.map(drop)
    }

    /// Creates Pods in batches of 1, 2, 4 and so on, and stops after a batch with a failure, so that a template that is
    /// rejected causes one request and not hundreds.
    pub async fn create(&self, key: &ObjectKey, owner: &ObjectReference, pods: &[Pod]) -> Result<(), Error> {
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(batch.min(left.len()));
            let creations = now.iter().map(|pod| self.create_one(key, pod).boxed()).collect();
            let mut failed = None;
            for result in writes::in_parallel(creations).await {
                match result {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.name_any());
                        self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        let message = format!("Error creating: {}", writes::reason(&error));
                        self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            (left, batch) = (rest, batch * 2);
        }
        Ok(())
    }

    /// Deletes Pods and waits until the watch shows them as terminating or gone, at most [`OWN_WRITES_TIMEOUT`] for each: a decision
    /// before that would count them as active.
    pub async fn delete(&self, owner: &ObjectReference, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let deletions = pods.iter().map(|pod| self.delete_one(owner, pod).boxed()).collect();
        writes::in_parallel(deletions).await.into_iter().collect::<Result<(), Error>>()?;
        self.deletions_seen(pods).await;
        Ok(())
    }

    /// Creates a Pod for the owner at `key`, whose next decision waits until the watch shows it. No event is recorded.
    pub async fn create_one(&self, key: &ObjectKey, pod: &Pod) -> Result<Pod, Error> {
        let created = writes::create(&self.context.client, pod).await?;
        let revision = revision_of(created.metadata.resource_version.as_deref());
        let mut awaited = self.created.lock();
        let awaited = awaited.entry(key.clone()).or_default();
        *awaited = revision.max(*awaited);
        Ok(created)
    }

    /// Waits until the watch shows deleted Pods as terminating or gone, at most [`OWN_WRITES_TIMEOUT`] for each.
    pub async fn deletions_seen(&self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let (key, uid) = (ObjectKey::of(&pod.metadata), pod.metadata.uid.clone());
            let going =
                move |now: Option<&Pod>| now.is_none_or(|p| p.metadata.uid != uid || is_terminating(p));
            self.watch.until(&key, OWN_WRITES_TIMEOUT, going).await;
        }
    }

    async fn delete_one(&self, owner: &ObjectReference, pod: &Pod) -> Result<(), Error> {
        let deleted = writes::delete::<Pod>(&self.context.client, &pod.metadata).await;
        let (kind, reason, message) = match &deleted {
            Ok(()) => (EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any())),
            Err(error) => {
                (EventType::Warning, "FailedDelete", format!("Error deleting: {}", writes::reason(error)))
            }
        };
        self.recorder.event(owner, kind, reason, message);
        deleted
    }
}
