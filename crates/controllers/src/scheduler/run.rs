//! The loop around the scheduler's decisions.

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
/// Reason and event of a Pod that waits for another component.
const WAITING: &str = "WaitingForDependencies";
/// Writes in flight: enough to keep the API server's group commit full, few enough that a slow server is not flooded.
const IN_FLIGHT: usize = 64;
/// Pods decided on before the watches may update the snapshot again.
const BATCH: usize = 64;
/// Delay after a first failed binding; each further one doubles it.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// The longest such delay; Kubernetes' figure.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Starts the scheduler.
pub(crate) fn start(context: &Context) {
    let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new() });
    let pods = context.watches.all::<Pod>();
    let (nodes, namespaces) = (context.watches.all::<Node>(), context.watches.all::<Namespace>());
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
        (context.watches.all::<PersistentVolumeClaim>(), context.watches.all::<PersistentVolume>());
    let classes = context.watches.all::<StorageClass>();
    let run = Loop {
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
    context.watches.all::<PersistentVolumeClaim>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.claim_changed(change));
        to.wake.notify_one();
    });
    let to = shared.clone();
    context.watches.all::<PersistentVolume>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.volume_changed(change));
        to.wake.notify_one();
    });
    let to = shared.clone();
    context.watches.all::<StorageClass>().feed(move |change| {
        to.state.lock().storage_changed(|volumes| volumes.class_changed(change));
        to.wake.notify_one();
    });
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

/// Highest priority first, then oldest, then by name.
type Rank = (Reverse<i32>, Option<Timestamp>, ObjectKey);

/// As many entries as there are Pods without a node.
#[derive(Default)]
struct State {
    snapshot: Snapshot,
    components: Components,
    pending: BTreeSet<Rank>,
    known: HashMap<ObjectKey, Candidate>,
    /// Something changed by which a Pod may fit now that did not.
    hope: bool,
    turn: usize,
}

/// A Pod without a node.
#[derive(Clone)]
struct Candidate {
    pod: Arc<Pod>,
    info: Arc<PodInfo>,
    /// It fitted nowhere, and waits for the cluster to change.
    parked: bool,
    failures: u32,
    /// The user has been told that an annotation on it is not followed.
    complained: bool,
}

fn rank(pod: &Pod) -> Rank {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default();
    let age = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (Reverse(priority), age, ObjectKey::of(&pod.metadata))
}

/// Pods for another scheduler, or held back by a gate, are not ours.
fn wants_a_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or(COMPONENT);
    let gated = spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty());
    node_name(pod).is_none() && !is_terminating(pod) && !is_ended(pod) && scheduler == COMPONENT && !gated
}

impl State {
    /// Says whether there may be something to decide.
    fn pod_changed(&mut self, change: &Change<Pod>) -> bool {
        for component in self.components.changed(change) {
            self.hope |= self.known.values().any(|c| c.parked && c.info.dependencies.name(&component));
        }
        let goes = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|p| is_terminating(p));
        // What goes does not count against an even spread any more.
        self.hope |= goes(&change.new) && !goes(&change.old);
        if let Some(old) = &change.old
            && change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid)
        {
            self.hope |= self.snapshot.remove(&old.uid().unwrap_or_default());
        }
        let wanting = change.new.as_ref().filter(|p| wants_a_node(p));
        let Some(pod) = wanting else {
            if let Some(known) = self.known.remove(&change.key) {
                self.pending.remove(&rank(&known.pod));
            }
            if let Some(pod) = &change.new {
                let uid = pod.uid().unwrap_or_default();
                match node_name(pod).filter(|_| !is_ended(pod)) {
                    Some(node) => self.snapshot.place(&uid, node, Arc::new(PodInfo::of(pod))),
                    None => self.hope |= self.snapshot.remove(&uid),
                }
            }
            return self.hope;
        };
        let info = Arc::new(PodInfo::of(pod));
        if self.snapshot.holds(&pod.uid().unwrap_or_default()) {
            // Its binding is under way; should it fail, the next try rests on the newest state.
            if let Some(known) = self.known.get_mut(&change.key) {
                (known.pod, known.info) = (pod.clone(), info);
            }
            return false;
        }
        if let Some(known) = self.known.get_mut(&change.key) {
            let same = known.info == info
                && known.pod.metadata.uid == pod.metadata.uid
                && rank(&known.pod) == rank(pod);
            if same && known.parked {
                // Its status has changed, which is our own doing.
                known.pod = pod.clone();
                return false;
            }
            self.pending.remove(&rank(&known.pod));
        }
        self.pending.insert(rank(pod));
        let complained = self.known.get(&change.key).is_some_and(|known| known.complained);
        let candidate = Candidate { pod: pod.clone(), info, parked: false, failures: 0, complained };
        self.known.insert(change.key.clone(), candidate);
        true
    }

    fn storage_changed<T>(&mut self, change: impl FnOnce(&mut Volumes) -> T) {
        change(&mut self.snapshot.volumes);
        self.hope |= self.known.values().any(|c| c.parked && !c.info.claims.is_empty());
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match &change.new {
            Some(node) => self.hope |= self.snapshot.set_node(node),
            None => self.snapshot.remove_node(&change.key.name),
        }
    }

    /// Decides on at most `limit` Pods.
    fn decide(&mut self, limit: usize) -> Vec<Decision> {
        if std::mem::take(&mut self.hope) {
            for candidate in self.known.values_mut().filter(|c| c.parked) {
                candidate.parked = false;
                self.pending.insert(rank(&candidate.pod));
            }
        }
        let mut decisions = Vec::new();
        while decisions.len() < limit {
            let Some((.., key)) = self.pending.pop_first() else { break };
            let Some(candidate) = self.known.get_mut(&key) else { continue };
            if let Some(why) = candidate.info.dependencies.malformed.clone().filter(|_| !candidate.complained)
            {
                candidate.complained = true;
                decisions.push(Decision::Complain { pod: candidate.pod.clone(), why });
            }
            if let Some(why) = self.components.missing(&candidate.info.dependencies) {
                candidate.parked = true;
                decisions.push(Decision::Wait { pod: candidate.pod.clone(), why });
                continue;
            }
            self.turn = self.turn.wrapping_add(1);
            match schedule(&self.snapshot, &candidate.info, self.turn) {
                Ok(node) => {
                    let node = node.name().to_owned();
                    if let Some(claims) = open_claims(&self.snapshot, &candidate.info) {
                        // Its claims are bound first; their change brings it back.
                        candidate.parked = true;
                        if !claims.is_empty() {
                            decisions.push(Decision::Name { candidate: candidate.clone(), node, claims });
                        }
                        continue;
                    }
                    let uid = candidate.pod.uid().unwrap_or_default();
                    self.snapshot.assume(&uid, &node, candidate.info.clone());
                    decisions.push(Decision::Bind { candidate: candidate.clone(), node });
                }
                Err(why) => {
                    candidate.parked = true;
                    decisions.push(Decision::Refuse { pod: candidate.pod.clone(), why });
                }
            }
        }
        decisions
    }

    /// A binding failed: unless the Pod has gone or been placed by another, it is tried again.
    fn unbound(&mut self, candidate: &Candidate) {
        self.snapshot.forget(&candidate.pod.uid().unwrap_or_default());
        let key = ObjectKey::of(&candidate.pod.metadata);
        if let Some(known) = self.known.get_mut(&key)
            && known.pod.metadata.uid == candidate.pod.metadata.uid
        {
            known.failures = candidate.failures + 1;
            known.parked = false;
            self.pending.insert(rank(&known.pod));
        }
    }
}

