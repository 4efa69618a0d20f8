//! The `Recreate` strategy: all old Pods end before the first new one is created.

use std::collections::BTreeMap;

use super::{Action, Sets, history, size};

/// The next step: scale the old ReplicaSets to 0, wait until their Pods have ended, create or scale the new ReplicaSet.
pub fn next(sets: &Sets<'_>, living_pods: &BTreeMap<String, usize>) -> Vec<Action> {
    let annotations = history::size_annotations(sets);
    let running = sets.old.iter().filter(|s| size(s) > 0);
    let stops: Vec<_> = running.map(|s| Action::Scale(s.clone(), 0, annotations.clone())).collect();
    if !stops.is_empty() {
        return stops;
    }
    let lives = |uid: Option<&String>| uid.and_then(|u| living_pods.get(u)).is_some_and(|n| *n > 0);
    if sets.old.iter().any(|s| lives(s.metadata.uid.as_ref())) {
        return Vec::new();
    }
    match &sets.new {
        None => history::new_set(sets, sets.replicas()),
        Some(new) if size(new) != sets.replicas() => {
            vec![Action::Scale(new.clone(), sets.replicas(), annotations)]
        }
        Some(_) => Vec::new(),
    }
}
