//! The scheduler: which node runs a Pod.
//!
//! ```text
//! [Node], [Pod] --feed--> Snapshot --schedule()--> a node  --> [Pod] binding
//!                             ^---- assumed ----'  or why not --> [Pod] condition, event
//! ```
//!
//! Watches Pods, Nodes, Namespaces, claims, volumes and classes. Writes bindings, on claims that wait for it the name of
//! the node, and on Pods that fit nowhere, or wait for another component of their app, the condition `PodScheduled`.
//!
//! [`schedule`] is pure over an immutable [`Snapshot`]. Between two decisions the loop adds the first to the
//! snapshot as assumed, so that a whole burst is placed without waiting for the API server. A binding that loses a
//! race is taken back and tried again.

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

/// Below this many nodes all of them are looked at; Kubernetes' figure.
const MIN_FEASIBLE: usize = 100;

/// Chooses a node for a Pod. `turn` is a number that grows with every decision: it says where the search starts, so
/// that in a large cluster, where enough good nodes end the search, all nodes are looked at in turn.
pub fn schedule<'a>(
    snapshot: &'a Snapshot,
    pod: &PodInfo,
    turn: usize,
) -> Result<&'a NodeInfo, Unschedulable> {
    let nodes = snapshot.nodes();
    let needs = snapshot.volumes.needs(pod, |name| snapshot.node(name).is_some());
    let needs = needs.map_err(|why| Unschedulable::anywhere(nodes.len(), why))?;
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

/// How many nodes that fit end the search: half of them in a small cluster, down to a twentieth in a large one, as
/// Kubernetes' scheduler has it. More would find a better node only rarely.
fn enough_feasible(nodes: usize) -> usize {
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

#[cfg(test)]
mod tests;
