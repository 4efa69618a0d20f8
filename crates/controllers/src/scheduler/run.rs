//! The scheduling loop: keeps the snapshot current, queues Pods without a node, and writes the decisions.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Binding, Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PostParams};
use kube::{Client, Error, Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Change, Clock, ObjectKey};
use yado_types::labels::{DEPENDS_ON, SELECTED_NODE};
use yado_types::pod::{condition, is_ended, is_terminating, node_name};

use super::dependencies::Components;
use super::{PodInfo, Snapshot, Unschedulable, Volumes, schedule};
use crate::{Context, writes};

const COMPONENT: &str = "default-scheduler";
/// Reason of the condition and event of a Pod that waits for another component of its app.
const WAITING: &str = "WaitingForDependencies";
/// Maximum number of writes in flight: enough to fill the API server's group commit, few enough not to flood a slow
/// server.
const IN_FLIGHT: usize = 64;
/// Maximum number of Pods that are scheduled while the lock on the state is held, which delays updates of the snapshot.
const BATCH: usize = 64;
/// Retry delay after a first failed binding; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// Maximum of the retry delay; Kubernetes' value.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Starts the scheduler; its task belongs to the context's owner.
pub(crate) fn start(context: &Context) {
    let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new() });
    let pods = context.informers.all::<Pod>();
    let (nodes, namespaces) = (context.informers.all::<Node>(), context.informers.all::<Namespace>());
    let to = shared.clone();
    pods.feed(move |change| {
        if to.state.lock().pod_changed(change) {
            to.wake.notify_one();
        }
    });
    let to = shared.clone();
    nodes.feed(move |change| {
        to.state.lock().node_changed(change);
        to.wake.notify_one();
    });
    let to = shared.clone();
    namespaces.feed(move |change| {
        let labels = change.new.as_ref().map(|n| n.metadata.labels.clone().unwrap_or_default());
        to.state.lock().snapshot.set_namespace(&change.key.name, labels);
    });
    feed_volumes(context, &shared);
    let (claims, volumes) =
        (context.informers.all::<PersistentVolumeClaim>(), context.informers.all::<PersistentVolume>());
    let classes = context.informers.all::<StorageClass>();
    let run = Scheduler {
        shared,
        client: context.client.clone(),
        clock: context.clock.clone(),
        recorder: context.recorder(COMPONENT),
    };
    context.tasks.spawn("scheduler", async move {
        nodes.synced().await;
        pods.synced().await;
        claims.synced().await;
        volumes.synced().await;
        classes.synced().await;
        run.forever().await;
    });
}

fn feed_volumes(context: &Context, shared: &Arc<Shared>) {
    let to = shared.clone();
    context.informers.all::<PersistentVolumeClaim>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.claim_changed(change));
        to.wake.notify_one();
    });
    let to = shared.clone();
    context.informers.all::<PersistentVolume>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.volume_changed(change));
        to.wake.notify_one();
    });
    let to = shared.clone();
    context.informers.all::<StorageClass>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.class_changed(change));
        to.wake.notify_one();
    });
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

/// Order of the queue: highest priority first, then oldest, then by name.
type Rank = (Reverse<i32>, Option<Timestamp>, ObjectKey);

/// The snapshot and the queue. It has an entry for each Pod without a node.
#[derive(Default)]
struct State {
    snapshot: Snapshot,
    components: Components,
    /// Pods to schedule.
    queue: BTreeSet<Rank>,
    /// All Pods without a node that this scheduler is responsible for.
    candidates: HashMap<ObjectKey, Candidate>,
    /// Whether the cluster has changed such that an unschedulable Pod may fit: all of them are queued again.
    retry_unschedulable: bool,
    /// Number of decisions so far, modulo 2⁶⁴; see [`schedule`].
    turn: usize,
}

/// A Pod without a node.
#[derive(Clone)]
struct Candidate {
    pod: Arc<Pod>,
    info: Arc<PodInfo>,
    /// It fits no node, or waits for a component or a claim: it is not in the queue until the cluster changes.
    unschedulable: bool,
    /// Bindings that failed.
    failures: u32,
    /// Whether the event about its malformed annotation has been recorded.
    warned: bool,
}

fn rank(pod: &Pod) -> Rank {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default();
    let age = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (Reverse(priority), age, ObjectKey::of(&pod.metadata))
}

/// Whether this scheduler is responsible for the Pod: it is neither bound, ended, terminating nor gated, and names no other
/// scheduler.
fn needs_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or(COMPONENT);
    let gated = spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty());
    node_name(pod).is_none() && !is_terminating(pod) && !is_ended(pod) && scheduler == COMPONENT && !gated
}

