//! The end of a Job: whether it is complete or has failed, its final conditions, and its deletion.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_types::pod::{is_ended, is_terminating, phase};

use super::{Action, Pass};

/// How a Job finishes, with the reason and message of its conditions, which are Kubernetes'.
pub struct Outcome {
    success: bool,
    reason: &'static str,
    message: &'static str,
}

const COMPLETE: Outcome = Outcome {
    success: true,
    reason: "CompletionsReached",
    message: "Reached expected number of succeeded pods",
};
const TOO_MANY_FAILURES: Outcome = Outcome {
    success: false,
    reason: "BackoffLimitExceeded",
    message: "Job has reached the specified backoff limit",
};
const DEADLINE_EXCEEDED: Outcome = Outcome {
    success: false,
    reason: "DeadlineExceeded",
    message: "Job was active longer than specified deadline",
};

/// Whether the condition of this type is True.
pub fn holds(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// When a Job finished: the transition time of its Complete or Failed condition; `None` if it has not.
pub fn ended(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
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
        if self.holds("FailureTarget") {
            return Some(self.announced_failure());
        }
        if self.holds("SuccessCriteriaMet") {
            return Some(COMPLETE);
        }
        let succeeded = self.succeeded();
        let complete = match self.parameters.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active.is_empty(),
        };
        if complete && !self.parameters.suspended {
            return Some(COMPLETE);
        }
        let limit = i64::from(self.parameters.backoff_limit);
        let failed = i64::try_from(self.counted.failed).unwrap_or(i64::MAX);
        if failed > limit || self.restarts_too_often(limit) {
            return Some(TOO_MANY_FAILURES);
        }
        self.deadline()
    }

    fn announced_failure(&self) -> Outcome {
        let condition = self.status.conditions.iter().flatten().find(|c| c.type_ == "FailureTarget");
        let late = condition.and_then(|c| c.reason.as_deref()) == Some(DEADLINE_EXCEEDED.reason);
        if late { DEADLINE_EXCEEDED } else { TOO_MANY_FAILURES }
    }

    /// Whether restarts reach the backoff limit: with `restartPolicy: OnFailure` they count as failures, as in Kubernetes.
    fn restarts_too_often(&self, limit: i64) -> bool {
        let spec = self.spec.template.spec.as_ref();
        if spec.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.active.iter().filter(|p| matches!(phase(p), "Running" | "Pending"));
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
            self.after(left);
            return None;
        }
        Some(DEADLINE_EXCEEDED)
    }

    /// Announces the outcome and deletes active Pods. Once no Pod is terminating, the Job is marked as finished.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        let Outcome { success, reason, message } = outcome;
        let (early, last) =
            if success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        if !self.holds(early) {
            self.set_condition(early, "True", reason, message);
        }
        let active = std::mem::take(&mut self.active);
        self.terminating += active.len();
        self.delete(active);
        let going = self.mine.iter().any(|p| !is_ended(p) && is_terminating(p));
        if going || self.terminating > 0 {
            return;
        }
        self.set_condition(last, "True", reason, message);
        if success {
            self.status.completion_time = Some(Time(self.whole_second()));
            self.actions.push(Action::Event("Completed", "Job completed".into()));
        } else {
            self.actions.push(Action::Event(reason, message.into()));
        }
    }
}
