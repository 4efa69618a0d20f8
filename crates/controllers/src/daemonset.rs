//! The DaemonSet controller: one Pod on every node that matches the template and whose taints it tolerates.
//!
//! ```text
//! [DaemonSet], [Node] --create, delete--> [Pod]
//!       |   ^--- status, events -----------'
//!       '--> [ControllerRevision]: its template as it was, for `kubectl rollout history` and `undo`
//! ```
//!
//! Watches DaemonSets, Nodes, Pods and ControllerRevisions. Writes Pods, ControllerRevisions and the DaemonSets'
//! status. A Pod names its node by required node affinity and is bound by the scheduler, which checks that the node's
//! resources suffice.

mod history;
mod nodes;
mod run;
mod update;

pub(crate) use run::start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use yado_reconcile::Next;
use yado_types::labels::CONTROLLER_REVISION_HASH;
use yado_types::pod::{is_ended, is_ready, is_terminating};
use yado_types::selector::LabelSelector;

use crate::owners;
use crate::replicaset::{available_in, stays_for};

/// Maximum number of Pods created, and of Pods deleted, in one reconcile pass; Kubernetes' value. The writes trigger
/// the next pass.
const BURST: usize = 250;

/// Inputs of a reconcile pass: the DaemonSet, the nodes, its Pods and its revisions.
pub struct Observed<'a> {
    /// The DaemonSet to reconcile.
    pub set: &'a DaemonSet,
    /// Every Node of the cluster, suitable or not.
    pub nodes: Vec<Arc<Node>>,
    /// Pods that it controls, and Pods of its namespace that have no controller.
    pub candidates: Vec<Arc<Pod>>,
    /// ControllerRevisions that it controls.
    pub revisions: Vec<Arc<ControllerRevision>>,
}

/// A write or event that a reconcile pass decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Add the DaemonSet as this Pod's controller.
    Adopt(Arc<Pod>),
    /// Remove the DaemonSet from this Pod's owner references.
    Release(Arc<Pod>),
    /// Create the ControllerRevision of the current template.
    CreateRevision(Box<ControllerRevision>),
    /// Give a revision this number: its template is the current one again, and the newest number must be its own.
    Renumber(Arc<ControllerRevision>, i64),
    /// Delete a ControllerRevision beyond the history limit.
    DeleteRevision(Arc<ControllerRevision>),
    /// Record an event about a Pod that succeeded or failed and is about to be replaced.
    Ended(Arc<Pod>),
    /// Create these Pods.
    Create(Vec<Pod>),
    /// Delete these Pods.
    Delete(Vec<Arc<Pod>>),
    /// Write this status unless the DaemonSet has it already.
    Status(Box<DaemonSetStatus>),
}

/// The Pods of a node, oldest first.
type OnNode = Vec<Arc<Pod>>;

/// Decides which Pods and revisions a DaemonSet lacks or has too many of, and its status. The returned [`Next`] says when
/// to reconcile again if nothing changes: when a failed Pod may be replaced, or a ready Pod becomes available.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let set = observed.set;
    let nothing = (Vec::new(), Next::Wait);
    let Some(spec) = &set.spec else { return nothing };
    let Ok(selector) = LabelSelector::from_api(&spec.selector) else { return nothing };
    if selector.is_empty() {
        return nothing;
    }
    let candidates = &observed.candidates;
    let owned = owners::owned(&set.metadata, &selector, candidates, Action::Adopt, Action::Release);
    let mine = match owned {
        Ok(mine) => mine,
        Err(first) => return (first, Next::Wait),
    };
    let cluster = Cluster::of(set, &observed.nodes, mine);
    let hash = history::hash(set);
    let (mut actions, mut soonest) = (Vec::new(), None);
    if set.metadata.deletion_timestamp.is_none() {
        actions.extend(history::remember(set, &hash, &observed.revisions));
        let (kept, recheck) = cluster.keep(set, &hash, now);
        actions.extend(kept);
        soonest = recheck;
        let settled = actions.iter().all(|a| !matches!(a, Action::Create(_) | Action::Delete(_)));
        if settled {
            actions.extend(update::next(set, &cluster, &hash, now));
        }
        actions.extend(history::clean_up(set, &hash, &cluster, &observed.revisions));
    }
    let (status, available_in) = cluster.status(set, &hash, now);
    actions.push(Action::Status(Box::new(status)));
    let next = soonest.into_iter().chain(available_in).min();
    (actions, next.map_or(Next::Wait, Next::After))
}