impl State {
    /// Applies the change of a Pod. Returns whether there may be a Pod to schedule now.
    fn pod_changed(&mut self, change: &Change<Pod>) -> bool {
        for component in self.components.changed(change) {
            self.retry_unschedulable |=
                self.candidates.values().any(|c| c.unschedulable && c.info.dependencies.include(&component));
        }
        let goes = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|p| is_terminating(p));
        // A terminating Pod no longer counts in spread constraints.
        self.retry_unschedulable |= goes(&change.new) && !goes(&change.old);
        if let Some(old) = &change.old
            && change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid)
        {
            self.retry_unschedulable |= self.snapshot.remove(&old.uid().unwrap_or_default());
        }
        let unbound = change.new.as_ref().filter(|p| needs_node(p));
        let Some(pod) = unbound else {
            if let Some(known) = self.candidates.remove(&change.key) {
                self.queue.remove(&rank(&known.pod));
            }
            if let Some(pod) = &change.new {
                let uid = pod.uid().unwrap_or_default();
                match node_name(pod).filter(|_| !is_ended(pod)) {
                    Some(node) => self.snapshot.place(&uid, node, Arc::new(PodInfo::of(pod))),
                    None => self.retry_unschedulable |= self.snapshot.remove(&uid),
                }
            }
            return self.retry_unschedulable;
        };
        let info = Arc::new(PodInfo::of(pod));
        if self.snapshot.holds(&pod.uid().unwrap_or_default()) {
            // Its binding is being written. If that fails, it is scheduled again with its newest state.
            if let Some(known) = self.candidates.get_mut(&change.key) {
                (known.pod, known.info) = (pod.clone(), info);
            }
            return false;
        }
        if let Some(known) = self.candidates.get_mut(&change.key) {
            let same = known.info == info
                && known.pod.metadata.uid == pod.metadata.uid
                && rank(&known.pod) == rank(pod);
            if same && known.unschedulable {
                // Only its status has changed, by the condition that this scheduler wrote.
                known.pod = pod.clone();
                return false;
            }
            self.queue.remove(&rank(&known.pod));
        }
        self.queue.insert(rank(pod));
        let warned = self.candidates.get(&change.key).is_some_and(|known| known.warned);
        let candidate = Candidate { pod: pod.clone(), info, unschedulable: false, failures: 0, warned };
        self.candidates.insert(change.key.clone(), candidate);
        true
    }

    fn storage_changed<T>(&mut self, change: impl FnOnce(&mut Volumes) -> T) {
        change(&mut self.snapshot.volumes);
        self.retry_unschedulable |=
            self.candidates.values().any(|c| c.unschedulable && !c.info.claims.is_empty());
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match &change.new {
            Some(node) => self.retry_unschedulable |= self.snapshot.set_node(node),
            None => self.snapshot.remove_node(&change.key.name),
        }
    }

    /// Takes Pods from the queue and schedules them, until there are `limit` decisions or more.
    fn decide(&mut self, limit: usize) -> Vec<Decision> {
        if std::mem::take(&mut self.retry_unschedulable) {
            for candidate in self.candidates.values_mut().filter(|c| c.unschedulable) {
                candidate.unschedulable = false;
                self.queue.insert(rank(&candidate.pod));
            }
        }
        let mut decisions = Vec::new();
        while decisions.len() < limit {
            let Some((.., key)) = self.queue.pop_first() else { break };
            let Some(candidate) = self.candidates.get_mut(&key) else { continue };
            if let Some(why) = candidate.info.dependencies.malformed.clone().filter(|_| !candidate.warned) {
                candidate.warned = true;
                decisions.push(Decision::WarnMalformed { pod: candidate.pod.clone(), why });
            }
            if let Some(why) = self.components.missing(&candidate.info.dependencies) {
                candidate.unschedulable = true;
                decisions.push(Decision::Wait { pod: candidate.pod.clone(), why });
                continue;
            }
            self.turn = self.turn.wrapping_add(1);
            match schedule(&self.snapshot, &candidate.info, self.turn) {
                Ok(node) => {
                    let node = node.name().to_owned();
                    if let Some(claims) = claims_without_node(&self.snapshot, &candidate.info) {
                        // Its claims must be bound first; their changes queue it again.
                        candidate.unschedulable = true;
                        if !claims.is_empty() {
                            decisions.push(Decision::SelectNode {
                                candidate: candidate.clone(),
                                node,
                                claims,
                            });
                        }
                        continue;
                    }
                    let uid = candidate.pod.uid().unwrap_or_default();
                    self.snapshot.assume(&uid, &node, candidate.info.clone());
                    decisions.push(Decision::Bind { candidate: candidate.clone(), node });
                }
                Err(why) => {
                    candidate.unschedulable = true;
                    decisions.push(Decision::Reject { pod: candidate.pod.clone(), why });
                }
            }
        }
        decisions
    }

    /// Queues a Pod again whose binding failed, unless it is gone.
    fn binding_failed(&mut self, candidate: &Candidate) {
        self.snapshot.forget(&candidate.pod.uid().unwrap_or_default());
        let key = ObjectKey::of(&candidate.pod.metadata);
        if let Some(known) = self.candidates.get_mut(&key)
            && known.pod.metadata.uid == candidate.pod.metadata.uid
        {
            known.failures = candidate.failures + 1;
            known.unschedulable = false;
            self.queue.insert(rank(&known.pod));
        }
    }
}

