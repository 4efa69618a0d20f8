//! Eviction of Pods that do not tolerate a `NoExecute` taint of their node, or no longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use yado_types::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use yado_types::pod::is_terminating;

use crate::taints::{NO_EXECUTE, tolerates};

/// Time until a Pod must be evicted from a node with these taints; `None` if it may stay. `grace` is the toleration of a
/// node that is not ready or unreachable for Pods without one of their own. `started` is when the control plane started:
/// such taints count from then at the earliest, since heartbeats before it could not be observed.
pub fn due_in(
    pod: &Pod,
    taints: &[Taint],
    grace: Duration,
    started: Timestamp,
    now: Timestamp,
) -> Option<Duration> {
    if is_terminating(pod) {
        return None;
    }
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let taints = taints.iter().filter(|t| t.effect == NO_EXECUTE);
    taints.filter_map(|taint| due_for(taint, tolerations, grace, started, now)).min()
}

fn due_for(
    taint: &Taint,
    tolerations: &[Toleration],
    grace: Duration,
    started: Timestamp,
    now: Timestamp,
) -> Option<Duration> {
    let silence = [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&taint.key.as_str());
    let value = taint.value.as_deref().unwrap_or_default();
    let matching: Vec<_> =
        tolerations.iter().filter(|t| tolerates(t, &taint.key, value, NO_EXECUTE)).collect();
    let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min();
    let tolerated_for = match (seconds, matching.is_empty()) {
        (Some(seconds), _) => Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        (None, false) => return None,
        // Admission adds this toleration to new Pods; Pods without it are treated alike.
        (None, true) if silence => grace,
        (None, true) => Duration::ZERO,
    };
    let since = taint.time_added.as_ref().map_or(now, |t| t.0);
    let since = if silence { since.max(started) } else { since };
    let tolerated_for = SignedDuration::try_from(tolerated_for).unwrap_or(SignedDuration::MAX);
    Some(Duration::try_from(tolerated_for.saturating_sub(now.duration_since(since))).unwrap_or_default())
}
