//! The Deployment controller: creates a ReplicaSet per Pod template and moves replicas from the old ones to the new one.
//!
//! ```text
//! [Deployment] --create, scale, delete--> [ReplicaSet] -> [Pod]
//!       ^------ status, revision, events --------'
//! ```
//!
//! Watches Deployments, ReplicaSets and (for `Recreate`) Pods. Writes ReplicaSets, and the Deployments' status and
//! revision annotation. One ReplicaSet per template; the one whose template is the Deployment's is "new".

mod history;
mod progress;
mod recreate;
mod rolling;
mod run;
mod scaling;
mod status;

pub(crate) use run::start;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use yado_reconcile::Next;
use yado_types::selector::LabelSelector;

use crate::owners;

pub(crate) use history::{ALPHABET, set_name, template_hash};

/// Inputs of a reconcile pass: the Deployment, its ReplicaSets and the number of their Pods.
pub struct Observed<'a> {
    /// The Deployment to reconcile.
    pub deployment: &'a Deployment,
    /// ReplicaSets that it controls, and ReplicaSets of its namespace that have no controller.
    pub candidates: Vec<Arc<ReplicaSet>>,
    /// Pods that have not ended, counted by the uid of the ReplicaSet that controls them; terminating ones count.
    pub living_pods: BTreeMap<String, usize>,
}

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the Deployment as this ReplicaSet's controller.
    Adopt(Arc<ReplicaSet>),
    /// Remove the Deployment from this ReplicaSet's owner references.
    Release(Arc<ReplicaSet>),
    /// Create the ReplicaSet of the current template.
    Create(Box<ReplicaSet>),
    /// Set a ReplicaSet's `replicas`, and its annotations with the Deployment's desired and maximum size.
    Scale(Arc<ReplicaSet>, i32, BTreeMap<String, String>),
    /// Change a ReplicaSet's annotations, and its `minReadySeconds` to the Deployment's.
    Annotate(Arc<ReplicaSet>, BTreeMap<String, String>),
    /// Delete an empty ReplicaSet beyond the history limit.
    Delete(Arc<ReplicaSet>),
    /// Set the Deployment's revision annotation to this number.
    Revision(String),
    /// Replace the Deployment's status.
    Status(Box<DeploymentStatus>),
}

/// Decides the next step of a rollout or scaling, the revision history and the status. The returned [`Next`] says when the
/// progress deadline must be checked if nothing changes.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let deployment = observed.deployment;
    let Some(spec) = &deployment.spec else { return (Vec::new(), Next::Wait) };
    let Ok(selector) = LabelSelector::from_api(&spec.selector) else { return (Vec::new(), Next::Wait) };
    let candidates = &observed.candidates;
    let owned = owners::owned(&deployment.metadata, &selector, candidates, Action::Adopt, Action::Release);
    let mine = match owned {
        Ok(mine) => mine,
        Err(first) => return (first, Next::Wait),
    };
    let sets = Sets::of(deployment, mine);
    let mut status = status::calculate(&sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return (status::changed(deployment, status).into_iter().collect(), Next::Wait);
    }
    let mut actions = history::remember(&sets);
    if actions.iter().any(|a| matches!(a, Action::Annotate(..))) {
        return (actions, Next::Wait);
    }
    progress::pause(deployment, &mut status, now);
    if sets.paused() || scaling::is_asked_for(&sets) {
        actions.extend(scaling::scale(&sets));
        if sets.paused() {
            actions.extend(history::clean_up(&sets));
        }
        actions.extend(status::changed(deployment, status));
        return (actions, Next::Wait);
    }
    let steps =
        if sets.recreates() { recreate::next(&sets, &observed.living_pods) } else { rolling::next(&sets) };
    if let Some(name) =
        steps.iter().find_map(|a| if let Action::Create(set) = a { set.metadata.name.clone() } else { None })
    {
        progress::created(&sets, &mut status, &name, now);
    }
    let next = progress::judge(&sets, &mut status, now);
    actions.extend(steps);
    if status::is_complete(&sets, &status) {
        actions.extend(history::clean_up(&sets));
    }
    actions.extend(status::changed(deployment, status));
    (actions, next)
}

/// A Deployment and the ReplicaSets that it controls.
struct Sets<'a> {
    deployment: &'a Deployment,
    /// The ReplicaSet of the current template.
    new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
}

impl<'a> Sets<'a> {
    fn of(deployment: &'a Deployment, mut mine: Vec<Arc<ReplicaSet>>) -> Self {
        mine.sort_by(|a, b| history::age(a).cmp(&history::age(b)));
        let new = history::find_new(deployment, &mine);
        let old = mine.into_iter().filter(|s| new.as_ref().is_none_or(|n| !Arc::ptr_eq(n, s))).collect();
        Self { deployment, new, old }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn replicas(&self) -> i32 {
        self.deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default()
    }

    fn recreates(&self) -> bool {
        let strategy = self.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()?.type_.as_deref());
        strategy == Some("Recreate")
    }

    /// `(maxSurge, maxUnavailable)` in Pods. Percentages of surge are rounded up, those of unavailability down. If both
    /// are zero, one Pod may be unavailable, because the update could not begin otherwise.
    fn leeway(&self) -> (i32, i32) {
        if self.recreates() {
            return (0, 0);
        }
        let rolling =
            self.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()?.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
        let replicas = self.replicas();
        let (surge, unavailable) = (share(surge, replicas, true), share(unavailable, replicas, false));
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        (surge, unavailable.min(replicas))
    }

    /// Maximum number of Pods during a rollout: `replicas` plus `maxSurge`.
    fn max_replicas(&self) -> i32 {
        self.replicas().saturating_add(self.leeway().0)
    }
}

/// Resolves a value such as `maxSurge`: a number, or a percentage of `total` that is rounded as asked. Negative and
/// malformed values count as 0.
pub(crate) fn share(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or_default();
            let hundredths = percent.max(0).saturating_mul(total.into());
            let up = i64::from(round_up && hundredths % 100 != 0);
            i32::try_from(hundredths / 100 + up).unwrap_or(i32::MAX)
        }
    }
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
}

fn sizes<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|s| size(s)).fold(0, i32::saturating_add)
}

#[cfg(test)]
mod tests;
