//! Writes the status of a Pod, and deletes its object once everything of it has ended.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::task;
use yado_reconcile::{ObjectKey, is_worth_a_warning, retry_delay, revision_of};

use super::{Actor, Done};
use crate::handle::PodHandle;
use crate::shared::Shared;
use crate::status;

/// The writes of one Pod's status. At most one is in progress; what changes meanwhile is written after it.
#[derive(Default)]
pub(super) struct StatusWriter {
    /// The write in progress.
    pub(super) job: Option<task::Id>,
    /// Whether a turn came while a write was in progress, so that another one may be needed.
    again: bool,
    /// The status last written, with its revision.
    last: Option<(u64, PodStatus)>,
    /// Number of consecutive failures.
    failures: u32,
    /// Monotonic time before which a write that has failed is not retried.
    retry_at: Option<Duration>,
    /// Whether the Pod's object was deleted.
    deleted: bool,
}

/// The result of a write.
pub(super) struct Written {
    /// The new revision and status, unless only the object was deleted or it does not exist any more.
    result: Result<Option<Box<(u64, PodStatus)>>, Error>,
    deleted: bool,
}

/// The API server did not take a write.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not take the {what} of Pod {pod}: {error}")]
struct Error {
    what: &'static str,
    pod: ObjectKey,
    error: Box<kube::Error>,
}

impl Actor {
    /// Starts a write if the status differs from the object's, or if the object is to be deleted.
    pub(super) fn write(&mut self, pod: &Pod, delete: bool) {
        if self.writer.job.is_some() {
            self.writer.again = true;
            return;
        }
        let now = self.shared.now();
        if let Some(retry_at) = self.writer.retry_at.filter(|at| *at > now.monotonic) {
            self.wake = Some(self.wake.map_or(retry_at, |wake| wake.min(retry_at)));
            return;
        }
        let revision = revision_of(pod.metadata.resource_version.as_deref());
        let newer = self.writer.last.as_ref().filter(|(at, _)| *at > revision);
        let known =
            newer.map_or_else(|| pod.status.clone().unwrap_or_default(), |(_, status)| status.clone());
        let view =
            Pod { status: Some(known.clone()), metadata: pod.metadata.clone(), spec: pod.spec.clone() };
        let wanted = status::of(&view, &self.state.record, self.shared.machine.address, now);
        let changes = status::difference(&known, &wanted);
        let delete = delete && !self.writer.deleted;
        if changes.is_none() && !delete {
            return;
        }
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        let job = self.jobs.spawn(async move {
            let result = Box::pin(write(&shared, &handle, changes, delete)).await;
            Done::Written(Written { deleted: delete && result.is_ok(), result })
        });
        self.writer.job = Some(job.id());
    }

    /// Takes in the result of a write. Returns whether a turn is needed.
    pub(super) fn written(&mut self, written: Written) -> bool {
        let again = std::mem::take(&mut self.writer.again);
        self.writer.job = None;
        self.writer.deleted |= written.deleted;
        match written.result {
            Ok(status) => {
                if let Some(status) = status {
                    self.writer.last = Some(*status);
                }
                self.writer.failures = 0;
                self.writer.retry_at = None;
                again
            }
            Err(error) => {
                let failures = self.not_written();
                if is_worth_a_warning(failures) {
                    tracing::warn!(pod = %self.handle.key, failures, %error, "keeps failing and is retried");
                } else {
                    tracing::debug!(pod = %self.handle.key, failures, %error, "failed and is retried");
                }
                true
            }
        }
    }

    /// Notes that a write has failed, and when it is retried. Returns the number of consecutive failures.
    pub(super) fn not_written(&mut self) -> u32 {
        let delay = retry_delay(self.writer.failures);
        self.writer.job = None;
        self.writer.failures += 1;
        self.writer.retry_at = Some(self.shared.clock.monotonic() + delay);
        self.writer.failures
    }
}

async fn write(
    shared: &Arc<Shared>,
    handle: &PodHandle,
    changes: Option<Value>,
    delete: bool,
) -> Result<Option<Box<(u64, PodStatus)>>, Error> {
    // The semaphore is never closed.
    let _permit = shared.status_writes.acquire().await;
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &handle.key.namespace);
    let failed = |what| {
        let pod = handle.key.clone();
        move |error| Error { what, pod, error: Box::new(error) }
    };
    let mut written = None;
    if let Some(changes) = changes {
        let patch = json!({"metadata": {"uid": handle.uid}, "status": changes});
        let patched =
            api.patch_status(&handle.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        written = unless_gone(patched).map_err(failed("status"))?.map(|new| {
            let revision = revision_of(new.metadata.resource_version.as_deref());
            Box::new((revision, new.status.unwrap_or_default()))
        });
    }
    if delete {
        let preconditions = Preconditions { uid: Some(handle.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        unless_gone(api.delete(&handle.key.name, &params).await).map_err(failed("deletion"))?;
    }
    Ok(written)
}

/// `None` if the object does not exist any more, or one of the same name has replaced it: the watch will tell.
fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}
