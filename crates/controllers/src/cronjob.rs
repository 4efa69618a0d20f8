//! The CronJob controller: creates a Job each time that a CronJob's schedule is due, and deletes old ones.
//!
//! ```text
//! [CronJob] --create, delete--> [Job] --finished--> the CronJob's status
//! ```
//!
//! Watches CronJobs and Jobs. Writes Jobs and the CronJobs' status.

mod run;

pub(crate) use run::start;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use yado_reconcile::Next;
use yado_reconcile::events::EventType;
use yado_types::cron::Schedule;

use crate::owners;

/// Annotation of a Job with the time for which it was scheduled (RFC 3339), in the CronJob's time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times above which there is a warning; Kubernetes' value.
const MANY_MISSED: usize = 100;
/// How long after a due time the next pass comes, so that a clock that is set back a little makes no further one; Kubernetes'
/// value.
const AFTER_DUE: Duration = Duration::from_millis(100);
/// Maximum time between two passes: timers do not follow a wall clock that is set, nor one that went on while the machine slept.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Inputs of a reconcile pass: the CronJob and its Jobs.
pub struct Observed<'a> {
    /// The CronJob to reconcile.
    pub cron_job: &'a CronJob,
    /// Jobs that it controls, and all that exist of those that its status names as active.
    pub jobs: Vec<Arc<Job>>,
    /// The time zone of its schedule, or why there is none.
    pub zone: Result<TimeZone, String>,
}

/// What a reconcile pass decided.
#[derive(Debug)]
pub struct Decision {
    /// Type, reason and message of events of the CronJob.
    pub events: Vec<(EventType, &'static str, String)>,
    /// Finished Jobs beyond the history limits, to be deleted.
    pub expired: Vec<Arc<Job>>,
    /// The Job to create.
    pub start: Option<Start>,
    /// The status without that Job.
    pub status: CronJobStatus,
    /// When to reconcile again if nothing changes.
    pub next: Next,
}

/// A Job that is due.
#[derive(Debug)]
pub struct Start {
    /// Active Jobs that have to be deleted first.
    pub replaces: Vec<Arc<Job>>,
    /// The Job.
    pub job: Box<Job>,
    /// The time at which it was due.
    pub scheduled: Timestamp,
}

/// How a Job finished: `Complete` or `Failed`; `None` if it has not.
fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut held = conditions.filter(|c| c.status == "True").map(|c| c.type_.as_str());
    held.find(|kind| matches!(*kind, "Complete" | "Failed"))
}

/// Decides which Jobs a CronJob deletes and creates, and its status.
pub fn reconcile(observed: Observed<'_>, now: Timestamp) -> Decision {
    let cron_job = observed.cron_job;
    let mut pass = Pass {
        cron_job,
        jobs: observed.jobs,
        decision: Decision {
            events: Vec::new(),
            expired: Vec::new(),
            start: None,
            status: cron_job.status.clone().unwrap_or_default(),
            next: Next::Wait,
        },
        now,
    };
    let spec = &cron_job.spec;
    pass.expire(spec);
    pass.follow_jobs();
    if cron_job.metadata.deletion_timestamp.is_some() {
        return pass.decision;
    }
    match observed.zone {
        Ok(zone) => pass.schedule(spec, &zone),
        Err(why) => {
            let name = spec.time_zone.as_deref().unwrap_or_default();
            pass.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: {why}"));
        }
    }
    pass.decision
}

/// State of a reconcile pass.
struct Pass<'a> {
    cron_job: &'a CronJob,
    jobs: Vec<Arc<Job>>,
    decision: Decision,
    now: Timestamp,
}

