//! The Job controller: runs Pods until the requested number of them has succeeded.
//!
//! ```text
//! [Job] --create, delete--> [Pod] --ended--> its uid in the Job's status --> finalizer removed --> counted there
//!   '--- finished: conditions, and deletion after `ttlSecondsAfterFinished`
//! ```
//!
//! A Pod has a finalizer until its end is in the Job's status, so that none goes uncounted, and none is counted twice: its uid
//! is written into the status before the finalizer is removed, and becomes part of the count after.
//!
//! Watches Jobs and Pods. Writes Pods and the Jobs' status, and deletes finished Jobs whose time to live has passed.

mod backoff;
mod finish;
mod indexed;
mod intervals;
mod orphans;
mod policy;
mod run;
mod scale;
mod track;

pub use backoff::Backoff;
pub(crate) use run::start;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_reconcile::events::EventType;
use yado_types::pod::{is_ended, is_ready, is_terminating, phase};
use yado_types::selector::LabelSelector;

use crate::owners;
use finish::Outcome;
use intervals::Intervals;
use policy::Failure;

/// The name by which Jobs name this controller.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Finalizer of Pods whose end is not yet in their Job's status.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Maximum number of Pods created or deleted in one reconcile pass, and of those whose end one pass writes into the status;
/// Kubernetes' value. The writes trigger the next pass.
const BURST: usize = 500;
/// Failed Pods that are retried if `backoffLimit` is not set; Kubernetes' default.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// Inputs of a reconcile pass: the Job, its Pods and what is remembered of earlier passes.
pub struct Observed<'a> {
    /// The Job to reconcile.
    pub job: &'a Job,
    /// Pods that it controls, and Pods of its namespace that have no controller.
    pub candidates: Vec<Arc<Pod>>,
    /// What is remembered of earlier passes.
    pub memory: &'a Memory,
}

/// What a process remembers of a Job between passes. Without it nothing is counted wrong.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Uids of Pods whose finalizer has been removed, which the informer need not show yet.
    pub untracked: HashSet<String>,
    /// Failures since the last success; `None` before the first pass.
    pub backoff: Option<Backoff>,
}

/// A write or event that a reconcile pass decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the Job as this Pod's controller, and the finalizer.
    Adopt(Arc<Pod>),
    /// Remove the Job from this Pod's owner references.
    Release(Arc<Pod>),
    /// Add the finalizer to a Pod that runs without: it is of a time before Pods had it.
    Track(Arc<Pod>),
    /// Create these Pods.
    Create(Vec<Pod>),
    /// Delete these Pods, whose end is to be counted.
    Delete(Vec<Arc<Pod>>),
    /// Remove the finalizers of these Pods and delete them, without counting them.
    Dismiss(Vec<Arc<Pod>>),
    /// Write this status unless the Job has it already. What follows waits for it.
    Status(Box<JobStatus>),
    /// Remember the failures since the last success, now that the status has them.
    Remember(Backoff),
    /// Remove the finalizers of these Pods, whose end is in the status.
    Untrack(Vec<Arc<Pod>>),
    /// Record an event on the Job with this reason and message.
    Event(EventType, String, String),
    /// Delete the finished Job: its `ttlSecondsAfterFinished` have passed.
    Expire,
}

/// The Job's spec with defaults.
struct Parameters {
    parallelism: usize,
    /// `None` for a work queue: once one Pod has succeeded, no new ones are created, and the Job is complete when all have
    /// ended.
    completions: Option<usize>,
    backoff_limit: i32,
    backoff_limit_per_index: Option<i32>,
    indexed: bool,
    suspended: bool,
    /// A Pod that terminates is replaced, and counts as failed, only when it has ended.
    only_ended: bool,
}

impl Parameters {
    fn of(spec: &JobSpec) -> Self {
        let size = |n: i32| usize::try_from(n).unwrap_or_default();
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        Self {
            parallelism: size(spec.parallelism.unwrap_or(1)),
            completions: spec.completions.map(size),
            backoff_limit: spec.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT),
            backoff_limit_per_index: spec.backoff_limit_per_index.filter(|_| indexed),
            indexed,
            suspended: spec.suspend.unwrap_or_default(),
            only_ended: spec.pod_replacement_policy.as_deref() == Some("Failed")
                || spec.pod_failure_policy.is_some(),
        }
    }
}

/// Whether another controller looks after the Job.
fn is_managed_elsewhere(job: &Job) -> bool {
    let by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    by.is_some_and(|by| by != MANAGER)
}

