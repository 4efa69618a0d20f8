//! Scoring: which of the feasible nodes is best.

use super::affinity::Constraints;
use super::{NodeInfo, PodInfo};
use crate::taints::PREFER_NO_SCHEDULE;

/// CPU (thousandths) that a Pod without a request is assumed to use, so that such Pods spread as well; Kubernetes' value.
const ASSUMED_MILLI_CPU: i64 = 100;
/// Memory (bytes) that a Pod without a request is assumed to use; Kubernetes' value.
const ASSUMED_MEMORY: i64 = 200 << 20;
/// Penalty for each Pod of the same controller on a node; free resources give 0 to 100 points. It outweighs any difference
/// in load, so that the failure of a node affects few Pods of one ReplicaSet.
const SAME_CONTROLLER: i64 = 200;
/// Penalty for each `PreferNoSchedule` taint that the Pod does not tolerate.
const UNWANTED: i64 = 300;

/// The node with the highest score; the first of those with equal scores. `None` if there are no nodes.
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

/// Points from 0 to 100 for the share of CPU and memory that stays free, reduced if one of them is used more than the
/// other.
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
