//! The I/O of the Deployment controller: it queues Deployments whose objects change, and applies the actions of each
//! reconcile pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::{Error, Resource, ResourceExt};
use serde_json::json;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Informer, Next, ObjectKey, Queue, revision_of};
use yado_types::labels::DEPLOYMENT_REVISION;
use yado_types::pod::is_ended;

use super::{Action, Observed, history, reconcile, size};
use crate::{Context, owners, writes};

const COMPONENT: &str = "deployment-controller";
/// Deployments reconciled concurrently.
const WORKERS: usize = 8;
/// How long to wait for an own write to arrive through the watch. After that the next pass may see an older state; the
/// resource version in every write then causes a conflict and a retry.
const OWN_WRITES_TIMEOUT: Duration = Duration::from_secs(5);

struct Controller {
    context: Context,
    recorder: Recorder,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    /// ReplicaSets by their controller's uid.
    sets_of: Arc<Index<String, ReplicaSet>>,
    /// ReplicaSets without a controller, by namespace.
    orphans: Arc<Index<String, ReplicaSet>>,
    /// Pods by their controller's uid.
    pods_of: Arc<Index<String, Pod>>,
}

/// Starts the Deployment controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let deployments = context.informers.all::<Deployment>();
    let (sets, pods) = (context.informers.all::<ReplicaSet>(), context.informers.all::<Pod>());
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        recorder: context.recorder(COMPONENT),
        sets_of: context.sets_of.clone(),
        orphans: sets.index(|s: &ReplicaSet| match owners::controller_of(&s.metadata) {
            None => vec![s.namespace().unwrap_or_default()],
            Some(_) => Vec::new(),
        }),
        pods_of: context.pods_of.clone(),
        context: context.clone(),
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
    });
    deployments.feed_queue(&queue, |change| [change.key.clone()]);
    let all = deployments.clone();
    sets.feed_queue(&queue, move |change| {
        let mut keys = Vec::new();
        for set in change.old.iter().chain(&change.new) {
            match deployment_of(&set.metadata) {
                Some(key) => keys.push(key),
                None if owners::controller_of(&set.metadata).is_none() => {
                    keys.extend(
                        all.in_namespace(&change.key.namespace).iter().map(|d| ObjectKey::of(d.meta())),
                    );
                }
                None => {}
            }
        }
        keys.dedup();
        keys
    });
    let all_sets = sets.clone();
    // The end of an old Pod is what `Recreate` waits for.
    pods.feed_queue(&queue, move |change| {
        let ended = change.new.as_ref().is_none_or(|p| is_ended(p));
        let owner = change.latest().filter(|_| ended).and_then(|p| owners::controller_of(&p.metadata));
        let set = owner.filter(|o| o.kind == "ReplicaSet");
        let set =
            set.and_then(|o| all_sets.get(&ObjectKey::new(change.key.namespace.clone(), o.name.clone())));
        set.and_then(|s| deployment_of(&s.metadata))
    });
    context.run("deployments", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

fn deployment_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<ObjectKey> {
    let owner = owners::controller_of(meta).filter(|o| o.kind == "Deployment")?;
    Some(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.deployments.synced().await;
        self.sets.synced().await;
        // `Recreate` counts running Pods: before the first list there would seem to be none.
        self.pods.synced().await;
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Next::Wait) };
        let uid = deployment.uid().unwrap_or_default();
        let mut candidates = self.sets_of.get(&uid);
        let mut living_pods = BTreeMap::new();
        for set in &candidates {
            let uid = set.uid().unwrap_or_default();
            let living = self.pods_of.get(&uid).iter().filter(|p| !is_ended(p)).count();
            living_pods.insert(uid, living);
        }
        candidates.extend(self.orphans.get(&key.namespace));
        let observed = Observed { deployment: &deployment, candidates, living_pods };
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        let mut seen = 0;
        // In order: ReplicaSets are written before the annotations and status that describe them.
        for action in actions {
            let written = self.apply(&deployment, action).await?;
            seen = seen.max(revision_of(written.as_deref()));
        }
        if seen > 0 {
            self.sets.seen(seen, OWN_WRITES_TIMEOUT).await;
        }
        Ok(next)
    }

    /// Performs one write and returns the resource version of the ReplicaSet that was written, if one was.
    async fn apply(&self, deployment: &Deployment, action: Action) -> Result<Option<String>, Error> {
        let client = &self.context.client;
        match action {
            Action::Adopt(set) => {
                if !writes::still_exists::<Deployment>(client, &deployment.metadata).await? {
                    return Ok(None);
                }
                let patch = owners::adoption(owners::controller_reference(deployment), &set.metadata);
                Ok(writes::merge::<ReplicaSet>(client, &set.metadata, COMPONENT, &patch)
                    .await?
                    .resource_version())
            }
            Action::Release(set) => {
                let patch = owners::release(deployment.uid().as_deref().unwrap_or_default(), &set.metadata);
                Ok(writes::merge::<ReplicaSet>(client, &set.metadata, COMPONENT, &patch)
                    .await?
                    .resource_version())
            }
            Action::Create(set) => self.create(deployment, *set).await,
            Action::Scale(set, to, annotations) => {
                let patch = json!({
                    "metadata": { "resourceVersion": set.resource_version(), "annotations": annotations },
                    "spec": { "replicas": to },
                });
                let written = writes::merge::<ReplicaSet>(client, &set.metadata, COMPONENT, &patch).await?;
                if size(&set) != to {
                    self.record_scaled(deployment, &set.name_any(), size(&set), to);
                }
                Ok(written.resource_version())
            }
            Action::Annotate(set, annotations) => {
                let min_ready =
                    deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
                let patch = json!({
                    "metadata": { "resourceVersion": set.resource_version(), "annotations": annotations },
                    "spec": { "minReadySeconds": min_ready },
                });
                Ok(writes::merge::<ReplicaSet>(client, &set.metadata, COMPONENT, &patch)
                    .await?
                    .resource_version())
            }
            Action::Delete(set) => {
                writes::delete::<ReplicaSet>(client, &set.metadata).await?;
                Ok(None)
            }
            Action::Revision(revision) => {
                let patch = json!({ "metadata": {
                    "uid": deployment.uid(),
                    "annotations": { DEPLOYMENT_REVISION: revision },
                } });
                writes::merge::<Deployment>(client, &deployment.metadata, COMPONENT, &patch).await?;
                Ok(None)
            }
            Action::Status(status) => {
                self.write_status(deployment, &status).await?;
                Ok(None)
            }
        }
    }

    async fn create(&self, deployment: &Deployment, set: ReplicaSet) -> Result<Option<String>, Error> {
        let name = set.name_any();
        match writes::create(&self.context.client, &set).await {
            Ok(created) => {
                if size(&set) > 0 {
                    self.record_scaled(deployment, &name, 0, size(&set));
                }
                Ok(created.resource_version())
            }
            Err(error) if writes::has_code(&error, 409) => {
                let api =
                    writes::api_in_namespace_of::<ReplicaSet>(&self.context.client, &deployment.metadata);
                let Some(present) = api.get_opt(&name).await? else { return Err(error) };
                let ours = owners::controller_uid(&present.metadata) == deployment.metadata.uid.as_deref();
                let present = Arc::new(present);
                if ours && history::find_new(deployment, std::slice::from_ref(&present)).is_some() {
                    // It was created by an earlier request whose response was lost.
                    return Ok(present.resource_version());
                }
                let mut status = deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                self.write_status(deployment, &status).await?;
                Err(error)
            }
            Err(error) => {
                let message =
                    format!("Failed to create new replica set \"{name}\": {}", writes::reason(&error));
                let about = deployment.object_ref(&());
                self.recorder.event(&about, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    fn record_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.event(&deployment.object_ref(&()), EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn write_status(&self, deployment: &Deployment, status: &DeploymentStatus) -> Result<(), Error> {
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = json!({
            "observedGeneration": status.observed_generation,
            "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "unavailableReplicas": status.unavailable_replicas,
            "collisionCount": status.collision_count,
            "conditions": status.conditions,
        });
        let written =
            writes::status::<Deployment>(&self.context.client, &deployment.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }
}
