//! Removes the finalizers of Pods that no Job counts any more: those whose Job is gone or finished, and those without a
//! controller. Without it they would outlive their deletion.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Error;
use kube::api::Patch;
use yado_reconcile::{Informer, Next, ObjectKey, Queue};

use super::{finish, has_finalizer, is_managed_elsewhere};
use crate::{Context, owners, writes};

/// Pods handled concurrently.
const WORKERS: usize = 2;

/// Whether a Pod with the finalizer is one that no Job counts any more. `job_of` finds a Job by its name.
fn is_orphan(pod: &Pod, job_of: impl FnOnce(&str) -> Option<Arc<Job>>) -> bool {
    if !has_finalizer(pod) {
        return false;
    }
    let Some(owner) = owners::controller_of(&pod.metadata) else { return true };
    if owner.kind != "Job" || owner.api_version != "batch/v1" {
        return false;
    }
    let job = job_of(&owner.name).filter(|job| job.metadata.uid.as_deref() == Some(&owner.uid));
    job.is_none_or(|job| !is_managed_elsewhere(&job) && finish::ended(&job).is_some())
}

/// Starts the removal; its tasks belong to the context's owner.
pub(super) fn start(context: &Context, jobs: &Arc<Informer<Job>>, component: &'static str) {
    let queue = Queue::new(context.clock.clone());
    let pods = context.informers.all::<Pod>();
    pods.feed_queue(&queue, |change| {
        let held = change.new.as_ref().is_some_and(|pod| has_finalizer(pod));
        held.then(|| change.key.clone())
    });
    let of = context.pods_of.clone();
    jobs.feed_queue(&queue, move |change| {
        let over = change.new.as_ref().is_none_or(|job| finish::ended(job).is_some());
        let uid = change.old.as_ref().or(change.new.as_ref()).and_then(|job| job.metadata.uid.clone());
        let pods = uid.filter(|_| over).map(|uid| of.get(&uid)).unwrap_or_default();
        pods.into_iter()
            .filter(|pod| has_finalizer(pod))
            .map(|pod| ObjectKey::of(&pod.metadata))
            .collect::<Vec<_>>()
    });
    let (client, jobs) = (context.client.clone(), jobs.clone());
    context.run("job-orphans", &queue, WORKERS, move |key| {
        let (client, jobs, pods) = (client.clone(), jobs.clone(), pods.clone());
        async move {
            jobs.synced().await;
            let job_of = |name: &str| jobs.get(&ObjectKey::new(key.namespace.clone(), name));
            match pods.get(&key) {
                Some(pod) if is_orphan(&pod, job_of) => {
                    untrack(&client, component, &pod).await.map(|()| Next::Wait)
                }
                _ => Ok::<_, Error>(Next::Wait),
            }
        }
    });
}

/// Removes the finalizer of a Pod. One that is gone is without it.
pub(super) async fn untrack(client: &kube::Client, component: &str, pod: &Pod) -> Result<(), Error> {
    let metadata = serde_json::json!({
        "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [super::TRACKING],
    });
    let patch = Patch::Strategic(serde_json::json!({ "metadata": metadata }));
    let api = writes::api_in_namespace_of::<Pod>(client, &pod.metadata);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    writes::ignore_not_found(api.patch(name, &writes::params(component), &patch).await.map(drop))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pods_that_nobody_counts_are_let_go() {
        let job = |status: Value, spec: Value| -> Option<Arc<Job>> {
            let job = json!({"metadata": {"name": "j", "uid": "u"}, "status": status, "spec": spec});
            serde_json::from_value(job).map(Arc::new).ok()
        };
        let template = json!({"template": {}});
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let by = |kind: &str, uid: &str| json!([{"apiVersion": "batch/v1", "kind": kind, "name": "j", "uid": uid, "controller": true}]);
        let rows = [
            (json!([]), None, true),
            (by("Job", "u"), None, true),
            (by("Job", "u"), job(json!({}), template.clone()), false),
            (by("Job", "other"), job(json!({}), template.clone()), true),
            (by("Job", "u"), job(complete.clone(), template), true),
            (by("Job", "u"), job(complete, json!({"template": {}, "managedBy": "example.com/x"})), false),
            (by("Other", "u"), None, false),
        ];
        for (owners, job, expect) in rows {
            let pod =
                json!({"metadata": {"finalizers": [super::super::TRACKING], "ownerReferences": owners}});
            let pod: Pod = serde_json::from_value(pod).expect("a Pod");
            assert_eq!(is_orphan(&pod, |_| job), expect, "{owners}");
        }
        assert!(!is_orphan(&Pod::default(), |_| None));
    }
}