enum Decision {
    Bind {
        candidate: Candidate,
        node: String,
    },
    Refuse {
        pod: Arc<Pod>,
        why: Unschedulable,
    },
    /// Name the node on claims that are to be bound there.
    Name {
        candidate: Candidate,
        node: String,
        claims: Vec<ObjectKey>,
    },
    /// Another component has to come first.
    Wait {
        pod: Arc<Pod>,
        why: String,
    },
    /// An annotation is not followed.
    Complain {
        pod: Arc<Pod>,
        why: String,
    },
}

/// Claims of a Pod on which its node is still to be named; `None` where all of them are bound.
fn open_claims(snapshot: &Snapshot, pod: &PodInfo) -> Option<Vec<ObjectKey>> {
    let needs = snapshot.volumes.needs(pod, |name| snapshot.node(name).is_some()).ok()?;
    (!needs.are_met()).then(|| needs.unnamed())
}

struct Loop {
    shared: Arc<Shared>,
    client: Client,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
}

impl Loop {
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
                // More may be pending than one batch took.
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
                self.try_again(&candidate).await;
            }
            Decision::Name { candidate, node, claims } => {
                for key in claims {
                    if let Err(error) = self.name_node(&key, &node).await {
                        tracing::debug!(claim = %key, node, %error, "the node could not be named on a claim");
                        self.try_again(&candidate).await;
                        return;
                    }
                }
            }
            Decision::Refuse { pod, why } => {
                let why = why.to_string();
                self.recorder.event(&pod.object_ref(&()), EventType::Warning, "FailedScheduling", &why);
                self.refuse(&pod, "Unschedulable", &why).await;
            }
            Decision::Wait { pod, why } => {
                let before = condition(&pod, "PodScheduled").and_then(|c| c.message.as_deref());
                if before != Some(why.as_str()) {
                    self.recorder.event(&pod.object_ref(&()), EventType::Normal, WAITING, &why);
                }
                self.refuse(&pod, WAITING, &why).await;
            }
            Decision::Complain { pod, why } => {
                let message = format!("annotation {DEPENDS_ON} is not followed: {why}");
                self.recorder.event(&pod.object_ref(&()), EventType::Warning, "InvalidDependencies", message);
            }
        }
    }

    async fn try_again(&self, candidate: &Candidate) {
        let delay = RETRY_FIRST.saturating_mul(1 << candidate.failures.min(10)).min(RETRY_LONGEST);
        self.clock.sleep(delay).await;
        self.shared.state.lock().unbound(candidate);
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

    /// Writes the condition if it says something else than before.
    async fn refuse(&self, pod: &Pod, reason: &str, why: &str) {
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
            // The event has told the user; the condition is written at the next attempt.
            tracing::debug!(pod = %ObjectKey::of(&pod.metadata), %error, "could not say that a Pod fits nowhere");
        }
    }
}

#[cfg(test)]
mod tests;
