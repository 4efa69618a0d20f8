//! The order in which surplus Pods are deleted, which is Kubernetes': first those whose loss matters least.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::{condition, is_ready, node_name, phase};

/// Annotation by which users influence the order: Pods of lower cost are deleted first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts Pods so that those to be deleted first come first.
pub fn sort(pods: &mut [Arc<Pod>], related_per_node: &BTreeMap<String, usize>, now: Timestamp) {
    pods.sort_by_cached_key(|pod| Rank::of(pod, related_per_node, now));
}

/// Sort key of a Pod, compared field by field: the smaller is deleted first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    bound: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowded: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    exists_for: Age,
    name: Option<String>,
}

/// A duration by its order of magnitude (powers of two of seconds), as Kubernetes compares ages: Pods of about the same
/// age are considered equal, because deleting always the newest might empty one failure domain. The shorter one is
/// deleted first.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Age(Option<u32>);

impl Age {
    fn since(time: Option<Timestamp>, now: Timestamp) -> Self {
        Self(time.map(|t| {
            let seconds = now.duration_since(t).as_secs().max(0) as u64;
            u64::BITS - seconds.leading_zeros()
        }))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    /// An unknown age is considered the shortest.
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl Rank {
    fn of(pod: &Pod, related_per_node: &BTreeMap<String, usize>, now: Timestamp) -> Self {
        let node = node_name(pod);
        let ready = is_ready(pod);
        let ready_since = || condition(pod, "Ready")?.last_transition_time.as_ref().map(|t| t.0);
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let cost = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST)?.parse().ok());
        Self {
            bound: node.is_some(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready,
            cost: cost.unwrap_or_default(),
            crowded: Reverse(node.and_then(|n| related_per_node.get(n).copied()).unwrap_or_default()),
            ready_for: if ready { Age::since(ready_since(), now) } else { Age(None) },
            restarts: Reverse(statuses.map(|s| s.restart_count).max().unwrap_or_default()),
            exists_for: Age::since(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
            name: pod.metadata.name.clone(),
        }
    }
}
