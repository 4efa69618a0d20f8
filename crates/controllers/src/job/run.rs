//! The I/O of the Job controller: it queues Jobs whose objects change, and applies the actions of each reconcile pass.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use kube::{Error, Resource, ResourceExt};
use parking_lot::Mutex;
use yado_reconcile::events::EventType;
use yado_reconcile::{Informer, Next, ObjectKey, Queue, revision_of};

use super::{Action, Ledger, Observed, reconcile};
use crate::pods::{OWN_WRITES_TIMEOUT, Pods};
use crate::{Context, owners, writes};

const COMPONENT: &str = "job-controller";
/// Jobs reconciled concurrently.
const WORKERS: usize = 8;

struct Controller {
    context: Context,
    jobs: Arc<Informer<Job>>,
    pods: Pods,
    /// By the Job's uid; an entry is removed with its Job.
    ledgers: Mutex<HashMap<String, Ledger>>,
}

/// Starts the Job controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let jobs = context.informers.all::<Job>();
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        pods: Pods::new(context, COMPONENT),
        context: context.clone(),
        jobs: jobs.clone(),
        ledgers: Mutex::default(),
    });
    this.pods.feed(&queue, &jobs);
    let of = this.clone();
    jobs.feed_queue(&queue, move |change| {
        if let Some(old) = change.old.as_ref().filter(|_| change.new.is_none()) {
            of.ledgers.lock().remove(&old.uid().unwrap_or_default());
        }
        [change.key.clone()]
    });
    context.run("jobs", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.jobs.synced().await;
        let settled = self.pods.settled(&key).await;
        let Some(job) = self.jobs.get(&key) else {
            self.pods.forget(&key);
            return Ok(Next::Wait);
        };
        if settled {
            self.pods.forget(&key);
        }
        let candidates = self.pods.candidates(&job.metadata, settled).await?;
        let uid = job.uid().unwrap_or_default();
        let own: Vec<_> = candidates
            .iter()
            .filter(|p| owners::controller_uid(&p.metadata) == Some(uid.as_str()))
            .cloned()
            .collect();
        let counted = self.ledgers.lock().entry(uid.clone()).or_default().count(job.status.as_ref(), &own);
        let observed = Observed { job: &job, candidates, counted };
        let (actions, next) = reconcile(&observed, self.context.clock.now());
        let mut failure = None;
        for action in actions {
            if let Err(error) = self.apply(&key, &job, action).await {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(next), Err)
    }

    async fn apply(&self, key: &ObjectKey, job: &Job, action: Action) -> Result<(), Error> {
        let reference = job.object_ref(&());
        let uid = job.uid().unwrap_or_default();
        match action {
            Action::Adopt(pod) => {
                let owner = owners::controller_reference(job);
                self.pods.adopt::<Job>(&job.metadata, owner, &pod).await
            }
            Action::Release(pod) => self.pods.release(&uid, &pod).await,
            Action::Create(pods) => self.pods.create(key, &reference, &pods).await,
            Action::Delete(pods) => {
                self.ledgers.lock().entry(uid).or_default().dismiss(&pods);
                self.pods.delete(&reference, &pods).await
            }
            Action::Event(reason, message) => {
                let kind = match reason {
                    "BackoffLimitExceeded" | "DeadlineExceeded" => EventType::Warning,
                    _ => EventType::Normal,
                };
                self.pods.recorder.event(&reference, kind, reason, message);
                Ok(())
            }
            Action::Status(status) => self.write_status(job, *status).await,
            Action::Expire => writes::delete::<Job>(&self.context.client, &job.metadata).await,
        }
    }

    async fn write_status(&self, job: &Job, status: JobStatus) -> Result<(), Error> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null.
        let patch = serde_json::json!({
            "active": status.active,
            "completedIndexes": status.completed_indexes,
            "completionTime": status.completion_time,
            "conditions": status.conditions,
            "failed": status.failed,
            "ready": status.ready,
            "startTime": status.start_time,
            "succeeded": status.succeeded,
            "terminating": status.terminating,
        });
        let written = writes::status::<Job>(&self.context.client, &job.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            // The next pass must see the conditions, or it would record their events again.
            Ok(job) => {
                let revision = revision_of(job.metadata.resource_version.as_deref());
                self.jobs.seen(revision, OWN_WRITES_TIMEOUT).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
