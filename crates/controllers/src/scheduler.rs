//! The scheduler: binds each Pod to a node.
//!
//! ```text
//! [Node], [Pod] --feed--> Snapshot --schedule()--> a node  --> [Pod] binding
//!                             ^---- assumed ----'  or why not --> [Pod] condition, event
//! ```
//!
//! Watches Pods, Nodes, Namespaces, PersistentVolumeClaims, PersistentVolumes and StorageClasses. Writes bindings; the
//! selected node on claims of classes with `WaitForFirstConsumer`; and the condition `PodScheduled` on Pods that fit no
//! node or wait for another component of their app.
//!
//! [`schedule`] is pure over an immutable [`Snapshot`]. After each decision the loop adds the Pod to the snapshot as
//! assumed, so that many Pods are scheduled without waiting for the API server. If a binding fails, the assumption is
//! removed and the Pod is scheduled again after a delay.

mod affinity;
mod dependencies;
mod filter;
mod pod;
mod run;
mod score;
mod snapshot;
mod volumes;

pub use filter::{Reason, Unschedulable};
pub use pod::PodInfo;
pub(crate) use run::start;
pub use snapshot::{NodeInfo, Snapshot};
pub use volumes::Volumes;
pub use yado_types::resources::Resources;

use affinity::Constraints;

/// Minimum number of feasible nodes that end the search, so that smaller clusters are searched completely; Kubernetes'
/// value.
const MIN_FEASIBLE: usize = 100;

/// Selects the feasible node with the highest score for a Pod. The search starts at the node with index `turn` modulo their
/// number and ends after enough feasible nodes: callers increase `turn` with every decision, so that all nodes of a large
/// cluster are considered in rotation.
///
/// # Errors
/// Fails if no node is feasible, with the number of nodes by reason.
pub fn schedule<'a>(
    snapshot: &'a Snapshot,
    pod: &PodInfo,
    turn: usize,
) -> Result<&'a NodeInfo, Unschedulable> {
    let nodes = snapshot.nodes();
    let needs = snapshot.volumes.needs(pod, |name| snapshot.node(name).is_some());
    let needs = needs.map_err(|why| Unschedulable::on_all_nodes(nodes.len(), why))?;
    let constraints = Constraints::of(snapshot, pod);
    let enough = enough_feasible(nodes.len());
    let mut refused = Unschedulable::of(nodes.len());
    let mut feasible = Vec::with_capacity(enough.min(nodes.len()));
    for i in 0..nodes.len() {
        let node = &nodes[(turn + i) % nodes.len()];
        let fits = filter::filter(pod, node, &constraints)
            .and_then(|()| snapshot.volumes.check(&needs, node).map_err(|reason| vec![reason]));
        match fits {
            Ok(()) => {
                feasible.push(node);
                if feasible.len() >= enough {
                    break;
                }
            }
            Err(reasons) => refused.add(reasons),
        }
    }
    score::best(pod, &feasible, &constraints).ok_or(refused)
}

/// The number of feasible nodes that ends the search: from 50 % of the nodes in a small cluster down to 5 % in a large
/// one, as in Kubernetes' scheduler. Searching more nodes rarely finds a better one.
fn enough_feasible(nodes: usize) -> usize {
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

#[cfg(test)]
mod tests;
