//! Counting a Job's succeeded and failed Pods, including Pods that have been deleted since, and the retry delay.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::{is_terminating, phase};

use super::{BACKOFF_FIRST, BACKOFF_LONGEST};

/// Numbers of a Job's Pods that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Pods in the phase Succeeded.
    pub succeeded: usize,
    /// Pods in the phase Failed, and Pods that somebody else deleted before they ended.
    pub failed: usize,
}

/// The Pods of one Job that have been counted. It has an entry for each Pod of the Job that ended or was deleted since
/// the start of this process, and is dropped with the Job.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Pods that the Job's status counts and that were deleted before the first count of this process.
    before: Option<Counted>,
    /// Whether each ended Pod succeeded, by uid.
    ended: HashMap<String, bool>,
    /// Uids of Pods that the controller itself deletes, which do not count as failed.
    dismissed: HashMap<String, ()>,
}

impl Ledger {
    /// Excludes Pods, which the controller is about to delete, from the count.
    pub fn dismiss(&mut self, pods: &[Arc<Pod>]) {
        self.dismissed.extend(pods.iter().filter_map(|p| Some((p.metadata.uid.clone()?, ()))));
    }

    /// Adds the Pods that exist and returns the count of all Pods so far. `status` initialises the count at the first call.
    pub fn count(&mut self, status: Option<&JobStatus>, pods: &[Arc<Pod>]) -> Counted {
        for pod in pods {
            let Some(uid) = pod.metadata.uid.clone().filter(|uid| !self.dismissed.contains_key(uid)) else {
                continue;
            };
            match phase(pod) {
                "Succeeded" => _ = self.ended.insert(uid, true),
                "Failed" => _ = self.ended.insert(uid, false),
                _ if is_terminating(pod) => _ = self.ended.entry(uid).or_insert(false),
                _ => {}
            }
        }
        let succeeded = self.ended.values().filter(|well| **well).count();
        let failed = self.ended.len() - succeeded;
        // What the status counts in excess of the existing Pods is the count of deleted ones.
        let before = *self.before.get_or_insert_with(|| {
            let told = |n: Option<i32>| usize::try_from(n.unwrap_or_default()).unwrap_or_default();
            Counted {
                succeeded: told(status.and_then(|s| s.succeeded)).saturating_sub(succeeded),
                failed: told(status.and_then(|s| s.failed)).saturating_sub(failed),
            }
        });
        Counted { succeeded: before.succeeded + succeeded, failed: before.failed + failed }
    }
}

/// When a Pod ended: the latest end of a container, or the deletion time of a Pod that did not succeed.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let deleted = pod.metadata.deletion_timestamp.as_ref().filter(|_| phase(pod) != "Succeeded");
    ends.chain(deleted).map(|t| t.0).max()
}

/// Time until the next Pod may be created. The retry delay grows with each failure since the last success. Times in a
/// Pod's status are whole seconds, so a failure in the same second as a success counts as the later of the two.
pub fn retry_delay(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
    let success = pods.iter().filter(|p| phase(p) == "Succeeded").filter_map(|p| ended_at(p)).max();
    let failures: Vec<_> = pods
        .iter()
        .filter(|p| phase(p) == "Failed")
        .filter_map(|p| ended_at(p))
        .filter(|t| success.is_none_or(|s| *t >= s))
        .collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
    let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST);
    let since = Duration::try_from(now.duration_since(*last)).unwrap_or_default();
    pause.saturating_sub(since)
}
