//! The revision history: one ControllerRevision per template, numbered in the order in which the templates were last
//! current.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;
use yado_types::labels::CONTROLLER_REVISION_HASH;

use super::{Action, Cluster};
use crate::deployment::{set_name, template_hash};
use crate::owners;

/// Old revisions kept if `revisionHistoryLimit` is not set; Kubernetes' default.
const DEFAULT_HISTORY: i32 = 10;
/// Annotations that are not copied from a DaemonSet to its revisions, because they describe the DaemonSet itself.
const NOT_COPIED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "deprecated.daemonset.template.generation"];

/// The hash of the DaemonSet's current template and collision count: ten letters and digits.
pub fn hash(set: &DaemonSet) -> String {
    let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
    set.spec.as_ref().map(|s| template_hash(&s.template, collisions)).unwrap_or_default()
}

fn hash_of(revision: &ControllerRevision) -> Option<&str> {
    revision.metadata.labels.as_ref()?.get(CONTROLLER_REVISION_HASH).map(String::as_str)
}

/// The write that gives the current template a ControllerRevision with the highest number; `None` if it has it.
pub fn remember(set: &DaemonSet, hash: &str, revisions: &[Arc<ControllerRevision>]) -> Option<Action> {
    let highest_other =
        revisions.iter().filter(|r| hash_of(r) != Some(hash)).map(|r| r.revision).max().unwrap_or_default();
    match revisions.iter().find(|r| hash_of(r) == Some(hash)) {
        Some(current) if current.revision > highest_other => None,
        Some(current) => Some(Action::Renumber(current.clone(), highest_other + 1)),
        None => Some(Action::CreateRevision(Box::new(revision(set, hash, highest_other + 1)))),
    }
}

fn revision(set: &DaemonSet, hash: &str, number: i64) -> ControllerRevision {
    let template = set.spec.as_ref().map(|s| &s.template);
    let mut labels = template.and_then(|t| t.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.clone().unwrap_or_default();
    // The form in which `kubectl rollout undo` sends it back: a strategic merge patch that replaces the template.
    let mut shown = json!(template);
    shown["$patch"] = json!("replace");
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(set_name(set.metadata.name.as_deref().unwrap_or_default(), hash)),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(
                annotations.into_iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())).collect(),
            ),
            owner_references: Some(vec![owners::controller_reference(set)]),
            ..Default::default()
        },
        data: Some(RawExtension(json!({ "spec": { "template": shown } }))),
        revision: number,
    }
}

/// Deletes the oldest revisions beyond the history limit; the current one and those that a Pod was made from are kept.
pub fn clean_up(
    set: &DaemonSet,
    hash: &str,
    cluster: &Cluster,
    revisions: &[Arc<ControllerRevision>],
) -> Vec<Action> {
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(DEFAULT_HISTORY);
    let pods = || cluster.nodes.values().flat_map(|(_, pods)| pods).chain(&cluster.stray);
    let in_use = |r: &ControllerRevision| {
        let of = hash_of(r).unwrap_or_default();
        of == hash || pods().any(|pod| super::is_updated(pod, of))
    };
    let mut old: Vec<_> = revisions.iter().filter(|r| !in_use(r)).collect();
    old.sort_by_key(|r| r.revision);
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    old.into_iter().take(surplus).map(|r| Action::DeleteRevision(r.clone())).collect()
}
