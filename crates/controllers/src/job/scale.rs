//! How many Pods of a Job run: creating what is missing, and deleting what is too much.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use yado_types::pod::{condition, is_ended, is_ready, is_terminating, node_name, phase};

use super::backoff::{ended_at, remaining};
use super::{Action, BURST, Pass, TRACKING, indexed};
use crate::owners;
use crate::replicaset::pod_of;

impl Pass<'_> {
    /// Creates missing Pods or deletes surplus ones, at most [`BURST`]. Returns the number of created ones.
    pub(super) fn scale(&mut self) -> usize {
        self.adopt_untracked();
        let wanted = if self.parameters.suspended { 0 } else { self.wanted_active() };
        let mut surplus = self.surplus(wanted);
        if !surplus.is_empty() {
            surplus.truncate(if self.parameters.suspended { usize::MAX } else { BURST });
            let goes: HashSet<_> = surplus.iter().map(|pod| &pod.metadata.uid).collect();
            self.active.retain(|pod| !goes.contains(&pod.metadata.uid));
            self.terminating += surplus.len();
            self.push_pods(surplus, Action::Dismiss);
            return 0;
        }
        let replaced_later = if self.parameters.only_ended { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(self.active.len() + replaced_later).min(BURST);
        let pods = if missing == 0 || self.parameters.suspended { Vec::new() } else { self.missing(missing) };
        let created = pods.len();
        if created > 0 {
            self.actions.push(Action::Create(pods));
        }
        created
    }

    /// Pods that run without the finalizer get it.
    fn adopt_untracked(&mut self) {
        let lacks = |pod: &&Arc<Pod>| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            !super::has_finalizer(pod) && !self.memory.untracked.contains(uid)
        };
        self.actions.extend(self.active.iter().filter(lacks).cloned().map(Action::Track));
    }

    /// How many Pods should be active.
    fn wanted_active(&self) -> usize {
        let (succeeded, parallelism) = (self.succeeded(), self.parameters.parallelism);
        match self.parameters.completions {
            Some(completions) => parallelism.min(completions.saturating_sub(succeeded)),
            // Whatever still runs of a work queue may end by itself.
            None if succeeded > 0 => self.active.len().min(parallelism),
            None => parallelism,
        }
    }

    /// Active Pods that are not to be, in the order in which they are deleted: first those whose index is not asked for or has
    /// another Pod, then those that have done the least.
    fn surplus(&self, wanted: usize) -> Vec<Arc<Pod>> {
        let mut left = self.active.clone();
        left.sort_by_cached_key(|pod| rank(pod));
        let mut surplus = Vec::new();
        if self.parameters.indexed {
            let mut taken = BTreeSet::new();
            // Of an index the Pod stays that has done the most.
            left.reverse();
            let stays = |pod: &Arc<Pod>| {
                self.has_valid_index(pod) && indexed::index(pod).is_some_and(|index| taken.insert(index))
            };
            let (mut keep, gone): (Vec<_>, Vec<_>) = left.into_iter().partition(stays);
            keep.reverse();
            (surplus, left) = (gone, keep);
        }
        let more = (surplus.len() + left.len()).saturating_sub(wanted).saturating_sub(surplus.len());
        surplus.extend(left.into_iter().take(more));
        surplus
    }

    /// Pods to create, if their time has come.
    fn missing(&mut self, missing: usize) -> Vec<Pod> {
        let namespace = self.job.metadata.namespace.clone().unwrap_or_default();
        let owner = owners::controller_reference(self.job);
        let mut plain = pod_of(&self.spec.template, &namespace, owner);
        let finalizers = plain.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
            finalizers.push(TRACKING.to_owned());
        }
        let by_index = self.parameters.backoff_limit_per_index.is_some();
        let delay = if by_index { Duration::ZERO } else { self.backoff.remaining(self.now) };
        if !delay.is_zero() {
            self.after(delay);
            return Vec::new();
        }
        if !self.parameters.indexed {
            return vec![plain; missing];
        }
        let name = self.job.metadata.name.as_deref().unwrap_or_default();
        let mut indexes = self.free_indexes(missing);
        if !by_index {
            let of = |index: usize| indexed::with_index(plain.clone(), name, index);
            return indexes.into_iter().map(of).collect();
        }
        let replaced: BTreeMap<usize, Arc<Pod>> =
            self.delayed().into_iter().filter_map(|pod| Some((indexed::index(&pod)?, pod))).collect();
        let mut soonest: Option<Duration> = None;
        indexes.retain(|index| {
            let Some(last) = replaced.get(index) else { return true };
            let ended = ended_at(last).unwrap_or(self.now);
            let wait = remaining(indexed::all_failures(last), ended, self.now);
            if !wait.is_zero() {
                soonest = Some(soonest.map_or(wait, |s| s.min(wait)));
            }
            wait.is_zero()
        });
        if let Some(wait) = soonest {
            self.after(wait);
        }
        let policy = self.spec.pod_failure_policy.as_ref();
        let of = |index: usize| {
            let pod = indexed::with_index(plain.clone(), name, index);
            indexed::with_failures(pod, replaced.get(&index).map(|pod| &**pod), policy)
        };
        indexes.into_iter().map(of).collect()
    }

    /// The first indexes that have neither ended nor an active Pod.
    fn free_indexes(&self, most: usize) -> Vec<usize> {
        let waits = |pod: &Pod| self.parameters.only_ended && is_terminating(pod);
        let busy = |pod: &&Arc<Pod>| !is_ended(pod) && (!is_terminating(pod) || waits(pod));
        let busy = self.mine.iter().filter(busy).filter_map(|pod| indexed::index(pod));
        let taken = self.succeeded_indexes.union(&self.failed_indexes).with(busy);
        taken.missing(self.parameters.completions.unwrap_or_default()).take(most).collect()
    }
}

/// The order in which Kubernetes deletes surplus Pods: those that are on no node, then those that do not run, are not ready,
/// have been ready for the shortest time, have restarted the most, and the youngest.
fn rank(pod: &Pod) -> impl Ord + use<> {
    let ready = is_ready(pod);
    let since = condition(pod, "Ready").filter(|_| ready).and_then(|c| c.last_transition_time.as_ref());
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let started = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    (
        node_name(pod).is_some(),
        started,
        ready,
        Reverse(since.map(|time| time.0)),
        Reverse(statuses.map(|s| s.restart_count).max()),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        pod.metadata.name.clone(),
    )
}
