//! The I/O of the node lifecycle controller: it tracks heartbeats, and applies the decisions on nodes and evictions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Patch;
use kube::{Api, Error, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Change, Index, Informer, Next, ObjectKey, Queue};
use yado_types::labels::NODE_LEASE_NAMESPACE;
use yado_types::pod::{is_ready, node_name};

use super::{Action, conditions, eviction, reconcile};
use crate::taints::NO_EXECUTE;
use crate::{Context, writes};

const COMPONENT: &str = "node-controller";
/// Nodes reconciled concurrently, and likewise Pods that may have to be evicted.
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    recorder: Recorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    pods_on: Arc<Index<String, Pod>>,
    /// When this controller started.
    started: Timestamp,
    /// When each node's last heartbeat was observed, by the monotonic clock. One entry per Node object.
    heartbeats: Mutex<HashMap<String, Duration>>,
}

/// Starts the node lifecycle controller and the eviction of Pods from tainted nodes.
pub(crate) fn start(context: &Context) {
    let (nodes, pods) = (context.informers.all::<Node>(), context.informers.all::<Pod>());
    let this = Arc::new(Controller {
        context: context.clone(),
        recorder: context.recorder(COMPONENT),
        nodes: nodes.clone(),
        pods: pods.clone(),
        pods_on: pods.index(|p: &Pod| node_name(p).map(str::to_owned).into_iter().collect()),
        started: context.clock.now(),
        heartbeats: Mutex::default(),
    });
    this.clone().watch_leases();
    this.clone().watch_nodes(&nodes);
    this.watch_evictions(&nodes, &pods);
}

fn heartbeat(node: &Node) -> Option<Time> {
    conditions(node).iter().find(|c| c.type_ == "Ready").and_then(|c| c.last_heartbeat_time.clone())
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|t| t.effect == NO_EXECUTE).collect()
}

impl Controller {
    /// Counts renewals of leases as heartbeats. They do not queue the node: its next check, at the end of the grace period,
    /// finds them.
    fn watch_leases(self: Arc<Self>) {
        let leases = self.context.informers.all::<Lease>();
        let this = self.clone();
        leases.feed(move |change| {
            let renewed = |l: &Arc<Lease>| l.spec.as_ref().and_then(|s| s.renew_time.clone());
            let (old, new) = (change.old.as_ref().map(renewed), change.new.as_ref().map(renewed));
            if change.key.namespace == NODE_LEASE_NAMESPACE && new.is_some() && old != new {
                this.record_heartbeat(&change.key.name);
            }
        });
    }

    fn record_heartbeat(&self, node: &str) {
        let now = self.context.clock.monotonic();
        // Only Node objects create entries, so that leases without a node take no memory.
        if let Some(at) = self.heartbeats.lock().get_mut(node) {
            *at = now;
        }
    }

    fn watch_nodes(self: Arc<Self>, nodes: &Informer<Node>) {
        let queue = Queue::new(self.context.clock.clone());
        let this = self.clone();
        nodes.feed_queue(&queue, move |change| {
            let name = change.key.name.clone();
            match (&change.old, &change.new) {
                (_, None) => {
                    this.heartbeats.lock().remove(&name);
                }
                (None, Some(_)) => {
                    this.heartbeats.lock().insert(name.clone(), this.context.clock.monotonic());
                }
                (Some(old), Some(new)) if heartbeat(old) != heartbeat(new) => this.record_heartbeat(&name),
                _ => {}
            }
            [name]
        });
        let context = self.context.clone();
        context.run("nodes", &queue, WORKERS, move |name| {
            let this = self.clone();
            async move { this.sync(&name).await }
        });
    }

