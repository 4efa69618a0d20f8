//! The Job controller: runs Pods until the requested number of them has succeeded.
//!
//! ```text
//! [Job] --create, delete--> [Pod] --ended--> counted in the Job's status
//!   '--- finished: conditions, and deletion after `ttlSecondsAfterFinished`
//! ```
//!
//! Watches Jobs and Pods. Writes Pods and the Jobs' status, and deletes finished Jobs whose time to live has passed.

mod count;
mod finish;
mod indexed;
mod run;

pub use count::{Counted, Ledger};
pub(crate) use run::start;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_types::pod::{is_ended, is_ready, is_terminating};
use yado_types::selector::LabelSelector;

use crate::owners;
use crate::replicaset::pod_of;

/// Maximum number of Pods created or deleted in one reconcile pass; Kubernetes' value. The writes trigger the next pass.
const BURST: usize = 500;
/// Retry delay after a first failure; it doubles with each further one. Kubernetes' value.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Maximum of the retry delay; Kubernetes' value.
const BACKOFF_LONGEST: Duration = Duration::from_secs(600);
/// Failed Pods that are retried if `backoffLimit` is not set; Kubernetes' default.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// Inputs of a reconcile pass: the Job, its Pods and the count of those that ended.
pub struct Observed<'a> {
    /// The Job to reconcile.
    pub job: &'a Job,
    /// Pods that it controls, and Pods of its namespace that have no controller.
    pub candidates: Vec<Arc<Pod>>,
    /// Number of its Pods that succeeded and failed, including deleted ones.
    pub counted: Counted,
}

/// A write or event that a reconcile pass decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the Job as this Pod's controller.
    Adopt(Arc<Pod>),
    /// Remove the Job from this Pod's owner references.
    Release(Arc<Pod>),
    /// Create these Pods.
    Create(Vec<Pod>),
    /// Delete these Pods, without counting them as failed.
    Delete(Vec<Arc<Pod>>),
    /// Record an event on the Job with this reason and message.
    Event(&'static str, String),
    /// Write this status unless the Job has it already.
    Status(Box<JobStatus>),
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
    indexed: bool,
    suspended: bool,
}

impl Parameters {
    fn of(spec: &JobSpec) -> Self {
        let size = |n: i32| usize::try_from(n).unwrap_or_default();
        Self {
            parallelism: size(spec.parallelism.unwrap_or(1)),
            completions: spec.completions.map(size),
            backoff_limit: spec.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT),
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            suspended: spec.suspend.unwrap_or_default(),
        }
    }

    /// How many Pods should be active, given the numbers of succeeded and active ones.
    fn wanted_active(&self, succeeded: usize, active: usize) -> usize {
        match self.completions {
            Some(completions) => self.parallelism.min(completions.saturating_sub(succeeded)),
            None if succeeded > 0 => active.min(self.parallelism),
            None => self.parallelism,
        }
    }
}

/// Decides which Pods a Job creates or deletes, its status, and whether it is finished. The returned [`Next`] says when to
/// reconcile again if nothing changes: at the end of a retry delay, of the active deadline or of the time to live.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let job = observed.job;
    let nothing = (Vec::new(), Next::Wait);
    let Some(spec) = &job.spec else { return nothing };
    // `managedBy` assigns the Job to another controller.
    if spec.managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller") {
        return nothing;
    }
    if let Some(end) = finish::ended(job) {
        return finish::expire(spec, end, now);
    }
    if job.metadata.deletion_timestamp.is_some() {
        return nothing;
    }
    let selector = spec.selector.as_ref().and_then(|s| LabelSelector::from_api(s).ok());
    let Some(selector) = selector else { return nothing };
    let candidates = &observed.candidates;
    let owned = owners::owned(&job.metadata, &selector, candidates, Action::Adopt, Action::Release);
    let mine = match owned {
        Ok(mine) => mine,
        Err(first) => return (first, Next::Wait),
    };
    Pass::of(job, spec, mine, &observed.counted, now).decide()
}

/// State of the reconcile pass of a Job that is not finished.
struct Pass<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    parameters: Parameters,
    counted: &'a Counted,
    mine: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    terminating: usize,
    status: JobStatus,
    actions: Vec<Action>,
    soonest: Option<Duration>,
    now: Timestamp,
}

impl<'a> Pass<'a> {
    fn of(
        job: &'a Job,
        spec: &'a JobSpec,
        mine: Vec<Arc<Pod>>,
        counted: &'a Counted,
        now: Timestamp,
    ) -> Self {
        let active: Vec<_> = mine.iter().filter(|p| !is_ended(p) && !is_terminating(p)).cloned().collect();
        let terminating = mine.iter().filter(|p| !is_ended(p) && is_terminating(p)).count();
        let status = job.status.clone().unwrap_or_default();
        let parameters = Parameters::of(spec);
        Self {
            job,
            spec,
            parameters,
            counted,
            mine,
            active,
            terminating,
            status,
            actions: Vec::new(),
            soonest: None,
            now,
        }
    }

