//! Jobs: Pods that run until so many of them have succeeded.
//!
//! ```text
//! [Job] --create, delete--> [Pod] --ended--> counted in the Job's status
//!   '--- done: conditions, and after its time to live the Job's own end
//! ```
//!
//! Watches Jobs and Pods. Writes Pods, the Jobs' status, and deletes Jobs whose time to live is over.

mod count;
mod finish;
mod indexed;
mod run;

pub use count::{Counted, Ledger};
pub(crate) use run::start;

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

use crate::owners::{self, Claim};
use crate::replicaset::pod_of;

/// Pods created or deleted in one go, as in Kubernetes: the next look comes at once.
const BURST: usize = 500;
/// Pause after a first failure; each further one doubles it, as in Kubernetes.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest such pause.
const BACKOFF_LONGEST: Duration = Duration::from_secs(600);
/// Failures that a Job bears where it does not say; Kubernetes' default.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// What a decision rests on.
pub struct Observed<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Pods it controls, and those of its namespace that nobody does.
    pub candidates: Vec<Arc<Pod>>,
    /// Its Pods that ended, those that are gone included.
    pub counted: Counted,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Become this Pod's controller.
    Adopt(Arc<Pod>),
    /// Stop being this Pod's controller.
    Release(Arc<Pod>),
    /// Create these Pods.
    Create(Vec<Pod>),
    /// Delete these Pods, which is no failure of theirs.
    Delete(Vec<Arc<Pod>>),
    /// Tell the user.
    Tell(&'static str, String),
    /// Write this status.
    Status(Box<JobStatus>),
    /// Delete the Job: its time to live is over.
    Expire,
}

/// The numbers that say what a Job asks for.
struct Wish {
    parallelism: usize,
    /// `None`: as soon as one has succeeded, the others finish the work among them.
    completions: Option<usize>,
    backoff_limit: i32,
    indexed: bool,
    suspended: bool,
}

impl Wish {
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

    /// How many Pods should be at work when so many have succeeded and so many are at work.
    fn at_work(&self, succeeded: usize, active: usize) -> usize {
        match self.completions {
            Some(completions) => self.parallelism.min(completions.saturating_sub(succeeded)),
            None if succeeded > 0 => active.min(self.parallelism),
            None => self.parallelism,
        }
    }
}

/// Decides what a Job needs.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let job = observed.job;
    let nothing = (Vec::new(), Next::Wait);
    let Some(spec) = &job.spec else { return nothing };
    // Another controller has been asked to see to it.
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
    let (mut claims, mut mine) = (Vec::new(), Vec::new());
    for pod in &observed.candidates {
        match owners::claim(&job.metadata, &selector, &pod.metadata) {
            Claim::Mine => mine.push(pod.clone()),
            Claim::Adopt => claims.push(Action::Adopt(pod.clone())),
            Claim::Release => claims.push(Action::Release(pod.clone())),
            Claim::Other => {}
        }
    }
    if !claims.is_empty() {
        return (claims, Next::Wait);
    }
    Round::of(job, spec, mine, &observed.counted, now).decide()
}

/// One look at a Job that is not done.
struct Round<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    wish: Wish,
    counted: &'a Counted,
    mine: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    terminating: usize,
    status: JobStatus,
    actions: Vec<Action>,
    soonest: Option<Duration>,
    now: Timestamp,
}

impl<'a> Round<'a> {
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
        let wish = Wish::of(spec);
        Self {
            job,
            spec,
            wish,
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
        if let Some(verdict) = self.verdict() {
            self.end(verdict);
        } else if self.wish.suspended {
            let active = std::mem::take(&mut self.active);
            self.terminating += active.len();
            self.delete(active);
        } else {
            self.work();
        }
        self.finish_status();
        self.actions.push(Action::Status(Box::new(self.status)));
        (self.actions, self.soonest.map_or(Next::Wait, Next::After))
    }

    /// The clock of a Job runs while it is not suspended.
    fn follow_suspension(&mut self) {
        let was = self.holds("Suspended");
        if self.wish.suspended && !was {
            self.status.start_time = None;
            self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
            self.actions.push(Action::Tell("Suspended", "Job suspended".into()));
        } else if !self.wish.suspended {
            if was {
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
                self.actions.push(Action::Tell("Resumed", "Job resumed".into()));
            }
            self.status.start_time.get_or_insert(Time(self.whole_second()));
        }
    }

    /// Creates what is missing, deletes what is too much.
    fn work(&mut self) {
        let succeeded = self.succeeded();
        let wanted = self.wish.at_work(succeeded, self.active.len());
        // Those that were too many keep working for others: the youngest go.
        if self.active.len() > wanted {
            self.active.sort_by_key(|p| (is_ready(p), p.metadata.creation_timestamp.as_ref().map(|t| t.0)));
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
        let pause = count::pause(&self.mine, self.now);
        if !pause.is_zero() {
            self.soonest = Some(self.soonest.map_or(pause, |s| s.min(pause)));
            return;
        }
        let namespace = self.job.metadata.namespace.clone().unwrap_or_default();
        let owner = owners::controller_reference(self.job);
        let plain = || pod_of(&self.spec.template, &namespace, owner.clone());
        let pods: Vec<Pod> = if self.wish.indexed {
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

    /// Indexes that have neither succeeded nor a Pod at work.
    fn free_indexes(&self) -> Vec<usize> {
        let done = indexed::done(&self.mine, self.status.completed_indexes.as_deref());
        let busy: BTreeSet<usize> = self.active.iter().filter_map(|p| indexed::index(p)).collect();
        let all = 0..self.wish.completions.unwrap_or_default();
        all.filter(|i| !done.contains(i) && !busy.contains(i)).collect()
    }

    fn succeeded(&self) -> usize {
        if self.wish.indexed {
            let limit = self.wish.completions.unwrap_or_default();
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
        if self.wish.indexed {
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

    /// Times in objects have no fractions.
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
