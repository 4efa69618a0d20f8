//! DaemonSets: one Pod on every node that will have it.
//!
//! ```text
//! [DaemonSet], [Node] --create, delete--> [Pod]
//!       |   ^--- status, events -----------'
//!       '--> [ControllerRevision]: its template as it was, for `kubectl rollout history` and `undo`
//! ```
//!
//! Watches DaemonSets, Nodes, Pods and ControllerRevisions. Writes Pods, ControllerRevisions and the DaemonSets'
//! status. A Pod names its node by affinity, so that the scheduler binds it, and nobody else's limits are passed by.

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
use yado_types::pod::{is_ended, is_ready, is_terminating};
use yado_types::selector::LabelSelector;

use crate::owners::{self, Claim};
use crate::replicaset::{available_in, stays_for};

/// Pods created or deleted in one go, as in Kubernetes: the next look comes at once.
const BURST: usize = 250;
/// Label with the hash of the template that a Pod was made of.
const REVISION_HASH: &str = "controller-revision-hash";

/// What a decision rests on.
pub struct Observed<'a> {
    /// The DaemonSet.
    pub set: &'a DaemonSet,
    /// Every node.
    pub nodes: Vec<Arc<Node>>,
    /// Pods it controls, and those of its namespace that nobody does.
    pub candidates: Vec<Arc<Pod>>,
    /// Its ControllerRevisions.
    pub revisions: Vec<Arc<ControllerRevision>>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Become this Pod's controller.
    Adopt(Arc<Pod>),
    /// Stop being this Pod's controller.
    Release(Arc<Pod>),
    /// Remember the template.
    CreateRevision(Box<ControllerRevision>),
    /// The template has come back: its revision is the newest again.
    Renumber(Arc<ControllerRevision>, i64),
    /// Forget an old template.
    DeleteRevision(Arc<ControllerRevision>),
    /// Tell of a Pod that ended, which is about to be replaced.
    Ended(Arc<Pod>),
    /// Create these Pods.
    Create(Vec<Pod>),
    /// Delete these Pods.
    Delete(Vec<Arc<Pod>>),
    /// Write this status.
    Status(Box<DaemonSetStatus>),
}

/// The Pods of a node, oldest first.
type OnNode = Vec<Arc<Pod>>;

/// Decides what a DaemonSet needs.
pub fn reconcile(observed: &Observed<'_>, now: Timestamp) -> (Vec<Action>, Next) {
    let set = observed.set;
    let nothing = (Vec::new(), Next::Wait);
    let Some(spec) = &set.spec else { return nothing };
    let Ok(selector) = LabelSelector::from_api(&spec.selector) else { return nothing };
    if selector.is_empty() {
        return nothing;
    }
    let (mut claims, mut mine) = (Vec::new(), Vec::new());
    for pod in &observed.candidates {
        match owners::claim(&set.metadata, &selector, &pod.metadata) {
            Claim::Mine => mine.push(pod.clone()),
            Claim::Adopt => claims.push(Action::Adopt(pod.clone())),
            Claim::Release => claims.push(Action::Release(pod.clone())),
            Claim::Other => {}
        }
    }
    if !claims.is_empty() {
        // What there is is known once these are through; their change brings us back.
        return (claims, Next::Wait);
    }
    let cluster = Cluster::of(set, &observed.nodes, mine);
    let hash = history::hash(set);
    let (mut actions, mut soonest) = (Vec::new(), None);
    if set.metadata.deletion_timestamp.is_none() {
        actions.extend(history::remember(set, &hash, &observed.revisions));
        let (kept, look_again) = cluster.keep(set, &hash, now);
        actions.extend(kept);
        soonest = look_again;
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

/// Nodes as a DaemonSet sees them.
struct Cluster {
    /// Every node that is there: what it offers, and the DaemonSet's Pods on it.
    nodes: BTreeMap<String, (nodes::Suits, OnNode)>,
    /// Pods for nodes that are not there.
    stray: Vec<Arc<Pod>>,
}

impl Cluster {
    fn of(set: &DaemonSet, nodes: &[Arc<Node>], mine: Vec<Arc<Pod>>) -> Self {
        let wish = nodes::Wish::of(set);
        let mut all: BTreeMap<_, _> = nodes
            .iter()
            .map(|n| (n.metadata.name.clone().unwrap_or_default(), (wish.suits(n), OnNode::new())))
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
        self.nodes.iter().filter(|(_, (suits, _))| suits.start).map(|(name, (_, pods))| (name, pods))
    }

    /// One Pod where one should be, none where none should be.
    fn keep(&self, set: &DaemonSet, hash: &str, now: Timestamp) -> (Vec<Action>, Option<Duration>) {
        let (mut ended, mut create, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        let mut look_again = None;
        for (name, (suits, pods)) in &self.nodes {
            let running = || pods.iter().filter(|p| !is_terminating(p));
            if pods.is_empty() {
                if suits.start {
                    create.push(nodes::pod_for(set, name, hash));
                }
            } else if !suits.stay {
                delete.extend(running().cloned());
            } else {
                let (over, alive): (Vec<_>, Vec<_>) = running().cloned().partition(|p| is_ended(p));
                let (over, fresh): (Vec<_>, Vec<_>) =
                    over.into_iter().partition(|p| stays_for(p, now).is_zero());
                look_again = fresh.iter().map(|p| stays_for(p, now)).chain(look_again).min();
                ended.extend(over.iter().cloned().map(Action::Ended));
                delete.extend(over);
                delete.extend(update::surplus(set, &alive, hash, now));
            }
        }
        // The garbage collection of Pods takes those that were bound to a node that is gone.
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
        (actions, look_again)
    }

    fn status(&self, set: &DaemonSet, hash: &str, now: Timestamp) -> (DaemonSetStatus, Option<Duration>) {
        let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: set.status.as_ref().and_then(|s| s.collision_count),
            ..Default::default()
        };
        let (mut updated, mut available, mut next) = (0, 0, None);
        for (suits, pods) in self.nodes.values() {
            if !suits.start {
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

/// Whether a Pod was made of the template with this hash.
fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|l| l.get(REVISION_HASH)).is_some_and(|h| h == hash)
}

#[cfg(test)]
mod tests;
