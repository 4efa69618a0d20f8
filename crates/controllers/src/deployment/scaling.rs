//! Scaling: a change of the Deployment's `replicas`, as opposed to a step of a rollout.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use yado_types::labels::{DEPLOYMENT_DESIRED_REPLICAS, DEPLOYMENT_MAX_REPLICAS};

use super::{Action, Sets, available, history, size, sizes};

fn annotated(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// Whether the Deployment's size has changed: the desired-replicas annotation of a ReplicaSet with replicas differs.
pub fn is_asked_for(sets: &Sets<'_>) -> bool {
    let mut active = sets.all().filter(|s| size(s) > 0);
    active.any(|s| annotated(s, DEPLOYMENT_DESIRED_REPLICAS).is_some_and(|n| n != sets.replicas()))
}

/// Scales the ReplicaSets to the Deployment's size. A single active one gets all replicas; in the middle of a rollout the
/// change is distributed proportionally, so that the ratio of old and new Pods stays.
pub fn scale(sets: &Sets<'_>) -> Vec<Action> {
    let active: Vec<_> = sets.all().filter(|s| size(s) > 0).collect();
    if active.len() <= 1 {
        let Some(only) = active.first().copied().or(sets.new.as_ref()).or(sets.old.last()) else {
            return Vec::new();
        };
        return resized(sets, [(only, sets.replicas())]);
    }
    if let Some(new) = &sets.new
        && is_saturated(sets, new)
    {
        return resized(sets, sets.old.iter().filter(|s| size(s) > 0).map(|s| (s, 0)));
    }
    if sets.recreates() {
        return Vec::new();
    }
    proportionally(sets, active)
}

fn is_saturated(sets: &Sets<'_>, set: &ReplicaSet) -> bool {
    let wanted = sets.replicas();
    size(set) == wanted
        && annotated(set, DEPLOYMENT_DESIRED_REPLICAS) == Some(wanted)
        && available(set) == wanted
}

fn proportionally(sets: &Sets<'_>, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Action> {
    let allowed = if sets.replicas() > 0 { sets.max_replicas() } else { 0 };
    let to_add = allowed - sizes(active.iter().copied());
    // Larger ones first; among equals the newer grows first and the older shrinks first.
    active.sort_by(|a, b| {
        let by_age = history::age(a).cmp(&history::age(b));
        size(b).cmp(&size(a)).then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut added = 0;
    let mut shares: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = if to_add == 0 || to_add == added { 0 } else { proportion(sets, set, to_add - added) };
        added += share;
        shares.push(share);
    }
    // The largest ReplicaSet gets the remainder that rounding leaves.
    if let Some(first) = shares.first_mut() {
        *first += to_add - added;
    }
    resized(sets, active.into_iter().zip(shares).map(|(set, share)| (set, (size(set) + share).max(0))))
}

/// A ReplicaSet's proportional share of the change, limited to `left`, the part that is not distributed yet.
fn proportion(sets: &Sets<'_>, set: &ReplicaSet, left: i32) -> i32 {
    let share = if sets.replicas() == 0 {
        -size(set)
    } else {
        let before = annotated(set, DEPLOYMENT_MAX_REPLICAS).filter(|n| *n > 0);
        let before = before.or_else(|| sets.deployment.status.as_ref()?.replicas).filter(|n| *n > 0);
        let Some(before) = before else { return 0 };
        let scaled = f64::from(size(set)) * f64::from(sets.max_replicas()) / f64::from(before);
        scaled.round() as i32 - size(set)
    };
    if left > 0 { share.min(left) } else { share.max(left) }
}

/// Scales ReplicaSets to these sizes and updates their size annotations, where either differs.
fn resized<'a>(sets: &Sets<'_>, to: impl IntoIterator<Item = (&'a Arc<ReplicaSet>, i32)>) -> Vec<Action> {
    let annotations = history::size_annotations(sets);
    let differs = |set: &ReplicaSet, n: i32| {
        let known = set.metadata.annotations.as_ref();
        size(set) != n || annotations.iter().any(|(k, v)| known.and_then(|a| a.get(k)) != Some(v))
    };
    let changed = to.into_iter().filter(|(set, n)| differs(set, *n));
    changed.map(|(set, n)| Action::Scale(set.clone(), n, annotations.clone())).collect()
}
