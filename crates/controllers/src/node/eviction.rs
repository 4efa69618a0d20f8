//! Pods that do not bear a `NoExecute` taint of their node, or only for a while.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use yado_types::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use yado_types::pod::is_terminating;

use crate::taints::{NO_EXECUTE, tolerates};

/// In how long a Pod must go from a node with these taints; `None` if it may stay. `grace` is how long Pods bear a
/// node that is not ready or unreachable where they do not say. `started` is when the control plane did: a node that
/// was silent before has had no chance to be heard.
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
    let bearing: Vec<_> =
        tolerations.iter().filter(|t| tolerates(t, &taint.key, value, NO_EXECUTE)).collect();
    let seconds = bearing.iter().filter_map(|t| t.toleration_seconds).min();
    let bears = match (seconds, bearing.is_empty()) {
        (Some(seconds), _) => Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        (None, false) => return None,
        // Kubernetes' admission adds this toleration to every Pod; to one that came without, it is the same.
        (None, true) if silence => grace,
        (None, true) => Duration::ZERO,
    };
    let since = taint.time_added.as_ref().map_or(now, |t| t.0);
    let since = if silence { since.max(started) } else { since };
    let bears = SignedDuration::try_from(bears).unwrap_or(SignedDuration::MAX);
    Some(Duration::try_from(bears.saturating_sub(now.duration_since(since))).unwrap_or_default())
}
