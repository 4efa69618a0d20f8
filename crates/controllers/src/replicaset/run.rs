//! The loop around the ReplicaSets' decisions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Error, Resource, ResourceExt};
use parking_lot::Mutex;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Next, ObjectKey, Queue, Watch, revision_of};
use yado_types::pod::{is_ended, is_terminating, node_name};

use super::{Action, Observed, conditions, pod_of, reconcile};
use crate::{Context, owners, writes};

const COMPONENT: &str = "replicaset-controller";
/// ReplicaSets worked on at once.
const WORKERS: usize = 8;
/// How long to wait for a Pod just created to come back through the watch. Longer means that the watch is broken
/// and being opened again, or that the Pod went at once.
const OWN_WRITES: Duration = Duration::from_secs(10);

struct Loop {
    context: Context,
    recorder: Recorder,
    sets: Arc<Watch<ReplicaSet>>,
    pods: Arc<Watch<Pod>>,
    /// Pods by their controller's uid.
    pods_of: Arc<Index<String, Pod>>,
    /// Pods that nobody controls, by namespace.
    orphans: Arc<Index<String, Pod>>,
    /// ReplicaSets by their controller's uid.
    siblings: Arc<Index<String, ReplicaSet>>,
    /// Highest revision of a Pod created for a ReplicaSet and not yet seen in the watch: deciding by the watch before
    /// would create it twice. An entry goes when the watch has come so far, or with its ReplicaSet.
    created: Mutex<HashMap<ObjectKey, u64>>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let (sets, pods) = (context.watches.all::<ReplicaSet>(), context.watches.all::<Pod>());
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Loop {
        recorder: context.recorder(COMPONENT),
        pods_of: pods
            .index(|p: &Pod| owners::controller_uid(&p.metadata).map(str::to_owned).into_iter().collect()),
        orphans: pods.index(|p: &Pod| match owners::controller_of(&p.metadata) {
            None => vec![p.namespace().unwrap_or_default()],
            Some(_) => Vec::new(),
        }),
        siblings: context.sets_of.clone(),
        created: Mutex::default(),
        context: context.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
    });
    sets.feed_queue(&queue, |change| [change.key.clone()]);
    let all_sets = sets.clone();
    pods.feed_queue(&queue, move |change| {
        let mut keys = Vec::new();
        for pod in change.old.iter().chain(&change.new) {
            match owners::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    keys.push(ObjectKey::new(change.key.namespace.clone(), owner.name.clone()));
                }
                Some(_) => {}
                // An orphan concerns whoever selects it; there are few, so all of the namespace may look.
                None => keys.extend(
                    all_sets.in_namespace(&change.key.namespace).iter().map(|s| ObjectKey::of(s.meta())),
                ),
            }
        }
        keys.dedup();
        keys
    });
    context.run("replicasets", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.one(key).await }
    });
}

impl Loop {
    async fn one(&self, key: ObjectKey) -> Result<Next, Error> {
        self.sets.synced().await;
        self.pods.synced().await;
        let awaited = self.created.lock().get(&key).copied();
        let late = match awaited {
            Some(revision) => !self.pods.seen(revision, OWN_WRITES).await,
            None => false,
        };
        let Some(set) = self.sets.get(&key) else {
            self.created.lock().remove(&key);
            return Ok(Next::Wait);
        };
        if !late {
            self.created.lock().remove(&key);
        }
        let mut observed = self.observe(&set);
        if late {
            // The server knows what the watch does not tell: on that alone it is safe to create.
            let api = writes::beside::<Pod>(&self.context.client, &set.metadata);
            let pods = api.list(&ListParams::default()).await?.items.into_iter();
            let ours = |p: &Pod| {
                owners::controller_uid(&p.metadata).is_none_or(|uid| Some(uid) == set.metadata.uid.as_deref())
            };
            observed.candidates = pods.filter(ours).map(Arc::new).collect();
        }
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        let (mut failure, mut created) = (None, false);
        for action in actions {
            match action {
                Action::Adopt(pod) => {
                    if !writes::stays::<ReplicaSet>(&self.context.client, &set.metadata).await? {
                        continue;
                    }
                    let patch = owners::adoption(owners::controller_reference(&*set), &pod.metadata);
                    writes::merge::<Pod>(&self.context.client, &pod.metadata, COMPONENT, &patch).await?;
                }
                Action::Release(pod) => {
                    let patch = owners::release(set.uid().as_deref().unwrap_or_default(), &pod.metadata);
                    writes::merge::<Pod>(&self.context.client, &pod.metadata, COMPONENT, &patch).await?;
                }
                Action::Create(count) => match self.create(&key, &set, count).await {
                    Ok(()) => created = true,
                    Err(error) => failure = Some(("FailedCreate", error)),
                },
                Action::Delete(pods) => {
                    failure = self.delete(&set, pods).await.err().map(|error| ("FailedDelete", error));
                }
                // The Pods just created bring us back, with a newer status to write.
                Action::Status(_) if created => {}
                Action::Status(status) => {
                    let why = failure.as_ref().map(|(reason, error)| (*reason, writes::reason(error)));
                    self.write_status(&set, *status, why).await?;
                }
            }
        }
        failure.map_or(Ok(next), |(_, error)| Err(error))
    }

