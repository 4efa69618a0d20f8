//! The order in which Pods are created, ended and replaced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use yado_types::pod::{is_ended, is_terminating, phase};

use super::history::{History, revision_of};
use super::retention::{self, Holder};
use super::status::pod_available_in;
use super::{Action, Observed, Replica, identity};
use crate::deployment::share;
use crate::replicaset::stays_for;

/// Whether a pass may go on to what comes after.
type Flow = ControlFlow<()>;

/// The Pods of a StatefulSet in their order, and the steps that were decided on so far.
pub struct Rollout<'a> {
    set: &'a StatefulSet,
    history: &'a History,
    claims: &'a BTreeMap<String, Arc<PersistentVolumeClaim>>,
    now: Timestamp,
    /// The Pods of the desired ordinals, lowest first; `None` where there is none.
    replicas: Vec<Option<Arc<Pod>>>,
    /// Pods of other ordinals, highest first, which is the order in which they end.
    surplus: Vec<Arc<Pod>>,
    steps: Vec<Action>,
    recheck: Option<Duration>,
}

impl<'a> Rollout<'a> {
    /// Sorts the Pods that a StatefulSet owns.
    pub fn of(observed: &'a Observed<'_>, pods: &[Arc<Pod>], history: &'a History, now: Timestamp) -> Self {
        let set = observed.set;
        let first = identity::first_ordinal(set);
        let mut replicas = vec![None; usize::try_from(identity::replicas(set)).unwrap_or_default()];
        let mut surplus = Vec::new();
        for pod in pods {
            let Some(ordinal) = identity::ordinal(set, &pod.metadata) else { continue };
            let place = usize::try_from(i64::from(ordinal) - i64::from(first)).ok();
            match place.and_then(|place| replicas.get_mut(place)) {
                Some(place) => *place = Some(pod.clone()),
                None => surplus.push((ordinal, pod.clone())),
            }
        }
        surplus.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        let surplus = surplus.into_iter().map(|(_, pod)| pod).collect();
        let claims = &observed.claims;
        Self { set, history, claims, now, replicas, surplus, steps: Vec::new(), recheck: None }
    }

    /// The steps of this pass. The duration is the time until the first failed Pod may be replaced.
    pub fn decide(mut self) -> (Vec<Action>, Option<Duration>) {
        let flow = self.keep_replicas();
        if flow.is_continue() {
            self.own_surplus_claims();
            if self.end_surplus().is_continue() {
                self.update();
            }
        }
        (self.steps, self.recheck)
    }

    fn is_ordered(&self) -> bool {
        let policy = self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
        policy != Some("Parallel")
    }

    fn ordinal(&self, place: usize) -> i32 {
        let place = i32::try_from(place).unwrap_or(i32::MAX);
        identity::first_ordinal(self.set).saturating_add(place)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod_available_in(self.set, pod, self.now).is_some_and(|wait| wait.is_zero())
    }

    /// Whether a replica counts as unavailable during an update; one that does not exist does.
    fn is_unavailable(&self, pod: &Pod) -> bool {
        is_terminating(pod) || !self.is_available(pod)
    }

    fn delete(&mut self, pods: Vec<Arc<Pod>>) {
        if !pods.is_empty() {
            self.steps.push(Action::Delete(pods));
        }
    }

    /// Creates missing Pods, replaces ended ones, and corrects the identity of the others.
    fn keep_replicas(&mut self) -> Flow {
        let (mut missing, mut ended, mut flow) = (Vec::new(), Vec::new(), Flow::Continue(()));
        for place in 0..self.replicas.len() {
            let next = match self.replicas[place].clone() {
                None => self.begin(self.ordinal(place), &mut missing),
                Some(pod) => self.keep(&pod, &mut ended),
            };
            if next.is_break() && self.is_ordered() {
                flow = next;
                break;
            }
        }
        self.delete(ended);
        if !missing.is_empty() {
            self.steps.push(Action::Create(missing));
        }
        flow
    }

    /// Decides on the creation of a Pod, unless one of its claims is on its way out.
    fn begin(&mut self, ordinal: i32, missing: &mut Vec<Replica>) -> Flow {
        let set = self.set;
        let name = identity::pod_name(set, ordinal);
        let holder = Holder { name: &name, pod: None, is_surplus: false };
        let (present, claims) = self.claims_of(ordinal);
        let deletes = retention::deletes_when_scaled(set);
        if deletes && present.iter().any(|claim| retention::is_stale(claim, holder)) {
            return Flow::Break(());
        }
        if let Some(going) = present.iter().find(|claim| claim.metadata.deletion_timestamp.is_some()) {
            let claim = going.metadata.name.as_deref().unwrap_or_default();
            self.steps.push(Action::Blocked(name, format!("pvc {claim} is being deleted")));
            return Flow::Break(());
        }
        present.iter().for_each(|claim| self.own(holder, claim));
        let revision = if self.keeps_current(ordinal) { &self.history.current } else { &self.history.update };
        let pod = identity::pod(set, &revision.template, &revision.name, ordinal);
        missing.push(Replica { pod, claims });
        Flow::Break(())
    }

