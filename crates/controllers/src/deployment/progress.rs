//! The Progressing condition: whether a rollout makes progress, is complete, is paused or has exceeded its progress
//! deadline. `kubectl rollout status` reads it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use yado_reconcile::Next;

use super::{Sets, status};

const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The progress deadline in seconds, 600 by default; `None` if it is the largest 32-bit number, which means "no deadline"
/// in Kubernetes.
fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600);
    (seconds != i32::MAX).then_some(seconds)
}

/// Updates the condition when a Deployment is paused or resumed, so that paused time does not count towards the deadline.
pub fn pause(deployment: &Deployment, new_status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = status::get(new_status, PROGRESSING).and_then(|c| c.reason.clone());
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default();
    let was_paused = reason.as_deref() == Some(PAUSED);
    if paused && !was_paused {
        status::set(new_status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into(), now);
    } else if !paused && was_paused {
        let message = "Deployment is resumed".into();
        status::set(new_status, PROGRESSING, "Unknown", "DeploymentResumed", message, now);
    }
}

/// Records the creation of a new ReplicaSet in the condition, which restarts the deadline.
pub fn created(sets: &Sets<'_>, new_status: &mut DeploymentStatus, name: &str, now: Timestamp) {
    if deadline(sets.deployment).is_some() {
        let message = format!("Created new replica set \"{name}\"");
        status::renew(new_status, PROGRESSING, "True", "NewReplicaSetCreated", message, now);
    }
}

/// Updates the condition by the progress of the rollout. The result says when the deadline must be checked if nothing
/// changes before.
pub fn judge(sets: &Sets<'_>, new_status: &mut DeploymentStatus, now: Timestamp) -> Next {
    let Some(seconds) = deadline(sets.deployment) else {
        new_status.conditions.get_or_insert_default().retain(|c| c.type_ != PROGRESSING);
        return Next::Wait;
    };
    let Some(new) = &sets.new else { return Next::Wait };
    let name = new.metadata.name.as_deref().unwrap_or_default();
    if status::get(new_status, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        status::set(new_status, PROGRESSING, "True", "FoundNewReplicaSet", message, now);
    }
    let reason = status::get(new_status, PROGRESSING).and_then(|c| c.reason.clone()).unwrap_or_default();
    let was_complete = reason == COMPLETE && new_status.replicas == new_status.updated_replicas;
    if !was_complete {
        if status::is_complete(sets, new_status) {
            let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
            status::renew(new_status, PROGRESSING, "True", COMPLETE, message, now);
        } else if has_moved(sets.deployment, new_status) {
            let message = format!("ReplicaSet \"{name}\" is progressing.");
            status::renew(new_status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        } else if remaining(new_status, seconds, now).is_some_and(|left| left.is_zero()) {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            status::set(new_status, PROGRESSING, "False", TIMED_OUT, message, now);
        }
    }
    if status::is_complete(sets, new_status) {
        return Next::Wait;
    }
    remaining(new_status, seconds, now).filter(|left| !left.is_zero()).map_or(Next::Wait, Next::After)
}

/// Whether there are more updated, ready or available Pods than in the last written status, or fewer old ones.
fn has_moved(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let none = DeploymentStatus::default();
    let old = deployment.status.as_ref().unwrap_or(&none);
    let n = |count: Option<i32>| count.unwrap_or_default();
    n(new.updated_replicas) > n(old.updated_replicas)
        || n(new.replicas) - n(new.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// Time until the deadline; `None` if the rollout is complete or has timed out already.
fn remaining(new_status: &DeploymentStatus, seconds: i32, now: Timestamp) -> Option<Duration> {
    let condition = status::get(new_status, PROGRESSING)?;
    if matches!(condition.reason.as_deref(), Some(COMPLETE | TIMED_OUT)) {
        return None;
    }
    let moved = condition.last_update_time.as_ref()?.0;
    let left = SignedDuration::from_secs(seconds.into()) - now.duration_since(moved);
    Some(Duration::try_from(left).unwrap_or_default())
}
