//! When a Job is over, and what remains of it then.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use yado_reconcile::Next;
use yado_types::pod::{is_ended, is_terminating, phase};

use super::{Action, Round};

/// How a Job ends.
pub struct Verdict {
    well: bool,
    reason: &'static str,
    message: &'static str,
}

const COMPLETE: Verdict = Verdict {
    well: true,
    reason: "CompletionsReached",
    message: "Reached expected number of succeeded pods",
};
const TOO_MANY_FAILURES: Verdict = Verdict {
    well: false,
    reason: "BackoffLimitExceeded",
    message: "Job has reached the specified backoff limit",
};
const TOO_LATE: Verdict = Verdict {
    well: false,
    reason: "DeadlineExceeded",
    message: "Job was active longer than specified deadline",
};

/// Whether a condition is True.
pub fn holds(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// When a Job ended, if it has.
pub fn ended(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(end.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

/// What becomes of a Job that has ended: it goes when its time to live is over.
pub fn expire(spec: &JobSpec, end: Timestamp, now: Timestamp) -> (Vec<Action>, Next) {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return (Vec::new(), Next::Wait) };
    let left = SignedDuration::from_secs(seconds.into()) - now.duration_since(end);
    if left.is_positive() {
        return (Vec::new(), Next::After(left.unsigned_abs()));
    }
    (vec![Action::Expire], Next::Wait)
}

impl Round<'_> {
    /// Whether the Job is over. A failure that has been told is not taken back.
    pub(super) fn verdict(&mut self) -> Option<Verdict> {
        if self.holds("FailureTarget") {
            return Some(self.failure_told());
        }
        if self.holds("SuccessCriteriaMet") {
            return Some(COMPLETE);
        }
        let succeeded = self.succeeded();
        let complete = match self.wish.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active.is_empty(),
        };
        if complete && !self.wish.suspended {
            return Some(COMPLETE);
        }
        let limit = i64::from(self.wish.backoff_limit);
        let failed = i64::try_from(self.counted.failed).unwrap_or(i64::MAX);
        if failed > limit || self.restarts_too_often(limit) {
            return Some(TOO_MANY_FAILURES);
        }
        self.deadline()
    }

    fn failure_told(&self) -> Verdict {
        let told = self.status.conditions.iter().flatten().find(|c| c.type_ == "FailureTarget");
        let late = told.and_then(|c| c.reason.as_deref()) == Some(TOO_LATE.reason);
        if late { TOO_LATE } else { TOO_MANY_FAILURES }
    }

    /// Where containers are restarted in their Pod, their restarts are the failures.
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

    fn deadline(&mut self) -> Option<Verdict> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.wish.suspended)?;
        let started = self.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(seconds) - self.now.duration_since(started);
        if left.is_positive() {
            self.after(left);
            return None;
        }
        Some(TOO_LATE)
    }

    /// Ends what still works; when nothing does any more, the Job is over.
    pub(super) fn end(&mut self, verdict: Verdict) {
        let Verdict { well, reason, message } = verdict;
        let (early, last) =
            if well { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
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
        if well {
            self.status.completion_time = Some(Time(self.whole_second()));
            self.actions.push(Action::Tell("Completed", "Job completed".into()));
        } else {
            self.actions.push(Action::Tell(reason, message.into()));
        }
    }
}