    fn observe<'a>(&self, set: &'a ReplicaSet) -> Observed<'a> {
        let uid = set.uid().unwrap_or_default();
        let mut candidates = self.pods_of.get(&uid);
        candidates.extend(self.orphans.get(&set.namespace().unwrap_or_default()));
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let mut related_per_node = BTreeMap::new();
        if candidates.len() > usize::try_from(wanted).unwrap_or_default() {
            let owner = owners::controller_uid(&set.metadata).map(str::to_owned);
            let sets = owner.map(|o| self.siblings.get(&o)).unwrap_or_default();
            let mut uids: Vec<_> = sets.iter().filter_map(|s| s.uid()).collect();
            if uids.is_empty() {
                uids.push(uid);
            }
            for pod in
                uids.iter().flat_map(|u| self.pods_of.get(u)).filter(|p| !is_ended(p) && !is_terminating(p))
            {
                if let Some(node) = node_name(&pod) {
                    *related_per_node.entry(node.to_owned()).or_default() += 1;
                }
            }
        }
        Observed { set, candidates, related_per_node }
    }

    /// Creates Pods in batches that double, so that what cannot be created is tried once, not hundreds of times.
    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Ok(()) };
        let pod = pod_of(template, &key.namespace, owners::controller_reference(set));
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let results = writes::in_parallel(
                (0..size).map(|_| writes::create(&self.context.client, &pod).boxed()).collect(),
            )
            .await;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(pod) => {
                        let revision = revision_of(pod.metadata.resource_version.as_deref());
                        let mut created = self.created.lock();
                        let awaited = created.entry(key.clone()).or_default();
                        *awaited = revision.max(*awaited);
                        drop(created);
                        let message = format!("Created pod: {}", pod.name_any());
                        self.recorder.event(
                            &set.object_ref(&()),
                            EventType::Normal,
                            "SuccessfulCreate",
                            message,
                        );
                    }
                    Err(error) => {
                        let message = format!("Error creating: {}", writes::reason(&error));
                        self.recorder.event(
                            &set.object_ref(&()),
                            EventType::Warning,
                            "FailedCreate",
                            message,
                        );
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            (left, batch) = (left - size, batch * 2);
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let deletions = pods.iter().map(|pod| self.delete_one(set, pod).boxed()).collect();
        writes::in_parallel(deletions).await.into_iter().collect::<Result<(), Error>>()?;
        self.going(&pods).await;
        Ok(())
    }

    /// Ready once the watch shows that these Pods go: until then the next decision would choose among them again.
    async fn going(&self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let (key, uid) = (ObjectKey::of(&pod.metadata), pod.metadata.uid.clone());
            let going =
                move |now: Option<&Pod>| now.is_none_or(|p| p.metadata.uid != uid || is_terminating(p));
            self.pods.until(&key, OWN_WRITES, going).await;
        }
    }

    async fn delete_one(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        let deleted = writes::delete::<Pod>(&self.context.client, &pod.metadata).await;
        let (kind, reason, message) = match &deleted {
            Ok(()) => (EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any())),
            Err(error) => {
                (EventType::Warning, "FailedDelete", format!("Error deleting: {}", writes::reason(error)))
            }
        };
        self.recorder.event(&set.object_ref(&()), kind, reason, message);
        deleted
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        mut status: ReplicaSetStatus,
        failure: Option<(&str, String)>,
    ) -> Result<(), Error> {
        status.conditions = conditions(set, failure, self.context.clock.now());
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // A merge patch leaves alone what it does not name: what is no longer there must be named as null.
        let patch = serde_json::json!({
            "replicas": status.replicas,
            "fullyLabeledReplicas": status.fully_labeled_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        });
        let written =
            writes::status::<ReplicaSet>(&self.context.client, &set.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::is_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }
}