    async fn sync(&self, name: &str) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(&ObjectKey::new("", name)) else { return Ok(Next::Wait) };
        let Some(heartbeat) = self.heartbeats.lock().get(name).copied() else { return Ok(Next::Wait) };
        let silent = self.context.clock.monotonic().saturating_sub(heartbeat);
        let (actions, next) =
            reconcile(&node, silent, self.context.config.node_grace, self.context.clock.now());
        let api: Api<Node> = Api::all(self.context.client.clone());
        let params = writes::params(COMPONENT);
        for action in actions {
            match action {
                Action::Conditions(conditions) => {
                    let patch = json!({
                        "metadata": { "uid": node.uid() },
                        "status": { "conditions": changed(&conditions, super::conditions(&node)) },
                    });
                    api.patch_status(name, &params, &Patch::Strategic(&patch)).await?;
                    let message = format!("Node {name} status is now: NodeNotReady");
                    self.recorder.event(&node.object_ref(&()), EventType::Normal, "NodeNotReady", message);
                    // The changed node triggers the pass that writes the taints, whose patch needs its new version.
                    return Ok(next);
                }
                Action::PodsNotReady => self.pods_not_ready(name).await?,
                Action::Taints(taints) => {
                    let patch = json!({
                        "metadata": { "resourceVersion": node.resource_version() },
                        "spec": { "taints": (!taints.is_empty()).then_some(taints) },
                    });
                    match api.patch(name, &params, &Patch::Merge(&patch)).await {
                        // The node has changed since: decide again shortly, on its newer state.
                        Err(error) if writes::has_code(&error, 409) => {
                            return Ok(Next::After(Duration::from_millis(20)));
                        }
                        other => drop(other?),
                    }
                }
            }
        }
        Ok(next)
    }

    async fn pods_not_ready(&self, node: &str) -> Result<(), Error> {
        let now = self.context.clock.now();
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        for pod in self.pods_on.get(&node.to_owned()).into_iter().filter(|p| is_ready(p)) {
            let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [{
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": now,
            }] } });
            let api: Api<Pod> = writes::api_in_namespace_of(&self.context.client, &pod.metadata);
            match api
                .patch_status(&pod.name_any(), &writes::params(COMPONENT), &Patch::Strategic(&patch))
                .await
            {
                Err(error) if writes::has_code(&error, 404) || writes::has_code(&error, 409) => continue,
                other => drop(other?),
            }
            self.recorder.event(
                &pod.object_ref(&()),
                EventType::Warning,
                "NodeNotReady",
                "Node is not ready",
            );
        }
        Ok(())
    }

    fn watch_evictions(self: Arc<Self>, nodes: &Informer<Node>, pods: &Informer<Pod>) {
        let queue = Queue::new(self.context.clock.clone());
        let this = self.clone();
        nodes.feed_queue(&queue, move |change| this.pods_of_tainted(change));
        let this = self.clone();
        pods.feed_queue(&queue, move |change| {
            let pod = change
                .new
                .as_ref()
                .filter(|_| change.old.as_ref().is_none_or(|old| node_name(old).is_none()));
            let node = pod.and_then(|p| this.nodes.get(&ObjectKey::new("", node_name(p)?)));
            node.filter(|n| !no_execute(n).is_empty()).map(|_| change.key.clone())
        });
        let context = self.context.clone();
        context.run("evictions", &queue, WORKERS, move |key| {
            let this = self.clone();
            async move { this.evict(key).await }
        });
    }

    fn pods_of_tainted(&self, change: &Change<Node>) -> Vec<ObjectKey> {
        let taints = |node: &Option<Arc<Node>>| node.as_ref().map(|n| no_execute(n)).unwrap_or_default();
        if taints(&change.old) == taints(&change.new) || taints(&change.new).is_empty() {
            return Vec::new();
        }
        self.pods_on.get(&change.key.name).iter().map(|p| ObjectKey::of(p.meta())).collect()
    }

    async fn evict(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(&key) else { return Ok(Next::Wait) };
        let node = node_name(&pod).and_then(|name| self.nodes.get(&ObjectKey::new("", name)));
        let Some(node) = node else { return Ok(Next::Wait) };
        let (grace, now) = (self.context.config.eviction_grace, self.context.clock.now());
        match eviction::due_in(&pod, &no_execute(&node), grace, self.started, now) {
            None => Ok(Next::Wait),
            Some(Duration::ZERO) => {
                let message = format!("Marking for deletion Pod {key}");
                self.recorder.event(&pod.object_ref(&()), EventType::Normal, "TaintManagerEviction", message);
                let message = "Taint manager: deleting due to NoExecute taint";
                let condition = writes::disruption(&pod, "DeletionByTaintManager", message, now);
                let status = serde_json::json!({ "conditions": [condition] });
                writes::pod_status(&self.context.client, &pod, COMPONENT, &status).await?;
                writes::delete::<Pod>(&self.context.client, &pod.metadata).await?;
                Ok(Next::Wait)
            }
            Some(wait) => Ok(Next::After(wait)),
        }
    }
}

/// The conditions that differ from the present ones; a strategic merge patch keeps the others.
fn changed(wanted: &[NodeCondition], present: &[NodeCondition]) -> Vec<NodeCondition> {
    wanted.iter().filter(|c| !present.contains(c)).cloned().collect()
}
