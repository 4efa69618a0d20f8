//! Which of the nodes that will do is best.

use super::affinity::Constraints;
use super::{NodeInfo, PodInfo};
use crate::taints::PREFER_NO_SCHEDULE;

/// CPU a container without a request is taken to use, so that such Pods spread as well; Kubernetes' figure.
const ASSUMED_MILLI_CPU: i64 = 100;
/// Memory a container without a request is taken to use; Kubernetes' figure.
const ASSUMED_MEMORY: i64 = 200 << 20;
/// What one Pod of the same controller on a node costs it, on the scale of 0 to 100 of free resources: it outweighs
/// any difference in load, for a node that fails should take few Pods of one ReplicaSet with it.
const SAME_CONTROLLER: i64 = 200;
/// What an untolerated `PreferNoSchedule` taint costs.
const UNWANTED: i64 = 300;

/// The best of these nodes; among equals the first, which differs from turn to turn.
pub(super) fn best<'a>(
    pod: &PodInfo,
    nodes: &[&'a NodeInfo],
    constraints: &Constraints<'_>,
) -> Option<&'a NodeInfo> {
    let mut best: Option<(i64, &NodeInfo)> = None;
    for node in nodes {
        let score = score(pod, node, constraints);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, node));
        }
    }
    best.map(|(_, node)| node)
}

fn score(pod: &PodInfo, node: &NodeInfo, constraints: &Constraints<'_>) -> i64 {
    let mut score = free(pod, node);
    if let Some(controller) = &pod.controller {
        score -= SAME_CONTROLLER * i64::from(node.by_controller.get(controller).copied().unwrap_or_default());
    }
    for (weight, term) in &pod.preferred_nodes {
        if term.matches(&node.name, &node.labels) {
            score += 2 * weight;
        }
    }
    let unwanted = |t: &&super::snapshot::Taint| {
        t.effect == PREFER_NO_SCHEDULE && !pod.tolerates(&t.key, &t.value, &t.effect)
    };
    score -= UNWANTED * node.taints.iter().filter(unwanted).count() as i64;
    if !constraints.is_empty() {
        score += 2 * constraints.score(node);
    }
    score
}

/// How much stays free, from 0 to 100: CPU and memory alike, less for using one of them up alone.
fn free(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let share = |has: i64, taken: i64, asked: i64, assumed: i64| {
        let asked = if asked > 0 { asked } else { assumed };
        // Pods without requests count by number, as if each asked for the assumed amount.
        let taken = taken.max(assumed.saturating_mul(node.requested.pods));
        if has <= 0 { 0 } else { ((has - taken - asked).max(0) as i128 * 100 / i128::from(has)) as i64 }
    };
    let (has, taken, asked) = (&node.allocatable, &node.requested, &pod.requests);
    let cpu = share(has.milli_cpu, taken.milli_cpu, asked.milli_cpu, ASSUMED_MILLI_CPU);
    let memory = share(has.memory, taken.memory, asked.memory, ASSUMED_MEMORY);
    (cpu + memory) / 2 - (cpu - memory).abs() / 4
}
