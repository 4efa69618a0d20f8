//! Constraints that depend on other Pods: affinity, anti-affinity and topology spread.

use std::collections::{HashMap, HashSet};

use super::pod::{PodTerm, SpreadConstraint};
use super::{NodeInfo, PodInfo, Reason, Snapshot};

/// A Pod's constraints on other Pods, evaluated over a snapshot once and then checked for every node. Empty, without any
/// allocation, if neither it nor a present Pod has such constraints.
#[derive(Default)]
pub(super) struct Constraints<'a> {
    /// For each required affinity term, the values of its topology label on nodes with a matching Pod; `None` if there are
    /// none and the Pod itself matches, so that the first Pod of a group can be scheduled.
    required: Vec<(&'a PodTerm, Option<HashSet<&'a str>>)>,
    /// `(label, value)` of nodes excluded by the Pod's own required anti-affinity.
    excluded: HashSet<(&'a str, &'a str)>,
    /// `(label, value)` of nodes excluded by the required anti-affinity of Pods that run there.
    excluded_by_present: HashSet<(&'a str, &'a str)>,
    /// Weight that nodes with a `(label, value)` get by preferred affinity (positive) and anti-affinity (negative).
    preferred: HashMap<(&'a str, &'a str), i64>,
    /// Topology spread constraints, required and preferred.
    spread: Vec<Domains<'a>>,
}

/// A topology spread constraint with the number of matching Pods in each of its domains.
struct Domains<'a> {
    constraint: &'a SpreadConstraint,
    counts: HashMap<&'a str, i64>,
    /// The lowest count; 0 if there are fewer domains than `minDomains`.
    fewest: i64,
    /// What the Pod adds to the count of its domain: 1 if it matches the constraint's selector, else 0.
    own: i64,
}

fn value<'a>(node: &'a NodeInfo, key: &str) -> Option<&'a str> {
    node.labels.get(key).map(String::as_str)
}

impl<'a> Constraints<'a> {
    /// Evaluates the constraints of a Pod, and those of present Pods against it.
    pub fn of(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Self {
        let mut all = Self::default();
        for (present, node) in snapshot.repelling() {
            for term in present.anti_affinity.iter().filter(|t| t.matches(pod, &snapshot.namespaces)) {
                all.excluded_by_present
                    .extend(node.labels.get_key_value(&term.topology_key).map(|(k, v)| (&**k, &**v)));
            }
        }
        for term in &pod.anti_affinity {
            let matching = nodes_with_matching_pods(snapshot, term);
            all.excluded.extend(
                matching
                    .map(|(node, _)| node)
                    .filter_map(|n| Some((&*term.topology_key, value(n, &term.topology_key)?))),
            );
        }
        for term in &pod.affinity {
            let values: HashSet<_> = nodes_with_matching_pods(snapshot, term)
                .filter_map(|(n, _)| value(n, &term.topology_key))
                .collect();
            let first = values.is_empty() && term.matches(pod, &snapshot.namespaces);
            all.required.push((term, (!first).then_some(values)));
        }
        for (weight, term) in &pod.preferred_pods {
            for (node, count) in nodes_with_matching_pods(snapshot, term) {
                if let Some(v) = value(node, &term.topology_key) {
                    *all.preferred.entry((&term.topology_key, v)).or_default() += weight * count;
                }
            }
        }
        all.spread = pod.spread.iter().map(|s| Domains::of(snapshot, s, pod)).collect();
        all
    }

    /// Checks the required constraints for a node.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Reason> {
        for domains in self.spread.iter().filter(|d| d.constraint.required) {
            domains.check(node)?;
        }
        for (term, values) in &self.required {
            let here = value(node, &term.topology_key);
            let fits = match values {
                Some(values) => here.is_some_and(|v| values.contains(v)),
                None => here.is_some(),
            };
            if !fits {
                return Err(Reason::PodAffinity);
            }
        }
        let is_in = |set: &HashSet<(&str, &str)>| {
            set.iter().any(|(key, v)| node.labels.get(*key).is_some_and(|here| here == v))
        };
        if is_in(&self.excluded) {
            return Err(Reason::PodAntiAffinity);
        }
        if is_in(&self.excluded_by_present) {
            return Err(Reason::ExistingPodsAntiAffinity);
        }
        Ok(())
    }

    /// Score of a node by preferred affinity and spread: higher is better, without a fixed scale.
    pub fn score(&self, node: &NodeInfo) -> i64 {
        let preferred: i64 =
            self.preferred.iter().filter(|((k, v), _)| value(node, k) == Some(*v)).map(|(_, w)| w).sum();
        let crowded: i64 = self.spread.iter().map(|d| d.count(node)).sum();
        preferred - 10 * crowded
    }

    /// Whether [`Self::score`] is 0 for every node.
    pub fn is_empty(&self) -> bool {
        self.preferred.is_empty() && self.spread.is_empty()
    }
}

/// Nodes with Pods that match a term, and the number of these Pods.
fn nodes_with_matching_pods<'a>(
    snapshot: &'a Snapshot,
    term: &'a PodTerm,
) -> impl Iterator<Item = (&'a NodeInfo, i64)> {
    snapshot.nodes().iter().filter_map(|node| {
        let count = node.pods.values().filter(|p| term.matches(p, &snapshot.namespaces)).count();
        (count > 0).then_some((node, count as i64))
    })
}

impl<'a> Domains<'a> {
    fn of(snapshot: &'a Snapshot, constraint: &'a SpreadConstraint, pod: &PodInfo) -> Self {
        let mut counts = HashMap::new();
        for node in snapshot.nodes() {
            // Nodes that the Pod's node selector or affinity excludes do not count as domains.
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
