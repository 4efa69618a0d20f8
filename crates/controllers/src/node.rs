//! The node lifecycle controller: detects nodes that stopped sending heartbeats, taints them and evicts their Pods.
//!
//! ```text
//! [Lease] --renewed--> heartbeat --missing for too long--> [Node] Ready Unknown, taints
//!                                                            `--> [Pod] not ready, later evicted
//! ```
//!
//! Watches Nodes, the Leases in `kube-node-lease` and Pods. Writes taints of nodes, the conditions of nodes without
//! heartbeats and the Ready condition of their Pods, and deletes Pods that do not tolerate their node's taints.
//!
//! The time since the last heartbeat is measured with this machine's monotonic clock, from when a change of the lease or
//! of the Ready condition's heartbeat was observed: clocks of nodes are not trusted, and every node gets the full grace
//! period after a start of the control plane.

mod eviction;
mod run;

pub(crate) use run::start;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_types::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE};

use crate::taints::{NO_EXECUTE, NO_SCHEDULE};

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The node's heartbeats have stopped: write these conditions.
    Conditions(Vec<NodeCondition>),
    /// Set the Ready condition of the node's Pods to False, which removes them from their Services.
    PodsNotReady,
    /// Replace the node's taints.
    Taints(Vec<Taint>),
}

/// Conditions that the node itself reports, which become Unknown when its heartbeats stop.
const REPORTED_BY_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that, while True, taint the node with `NoSchedule` under the given key.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// Decides the conditions and taints of a node whose last heartbeat was observed `silent` ago. After `grace` its
/// conditions become Unknown; the returned [`Next`] says when that would be.
pub fn reconcile(node: &Node, silent: Duration, grace: Duration, now: Timestamp) -> (Vec<Action>, Next) {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let mut actions = Vec::new();
    let known = conditions(node).to_vec();
    let ready = |all: &[NodeCondition]| all.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
    let mut judged = known.clone();
    if silent >= grace {
        if ready(&known).as_deref() != Some("Unknown") {
            set_unknown(&mut judged, &now);
            actions.push(Action::Conditions(judged.clone()));
        }
        actions.push(Action::PodsNotReady);
    }
    let taints = taints(node, &judged, &now);
    if node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default() != taints {
        actions.push(Action::Taints(taints));
    }
    let next = if silent < grace { Next::After(grace - silent) } else { Next::Wait };
    (actions, next)
}

fn set_unknown(conditions: &mut Vec<NodeCondition>, now: &Time) {
    for kind in REPORTED_BY_NODE {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_transition_time: Some(now.clone()),
                ..Default::default()
            }),
        }
    }
}

/// The taints a node should have: those that others set, then those that follow from its conditions and from a cordon.
/// A taint that the node has already keeps its `timeAdded`.
fn taints(node: &Node, conditions: &[NodeCondition], now: &Time) -> Vec<Taint> {
    let holds = |kind: &str, status: &str| conditions.iter().any(|c| c.type_ == kind && c.status == status);
    let mut wanted = Vec::new();
    if holds("Ready", "Unknown") {
        wanted.extend([(TAINT_UNREACHABLE, NO_SCHEDULE), (TAINT_UNREACHABLE, NO_EXECUTE)]);
    } else if !holds("Ready", "True") {
        wanted.push((TAINT_NOT_READY, NO_SCHEDULE));
        if holds("Ready", "False") {
            wanted.push((TAINT_NOT_READY, NO_EXECUTE));
        }
    }
    wanted
        .extend(PRESSURES.iter().filter(|(kind, _)| holds(kind, "True")).map(|(_, key)| (*key, NO_SCHEDULE)));
    if node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default() {
        wanted.push((TAINT_UNSCHEDULABLE, NO_SCHEDULE));
    }
    let ours = |t: &Taint| {
        let condition = [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&t.key.as_str());
        let pressure = PRESSURES.iter().any(|(_, key)| *key == t.key);
        let cordon = t.key == TAINT_UNSCHEDULABLE;
        (condition && (t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE))
            || ((pressure || cordon) && t.effect == NO_SCHEDULE)
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut taints: Vec<_> = present.into_iter().filter(|t| !ours(t) || is_wanted(t)).collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            taints.push(Taint { key, effect, time_added: Some(now.clone()), value: None });
        }
    }
    taints
}

#[cfg(test)]
mod tests;
