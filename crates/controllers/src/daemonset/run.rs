//! The I/O of the DaemonSet controller: it queues DaemonSets whose objects change, and applies the actions of each
//! reconcile pass.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Error, Resource, ResourceExt};
use yado_reconcile::events::EventType;
use yado_reconcile::{Index, Informer, Next, ObjectKey, Queue};
use yado_types::pod::phase;

use super::{Action, Observed, nodes, reconcile};
use crate::pods::Pods;
use crate::{Context, owners, writes};

const COMPONENT: &str = "daemonset-controller";
/// DaemonSets reconciled concurrently.
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    sets: Arc<Informer<DaemonSet>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    /// ControllerRevisions by their controller's uid.
    revisions_of: Arc<Index<String, ControllerRevision>>,
    pods: Pods,
}

/// Starts the DaemonSet controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let (sets, nodes) = (context.informers.all::<DaemonSet>(), context.informers.all::<Node>());
    let revisions = context.informers.all::<ControllerRevision>();
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        pods: Pods::new(context, COMPONENT),
        revisions_of: revisions
            .index(|r| owners::controller_uid(&r.metadata).map(str::to_owned).into_iter().collect()),
        context: context.clone(),
        sets: sets.clone(),
        nodes: nodes.clone(),
        revisions,
    });
    sets.feed_queue(&queue, |change| [change.key.clone()]);
    this.pods.feed(&queue, &sets);
    nodes.feed_queue(&queue, move |change| {
        // Heartbeats change only a node's status: reconciling every DaemonSet for them would be wasted.
        let offer = |node: &Option<Arc<Node>>| {
            node.as_ref().map(|n| (n.metadata.labels.clone(), n.spec.as_ref().and_then(|s| s.taints.clone())))
        };
        let same = offer(&change.old) == offer(&change.new);
        let all = if same { Vec::new() } else { sets.list() };
        all.into_iter().map(|s| ObjectKey::of(&s.metadata)).collect::<Vec<_>>()
    });
    context.run("daemonsets", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.sets.synced().await;
        self.nodes.synced().await;
        self.revisions.synced().await;
        let settled = self.pods.settled(&key).await;
        let Some(set) = self.sets.get(&key) else {
            self.pods.forget(&key);
            return Ok(Next::Wait);
        };
        if settled {
            self.pods.forget(&key);
        }
        let observed = Observed {
            set: &set,
            nodes: self.nodes.list(),
            candidates: self.pods.candidates(&set.metadata, settled).await?,
            revisions: self.revisions_of.get(&set.uid().unwrap_or_default()),
        };
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        let mut failure = None;
        for action in actions {
            if let Err(error) = self.apply(&key, &set, action).await {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(next), Err)
    }

    async fn apply(&self, key: &ObjectKey, set: &DaemonSet, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let reference = set.object_ref(&());
        match action {
            Action::Adopt(pod) => {
                let owner = owners::controller_reference(set);
                self.pods.adopt::<DaemonSet>(&set.metadata, owner, &pod).await
            }
            Action::Release(pod) => self.pods.release(set.uid().as_deref().unwrap_or_default(), &pod).await,
            Action::CreateRevision(revision) => match writes::create(client, &*revision).await {
                // It was created by an earlier pass, or belongs to a deleted DaemonSet of the same name and awaits
                // garbage collection.
                Err(error) if writes::has_code(&error, 409) => Ok(()),
                other => other.map(drop),
            },
            Action::Renumber(revision, number) => {
                let patch = serde_json::json!({ "metadata": { "uid": revision.uid() }, "revision": number });
                writes::merge::<ControllerRevision>(client, &revision.metadata, COMPONENT, &patch)
                    .await
                    .map(drop)
            }
            Action::DeleteRevision(revision) => {
                writes::delete::<ControllerRevision>(client, &revision.metadata).await
            }
            Action::Ended(pod) => {
                self.record_end(set, &pod);
                Ok(())
            }
            Action::Create(pods) => self.pods.create(key, &reference, &pods).await,
            Action::Delete(pods) => self.pods.delete(&reference, &pods).await,
            Action::Status(status) => self.write_status(set, *status).await,
        }
    }

    fn record_end(&self, set: &DaemonSet, pod: &Pod) {
        let (kind, reason, word) = match phase(pod) {
            "Failed" => (EventType::Warning, "FailedDaemonPod", "failed"),
            _ => (EventType::Normal, "SucceededDaemonPod", "succeeded"),
        };
        let node = nodes::target(pod).unwrap_or_default();
        let name = ObjectKey::of(&pod.metadata);
        let message = format!("Found {word} daemon pod {name} on node {node}, will try to delete it");
        self.pods.recorder.event(&set.object_ref(&()), kind, reason, message);
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = serde_json::json!({
            "currentNumberScheduled": status.current_number_scheduled,
            "numberMisscheduled": status.number_misscheduled,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "numberReady": status.number_ready,
            "observedGeneration": status.observed_generation,
            "updatedNumberScheduled": status.updated_number_scheduled,
            "numberAvailable": status.number_available,
            "numberUnavailable": status.number_unavailable,
        });
        let written =
            writes::status::<DaemonSet>(&self.context.client, &set.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }
}
