//! When Pods ended, and how long their replacements are delayed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::condition;

/// Delay of a replacement after a first failure; it doubles with each further one. Kubernetes' value.
const FIRST: Duration = Duration::from_secs(10);
/// Maximum of the delay; Kubernetes' value.
const LONGEST: Duration = Duration::from_secs(600);

/// Failures of a Job's Pods since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// The failures since the last success, after these Pods have ended too. Times in a Pod's status are whole seconds, so a
    /// failure in the same second as a success counts as the later of the two.
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().filter_map(|pod| ended_at(pod)).max();
        let failures = failed.iter().filter_map(|pod| ended_at(pod));
        let since: Vec<_> = failures.filter(|at| success.is_none_or(|success| *at >= success)).collect();
        let before = if succeeded.is_empty() { self } else { Self::default() };
        Self {
            failures: before.failures.saturating_add(u32::try_from(since.len()).unwrap_or(u32::MAX)),
            last: since.into_iter().max().max(before.last),
        }
    }

    /// Time until the next Pod may be created.
    pub fn remaining(self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// Time until the next Pod may be created after so many failures, the last of them at `last`.
pub fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let delay = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
    delay.saturating_sub(Duration::try_from(now.duration_since(last)).unwrap_or_default())
}

/// When a Pod ended: its last container, or else when it was no longer ready, or its deletion was asked for.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ends = statuses.map(|s| Some(s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let containers = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
    let unready = || {
        let ready = condition(pod, "Ready").filter(|c| c.status == "False")?;
        ready.last_transition_time.as_ref().map(|t| t.0)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        at.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    containers.or_else(unready).or_else(deleted).or_else(created)
}