    fn decide(mut self) -> (Vec<Action>, Next) {
        self.follow_suspension();
        if let Some(outcome) = self.outcome() {
            self.finish(outcome);
        } else if self.parameters.suspended {
            let active = std::mem::take(&mut self.active);
            self.terminating += active.len();
            self.delete(active);
        } else {
            self.scale();
        }
        self.finish_status();
        self.actions.push(Action::Status(Box::new(self.status)));
        (self.actions, self.soonest.map_or(Next::Wait, Next::After))
    }

    /// Updates the Suspended condition and `startTime`: the active deadline counts only while a Job is not suspended.
    fn follow_suspension(&mut self) {
        let was = self.holds("Suspended");
        if self.parameters.suspended && !was {
            self.status.start_time = None;
            self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
            self.actions.push(Action::Event("Suspended", "Job suspended".into()));
        } else if !self.parameters.suspended {
            if was {
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
                self.actions.push(Action::Event("Resumed", "Job resumed".into()));
            }
            self.status.start_time.get_or_insert(Time(self.whole_second()));
        }
    }

    /// Creates missing Pods and deletes surplus ones, at most [`BURST`].
    fn scale(&mut self) {
        let succeeded = self.succeeded();
        let wanted = self.parameters.wanted_active(succeeded, self.active.len());
        // Pods that are not ready are deleted first, then the youngest, which have done the least: Kubernetes' order.
        if self.active.len() > wanted {
            let created = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
            self.active.sort_by_key(|p| (is_ready(p), Reverse(created(p))));
            let keep: Vec<_> = self.active.split_off((self.active.len() - wanted).min(BURST));
            let surplus = std::mem::replace(&mut self.active, keep);
            self.terminating += surplus.len();
            self.delete(surplus);
            return;
        }
        let missing = (wanted - self.active.len()).min(BURST);
        if missing == 0 {
            return;
        }
        let delay = count::retry_delay(&self.mine, self.now);
        if !delay.is_zero() {
            self.soonest = Some(self.soonest.map_or(delay, |s| s.min(delay)));
            return;
        }
        let namespace = self.job.metadata.namespace.clone().unwrap_or_default();
        let owner = owners::controller_reference(self.job);
        let plain = || pod_of(&self.spec.template, &namespace, owner.clone());
        let pods: Vec<Pod> = if self.parameters.indexed {
            let name = self.job.metadata.name.as_deref().unwrap_or_default();
            let free = self.free_indexes().into_iter().take(missing);
            free.map(|index| indexed::with_index(plain(), name, index)).collect()
        } else {
            vec![plain(); missing]
        };
        if !pods.is_empty() {
            self.actions.push(Action::Create(pods));
        }
    }

    /// Indexes that have not succeeded and have no active Pod.
    fn free_indexes(&self) -> Vec<usize> {
        let done = indexed::done(&self.mine, self.status.completed_indexes.as_deref());
        let busy: BTreeSet<usize> = self.active.iter().filter_map(|p| indexed::index(p)).collect();
        let all = 0..self.parameters.completions.unwrap_or_default();
        all.filter(|i| !done.contains(i) && !busy.contains(i)).collect()
    }

    fn succeeded(&self) -> usize {
        if self.parameters.indexed {
            let limit = self.parameters.completions.unwrap_or_default();
            let done = indexed::done(&self.mine, self.status.completed_indexes.as_deref());
            return done.into_iter().filter(|i| *i < limit).count();
        }
        self.counted.succeeded
    }

    fn delete(&mut self, pods: Vec<Arc<Pod>>) {
        if !pods.is_empty() {
            self.actions.push(Action::Delete(pods));
        }
    }

    fn finish_status(&mut self) {
        let number = |n: usize| (n > 0).then(|| i32::try_from(n).unwrap_or(i32::MAX));
        let succeeded = self.succeeded();
        if self.parameters.indexed {
            let done = indexed::done(&self.mine, self.status.completed_indexes.as_deref());
            self.status.completed_indexes = Some(indexed::text(&done)).filter(|t| !t.is_empty());
        }
        self.status.active = number(self.active.len());
        self.status.ready = Some(number(self.active.iter().filter(|p| is_ready(p)).count()).unwrap_or(0));
        self.status.terminating = Some(number(self.terminating).unwrap_or(0));
        self.status.succeeded = number(succeeded);
        self.status.failed = number(self.counted.failed);
    }

    fn holds(&self, kind: &str) -> bool {
        finish::holds(&self.status, kind)
    }

    fn set_condition(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let now = Some(Time(self.whole_second()));
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        });
    }

    /// The current time in whole seconds, as metadata and statuses carry it.
    fn whole_second(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)
    }

    fn after(&mut self, wait: SignedDuration) {
        let wait = Duration::try_from(wait).unwrap_or_default();
        self.soonest = Some(self.soonest.map_or(wait, |s| s.min(wait)));
    }
}

#[cfg(test)]
mod tests;