/// Whether a Pod has the finalizer.
fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Decides which Pods a Job creates or deletes, its status, and whether it is finished. The returned [`Next`] says when to
/// reconcile again if nothing changes: at the end of a retry delay, of the active deadline or of the time to live.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let job = observed.job;
    let nothing = (Vec::new(), Next::Wait);
    let Some(spec) = job.spec.as_ref().filter(|_| !is_managed_elsewhere(job)) else { return nothing };
    if let Some(end) = finish::ended(job) {
        return finish::expire(spec, end, now);
    }
    let selector = spec.selector.as_ref().and_then(|s| LabelSelector::from_api(s).ok());
    let Some(selector) = selector else { return nothing };
    let candidates = &observed.candidates;
    let owned = owners::owned(&job.metadata, &selector, candidates, Action::Adopt, Action::Release);
    match owned {
        Ok(mine) => Pass::of(job, spec, mine, observed.memory, now).decide(),
        Err(first) => (first, Next::Wait),
    }
}

/// State of the reconcile pass of a Job that is not finished.
struct Pass<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    parameters: Parameters,
    memory: &'a Memory,
    mine: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    terminating: usize,
    /// Pods that ended and are not in the status yet: those that succeeded, and those that failed.
    newly: [Vec<Arc<Pod>>; 2],
    backoff: Backoff,
    succeeded_indexes: Intervals,
    failed_indexes: Intervals,
    status: JobStatus,
    actions: Vec<Action>,
    soonest: Option<Duration>,
    now: Timestamp,
}

impl<'a> Pass<'a> {
    fn of(job: &'a Job, spec: &'a JobSpec, mine: Vec<Arc<Pod>>, memory: &'a Memory, now: Timestamp) -> Self {
        let active = mine.iter().filter(|p| !is_ended(p) && !is_terminating(p)).cloned().collect();
        let terminating = mine.iter().filter(|p| !is_ended(p) && is_terminating(p)).count();
        let mut status = job.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        let mut pass = Self {
            job,
            spec,
            parameters: Parameters::of(spec),
            memory,
            mine,
            active,
            terminating,
            newly: [Vec::new(), Vec::new()],
            backoff: Backoff::default(),
            succeeded_indexes: Intervals::default(),
            failed_indexes: Intervals::default(),
            status,
            actions: Vec::new(),
            soonest: None,
            now,
        };
        pass.observe_ends();
        pass
    }

    /// Finds the Pods that ended since the last pass, and the indexes that have succeeded and failed with them.
    fn observe_ends(&mut self) {
        self.count_untracked();
        let known = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_new = |pod: &Arc<Pod>, known: &Option<Vec<String>>| {
            let uid = pod.metadata.uid.as_ref();
            self.is_tracked(pod)
                && self.has_valid_index(pod)
                && !known.iter().flatten().any(|k| Some(k) == uid)
        };
        let of = |ended: &dyn Fn(&Pod) -> bool, known: &Option<Vec<String>>| -> Vec<_> {
            self.mine.iter().filter(|p| ended(p) && is_new(p, known)).cloned().collect()
        };
        let succeeded = of(&|pod| phase(pod) == "Succeeded", &known.succeeded);
        let failed = of(&|pod| self.has_failed(pod), &known.failed);
        self.backoff = match self.memory.backoff {
            Some(before) => before.after(&succeeded, &failed),
            // What ended before this process was there counts too.
            None => {
                let of_phase = |wanted: &str| -> Vec<_> {
                    self.mine.iter().filter(|p| phase(p) == wanted).cloned().collect()
                };
                Backoff::default().after(&of_phase("Succeeded"), &of_phase("Failed"))
            }
        };
        if self.parameters.indexed {
            let end = self.parameters.completions.unwrap_or_default();
            let before = |text: &Option<String>| Intervals::parse(text.as_deref().unwrap_or_default(), end);
            let indexes =
                |pods: &[Arc<Pod>]| pods.iter().filter_map(|p| indexed::index(p)).collect::<Vec<_>>();
            self.succeeded_indexes = before(&self.status.completed_indexes).with(indexes(&succeeded));
            let over = |pod: &&Arc<Pod>| self.fails_index(pod);
            let over: Vec<_> = failed.iter().filter(over).cloned().collect();
            self.failed_indexes = before(&self.status.failed_indexes).with(indexes(&over));
        }
        self.newly = [succeeded, failed];
    }

    fn decide(mut self) -> (Vec<Action>, Next) {
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        if !self.parameters.suspended {
            let now = Time(self.whole_second());
            self.status.start_time.get_or_insert(now);
        }
        let mut outcome = self.outcome();
        if outcome.is_some() {
            let active = std::mem::take(&mut self.active);
            self.terminating += active.len();
            self.push_pods(active, Action::Delete);
        } else {
            let created = if deleting { 0 } else { self.scale() };
            if self.is_complete(created) {
                outcome = Some(Outcome::complete());
            } else if !deleting {
                self.follow_suspension();
            }
        }
        let untrack = self.track(outcome.as_ref());
        let events = self.conclude(outcome, untrack.is_empty());
        self.finish_status();
        let status = Action::Status(Box::new(self.status));
        self.actions.extend([status, Action::Remember(self.backoff)]);
        if !untrack.is_empty() {
            self.actions.push(Action::Untrack(untrack));
        }
        self.actions.extend(events);
        (self.actions, self.soonest.map_or(Next::Wait, Next::After))
    }

