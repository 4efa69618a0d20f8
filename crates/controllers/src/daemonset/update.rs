//! Update strategies: `RollingUpdate` replaces Pods of older templates within `maxUnavailable` or `maxSurge`; with
//! `OnDelete` the user deletes them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use yado_types::pod::{is_ready, is_terminating};

use super::{Action, Cluster, is_updated, nodes};
use crate::deployment::share;
use crate::replicaset::available_in;

/// `(maxUnavailable, maxSurge)` in Pods, percentages rounded up.
fn leeway(set: &DaemonSet, nodes: usize) -> (usize, usize) {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let total = i32::try_from(nodes).unwrap_or(i32::MAX);
    let number = |value: Option<&IntOrString>, otherwise: i32| {
        let n = value.map_or(otherwise, |v| share(v, total, true));
        usize::try_from(n).unwrap_or_default()
    };
    let surge = number(rolling.and_then(|r| r.max_surge.as_ref()), 0);
    let unavailable = number(rolling.and_then(|r| r.max_unavailable.as_ref()), 1);
    // With both zero, the update could never make progress.
    if surge == 0 && unavailable == 0 { (1, 0) } else { (unavailable, surge) }
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

fn surges(set: &DaemonSet) -> bool {
    // Any positive number of nodes gives the same answer: a percentage rounded up is zero only if it is "0%".
    is_rolling(set) && leeway(set, 100).1 > 0
}

fn is_available(set: &DaemonSet, pod: &Pod, now: Timestamp) -> bool {
    let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
    available_in(pod, min_ready, now).is_some_and(|wait| wait.is_zero())
}

/// Surplus Pods of one node. `alive` holds its Pods, oldest first, that have neither ended nor are terminating.
pub fn surplus(set: &DaemonSet, alive: &[Arc<Pod>], hash: &str, now: Timestamp) -> Vec<Arc<Pod>> {
    if !surges(set) {
        return alive.iter().skip(1).cloned().collect();
    }
    // A surging update has one Pod of each template on a node; the old one is deleted once the new one is available.
    let (new, old): (Vec<_>, Vec<_>) = alive.iter().cloned().partition(|p| is_updated(p, hash));
    let mut surplus: Vec<_> = new.iter().skip(1).chain(old.iter().skip(1)).cloned().collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!is_ready(old) || is_available(set, new, now))
    {
        surplus.push(old.clone());
    }
    surplus
}

/// `(new, old)`: the Pod of the current template and the Pod of an older one, if they exist.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The Pods of one node; `None` if two of them are of the current template or two of older ones, since surplus Pods are
/// deleted before the update continues.
fn pair<'a>(pods: &'a [Arc<Pod>], hash: &str) -> Option<Pair<'a>> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|p| !is_terminating(p)) {
        let place = if is_updated(pod, hash) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// The next step of a rolling update: either Pods of older templates to delete, or surge Pods to create.
pub fn next(set: &DaemonSet, cluster: &Cluster, hash: &str, now: Timestamp) -> Vec<Action> {
    if !is_rolling(set) {
        return Vec::new();
    }
    let (max_unavailable, max_surge) = leeway(set, cluster.wanted().count());
    let action = if max_surge > 0 {
        Action::Create(add(set, cluster, hash, max_surge, now))
    } else {
        Action::Delete(take(set, cluster, hash, max_unavailable, now))
    };
    match &action {
        Action::Create(pods) if pods.is_empty() => Vec::new(),
        Action::Delete(pods) if pods.is_empty() => Vec::new(),
        _ => vec![action],
    }
}

/// Old Pods to delete now: all that are not available, and as many available ones as `maxUnavailable` leaves room for.
fn take(set: &DaemonSet, cluster: &Cluster, hash: &str, most: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let (mut missing, mut useless, mut serving) = (0, Vec::new(), Vec::new());
    for (_, pods) in cluster.wanted() {
        match pair(pods, hash) {
            Some((Some(new), None)) => missing += usize::from(!is_available(set, new, now)),
            Some((None, Some(old))) if is_available(set, old, now) => serving.push(old.clone()),
            Some((None, Some(old))) => {
                missing += 1;
                useless.push(old.clone());
            }
            // No Pod, a terminating one, or surplus ones: count the node as unavailable.
            _ => missing += 1,
        }
    }
    serving.truncate(most.saturating_sub(missing));
    useless.extend(serving);
    useless
}

/// New Pods to create beside old ones: on every node whose old Pod is not available, and on as many others as
/// `maxSurge` leaves room for.
fn add(set: &DaemonSet, cluster: &Cluster, hash: &str, most: usize, now: Timestamp) -> Vec<Pod> {
    let (mut surging, mut useless, mut serving) = (0, Vec::new(), Vec::new());
    for (name, pods) in cluster.wanted() {
        match pair(pods, hash) {
            Some((None, Some(old))) if is_available(set, old, now) => serving.push(name),
            Some((None, Some(_))) => useless.push(name),
            Some((Some(_), Some(_))) => surging += 1,
            _ => {}
        }
    }
    serving.truncate(most.saturating_sub(surging));
    useless.extend(serving);
    useless.into_iter().map(|name| nodes::pod_for(set, name, hash)).collect()
}
