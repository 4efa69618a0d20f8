//! Requirements that rest on other Pods: affinity, anti-affinity, spreading.

use std::collections::{HashMap, HashSet};

use super::pod::{PodTerm, Spread};
use super::{NodeInfo, PodInfo, Reason, Snapshot};

/// What a Pod's requirements on other Pods come to in a snapshot: computed once, asked for every node. Empty, and
/// free, for Pods that have none.
#[derive(Default)]
pub(super) struct Constraints<'a> {
    /// Values of each term's topology label where a Pod that it wants runs; `None`: the Pod is the first of its kind.
    wanted: Vec<(&'a PodTerm, Option<HashSet<&'a str>>)>,
    /// `(label, value)` of nodes that this Pod, or one that is there, wants to keep apart.
    refused: HashSet<(&'a str, &'a str)>,
    refused_by_present: HashSet<(&'a str, &'a str)>,
    preferred: HashMap<(&'a str, &'a str), i64>,
    spread: Vec<Domains<'a>>,
}

struct Domains<'a> {
    constraint: &'a Spread,
    counts: HashMap<&'a str, i64>,
    fewest: i64,
    /// The Pod itself is counted where it goes.
    own: i64,
}

fn value<'a>(node: &'a NodeInfo, key: &str) -> Option<&'a str> {
    node.labels.get(key).map(String::as_str)
}

impl<'a> Constraints<'a> {
    pub fn of(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Self {
        let mut all = Self::default();
        for (present, node) in snapshot.repelling() {
            for term in present.anti_affinity.iter().filter(|t| t.matches(pod, &snapshot.namespaces)) {
                all.refused_by_present
                    .extend(node.labels.get_key_value(&term.topology_key).map(|(k, v)| (&**k, &**v)));
            }
        }
        for term in &pod.anti_affinity {
            let near = places(snapshot, term);
            all.refused.extend(
                near.map(|(node, _)| node)
                    .filter_map(|n| Some((&*term.topology_key, value(n, &term.topology_key)?))),
            );
        }
        for term in &pod.affinity {
            let near: HashSet<_> =
                places(snapshot, term).filter_map(|(n, _)| value(n, &term.topology_key)).collect();
            let first = near.is_empty() && term.matches(pod, &snapshot.namespaces);
            all.wanted.push((term, (!first).then_some(near)));
        }
        for (weight, term) in &pod.preferred_pods {
            for (node, count) in places(snapshot, term) {
                if let Some(v) = value(node, &term.topology_key) {
                    *all.preferred.entry((&term.topology_key, v)).or_default() += weight * count;
                }
            }
        }
        all.spread = pod.spread.iter().map(|s| Domains::of(snapshot, s, pod)).collect();
        all
    }

    pub fn check(&self, node: &NodeInfo) -> Result<(), Reason> {
        for domains in self.spread.iter().filter(|d| d.constraint.required) {
            domains.check(node)?;
        }
        for (term, near) in &self.wanted {
            let here = value(node, &term.topology_key);
            let fits = match near {
                Some(near) => here.is_some_and(|v| near.contains(v)),
                None => here.is_some(),
            };
            if !fits {
                return Err(Reason::PodAffinity);
            }
        }
        let is_in = |set: &HashSet<(&str, &str)>| {
            set.iter().any(|(key, v)| node.labels.get(*key).is_some_and(|here| here == v))
        };
        if is_in(&self.refused) {
            return Err(Reason::PodAntiAffinity);
        }
        if is_in(&self.refused_by_present) {
            return Err(Reason::ExistingPodsAntiAffinity);
        }
        Ok(())
    }

    /// How well a node suits wishes about other Pods: higher is better, without a fixed scale.
    pub fn score(&self, node: &NodeInfo) -> i64 {
        let near: i64 =
            self.preferred.iter().filter(|((k, v), _)| value(node, k) == Some(*v)).map(|(_, w)| w).sum();
        let crowded: i64 = self.spread.iter().map(|d| d.count(node)).sum();
        near - 10 * crowded
    }

    /// No node differs from another by these.
    pub fn is_empty(&self) -> bool {
        self.preferred.is_empty() && self.spread.is_empty()
    }
}

/// Nodes with Pods that a term means, and how many.
fn places<'a>(snapshot: &'a Snapshot, term: &'a PodTerm) -> impl Iterator<Item = (&'a NodeInfo, i64)> {
    snapshot.nodes().iter().filter_map(|node| {
        let count = node.pods.values().filter(|p| term.matches(p, &snapshot.namespaces)).count();
        (count > 0).then_some((node, count as i64))
    })
}

impl<'a> Domains<'a> {
    fn of(snapshot: &'a Snapshot, constraint: &'a Spread, pod: &PodInfo) -> Self {
        let mut counts = HashMap::new();
        for node in snapshot.nodes() {
            // Nodes where the Pod cannot go by its own choice do not count as empty places.
            if let Some(v) = value(node, &constraint.topology_key)
                && pod.chooses(&node.name, &node.labels)
            {
                let here = node.pods.values().filter(|p| constraint.counts(p, pod)).count() as i64;
                *counts.entry(v).or_default() += here;
            }
        }
        let fewest = if counts.len() < constraint.min_domains {
            0
        } else {
            counts.values().min().copied().unwrap_or(0)
        };
        Self { constraint, counts, fewest, own: i64::from(constraint.counts(pod, pod)) }
    }

    fn count(&self, node: &NodeInfo) -> i64 {
        value(node, &self.constraint.topology_key)
            .and_then(|v| self.counts.get(v))
            .copied()
            .unwrap_or_default()
    }

    fn check(&self, node: &NodeInfo) -> Result<(), Reason> {
        if value(node, &self.constraint.topology_key).is_none() {
            return Err(Reason::SpreadLabelMissing);
        }
        let skew = self.count(node) + self.own - self.fewest;
        if skew > self.constraint.max_skew { Err(Reason::Spread) } else { Ok(()) }
    }
}
