//! The I/O of the StatefulSet controller: it queues StatefulSets whose objects change, and applies the actions of each
//! reconcile pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Error, Resource, ResourceExt};
use serde_json::json;
use yado_reconcile::events::EventType;
use yado_reconcile::{Change, Index, Informer, Next, ObjectKey, Queue, revision_of};

use super::{Action, Observed, Replica, history, identity, reconcile};
use crate::pods::{OWN_WRITES_TIMEOUT, Pods};
use crate::{Context, owners, writes};

const COMPONENT: &str = "statefulset-controller";
/// StatefulSets reconciled concurrently.
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    sets: Arc<Informer<StatefulSet>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Arc<Informer<ControllerRevision>>,
    /// ControllerRevisions by their controller's uid.
    revisions_of: Arc<Index<String, ControllerRevision>>,
    /// ControllerRevisions without a controller, by namespace.
    orphans: Arc<Index<String, ControllerRevision>>,
    pods: Pods,
}

/// Starts the StatefulSet controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let sets = context.informers.all::<StatefulSet>();
    let claims = context.informers.all::<PersistentVolumeClaim>();
    let revisions = context.informers.all::<ControllerRevision>();
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        pods: Pods::new(context, COMPONENT),
        revisions_of: revisions
            .index(|r| owners::controller_uid(&r.metadata).map(str::to_owned).into_iter().collect()),
        orphans: revisions.index(|r: &ControllerRevision| match owners::controller_of(&r.metadata) {
            None => r.metadata.namespace.iter().cloned().collect(),
            Some(_) => Vec::new(),
        }),
        context: context.clone(),
        sets: sets.clone(),
        claims: claims.clone(),
        revisions: revisions.clone(),
    });
    sets.feed_queue(&queue, |change| [change.key.clone()]);
    this.pods.feed(&queue, &sets);
    let all = sets.clone();
    claims.feed_queue(&queue, move |change| of_claim(&all, change));
    revisions.feed_queue(&queue, move |change| of_revision(&sets, change));
    context.run("statefulsets", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

/// The StatefulSets of a namespace for which a claim is made by its name, when it comes, goes or changes its owners: what
/// else becomes of it shows in its Pod.
fn of_claim(sets: &Informer<StatefulSet>, change: &Change<PersistentVolumeClaim>) -> Vec<ObjectKey> {
    let standing = |claim: &Option<Arc<PersistentVolumeClaim>>| {
        claim.as_ref().map(|c| (c.metadata.deletion_timestamp.clone(), c.metadata.owner_references.clone()))
    };
    if standing(&change.old) == standing(&change.new) {
        return Vec::new();
    }
    let sets = sets.in_namespace(&change.key.namespace);
    let of = sets.iter().filter(|set| identity::has_claim(set, &change.key.name));
    of.map(|set| ObjectKey::of(&set.metadata)).collect()
}

/// The StatefulSets that a revision concerns, when it goes or has lost its controller.
fn of_revision(sets: &Informer<StatefulSet>, change: &Change<ControllerRevision>) -> Vec<ObjectKey> {
    let namespace = &change.key.namespace;
    let Some(revision) = change.latest() else { return Vec::new() };
    match owners::controller_of(&revision.metadata) {
        Some(owner) if change.new.is_none() && owner.kind == StatefulSet::kind(&()) => {
            vec![ObjectKey::new(namespace.clone(), owner.name.clone())]
        }
        None if change.new.is_some() => {
            sets.in_namespace(namespace).iter().map(|set| ObjectKey::of(&set.metadata)).collect()
        }
        _ => Vec::new(),
    }
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.sets.synced().await;
        self.claims.synced().await;
        self.revisions.synced().await;
        let settled = self.pods.settled(&key).await;
        let Some(set) = self.sets.get(&key) else {
            self.pods.forget(&key);
            return Ok(Next::Wait);
        };
        if settled {
            self.pods.forget(&key);
        }
        let candidates = self.pods.candidates(&set.metadata, settled).await?;
        let mut revisions = self.revisions_of.get(&set.uid().unwrap_or_default());
        revisions.extend(self.orphans.get(&key.namespace));
        let claims = self.claims_named(&key.namespace, identity::claim_names(&set, &candidates));
        let observed = Observed { set: &set, candidates, revisions, claims };
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        self.apply_all(&key, &set, actions).await.map(|()| next)
    }

    fn claims_named(
        &self,
        namespace: &str,
        names: Vec<String>,
    ) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        let found = names.into_iter().filter_map(|name| {
            let claim = self.claims.get(&ObjectKey::new(namespace, name.as_str()))?;
            Some((name, claim))
        });
        found.collect()
    }

    async fn apply_all(&self, key: &ObjectKey, set: &StatefulSet, actions: Vec<Action>) -> Result<(), Error> {
        let (mut failure, mut changed) = (None, false);
        for action in actions {
            match action {
                Action::Status(status) => {
                    // Pods that were created or deleted trigger another pass, which writes the status with them.
                    if !changed || failure.is_some() {
                        self.write_status(set, &status).await?;
                    }
                }
                _ if failure.is_some() => {}
                // The status names the revisions, which have to exist.
                Action::AdoptRevision(_) | Action::CreateRevision(_) | Action::Renumber(..) => {
                    self.apply_to_history(set, action).await?;
                }
                action => {
                    changed |= matches!(action, Action::Create(_) | Action::Delete(_));
                    failure = self.apply(key, set, action).await.err();
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn apply_to_history(&self, set: &StatefulSet, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let (revision, patch) = match action {
            Action::CreateRevision(revision) => return self.create_revision(set, &revision).await,
            Action::Renumber(revision, number) => {
                let patch = json!({ "metadata": { "uid": revision.uid() }, "revision": number });
                (revision, patch)
            }
            Action::AdoptRevision(revision) => {
                if !writes::still_exists::<StatefulSet>(client, &set.metadata).await? {
                    return Ok(());
                }
                let patch = owners::adoption(owners::controller_reference(set), &revision.metadata);
                (revision, patch)
            }
            _ => return Ok(()),
        };
        let written =
            writes::merge::<ControllerRevision>(client, &revision.metadata, COMPONENT, &patch).await?;
        self.revision_seen(&written).await;
        Ok(())
    }

    /// Waits until the informer shows a revision that was written, so that the next pass does not write it again.
    async fn revision_seen(&self, written: &ControllerRevision) {
        let revision = revision_of(written.metadata.resource_version.as_deref());
        self.revisions.seen(revision, OWN_WRITES_TIMEOUT).await;
    }

    async fn create_revision(&self, set: &StatefulSet, revision: &ControllerRevision) -> Result<(), Error> {
        let error = match writes::create(&self.context.client, revision).await {
            Ok(written) => {
                self.revision_seen(&written).await;
                return Ok(());
            }
            Err(error) if writes::has_code(&error, 409) => error,
            Err(error) => return Err(error),
        };
        let api = writes::api_in_namespace_of::<ControllerRevision>(&self.context.client, &set.metadata);
        let present = api.get_opt(&revision.name_any()).await?;
        if present.is_some_and(|present| history::is_same_data(&present, revision)) {
            // It was created by an earlier pass, or belongs to a deleted StatefulSet of the same name and awaits
            // garbage collection; then a pass follows that creates it.
            return Ok(());
        }
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default() + 1;
        let patch = json!({ "collisionCount": collisions });
        writes::status::<StatefulSet>(&self.context.client, &set.metadata, COMPONENT, &patch).await?;
        Err(error)
    }

    async fn apply(&self, key: &ObjectKey, set: &StatefulSet, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        match action {
            Action::Adopt(pod) => {
                let owner = owners::controller_reference(set);
                self.pods.adopt::<StatefulSet>(&set.metadata, owner, &pod).await
            }
            Action::Release(pod) => self.pods.release(set.uid().as_deref().unwrap_or_default(), &pod).await,
            Action::DeleteRevision(revision) => {
                writes::delete::<ControllerRevision>(client, &revision.metadata).await
            }
            Action::Create(replicas) => self.create(key, set, replicas).await,
            Action::CreateClaims(pod, claims) => self.create_claims(set, &pod.name_any(), &claims).await,
            Action::Blocked(pod, reason) => {
                self.record(set, "create", &pod, Some(&reason));
                Ok(())
            }
            Action::Conflict(claim) => {
                let message = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a managing controller, \
                     the retention policy is ignored for this claim",
                    claim.name_any()
                );
                self.pods.recorder.event(
                    &set.object_ref(&()),
                    EventType::Warning,
                    "ConflictingController",
                    message,
                );
                Ok(())
            }
            Action::Own(claim, owners) => {
                let patch = owners::owners_patch(owners, &claim.metadata);
                writes::merge::<PersistentVolumeClaim>(client, &claim.metadata, COMPONENT, &patch)
                    .await
                    .map(drop)
            }
            Action::Repair(pod, patch) => {
                let repaired = self.pods.patch(&pod, &patch).await;
                let error = repaired.as_ref().err().map(writes::reason);
                self.record(set, "update", &pod.name_any(), error.as_deref());
                repaired
            }
            Action::Delete(pods) => self.delete(set, &pods).await,
            // They are applied by the caller.
            Action::AdoptRevision(_)
            | Action::CreateRevision(_)
            | Action::Renumber(..)
            | Action::Status(_) => Ok(()),
        }
    }

    /// Creates Pods in batches that double, and stops after a batch in which one fails, so that a template that is rejected
    /// causes one request and not hundreds.
    async fn create(&self, key: &ObjectKey, set: &StatefulSet, replicas: Vec<Replica>) -> Result<(), Error> {
        let (mut left, mut batch) = (replicas.as_slice(), 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(batch.min(left.len()));
            let creations = now.iter().map(|replica| self.create_one(key, set, replica).boxed()).collect();
            writes::in_parallel(creations).await.into_iter().collect::<Result<(), Error>>()?;
            (left, batch) = (rest, batch * 2);
        }
        Ok(())
    }

    async fn create_one(&self, key: &ObjectKey, set: &StatefulSet, replica: &Replica) -> Result<(), Error> {
        let name = replica.pod.name_any();
        let created = match self.create_claims(set, &name, &replica.claims).await {
            Ok(()) => self.pods.create_one(key, &replica.pod).await.map(drop),
            Err(error) => Err(error),
        };
        match &created {
            // An informer that is behind, or a Pod of somebody else with this name: the retry tells.
            Err(error) if writes::has_code(error, 409) => {}
            Err(error) => self.record(set, "create", &name, Some(&writes::reason(error))),
            Ok(()) => self.record(set, "create", &name, None),
        }
        created
    }

    /// Creates claims that the informer does not show. One that exists counts as created.
    async fn create_claims(
        &self,
        set: &StatefulSet,
        pod: &str,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), Error> {
        for claim in claims {
            let (name, of) = (claim.name_any(), set.name_any());
            let created = writes::create(&self.context.client, claim).await;
            let (kind, reason, message) = match &created {
                Ok(_) => (
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("create Claim {name} Pod {pod} in StatefulSet {of} success"),
                ),
                Err(error) if writes::has_code(error, 409) => continue,
                Err(error) => {
                    let why = writes::reason(error);
                    let message =
                        format!("create Claim {name} for Pod {pod} in StatefulSet {of} failed error: {why}");
                    (EventType::Warning, "FailedCreate", message)
                }
            };
            self.pods.recorder.event(&set.object_ref(&()), kind, reason, message);
            created?;
        }
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let deletions = pods.iter().map(|pod| self.delete_one(set, pod).boxed()).collect();
        writes::in_parallel(deletions).await.into_iter().collect::<Result<(), Error>>()?;
        self.pods.deletions_seen(pods).await;
        Ok(())
    }

    async fn delete_one(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let deleted = writes::delete::<Pod>(&self.context.client, &pod.metadata).await;
        let error = deleted.as_ref().err().map(writes::reason);
        self.record(set, "delete", &pod.name_any(), error.as_deref());
        deleted
    }

    /// Records what became of a Pod, in Kubernetes' words.
    fn record(&self, set: &StatefulSet, verb: &str, pod: &str, error: Option<&str>) {
        let name = set.name_any();
        let mut done = verb.to_owned();
        done[..1].make_ascii_uppercase();
        let (kind, reason, message) = match error {
            None => (
                EventType::Normal,
                format!("Successful{done}"),
                format!("{verb} Pod {pod} in StatefulSet {name} successful"),
            ),
            Some(error) => (
                EventType::Warning,
                format!("Failed{done}"),
                format!("{verb} Pod {pod} in StatefulSet {name} failed error: {error}"),
            ),
        };
        self.pods.recorder.event(&set.object_ref(&()), kind, &reason, message);
    }

    async fn write_status(&self, set: &StatefulSet, status: &StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = json!({
            "observedGeneration": status.observed_generation,
            "replicas": status.replicas,
            "readyReplicas": status.ready_replicas,
            "currentReplicas": status.current_replicas,
            "updatedReplicas": status.updated_replicas,
            "currentRevision": status.current_revision,
            "updateRevision": status.update_revision,
            "collisionCount": status.collision_count,
            "availableReplicas": status.available_replicas,
        });
        let written =
            writes::status::<StatefulSet>(&self.context.client, &set.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }
}