    /// Whether enough Pods have succeeded, when this many have been created in this pass.
    fn is_complete(&self, created: usize) -> bool {
        let idle = self.active.is_empty() && created == 0;
        let succeeded = self.succeeded();
        idle && self.parameters.completions.map_or(succeeded > 0, |wanted| succeeded >= wanted)
    }

    /// Updates the Suspended condition and `startTime`: the active deadline counts only while a Job is not suspended.
    fn follow_suspension(&mut self) {
        let was = finish::holds(&self.status, "Suspended");
        let mut tell = |reason: &str, message: &str| {
            let event = Action::Event(EventType::Normal, reason.into(), message.into());
            self.actions.push(event);
        };
        match (was, self.parameters.suspended) {
            (false, true) => {
                tell("Suspended", "Job suspended");
                self.status.start_time = None;
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
            }
            (true, false) => {
                tell("Resumed", "Job resumed");
                self.status.start_time = Some(Time(self.whole_second()));
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
            }
            _ => {}
        }
    }

    /// Whether the end of a Pod is still to be counted.
    fn is_tracked(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        has_finalizer(pod) && !self.memory.untracked.contains(uid)
    }

    /// Whether a Pod counts as failed. One that was deleted may never come to tell how it ended, and counts at once unless its
    /// replacement waits for its end.
    fn has_failed(&self, pod: &Pod) -> bool {
        let phase = phase(pod);
        phase == "Failed" || !self.parameters.only_ended && is_terminating(pod) && phase != "Succeeded"
    }

    /// Whether a Pod of an indexed Job has an index that the Job asks for.
    fn has_valid_index(&self, pod: &Pod) -> bool {
        let end = self.parameters.completions.unwrap_or_default();
        !self.parameters.indexed || indexed::index(pod).is_some_and(|index| index < end)
    }

    fn failure(&self, pod: &Pod) -> Failure {
        policy::failure(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Whether the failure of a Pod is the last that its index may have.
    fn fails_index(&self, pod: &Pod) -> bool {
        let Some(limit) = self.parameters.backoff_limit_per_index else { return false };
        let failure = self.failure(pod);
        failure == Failure::FailsIndex || failure.counts() && indexed::failures(pod) >= limit
    }

    /// The number of Pods, or of indexes, that have succeeded.
    fn succeeded(&self) -> usize {
        if self.parameters.indexed {
            return self.succeeded_indexes.len();
        }
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let uncounted = uncounted.and_then(|u| u.succeeded.as_ref()).map_or(0, Vec::len);
        size(self.status.succeeded) + uncounted + self.newly[0].len()
    }

    /// The number of Pods whose failure counts.
    fn failed(&self) -> usize {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let uncounted = uncounted.and_then(|u| u.failed.as_ref()).map_or(0, Vec::len);
        let newly = self.newly[1].iter().filter(|pod| self.failure(pod).counts()).count();
        size(self.status.failed) + uncounted + newly
    }

    fn push_pods(&mut self, pods: Vec<Arc<Pod>>, action: fn(Vec<Arc<Pod>>) -> Action) {
        if !pods.is_empty() {
            self.actions.push(action(pods));
        }
    }

    fn finish_status(&mut self) {
        let some = |n: usize| Some(number(n)).filter(|n| *n > 0);
        self.status.active = some(self.active.len());
        self.status.ready = Some(number(self.active.iter().filter(|p| is_ready(p)).count()));
        self.status.terminating = Some(number(self.terminating));
        if self.parameters.indexed {
            self.status.succeeded = some(self.succeeded_indexes.len());
            self.status.completed_indexes =
                Some(self.succeeded_indexes.to_string()).filter(|text| !text.is_empty());
            let failed = || self.failed_indexes.to_string();
            self.status.failed_indexes = self.parameters.backoff_limit_per_index.map(|_| failed());
        }
    }

    /// The current time in whole seconds, as metadata and statuses carry it.
    fn whole_second(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)
    }

    fn after(&mut self, wait: Duration) {
        self.soonest = Some(self.soonest.map_or(wait, |s| s.min(wait)));
    }
}

/// A count in a status.
fn size(count: Option<i32>) -> usize {
    usize::try_from(count.unwrap_or_default()).unwrap_or_default()
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
