//! The I/O of the Job controller: it queues Jobs whose objects change, and applies the actions of each reconcile pass.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::{Error, Resource, ResourceExt};
use parking_lot::Mutex;
use yado_reconcile::{Informer, Next, ObjectKey, Queue, revision_of};

use super::{Action, Memory, Observed, TRACKING, has_finalizer, orphans, reconcile};
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
    memories: Mutex<HashMap<String, Memory>>,
}

/// Starts the Job controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let jobs = context.informers.all::<Job>();
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        pods: Pods::new(context, COMPONENT),
        context: context.clone(),
        jobs: jobs.clone(),
        memories: Mutex::default(),
    });
    this.pods.feed(&queue, &jobs);
    let of = this.clone();
    jobs.feed_queue(&queue, move |change| {
        if let Some(old) = change.old.as_ref().filter(|_| change.new.is_none()) {
            of.memories.lock().remove(&old.uid().unwrap_or_default());
        }
        [change.key.clone()]
    });
    context.run("jobs", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
    orphans::start(context, &jobs, COMPONENT);
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
        let memory = self.memory(&job, &candidates);
        let (actions, mut next) =
            reconcile(&Observed { job: &job, candidates, memory: &memory }, self.context.clock.now());
        let mut failure = None;
        for action in actions {
            let counts = matches!(action, Action::Status(_));
            // Pods whose end is entered are counted in a further pass, which need not wait for the watch to show them.
            if matches!(action, Action::Untrack(_)) {
                next = Next::After(Duration::ZERO);
            }
            if let Err(error) = self.apply(&key, &job, action).await {
                failure = Some(error);
                if counts {
                    break;
                }
            }
        }
        failure.map_or(Ok(next), Err)
    }

    /// What is remembered of a Job. Pods that the informer shows without the finalizer, or no more, need not be.
    fn memory(&self, job: &Job, candidates: &[Arc<Pod>]) -> Memory {
        let held: HashSet<&str> = candidates
            .iter()
            .filter(|pod| has_finalizer(pod))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let mut memories = self.memories.lock();
        let memory = memories.entry(job.uid().unwrap_or_default()).or_default();
        let shown = |uid: &str| candidates.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid));
        memory.untracked.retain(|uid| held.contains(uid.as_str()) || shown(uid));
        memory.clone()
    }

    async fn apply(&self, key: &ObjectKey, job: &Job, action: Action) -> Result<(), Error> {
        let reference = job.object_ref(&());
        match action {
            Action::Adopt(pod) => {
                let owner = owners::controller_reference(job);
                let finalizers = tracked(&pod);
                self.pods.adopt_with::<Job>(&job.metadata, owner, &pod, finalizers).await
            }
            Action::Release(pod) => self.pods.release(&job.uid().unwrap_or_default(), &pod).await,
            Action::Track(pod) => {
                let patch = serde_json::json!({ "metadata": {
                    "uid": pod.metadata.uid,
                    "resourceVersion": pod.metadata.resource_version,
                    "finalizers": tracked(&pod),
                } });
                writes::merge::<Pod>(&self.context.client, &pod.metadata, COMPONENT, &patch).await.map(drop)
            }
            Action::Create(pods) => self.pods.create(key, &reference, &pods).await,
            Action::Delete(pods) => self.pods.delete(&reference, &pods).await,
            Action::Dismiss(pods) => {
                self.untrack(job, &pods).await?;
                self.pods.delete(&reference, &pods).await
            }
            Action::Status(status) => self.write_status(job, *status).await,
            Action::Remember(backoff) => {
                self.memories.lock().entry(job.uid().unwrap_or_default()).or_default().backoff =
                    Some(backoff);
                Ok(())
            }
            Action::Untrack(pods) => self.untrack(job, &pods).await,
            Action::Event(kind, reason, message) => {
                self.pods.recorder.event(&reference, kind, &reason, message);
                Ok(())
            }
            Action::Expire => writes::delete::<Job>(&self.context.client, &job.metadata).await,
        }
    }

    /// Removes the finalizers of Pods, and remembers for which that was done.
    async fn untrack(&self, job: &Job, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let removals = pods.iter().map(|pod| async {
            let removed = orphans::untrack(&self.context.client, COMPONENT, pod).await;
            removed.map(|()| pod.uid().unwrap_or_default())
        });
        let mut failure = None;
        for result in writes::in_parallel(removals.collect()).await {
            match result {
                Ok(uid) => {
                    let mut memories = self.memories.lock();
                    memories.entry(job.uid().unwrap_or_default()).or_default().untracked.insert(uid);
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn write_status(&self, job: &Job, status: JobStatus) -> Result<(), Error> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // A merge patch keeps fields that it does not name: fields without a value must be sent as null. The version makes sure
        // that counts are never added to others than those they were made of.
        let lists = status.uncounted_terminated_pods.unwrap_or_default();
        let patch = serde_json::json!({
            "active": status.active,
            "completedIndexes": status.completed_indexes,
            "completionTime": status.completion_time,
            "conditions": status.conditions,
            "failed": status.failed,
            "failedIndexes": status.failed_indexes,
            "ready": status.ready,
            "startTime": status.start_time,
            "succeeded": status.succeeded,
            "terminating": status.terminating,
            "uncountedTerminatedPods": {"succeeded": lists.succeeded, "failed": lists.failed},
        });
        let written =
            writes::status_of_version::<Job>(&self.context.client, &job.metadata, COMPONENT, &patch).await;
        match written {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            // The next pass must see it, or would count Pods and record events again.
            Ok(job) => {
                let revision = revision_of(job.metadata.resource_version.as_deref());
                self.jobs.seen(revision, OWN_WRITES_TIMEOUT).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The finalizers of a Pod with that of this controller.
fn tracked(pod: &Pod) -> Vec<String> {
    let mut all = pod.metadata.finalizers.clone().unwrap_or_default();
    if !has_finalizer(pod) {
        all.push(TRACKING.to_owned());
    }
    all
}
