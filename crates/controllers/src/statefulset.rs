//! The StatefulSet controller: Pods with stable names and claims of their own, started and ended in order.
//!
//! ```text
//! [StatefulSet] --create, delete--> [Pod] NAME-0, NAME-1, ... --> [PersistentVolumeClaim] CLAIM-NAME-0, ...
//!       |   ^------- status, events --'
//!       '--> [ControllerRevision]: its templates, which Pods of a partition are made from, for `kubectl rollout undo`
//! ```
//!
//! Watches StatefulSets, Pods, ControllerRevisions and PersistentVolumeClaims. Writes Pods, ControllerRevisions, claims
//! and the StatefulSets' status. It deletes no claim: the garbage collector does, by the owner references that
//! `persistentVolumeClaimRetentionPolicy` asks for ([`retention`]).
//!
//! A pass works through the replicas in the order of their ordinals, then through the Pods beyond them, then through what
//! an update replaces ([`rollout`]). With `OrderedReady` it ends at the first Pod that is not available.

mod history;
mod identity;
mod retention;
mod rollout;
mod run;
mod status;

pub(crate) use run::start;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use yado_reconcile::Next;
use yado_types::selector::LabelSelector;

use rollout::Rollout;

/// Inputs of a reconcile pass: the StatefulSet, its Pods, revisions and claims.
pub struct Observed<'a> {
    /// The StatefulSet to reconcile.
    pub set: &'a StatefulSet,
    /// Pods that it controls, and Pods of its namespace that have no controller.
    pub candidates: Vec<Arc<Pod>>,
    /// ControllerRevisions that it controls, and those of its namespace that have no controller.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Claims of its namespace with the names that claims of its replicas have.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
}

/// A Pod to create, and the claims that have to exist before it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The Pod.
    pub pod: Pod,
    /// Those of its claims that do not exist.
    pub claims: Vec<PersistentVolumeClaim>,
}

/// A write or event that a reconcile pass decided on. They are applied in order, and after one that fails only the status
/// is written: each rests on those before it.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the StatefulSet as this Pod's controller.
    Adopt(Arc<Pod>),
    /// Remove the StatefulSet from this Pod's owner references.
    Release(Arc<Pod>),
    /// Add the StatefulSet as this ControllerRevision's controller.
    AdoptRevision(Arc<ControllerRevision>),
    /// Create the ControllerRevision of the current template.
    CreateRevision(Box<ControllerRevision>),
    /// Give a revision this number: its template is the current one again, and the newest number must be its own.
    Renumber(Arc<ControllerRevision>, i64),
    /// Delete a ControllerRevision beyond the history limit.
    DeleteRevision(Arc<ControllerRevision>),
    /// Create these Pods, each after its claims.
    Create(Vec<Replica>),
    /// Create claims that a pending Pod lacks.
    CreateClaims(Arc<Pod>, Vec<PersistentVolumeClaim>),
    /// Record that a Pod cannot be created yet, and why.
    Blocked(String, String),
    /// Record that another controller owns this claim, so that the retention policy does not hold for it.
    Conflict(Arc<PersistentVolumeClaim>),
    /// Replace the owner references of a claim.
    Own(Arc<PersistentVolumeClaim>, Vec<OwnerReference>),
    /// Merge this patch into a Pod, so that it has the labels and volumes of its identity.
    Repair(Arc<Pod>, Box<serde_json::Value>),
    /// Delete these Pods.
    Delete(Vec<Arc<Pod>>),
    /// Write this status unless the StatefulSet has it already.
    Status(Box<StatefulSetStatus>),
}

/// Decides the next steps towards the desired Pods, the revision history and the status. The returned [`Next`] says when to
/// reconcile again if nothing changes: when a ready Pod becomes available or a failed one may be replaced.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let set = observed.set;
    let selector = set.spec.as_ref().and_then(|s| LabelSelector::from_api(&s.selector).ok());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return (Vec::new(), Next::Wait);
    };
    let (pods, revisions) =
        match (identity::own_pods(observed, &selector), history::own_revisions(observed, &selector)) {
            (Ok(pods), Ok(revisions)) => (pods, revisions),
            // What it owns is known after these, and the changed objects trigger the next pass.
            (pods, revisions) => {
                let first = pods.err().into_iter().chain(revisions.err()).flatten();
                return (first.collect(), Next::Wait);
            }
        };
    let (history, mut actions) = history::decide(set, &revisions);
    let (status, available_in) = status::of(set, &pods, &history, now);
    let mut soonest = available_in;
    if set.metadata.deletion_timestamp.is_some() {
        actions.clear();
    } else {
        let (steps, recheck) = Rollout::of(observed, &pods, &history, now).decide();
        actions.extend(steps);
        actions.extend(history::clean_up(set, &history, &pods, &revisions));
        soonest = soonest.into_iter().chain(recheck).min();
    }
    actions.push(Action::Status(Box::new(status)));
    (actions, soonest.map_or(Next::Wait, Next::After))
}

#[cfg(test)]
mod tests;