/// A write that a scheduling decision requires.
enum Decision {
    /// Bind the Pod to the node.
    Bind { candidate: Candidate, node: String },
    /// Report in condition and event that no node is feasible.
    Reject { pod: Arc<Pod>, why: Unschedulable },
    /// Write the selected node to claims that are then bound there.
    SelectNode { candidate: Candidate, node: String, claims: Vec<ObjectKey> },
    /// Report in condition and event that the Pod waits for another component.
    Wait { pod: Arc<Pod>, why: String },
    /// Record an event about a malformed annotation.
    WarnMalformed { pod: Arc<Pod>, why: String },
}

/// Unbound claims of a Pod that need a selected node, which may be none of them; `None` if all claims are bound.
fn claims_without_node(snapshot: &Snapshot, pod: &PodInfo) -> Option<Vec<ObjectKey>> {
    let needs = snapshot.volumes.needs(pod, |name| snapshot.node(name).is_some()).ok()?;
    (!needs.are_met()).then(|| needs.without_node())
}

struct Scheduler {
    shared: Arc<Shared>,
    client: Client,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
}

impl Scheduler {
    async fn forever(&self) {
        let mut writing: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let wake = self.shared.wake.notified();
            let room = IN_FLIGHT.saturating_sub(writing.len());
            let decisions = self.shared.state.lock().decide(room.min(BATCH));
            let any = !decisions.is_empty();
            writing.extend(decisions.into_iter().map(|d| Box::pin(self.apply(d)) as BoxFuture<'_, ()>));
            let full = writing.len() >= IN_FLIGHT;
            tokio::select! {
                Some(()) = writing.next() => {}
                () = wake, if !full => {}
                // The queue may have more than one batch took.
                () = std::future::ready(()), if any && !full => {}
            }
        }
    }

    async fn apply(&self, decision: Decision) {
        match decision {
            Decision::Bind { candidate, node } => {
                let Err(error) = self.bind(&candidate.pod, &node).await else {
                    let pod = &candidate.pod;
                    let message = format!("Successfully assigned {} to {node}", ObjectKey::of(&pod.metadata));
                    self.recorder.event(&pod.object_ref(&()), EventType::Normal, "Scheduled", message);
                    return;
                };
                tracing::debug!(pod = %ObjectKey::of(&candidate.pod.metadata), node, %error, "not bound, will try again");
                self.retry_later(&candidate).await;
            }
            Decision::SelectNode { candidate, node, claims } => {
                for key in claims {
                    if let Err(error) = self.name_node(&key, &node).await {
                        tracing::debug!(claim = %key, node, %error, "the node could not be named on a claim");
                        self.retry_later(&candidate).await;
                        return;
                    }
                }
            }
            Decision::Reject { pod, why } => {
                let why = why.to_string();
                self.recorder.event(&pod.object_ref(&()), EventType::Warning, "FailedScheduling", &why);
                self.set_unscheduled(&pod, "Unschedulable", &why).await;
            }
            Decision::Wait { pod, why } => {
                let before = condition(&pod, "PodScheduled").and_then(|c| c.message.as_deref());
                if before != Some(why.as_str()) {
                    self.recorder.event(&pod.object_ref(&()), EventType::Normal, WAITING, &why);
                }
                self.set_unscheduled(&pod, WAITING, &why).await;
            }
            Decision::WarnMalformed { pod, why } => {
                let message = format!("annotation {DEPENDS_ON} is not followed: {why}");
                self.recorder.event(&pod.object_ref(&()), EventType::Warning, "InvalidDependencies", message);
            }
        }
    }

    async fn retry_later(&self, candidate: &Candidate) {
        let delay = RETRY_FIRST.saturating_mul(1 << candidate.failures.min(10)).min(RETRY_MAX);
        self.clock.sleep(delay).await;
        self.shared.state.lock().binding_failed(candidate);
        self.shared.wake.notify_one();
    }

    async fn name_node(&self, claim: &ObjectKey, node: &str) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
        let patch = serde_json::json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
        api.patch(&claim.name, &writes::params(COMPONENT), &Patch::Merge(patch)).await.map(drop)
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Error> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let target = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..Default::default()
        };
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.uid(),
            ..Default::default()
        };
        let binding = Binding { metadata, target };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(COMPONENT.into()), ..Default::default() };
        let _: serde_json::Value = api.create_subresource("binding", &name, &params, &binding).await?;
        Ok(())
    }

    /// Writes the condition `PodScheduled` with the status False, unless the Pod has it with this message.
    async fn set_unscheduled(&self, pod: &Pod, reason: &str, why: &str) {
        let before = condition(pod, "PodScheduled").filter(|c| c.status == "False");
        if before.is_some_and(|c| c.message.as_deref() == Some(why)) {
            return;
        }
        let now = self.clock.now();
        let since = before.and_then(|c| c.last_transition_time.clone());
        let since = since.unwrap_or(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        let patch = serde_json::json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": why,
            "lastTransitionTime": since,
        }] } });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patched =
            api.patch_status(&pod.name_any(), &writes::params(COMPONENT), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            // The event informs the user meanwhile; the next attempt writes the condition.
            tracing::debug!(pod = %ObjectKey::of(&pod.metadata), %error, "could not say that a Pod fits nowhere");
        }
    }
}

#[cfg(test)]
mod tests;
