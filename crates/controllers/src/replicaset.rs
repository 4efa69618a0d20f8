//! The ReplicaSet controller: keeps the requested number of Pods running. It serves ReplicationControllers as well.
//!
//! ```text
//! [ReplicaSet] --create, delete--> [Pod]
//!       ^--- status, events ---------'
//! ```
//!
//! Watches ReplicaSets and Pods. Writes Pods (creates, deletes, owner references) and the ReplicaSets' status.

mod rank;
mod run;

pub(crate) use run::start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use yado_reconcile::Next;
use yado_types::pod::{condition, is_ended, is_ready, is_terminating, phase};
use yado_types::selector::LabelSelector;

use crate::owners;

/// Maximum number of Pods created or deleted in one reconcile pass; Kubernetes' value. The writes trigger the next pass.
const BURST: usize = 500;
/// Time from the creation of a Pod that failed until it is replaced, so that a Pod that always fails at once, for example
/// because its node rejects it, is not recreated in a tight loop.
const FAILED_STAY: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// Inputs of a reconcile pass: the ReplicaSet, its Pods and where related Pods run.
pub struct Observed<'a> {
    /// The ReplicaSet to reconcile.
    pub set: &'a ReplicaSet,
    /// Pods that it controls, and Pods of its namespace that have no controller.
    pub candidates: Vec<Arc<Pod>>,
    /// Number of active Pods by node of all ReplicaSets of the same owner: Pods on the most crowded nodes are deleted first.
    pub related_per_node: BTreeMap<String, usize>,
}

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the ReplicaSet as this Pod's controller.
    Adopt(Arc<Pod>),
    /// Remove the ReplicaSet from this Pod's owner references.
    Release(Arc<Pod>),
    /// Create this number of Pods.
    Create(usize),
    /// Delete these Pods.
    Delete(Vec<Arc<Pod>>),
    /// Write this status. Its conditions are not decided here: they report the success of the other actions.
    Status(Box<ReplicaSetStatus>),
}

/// Decides which Pods a ReplicaSet adopts, releases, creates or deletes, and its status. The returned [`Next`] says when
/// to reconcile again if nothing changes: when a ready Pod becomes available or a failed one may be replaced.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let (set, spec) = match &observed.set.spec {
        Some(spec) => (observed.set, spec),
        None => return (Vec::new(), Next::Wait),
    };
    let Ok(selector) = LabelSelector::from_api(&spec.selector) else { return (Vec::new(), Next::Wait) };
    // Of Pods that have ended, only those that are its own count.
    let is_candidate = |pod: &&Arc<Pod>| !is_ended(pod) || owners::controller_of(&pod.metadata).is_some();
    let candidates = observed.candidates.iter().filter(is_candidate);
    let owned = owners::owned(&set.metadata, &selector, candidates, Action::Adopt, Action::Release);
    let mine = match owned {
        Ok(mine) => mine,
        Err(first) => return (first, Next::Wait),
    };
    let (ended, mut active): (Vec<_>, Vec<_>) =
        mine.into_iter().filter(|p| !is_terminating(p)).partition(|p| is_ended(p));
    let (status, mut next) = status(set, &active, now);
    let mut actions = Vec::new();
    if set.metadata.deletion_timestamp.is_none() {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        if active.len() < wanted {
            let stays: Vec<_> = ended.iter().map(|p| stays_for(p, now)).filter(|s| !s.is_zero()).collect();
            let missing = (wanted - active.len()).saturating_sub(stays.len());
            if missing > 0 {
                actions.push(Action::Create(missing.min(BURST)));
            }
            if let Some(first) = stays.into_iter().min() {
                next = match next {
                    Next::After(other) => Next::After(other.min(first)),
                    Next::Wait => Next::After(first),
                };
            }
        } else if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST);
            rank::sort(&mut active, &observed.related_per_node, now);
            active.truncate(surplus);
            actions.push(Action::Delete(active));
        }
    }
    actions.push(Action::Status(Box::new(status)));
    (actions, next)
}

/// Time for which a Pod that has failed still counts as one of its controller's and is not replaced; zero for other Pods.
pub fn stays_for(pod: &Pod, now: Timestamp) -> Duration {
    let born = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let left = born.filter(|_| phase(pod) == "Failed").map(|born| FAILED_STAY - now.duration_since(born));
    left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
}

/// Time until a Pod is available, if it stays ready for `min_ready` seconds: zero if it is; `None` if it is not ready.
pub fn available_in(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready <= 0 {
        return Some(Duration::ZERO);
    }
    let since = condition(pod, "Ready")?.last_transition_time.as_ref()?.0;
    let ready_for = now.duration_since(since);
    let missing = jiff::SignedDuration::from_secs(min_ready.into()) - ready_for;
    Some(Duration::try_from(missing).unwrap_or_default())
}

fn status(set: &ReplicaSet, active: &[Arc<Pod>], now: Timestamp) -> (ReplicaSetStatus, Next) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or_default();
    let template = spec.and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let fully_labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.is_none_or(|t| t.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
    };
    let waits: Vec<_> = active.iter().filter_map(|p| available_in(p, min_ready, now)).collect();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some_count(active.iter().filter(|p| fully_labelled(p)).count()),
        ready_replicas: some_count(waits.len()),
        available_replicas: some_count(waits.iter().filter(|w| w.is_zero()).count()),
        observed_generation: set.metadata.generation,
        ..Default::default()
    };
    let next = waits.into_iter().filter(|w| !w.is_zero()).min().map_or(Next::Wait, Next::After);
    (status, next)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn some_count(n: usize) -> Option<i32> {
    (n > 0).then(|| count(n))
}

/// The conditions after a pass: ReplicaFailure with the reason and message of `failure`, or without it if there was none.
fn conditions(
    set: &ReplicaSet,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let current = set.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut conditions: Vec<_> = current.iter().filter(|c| c.type_ != "ReplicaFailure").cloned().collect();
    if let Some((reason, message)) = failure {
        let before =
            current.into_iter().find(|c| c.type_ == "ReplicaFailure" && c.reason.as_deref() == Some(reason));
        conditions.push(before.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// A Pod of a template with a `generateName` after its owner, for the server to complete.
pub fn pod_of(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let labelled = template.metadata.clone().unwrap_or_default();
    let mut prefix = format!("{}-", owner.name);
    if prefix.len() > 200 {
        // The server appends a suffix, and rejects names that are too long.
        prefix.truncate((0..=200).rev().find(|i| prefix.is_char_boundary(*i)).unwrap_or_default());
    }
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: Some(namespace.to_owned()),
            labels: labelled.labels,
            annotations: labelled.annotations,
            finalizers: labelled.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
