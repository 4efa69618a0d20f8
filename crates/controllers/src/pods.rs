//! The Pods of a controller: finding them, and creating and deleting them without ever doing it twice.

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
use yado_reconcile::{Index, Kind, ObjectKey, Queue, Watch, revision_of};
use yado_types::pod::is_terminating;

use crate::writes::Namespaced;
use crate::{Context, owners, writes};

/// How long to wait for an own write to come back through the watch. Longer means that the watch is broken
/// and being opened again, or that what was written went at once.
pub const OWN_WRITES: Duration = Duration::from_secs(10);

/// Pods as one controller sees and writes them.
pub struct Pods {
    context: Context,
    component: &'static str,
    /// Tells what became of each write.
    pub recorder: Recorder,
    watch: Arc<Watch<Pod>>,
    /// Pods by their controller's uid.
    pub of: Arc<Index<String, Pod>>,
    /// Pods that nobody controls, by namespace.
    orphans: Arc<Index<String, Pod>>,
    /// Highest revision of a Pod created for an owner and not yet seen in the watch: deciding by the watch before
    /// would create it twice. An entry goes when the watch has come so far, or with its owner.
    created: Mutex<HashMap<ObjectKey, u64>>,
}

impl Pods {
    /// For the controller that calls itself `component`.
    pub fn new(context: &Context, component: &'static str) -> Self {
        Self {
            component,
            recorder: context.recorder(component),
            watch: context.watches.all::<Pod>(),
            of: context.pods_of.clone(),
            orphans: context.orphans.clone(),
            created: Mutex::default(),
            context: context.clone(),
        }
    }

    /// Brings owners of the kind `K` into `queue` when their Pods change, or Pods that they may take in.
    pub fn feed<K: Kind + Namespaced>(&self, queue: &Arc<Queue<ObjectKey>>, owned_by: &Arc<Watch<K>>) {
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
                    // An orphan concerns whoever selects it; there are few, so all of the namespace may look.
                    None => {
                        let near = all.in_namespace(&change.key.namespace);
                        keys.extend(near.iter().map(|o| ObjectKey::of(o.meta())));
                    }
                }
            }
            keys.dedup();
            keys
        });
    }

    /// Ready once the watch is there and shows what was created for the owner at `key`; says whether it does.
    pub async fn settled(&self, key: &ObjectKey) -> bool {
        self.watch.synced().await;
        let awaited = self.created.lock().get(key).copied();
        match awaited {
            Some(revision) => self.watch.seen(revision, OWN_WRITES).await,
            None => true,
        }
    }

    /// What was created for the owner at `key` need not be waited for any more.
    pub fn forget(&self, key: &ObjectKey) {
        self.created.lock().remove(key);
    }

    /// Pods that `owner` controls, and those of its namespace that nobody does. Where the watch is not `settled`, the
    /// server knows what it does not tell: on that alone it is safe to create.
    pub async fn candidates(&self, owner: &ObjectMeta, settled: bool) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = owner.uid.as_deref().unwrap_or_default();
        if settled {
            let mut pods = self.of.get(&uid.to_owned());
            pods.extend(self.orphans.get(&owner.namespace.clone().unwrap_or_default()));
            return Ok(pods);
        }
        let pods = writes::beside::<Pod>(&self.context.client, owner).list(&ListParams::default()).await?;
        let ours = |p: &Pod| owners::controller_uid(&p.metadata).is_none_or(|of| of == uid);
        Ok(pods.items.into_iter().filter(ours).map(Arc::new).collect())
    }

    /// Makes `owner`, of this metadata, the controller of a Pod.
    pub async fn adopt<K: Namespaced>(
        &self,
        meta: &ObjectMeta,
        owner: OwnerReference,
        pod: &Pod,
    ) -> Result<(), Error> {
        if !writes::stays::<K>(&self.context.client, meta).await? {
            return Ok(());
        }
        self.patch(pod, &owners::adoption(owner, &pod.metadata)).await
    }

    /// Takes the owner with this uid off a Pod.
    pub async fn release(&self, uid: &str, pod: &Pod) -> Result<(), Error> {
        self.patch(pod, &owners::release(uid, &pod.metadata)).await
    }

    async fn patch(&self, pod: &Pod, patch: &serde_json::Value) -> Result<(), Error> {
        writes::merge::<Pod>(&self.context.client, &pod.metadata, self.component, patch).await.map(drop)
    }

    /// Creates Pods in batches that double, so that what cannot be created is tried once, not hundreds of times.
    pub async fn create(&self, key: &ObjectKey, owner: &ObjectReference, pods: &[Pod]) -> Result<(), Error> {
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(batch.min(left.len()));
            let creations = now.iter().map(|pod| writes::create(&self.context.client, pod).boxed()).collect();
            let mut failed = None;
            for result in writes::in_parallel(creations).await {
                match result {
                    Ok(pod) => {
                        let revision = revision_of(pod.metadata.resource_version.as_deref());
                        let mut created = self.created.lock();
                        let awaited = created.entry(key.clone()).or_default();
                        *awaited = revision.max(*awaited);
                        drop(created);
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

    /// Deletes Pods; ready once the watch shows that they go: until then the next decision would choose among them
    /// again.
    pub async fn delete(&self, owner: &ObjectReference, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let deletions = pods.iter().map(|pod| self.delete_one(owner, pod).boxed()).collect();
        writes::in_parallel(deletions).await.into_iter().collect::<Result<(), Error>>()?;
        for pod in pods {
            let (key, uid) = (ObjectKey::of(&pod.metadata), pod.metadata.uid.clone());
            let going =
                move |now: Option<&Pod>| now.is_none_or(|p| p.metadata.uid != uid || is_terminating(p));
            self.watch.until(&key, OWN_WRITES, going).await;
        }
        Ok(())
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
