//! The status of a StatefulSet.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::{is_ready, is_terminating, phase};

use super::history::{History, revision_of};
use super::identity;
use crate::replicaset::available_in;

/// Whether a Pod is running and ready.
pub fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

/// Time until a Pod is available, if it stays running and ready: zero if it is; `None` if it is not ready.
pub fn pod_available_in(set: &StatefulSet, pod: &Pod, now: Timestamp) -> Option<Duration> {
    let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
    available_in(pod, min_ready, now).filter(|_| is_running(pod))
}

/// The status of a StatefulSet with these Pods. The duration is the time until the next ready Pod becomes available.
pub fn of(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    history: &History,
    now: Timestamp,
) -> (StatefulSetStatus, Option<Duration>) {
    let counted = |holds: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let of_revision =
        |name: &str| counted(&|pod| !is_terminating(pod) && revision_of(pod).is_some_and(|r| r == name));
    let waits: Vec<_> = pods.iter().filter_map(|pod| pod_available_in(set, pod, now)).collect();
    let (all, ready) = (counted(&|_| true), counted(&is_running));
    let updated = of_revision(&history.update.name);
    let available = counted(&|pod| pod_available_in(set, pod, now).is_some_and(|wait| wait.is_zero()));
    let wanted = identity::replicas(set);
    // A rollout is complete when nothing but its Pods is left, whatever the update strategy.
    let complete = [all, ready, updated] == [wanted; 3];
    let current = if complete { &history.update.name } else { &history.current.name };
    let before = set.status.as_ref();
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: all,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(of_revision(current)),
        updated_replicas: some(updated),
        current_revision: Some(current.clone()),
        update_revision: Some(history.update.name.clone()),
        collision_count: Some(before.and_then(|s| s.collision_count).unwrap_or_default()),
        conditions: before.and_then(|s| s.conditions.clone()),
    };
    (status, waits.into_iter().filter(|wait| !wait.is_zero()).min())
}

/// A count in the form in which the API leaves out zero.
fn some(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
