//! The I/O of the controllers of ReplicaSets and ReplicationControllers: they queue objects whose Pods change, and apply
//! the actions of each reconcile pass. A ReplicationController is converted to a ReplicaSet for the decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Error, ResourceExt};
use serde::Serialize;
use yado_reconcile::{Index, Informer, Kind, Next, ObjectKey, Queue};
use yado_types::pod::{is_ended, is_terminating, node_name};

use super::{Action, Observed, conditions, pod_of, reconcile};
use crate::pods::Pods;
use crate::writes::Namespaced;
use crate::{Context, owners, writes};

/// Objects of one kind reconciled concurrently.
const WORKERS: usize = 8;

/// A kind that this controller can reconcile by converting it to a ReplicaSet.
pub(crate) trait Replicated: Kind + Namespaced {
    /// Name of its controller, which events and managed fields carry.
    const COMPONENT: &'static str;
    /// Converts the object to a ReplicaSet.
    fn as_set(self: &Arc<Self>) -> Arc<ReplicaSet>;
}

impl Replicated for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn as_set(self: &Arc<Self>) -> Arc<ReplicaSet> {
        self.clone()
    }
}

impl Replicated for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn as_set(self: &Arc<Self>) -> Arc<ReplicaSet> {
        let spec = self.spec.as_ref().map(|s| ReplicaSetSpec {
            replicas: s.replicas,
            min_ready_seconds: s.min_ready_seconds,
            selector: LabelSelector { match_labels: s.selector.clone(), match_expressions: None },
            template: s.template.clone(),
        });
        Arc::new(ReplicaSet {
            metadata: self.metadata.clone(),
            spec,
            status: self.status.as_ref().and_then(alike),
        })
    }
}

/// Converts the status of one kind to that of the other by their serialised form: the fields have the same names.
fn alike<A: Serialize, B: serde::de::DeserializeOwned>(status: &A) -> Option<B> {
    serde_json::to_value(status).ok().and_then(|value| serde_json::from_value(value).ok())
}

struct Controller<K> {
    context: Context,
    sets: Arc<Informer<K>>,
    pods: Pods,
    /// ReplicaSets by their controller's uid.
    siblings: Arc<Index<String, ReplicaSet>>,
}

/// Starts the controllers of both kinds; their tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    start_kind::<ReplicaSet>(context, "replicasets");
    start_kind::<ReplicationController>(context, "replicationcontrollers");
}

fn start_kind<K: Replicated>(context: &Context, name: &'static str) {
    let sets = context.informers.all::<K>();
    let queue = Queue::new(context.clock.clone());
    let pods = Pods::new(context, K::COMPONENT);
    sets.feed_queue(&queue, |change| [change.key.clone()]);
    pods.feed(&queue, &sets);
    let siblings = context.sets_of.clone();
    let this = Arc::new(Controller { context: context.clone(), sets, pods, siblings });
    context.run(name, &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

impl<K: Replicated> Controller<K> {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.sets.synced().await;
        let settled = self.pods.settled(&key).await;
        let Some(own) = self.sets.get(&key) else {
            self.pods.forget(&key);
            return Ok(Next::Wait);
        };
        if settled {
            self.pods.forget(&key);
        }
        let set = own.as_set();
        let observed = self.observe(&set, settled).await?;
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        let (mut failure, mut created) = (None, false);
        let reference = own.object_ref(&());
        for action in actions {
            match action {
                Action::Adopt(pod) => {
                    let owner = owners::controller_reference(&*own);
                    self.pods.adopt::<K>(own.meta(), owner, &pod).await?;
                }
                Action::Release(pod) => {
                    self.pods.release(own.uid().as_deref().unwrap_or_default(), &pod).await?;
                }
                Action::Create(count) => {
                    let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
                    let owner = owners::controller_reference(&*own);
                    let pods = template.map(|t| vec![pod_of(t, &key.namespace, owner); count]);
                    match self.pods.create(&key, &reference, &pods.unwrap_or_default()).await {
                        Ok(()) => created = true,
                        Err(error) => failure = Some(("FailedCreate", error)),
                    }
                }
                Action::Delete(pods) => {
                    let deleted = self.pods.delete(&reference, &pods).await;
                    failure = deleted.err().map(|error| ("FailedDelete", error));
                }
                // The created Pods trigger another pass, which writes the status with them.
                Action::Status(_) if created => {}
                Action::Status(status) => {
                    let why = failure.as_ref().map(|(reason, error)| (*reason, writes::reason(error)));
                    self.write_status(&set, *status, why).await?;
                }
            }
        }
        failure.map_or(Ok(next), |(_, error)| Err(error))
    }

    async fn observe<'a>(&self, set: &'a ReplicaSet, settled: bool) -> Result<Observed<'a>, Error> {
        let uid = set.uid().unwrap_or_default();
        let candidates = self.pods.candidates(&set.metadata, settled).await?;
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let mut related_per_node = BTreeMap::new();
        if candidates.len() > usize::try_from(wanted).unwrap_or_default() {
            let owner = owners::controller_uid(&set.metadata).map(str::to_owned);
            let sets = owner.map(|o| self.siblings.get(&o)).unwrap_or_default();
            let mut uids: Vec<_> = sets.iter().filter_map(|s| s.uid()).collect();
            if uids.is_empty() {
                uids.push(uid);
            }
            let active = uids.iter().flat_map(|u| self.pods.of.get(u));
            for pod in active.filter(|p| !is_ended(p) && !is_terminating(p)) {
                if let Some(node) = node_name(&pod) {
                    *related_per_node.entry(node.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(Observed { set, candidates, related_per_node })
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
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = serde_json::json!({
            "replicas": status.replicas,
            "fullyLabeledReplicas": status.fully_labeled_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        });
        let written = writes::status::<K>(&self.context.client, &set.metadata, K::COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }
}