impl Pass<'_> {
    fn tell(&mut self, reason: &'static str, message: String) {
        self.decision.events.push((EventType::Normal, reason, message));
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.decision.events.push((EventType::Warning, reason, message));
    }

    /// Chooses the finished Jobs beyond the limits, those that started first before others.
    fn expire(&mut self, spec: &CronJobSpec) {
        for (how, limit) in
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit.and_then(|n| usize::try_from(n).ok()) else { continue };
            let mut ended: Vec<_> =
                self.jobs.iter().filter(|job| finished(job) == Some(how)).cloned().collect();
            ended.sort_by(|a, b| by_start(a, b));
            let surplus = ended.len().saturating_sub(limit);
            let goes =
                ended.into_iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none());
            self.decision.expired.extend(goes);
        }
    }

    /// Updates the active Jobs in the status, and the time of the last success.
    fn follow_jobs(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        let mut active = self.decision.status.active.take().unwrap_or_default();
        for job in &jobs {
            let at = active.iter().position(|reference| reference.uid == job.metadata.uid);
            let name = job.name_any();
            match (at, finished(job)) {
                (Some(at), Some(how)) => {
                    active.remove(at);
                    self.tell("SawCompletedJob", format!("Saw completed job: {name}, condition: {how}"));
                }
                (None, None) => {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.warn("UnexpectedJob", message);
                }
                _ => {}
            }
            if finished(job) == Some("Complete") {
                let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
                let last = self.decision.status.last_successful_time.take();
                self.decision.status.last_successful_time = completed.max(last);
            }
        }
        active.retain(|reference| {
            let exists = jobs.iter().any(|job| job.metadata.uid == reference.uid);
            if !exists {
                let name = reference.name.as_deref().unwrap_or_default();
                self.tell("MissingJob", format!("Active job went missing: {name}"));
            }
            exists
        });
        self.decision.status.active = Some(active).filter(|active| !active.is_empty());
        self.jobs = jobs;
    }

    /// Starts the Job of the last time at which the schedule was due, unless that has been done.
    fn schedule(&mut self, spec: &CronJobSpec, zone: &TimeZone) {
        if spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
                return self.warn("UnparseableSchedule", message);
            }
        };
        let created = self.cron_job.metadata.creation_timestamp.as_ref();
        let last = self.decision.status.last_schedule_time.as_ref();
        let since = last.or(created).map_or(self.now, |time| time.0);
        let latest = schedule.latest(since, self.now, zone);
        let Some(next) = schedule.next(latest.unwrap_or(since), zone) else {
            let message = format!("invalid schedule: {} : it is never due", spec.schedule);
            return self.warn("InvalidSchedule", message);
        };
        let left = Duration::try_from(next.duration_since(self.now)).unwrap_or_default();
        self.decision.next = Next::After((left + AFTER_DUE).min(LONGEST_WAIT));

        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let deadline = deadline.and_then(|limit| self.now.checked_sub(limit).ok());
        let Some(due) = latest.filter(|due| deadline.is_none_or(|deadline| *due > deadline)) else { return };
        let since = deadline.map_or(since, |deadline| deadline.max(since));
        if schedule.count(since, self.now, zone, MANY_MISSED + 1) > MANY_MISSED {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.into());
        }
        self.start(spec, due, zone);
    }

    fn start(&mut self, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) {
        let name = format!("{}-{}", self.cron_job.name_any(), due.as_second().div_euclid(60));
        let active = self.decision.status.active.as_deref().unwrap_or_default();
        if active.iter().any(|job| job.name.as_deref() == Some(name.as_str())) {
            return;
        }
        let mut replaces = Vec::new();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell("JobAlreadyActive", message.into());
            }
            Some("Replace") => {
                let is_active = |job: &&Arc<Job>| active.iter().any(|a| a.uid == job.metadata.uid);
                replaces = self.jobs.iter().filter(is_active).cloned().collect();
            }
            _ => {}
        }
        // Without a time zone of its own, as Kubernetes writes it.
        let zone = if spec.time_zone.is_some() { zone } else { &TimeZone::UTC };
        let job = Box::new(job_of(self.cron_job, spec, name, &scheduled(due, zone)));
        self.decision.start = Some(Start { replaces, job, scheduled: due });
    }
}

/// Jobs by the time at which they started, then by name. Those that have not started come last.
fn by_start(a: &Job, b: &Job) -> Ordering {
    let started = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.clone());
    let (first, second) = (started(a), started(b));
    let unstarted = first.is_none().cmp(&second.is_none());
    unstarted.then(first.cmp(&second)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// A time in RFC 3339, as Go writes it.
fn scheduled(due: Timestamp, zone: &TimeZone) -> String {
    let local = due.to_zoned(zone.clone());
    let format = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    local.strftime(format).to_string()
}

fn job_of(cron_job: &CronJob, spec: &CronJobSpec, name: String, scheduled: &str) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), scheduled.to_owned());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron_job.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owners::controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
