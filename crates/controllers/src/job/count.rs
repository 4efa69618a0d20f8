//! Counting what ended, also when it is gone from the API.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::{is_terminating, phase};

use super::{BACKOFF_FIRST, BACKOFF_LONGEST};

/// How many of a Job's Pods have ended which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that ended well.
    pub succeeded: usize,
    /// Those that did not, and those that somebody deleted.
    pub failed: usize,
}

/// Which Pods of one Job have been counted. It has an entry for each Pod the Job ever had since this process began,
/// and goes with the Job.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What was counted of Pods that were gone before this began.
    before: Option<Counted>,
    /// By uid; whether it succeeded.
    ended: HashMap<String, bool>,
    /// Pods that the controller itself deletes: their end is no failure.
    dismissed: HashMap<String, ()>,
}

impl Ledger {
    /// The end of these Pods will count for nothing.
    pub fn dismiss(&mut self, pods: &[Arc<Pod>]) {
        self.dismissed.extend(pods.iter().filter_map(|p| Some((p.metadata.uid.clone()?, ()))));
    }

    /// Takes in the Pods that are there, and gives the count of all.
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
        // What the status counts beyond what is there is of Pods that are gone.
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

/// When a Pod's last container ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let deleted = pod.metadata.deletion_timestamp.as_ref().filter(|_| phase(pod) != "Succeeded");
    ends.chain(deleted).map(|t| t.0).max()
}

/// How long to wait before the next Pod is created: longer with each failure since the last success. Times in a
/// Pod's status are whole seconds, so a failure within the second of a success may be the later of the two and counts.
pub fn pause(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
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