/// The observed state of a DaemonSet's Pods, by node.
struct Cluster {
    /// By node name: whether the node is suitable, and the DaemonSet's Pods on it.
    nodes: BTreeMap<String, (nodes::Suitability, OnNode)>,
    /// Pods bound to or meant for nodes that do not exist.
    stray: Vec<Arc<Pod>>,
}

impl Cluster {
    fn of(set: &DaemonSet, nodes: &[Arc<Node>], mine: Vec<Arc<Pod>>) -> Self {
        let requirements = nodes::NodeRequirements::of(set);
        let mut all: BTreeMap<_, _> = nodes
            .iter()
            .map(|n| (n.metadata.name.clone().unwrap_or_default(), (requirements.check(n), OnNode::new())))
            .collect();
        let mut stray = Vec::new();
        for pod in mine {
            match nodes::target(&pod).and_then(|name| all.get_mut(name)) {
                Some((_, pods)) => pods.push(pod),
                None => stray.push(pod),
            }
        }
        let age =
            |p: &Arc<Pod>| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone());
        all.values_mut().for_each(|(_, pods)| pods.sort_by_key(age));
        Self { nodes: all, stray }
    }

    /// Nodes that should run a Pod.
    fn wanted(&self) -> impl Iterator<Item = (&String, &OnNode)> {
        self.nodes
            .iter()
            .filter(|(_, (suitability, _))| suitability.should_run)
            .map(|(name, (_, pods))| (name, pods))
    }

    /// Creates a Pod on every suitable node that has none, and deletes Pods that ended, that are on unsuitable nodes or
    /// that are surplus. The duration is the time until the first failed Pod may be replaced.
    fn keep(&self, set: &DaemonSet, hash: &str, now: Timestamp) -> (Vec<Action>, Option<Duration>) {
        let (mut ended, mut create, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        let mut recheck = None;
        for (name, (suitability, pods)) in &self.nodes {
            let running = || pods.iter().filter(|p| !is_terminating(p));
            if pods.is_empty() {
                if suitability.should_run {
                    create.push(nodes::pod_for(set, name, hash));
                }
            } else if !suitability.should_continue {
                delete.extend(running().cloned());
            } else {
                let (over, alive): (Vec<_>, Vec<_>) = running().cloned().partition(|p| is_ended(p));
                let (over, fresh): (Vec<_>, Vec<_>) =
                    over.into_iter().partition(|p| stays_for(p, now).is_zero());
                recheck = fresh.iter().map(|p| stays_for(p, now)).chain(recheck).min();
                ended.extend(over.iter().cloned().map(Action::Ended));
                delete.extend(over);
                delete.extend(update::surplus(set, &alive, hash, now));
            }
        }
        // Pods that were bound to a deleted node are deleted by the Pod garbage collector.
        let unbound = |p: &&Arc<Pod>| yado_types::pod::node_name(p).is_none() && !is_terminating(p);
        delete.extend(self.stray.iter().filter(unbound).cloned());
        create.truncate(BURST);
        delete.truncate(BURST);
        let mut actions = ended;
        if !delete.is_empty() {
            actions.push(Action::Delete(delete));
        }
        if !create.is_empty() {
            actions.push(Action::Create(create));
        }
        (actions, recheck)
    }

    fn status(&self, set: &DaemonSet, hash: &str, now: Timestamp) -> (DaemonSetStatus, Option<Duration>) {
        let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: set.status.as_ref().and_then(|s| s.collision_count),
            ..Default::default()
        };
        let (mut updated, mut available, mut next) = (0, 0, None);
        for (suitability, pods) in self.nodes.values() {
            if !suitability.should_run {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(first) = pods.first() else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(is_ready(first));
            updated += i32::from(is_updated(first, hash));
            match available_in(first, min_ready, now) {
                Some(wait) if wait.is_zero() => available += 1,
                Some(wait) => next = Some(next.map_or(wait, |next: Duration| next.min(wait))),
                None => {}
            }
        }
        let unavailable = status.desired_number_scheduled - available;
        status.updated_number_scheduled = (updated > 0).then_some(updated);
        status.number_available = (available > 0).then_some(available);
        status.number_unavailable = (unavailable > 0).then_some(unavailable);
        (status, next)
    }
}

/// Whether a Pod was made from the template with this hash.
fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|l| l.get(CONTROLLER_REVISION_HASH)).is_some_and(|h| h == hash)
}

#[cfg(test)]
mod tests;
