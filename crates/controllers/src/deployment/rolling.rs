//! The `RollingUpdate` strategy: new Pods are created within `maxSurge`, old ones are deleted within `maxUnavailable`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Action, Sets, available, history, size, sizes};

/// The next step: scale up the new ReplicaSet; if it cannot grow now, scale down the old ones.
pub fn next(sets: &Sets<'_>) -> Vec<Action> {
    let Some(new) = &sets.new else { return history::new_set(sets, grown(sets, 0)) };
    let wanted = if size(new) > sets.replicas() { sets.replicas() } else { grown(sets, size(new)) };
    if wanted != size(new) {
        return vec![Action::Scale(new.clone(), wanted, history::size_annotations(sets))];
    }
    shrink(sets, new)
}

/// The size that the new ReplicaSet, which has `now` replicas, may have within `maxSurge`.
fn grown(sets: &Sets<'_>, now: i32) -> i32 {
    let room = sets.max_replicas() - sizes(sets.all());
    now + room.min(sets.replicas() - now).max(0)
}

/// Scales down the old ReplicaSets, oldest first: unavailable Pods before available ones, and of those only as many as
/// `maxUnavailable` allows.
fn shrink(sets: &Sets<'_>, new: &ReplicaSet) -> Vec<Action> {
    let mut old: Vec<(&Arc<ReplicaSet>, i32)> =
        sets.old.iter().map(|s| (s, size(s))).filter(|(_, n)| *n > 0).collect();
    if old.is_empty() {
        return Vec::new();
    }
    let min_available = sets.replicas() - sets.leeway().1;
    // New Pods that are not available yet count as if they never will be, so that a broken template stops here.
    let new_unavailable = size(new) - available(new);
    let mut spare = sizes(sets.all()) - min_available - new_unavailable;
    for (set, left) in &mut old {
        let useless = (*left - available(set)).min(spare).max(0);
        *left -= useless;
        spare -= useless;
    }
    let mut surplus = sets.all().map(|s| available(s)).sum::<i32>() - min_available;
    for (_, left) in &mut old {
        // Never more than can be spared by the sizes asked for: what is available is told late, and still counts
        // Pods that an earlier step has taken.
        let taken = (*left).min(surplus).min(spare).max(0);
        *left -= taken;
        surplus -= taken;
        spare -= taken;
    }
    let annotations = history::size_annotations(sets);
    let shrunk = old.into_iter().filter(|(set, left)| size(set) != *left);
    shrunk.map(|(set, left)| Action::Scale(set.clone(), left, annotations.clone())).collect()
}