    /// Whether a Pod that is created with this ordinal is made from the current revision: below the partition of a rolling
    /// update, or among the replicas that an update without parameters has not reached.
    fn keeps_current(&self, ordinal: i32) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return false;
        }
        let kept = match strategy.and_then(|s| s.rolling_update.as_ref()) {
            Some(rolling) => rolling.partition.unwrap_or_default(),
            None => self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default(),
        };
        ordinal < identity::first_ordinal(self.set).saturating_add(kept)
    }

    /// The claims of a replica: those that exist, and those that do not, to be created.
    fn claims_of(&self, ordinal: i32) -> (Vec<Arc<PersistentVolumeClaim>>, Vec<PersistentVolumeClaim>) {
        let name = identity::pod_name(self.set, ordinal);
        let holder = Holder { name: &name, pod: None, is_surplus: false };
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for mut claim in identity::claims(self.set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            match self.claims.get(name) {
                Some(claim) => present.push(claim.clone()),
                None => {
                    let owners = &mut claim.metadata.owner_references;
                    if let Some(owner) = retention::owner(self.set, holder) {
                        owners.get_or_insert_default().push(owner);
                    }
                    missing.push(claim);
                }
            }
        }
        (present, missing)
    }

    /// Decides on a Pod that exists. In an ordered pass nothing comes after one that is not available.
    fn keep(&mut self, pod: &Arc<Pod>, ended: &mut Vec<Arc<Pod>>) -> Flow {
        if is_ended(pod) {
            let stays = stays_for(pod, self.now);
            if !stays.is_zero() {
                self.recheck = self.recheck.into_iter().chain([stays]).min();
            } else if !is_terminating(pod) {
                ended.push(pod.clone());
            }
            return Flow::Break(());
        }
        let Some(ordinal) = identity::ordinal(self.set, &pod.metadata) else { return Flow::Continue(()) };
        let (present, missing) = self.claims_of(ordinal);
        // Somebody has deleted a claim before the Pod got its volume.
        if phase(pod) == "Pending" && !is_terminating(pod) && !missing.is_empty() {
            self.steps.push(Action::CreateClaims(pod.clone(), missing));
        }
        if self.is_unavailable(pod) && self.is_ordered() {
            return Flow::Break(());
        }
        let name = identity::pod_name(self.set, ordinal);
        let holder = Holder { name: &name, pod: Some(pod), is_surplus: false };
        present.iter().for_each(|claim| self.own(holder, claim));
        if let Some(patch) = identity::repair(self.set, pod) {
            self.steps.push(Action::Repair(pod.clone(), Box::new(patch)));
        }
        Flow::Continue(())
    }

    /// Gives a claim the owners that the retention policy asks for.
    fn own(&mut self, holder: Holder<'_>, claim: &Arc<PersistentVolumeClaim>) {
        let change = retention::change(self.set, holder, claim);
        if change.is_conflict {
            self.steps.push(Action::Conflict(claim.clone()));
        }
        if let Some(owners) = change.owners {
            self.steps.push(Action::Own(claim.clone(), owners));
        }
    }

    /// Owners of claims are written before the Pods end with which the claims may have to go.
    fn own_surplus_claims(&mut self) {
        for pod in self.surplus.clone() {
            let Some(ordinal) = identity::ordinal(self.set, &pod.metadata) else { continue };
            let name = identity::pod_name(self.set, ordinal);
            let holder = Holder { name: &name, pod: Some(&pod), is_surplus: true };
            self.claims_of(ordinal).0.iter().for_each(|claim| self.own(holder, claim));
        }
    }

    /// Ends Pods beyond the replicas, in order one by one: each only while all before it are available, except the first
    /// one that is not.
    fn end_surplus(&mut self) -> Flow {
        let mut going = Vec::new();
        for pod in &self.surplus {
            if !self.is_ordered() {
                going.extend((!is_terminating(pod)).then(|| pod.clone()));
                continue;
            }
            if !is_terminating(pod) && (self.is_available(pod) || self.is_first_unavailable(pod)) {
                going.push(pod.clone());
            }
            self.delete(going);
            return Flow::Break(());
        }
        self.delete(going);
        Flow::Continue(())
    }

    /// Whether a surplus Pod is the one with the lowest ordinal that is not available. In an ordered pass all replicas are.
    fn is_first_unavailable(&self, pod: &Arc<Pod>) -> bool {
        self.surplus.iter().rfind(|p| self.is_unavailable(p)).is_some_and(|first| Arc::ptr_eq(first, pod))
    }

    /// Deletes Pods of other revisions than the newest, from the highest ordinal down to the partition, as many as may be
    /// unavailable at once.
    fn update(&mut self) {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or_default();
        let partition = usize::try_from(partition).unwrap_or_default();
        let unavailable = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| self.is_unavailable(pod));
        let budget = max_unavailable(rolling, self.replicas.len())
            .saturating_sub(self.replicas.iter().filter(|pod| unavailable(pod)).count());
        let outdated = |pod: &&Arc<Pod>| {
            revision_of(pod) != Some(self.history.update.name.as_str()) && !is_terminating(pod)
        };
        let candidates = self.replicas.iter().skip(partition).rev().flatten().filter(outdated);
        let (available, useless): (Vec<_>, Vec<_>) = candidates.cloned().partition(|p| self.is_available(p));
        // Pods that do not serve are replaced first, and beyond the budget: nothing is lost with them, and a revision
        // that does not work could not be mended otherwise. An ordered pass waits for them instead and comes to no update.
        let going = useless.into_iter().chain(available.into_iter().take(budget)).collect();
        self.delete(going);
    }
}

/// How many Pods may be unavailable during an update; percentages are rounded down, to 1 at least, as Kubernetes does.
fn max_unavailable(rolling: Option<&RollingUpdateStatefulSetStrategy>, replicas: usize) -> usize {
    let total = i32::try_from(replicas).unwrap_or(i32::MAX);
    let most = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |value| share(value, total, false));
    usize::try_from(most).unwrap_or_default().max(1)
}
