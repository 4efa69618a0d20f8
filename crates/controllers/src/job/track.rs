//! Counting Pods that ended: each once, whatever is deleted or fails in between.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::phase;

use super::finish::Outcome;
use super::{BURST, Pass, indexed, number, size};

impl Pass<'_> {
    /// Moves the Pods in the status whose finalizer is gone to the numbers there.
    pub(super) fn count_untracked(&mut self) {
        let mut lists = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked = self.mine.iter().filter(|pod| self.is_tracked(pod));
        let tracked: HashSet<&String> = tracked.filter_map(|pod| pod.metadata.uid.as_ref()).collect();
        let counted = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            list.iter_mut().for_each(|uids| uids.retain(|uid| tracked.contains(uid)));
            let gone = before - list.as_ref().map_or(0, Vec::len);
            *list = list.take().filter(|uids| !uids.is_empty());
            gone
        };
        let (succeeded, failed) = (counted(&mut lists.succeeded), counted(&mut lists.failed));
        let add = |count: Option<i32>, more: usize| Some(number(size(count) + more)).filter(|n| *n > 0);
        if !self.parameters.indexed {
            self.status.succeeded = add(self.status.succeeded, succeeded);
        }
        self.status.failed = add(self.status.failed, failed);
        self.status.uncounted_terminated_pods = Some(lists);
    }

    /// Enters the Pods that ended into the status, as many as one pass takes. Returns the Pods whose finalizer may be removed
    /// once that is written.
    pub(super) fn track(&mut self, outcome: Option<&Outcome>) -> Vec<Arc<Pod>> {
        let delayed = self.delayed();
        let mut lists = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut untrack = Vec::new();
        for pod in self.mine.iter().filter(|pod| self.is_tracked(pod)) {
            let failed = self.has_failed(pod);
            if !self.may_untrack(pod, failed, outcome, &delayed) {
                continue;
            }
            if untrack.len() >= BURST {
                break;
            }
            untrack.push(pod.clone());
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let knows = |list: &Option<Vec<String>>| list.iter().flatten().any(|known| *known == uid);
            if phase(pod) == "Succeeded" && !knows(&lists.failed) {
                // Of an index the list of those that have succeeded is enough.
                if !self.parameters.indexed && !knows(&lists.succeeded) {
                    lists.succeeded.get_or_insert_default().push(uid);
                }
            } else if (failed || outcome.is_some_and(Outcome::is_failure))
                && self.has_valid_index(pod)
                && self.failure(pod).counts()
                && !knows(&lists.failed)
            {
                lists.failed.get_or_insert_default().push(uid);
            }
        }
        self.status.uncounted_terminated_pods = Some(lists);
        untrack
    }

    /// Whether the end of a Pod can be counted. Of an index that has no other Pod yet, the last that failed is kept: its
    /// replacement takes over the number of failures.
    fn may_untrack(&self, pod: &Pod, failed: bool, outcome: Option<&Outcome>, delayed: &[Arc<Pod>]) -> bool {
        let ends = self.job.metadata.deletion_timestamp.is_some() || outcome.is_some();
        let waits = || delayed.iter().any(|other| other.metadata.uid == pod.metadata.uid);
        ends || phase(pod) == "Succeeded" || failed && !waits()
    }

    /// Failed Pods that stand for the failures of their indexes until those have other Pods.
    pub(super) fn delayed(&self) -> Vec<Arc<Pod>> {
        if self.parameters.backoff_limit_per_index.is_none() {
            return Vec::new();
        }
        let has_active = |index: usize| self.active.iter().any(|pod| indexed::index(pod) == Some(index));
        let failed = self.mine.iter().filter(|pod| {
            self.is_tracked(pod)
                && self.has_failed(pod)
                && self.has_valid_index(pod)
                && indexed::index(pod).is_some_and(|index| {
                    let over = self.succeeded_indexes.contains(index) || self.failed_indexes.contains(index);
                    !over && !has_active(index)
                })
        });
        indexed::last_of_each(failed).into_values().collect()
    }
}
