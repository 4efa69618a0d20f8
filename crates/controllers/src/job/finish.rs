//! The end of a Job: whether it is complete or has failed, its conditions, and its deletion.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_reconcile::events::EventType;
use yado_types::pod::phase;

use super::policy::{self, Failure};
use super::{Action, Pass};

/// Whether a Job has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is complete.
    Success,
    /// It has failed.
    Failure,
}

/// How a Job finishes, with the reason and message of its conditions, which are Kubernetes'.
#[derive(Clone, Debug)]
pub struct Outcome {
    verdict: Verdict,
    reason: String,
    message: String,
}

impl Outcome {
    fn new(verdict: Verdict, reason: &str, message: &str) -> Self {
        Self { verdict, reason: reason.into(), message: message.into() }
    }

    /// Enough Pods have succeeded.
    pub fn complete() -> Self {
        let message = "Reached expected number of succeeded pods";
        Self::new(Verdict::Success, "CompletionsReached", message)
    }

    fn failed(reason: &str, message: &str) -> Self {
        Self::new(Verdict::Failure, reason, message)
    }

    /// Whether the Job has failed.
    pub fn is_failure(&self) -> bool {
        self.verdict == Verdict::Failure
    }
}

/// The condition of this type, if it is True.
fn held<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// Whether the condition of this type is True.
pub fn holds(status: &JobStatus, kind: &str) -> bool {
    held(status, kind).is_some()
}

/// When a Job finished: the transition time of its Complete or Failed condition; `None` if it has not.
pub fn ended(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let end = held(status, "Complete").or_else(|| held(status, "Failed"))?;
    Some(end.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

/// Deletes a finished Job after `ttlSecondsAfterFinished`, or says when to look at it again.
pub fn expire(spec: &JobSpec, end: Timestamp, now: Timestamp) -> (Vec<Action>, Next) {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return (Vec::new(), Next::Wait) };
    let left = SignedDuration::from_secs(seconds.into()) - now.duration_since(end);
    if left.is_positive() {
        return (Vec::new(), Next::After(left.unsigned_abs()));
    }
    (vec![Action::Expire], Next::Wait)
}

impl Pass<'_> {
    /// How the Job finishes, or `None` if it goes on. An outcome that a condition has announced is not revoked.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let announced = |verdict, kind| {
            let condition = held(&self.status, kind)?;
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            Some(Outcome { verdict, reason: text(&condition.reason), message: text(&condition.message) })
        };
        announced(Verdict::Success, "SuccessCriteriaMet")
            .or_else(|| announced(Verdict::Failure, "FailureTarget"))
            .or_else(|| self.failed_by_policy())
            .or_else(|| self.failed_too_often())
            .or_else(|| self.deadline())
            .or_else(|| self.failed_indexes())
            .or_else(|| {
                let completions = self.parameters.completions.filter(|_| self.parameters.indexed)?;
                let policy = self.spec.success_policy.as_ref();
                let message = policy::success(policy, &self.succeeded_indexes, completions)?;
                Some(Outcome::new(Verdict::Success, "SuccessPolicy", &message))
            })
    }

    fn failed_by_policy(&self) -> Option<Outcome> {
        let failed = self.mine.iter().filter(|pod| self.has_failed(pod));
        let message = failed.map(|pod| self.failure(pod)).find_map(|failure| match failure {
            Failure::FailsJob(message) => Some(message),
            _ => None,
        });
        Some(Outcome::failed("PodFailurePolicy", &message?))
    }

    fn failed_too_often(&self) -> Option<Outcome> {
        let limit = i64::from(self.parameters.backoff_limit);
        let failed = i64::try_from(self.failed()).unwrap_or(i64::MAX);
        (failed > limit || self.restarts_too_often(limit))
            .then(|| Outcome::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    }

    /// Whether restarts reach the backoff limit: with `restartPolicy: OnFailure` they count as failures, as in Kubernetes.
    fn restarts_too_often(&self, limit: i64) -> bool {
        let spec = self.spec.template.spec.as_ref();
        if spec.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.mine.iter().filter(|p| matches!(phase(p), "Running" | "Pending"));
        let restarts: i64 = running
            .flat_map(|p| &p.status)
            .flat_map(|s| {
                s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
            })
            .map(|c| i64::from(c.restart_count))
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn deadline(&mut self) -> Option<Outcome> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.parameters.suspended)?;
        let started = self.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(seconds) - self.now.duration_since(started);
        if left.is_positive() {
            self.after(Duration::try_from(left).unwrap_or_default());
            return None;
        }
        Some(Outcome::failed("DeadlineExceeded", "Job was active longer than specified deadline"))
    }

    /// Whether too many indexes have failed, or all others have succeeded.
    fn failed_indexes(&self) -> Option<Outcome> {
        let (failed, succeeded) = (self.failed_indexes.len(), self.succeeded_indexes.len());
        let most = self.spec.max_failed_indexes.and_then(|most| usize::try_from(most).ok());
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Outcome::failed("MaxFailedIndexesExceeded", message));
        }
        let all = failed + succeeded >= self.parameters.completions?;
        (failed > 0 && all).then(|| Outcome::failed("FailedIndexes", "Job has failed indexes"))
    }

    /// Announces the outcome, and finishes the Job once no Pod terminates and all are counted. Returns the events to record
    /// when the status has been written. `untracked` says whether no Pod has the finalizer any more.
    pub(super) fn conclude(&mut self, outcome: Option<Outcome>, untracked: bool) -> Vec<Action> {
        let Some(Outcome { verdict, reason, message }) = outcome else { return Vec::new() };
        let (early, last) = match verdict {
            Verdict::Success => ("SuccessCriteriaMet", "Complete"),
            Verdict::Failure => ("FailureTarget", "Failed"),
        };
        self.set_condition(early, "True", &reason, &message);
        let lists = self.status.uncounted_terminated_pods.as_ref();
        let uncounted = lists.is_some_and(|l| l.succeeded.is_some() || l.failed.is_some());
        if !untracked || uncounted || self.terminating > 0 {
            return Vec::new();
        }
        self.set_condition(last, "True", &reason, &message);
        if verdict == Verdict::Failure {
            return vec![Action::Event(EventType::Warning, reason, message)];
        }
        self.status.completion_time = Some(Time(self.whole_second()));
        let mut events = Vec::new();
        if self.parameters.completions.is_some_and(|wanted| self.succeeded() > wanted) {
            let message = "Too many succeeded pods running after completion count reached";
            events.push(Action::Event(EventType::Warning, "TooManySucceededPods".into(), message.into()));
        }
        events.push(Action::Event(EventType::Normal, "Completed".into(), "Job completed".into()));
        events
    }

    /// Sets a condition, unless it is so already.
    pub(super) fn set_condition(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let now = Some(Time(self.whole_second()));
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        };
        let conditions = self.status.conditions.get_or_insert_default();
        let same = |c: &JobCondition| {
            (c.status == value)
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message)
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(known) if same(known) => {}
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
}
