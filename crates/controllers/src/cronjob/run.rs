//! The I/O of the CronJob controller: it queues CronJobs whose objects change or whose time has come, and carries out the
//! decision of each reconcile pass.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Error, Resource, ResourceExt};
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Informer, Next, ObjectKey, Queue, revision_of};
use yado_types::time_zone;

use super::{Observed, Start, reconcile};
use crate::pods::OWN_WRITES_TIMEOUT;
use crate::{Context, owners, writes};

const COMPONENT: &str = "cronjob-controller";
/// CronJobs reconciled concurrently; Kubernetes' value.
const WORKERS: usize = 5;

struct Controller {
    context: Context,
    cron_jobs: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    /// Jobs by their controller's uid.
    jobs_of: Arc<Index<String, Job>>,
    recorder: Recorder,
}

/// Starts the CronJob controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let (cron_jobs, jobs) = (context.informers.all::<CronJob>(), context.informers.all::<Job>());
    let queue = Queue::new(context.clock.clone());
    cron_jobs.feed_queue(&queue, |change| [change.key.clone()]);
    jobs.feed_queue(&queue, |change| {
        let owners = change.old.iter().chain(&change.new).filter_map(|job| {
            let owner = owners::controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob")?;
            Some(ObjectKey::new(change.key.namespace.clone(), owner.name.clone()))
        });
        let mut owners: Vec<_> = owners.collect();
        owners.dedup();
        owners
    });
    let this = Arc::new(Controller {
        jobs_of: jobs
            .index(|job| owners::controller_uid(&job.metadata).map(str::to_owned).into_iter().collect()),
        recorder: context.recorder(COMPONENT),
        context: context.clone(),
        cron_jobs,
        jobs,
    });
    context.run("cronjobs", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.cron_jobs.synced().await;
        self.jobs.synced().await;
        let Some(cron_job) = self.cron_jobs.get(&key) else { return Ok(Next::Wait) };
        let named = cron_job.spec.time_zone.as_deref();
        let zone = named.map_or_else(|| Ok(self.context.config.time_zone.clone()), time_zone::find);
        let observed = Observed { cron_job: &cron_job, jobs: self.jobs(&cron_job).await?, zone };
        let decision = reconcile(observed, self.context.clock.now());
        let reference = cron_job.object_ref(&());
        for (kind, reason, message) in decision.events {
            self.recorder.event(&reference, kind, reason, message);
        }
        for job in &decision.expired {
            // What cannot be deleted now is tried again with the next change; no run waits for it.
            _ = self.delete(&reference, job).await;
        }
        let mut status = decision.status;
        let started = match decision.start {
            Some(start) => self.start(&cron_job, &reference, start, &mut status).await,
            None => Ok(()),
        };
        self.write_status(&cron_job, status).await?;
        started.map(|()| decision.next)
    }

    /// The Jobs that the CronJob controls, and the active ones that only the server knows.
    async fn jobs(&self, cron_job: &CronJob) -> Result<Vec<Arc<Job>>, Error> {
        let mut jobs = self.jobs_of.get(&cron_job.uid().unwrap_or_default());
        let active = cron_job.status.iter().flat_map(|status| status.active.iter().flatten());
        let api = writes::api_in_namespace_of::<Job>(&self.context.client, &cron_job.metadata);
        for reference in active {
            if jobs.iter().any(|job| job.metadata.uid == reference.uid) {
                continue;
            }
            let found = api.get_opt(reference.name.as_deref().unwrap_or_default()).await?;
            jobs.extend(found.filter(|job| job.metadata.uid == reference.uid).map(Arc::new));
        }
        Ok(jobs)
    }

    async fn delete(&self, cron_job: &ObjectReference, job: &Job) -> Result<(), Error> {
        let deleted = writes::delete::<Job>(&self.context.client, &job.metadata).await;
        let (kind, reason, message) = match &deleted {
            Ok(()) => (EventType::Normal, "SuccessfulDelete", format!("Deleted job {}", job.name_any())),
            Err(error) => {
                (EventType::Warning, "FailedDelete", format!("Deleted job: {}", writes::reason(error)))
            }
        };
        self.recorder.event(cron_job, kind, reason, message);
        deleted
    }

    /// Creates the Job that is due and adds it to the status. A Job of that name which is the CronJob's own was created by a pass
    /// that did not come to write the status; any other one is somebody else's, who is left in peace.
    async fn start(
        &self,
        cron_job: &CronJob,
        reference: &ObjectReference,
        start: Start,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        for job in &start.replaces {
            self.delete(reference, job).await?;
            status.active.iter_mut().for_each(|active| active.retain(|a| a.uid != job.metadata.uid));
        }
        let job = match writes::create(&self.context.client, &*start.job).await {
            Ok(job) => {
                let message = format!("Created job {}", job.name_any());
                self.recorder.event(reference, EventType::Normal, "SuccessfulCreate", message);
                // The next pass must see it, or would take it for one that went missing.
                let revision = revision_of(job.metadata.resource_version.as_deref());
                self.jobs.seen(revision, OWN_WRITES_TIMEOUT).await;
                job
            }
            Err(error) if writes::has_code(&error, 409) => {
                let api = writes::api_in_namespace_of::<Job>(&self.context.client, &cron_job.metadata);
                let job = api.get(&start.job.name_any()).await?;
                if owners::controller_uid(&job.metadata) != cron_job.metadata.uid.as_deref() {
                    return Ok(());
                }
                job
            }
            Err(error) => {
                if !writes::namespace_is_terminating(&error) {
                    let message = format!("Error creating job: {}", writes::reason(&error));
                    self.recorder.event(reference, EventType::Warning, "FailedCreate", message);
                }
                return Err(error);
            }
        };
        let created = ObjectReference {
            resource_version: job.metadata.resource_version.clone(),
            ..job.object_ref(&())
        };
        status.active.get_or_insert_default().push(created);
        status.last_schedule_time = Some(Time(start.scheduled));
        Ok(())
    }

    async fn write_status(&self, cron_job: &CronJob, mut status: CronJobStatus) -> Result<(), Error> {
        status.active = status.active.filter(|active| !active.is_empty());
        if cron_job.status.as_ref().unwrap_or(&CronJobStatus::default()) == &status {
            return Ok(());
        }
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = serde_json::json!({
            "active": status.active,
            "lastScheduleTime": status.last_schedule_time,
            "lastSuccessfulTime": status.last_successful_time,
        });
        let written =
            writes::status::<CronJob>(&self.context.client, &cron_job.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            // The next pass must see it, or would record its events again.
            Ok(cron_job) => {
                let revision = revision_of(cron_job.metadata.resource_version.as_deref());
                self.cron_jobs.seen(revision, OWN_WRITES_TIMEOUT).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
