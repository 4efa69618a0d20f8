//! The revision history: finding the ReplicaSet of a template, numbering revisions, and deleting old ReplicaSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};
use yado_types::labels::{
    DEPLOYMENT_DESIRED_REPLICAS, DEPLOYMENT_MAX_REPLICAS, DEPLOYMENT_REVISION, DEPLOYMENT_REVISION_HISTORY,
    POD_TEMPLATE_HASH,
};

use super::{Action, Sets, size};
use crate::owners;

/// Old ReplicaSets kept if `revisionHistoryLimit` is not set; Kubernetes' default.
const DEFAULT_HISTORY: i32 = 10;
/// The alphabet of Kubernetes' generated names: without vowels and similar digits, so that no words arise.
pub(crate) const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Annotations that are not copied from a Deployment to its ReplicaSets, because they describe the Deployment itself.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    DEPLOYMENT_REVISION,
    DEPLOYMENT_REVISION_HISTORY,
    DEPLOYMENT_DESIRED_REPLICAS,
    DEPLOYMENT_MAX_REPLICAS,
];

/// The key that sorts ReplicaSets from oldest to newest: creation time, then name.
pub fn age(set: &ReplicaSet) -> (Option<Timestamp>, Option<&str>) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.as_deref())
}

/// The oldest ReplicaSet whose template equals the Deployment's, ignoring the `pod-template-hash` label.
pub fn find_new(deployment: &Deployment, oldest_first: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let wanted = &deployment.spec.as_ref()?.template;
    let same = |set: &&Arc<ReplicaSet>| {
        let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|t| t.spec == wanted.spec && without_hash(t) == without_hash(wanted))
    };
    oldest_first.iter().find(same).cloned()
}

fn without_hash(template: &PodTemplateSpec) -> ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(POD_TEMPLATE_HASH);
    }
    meta.labels = meta.labels.filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.filter(|a| !a.is_empty());
    meta.creation_timestamp = None;
    meta
}

/// A ReplicaSet's revision number; 0 where it has none.
fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|a| a.get(DEPLOYMENT_REVISION)?.parse().ok()).unwrap_or_default()
}

fn next_revision(sets: &Sets<'_>) -> i64 {
    sets.old.iter().map(|s| revision(&s.metadata)).max().unwrap_or_default().saturating_add(1)
}

/// Updates revision numbers and copied annotations. A rollback makes an old ReplicaSet the new one: it gets the highest
/// revision number, and its earlier number is added to its revision history annotation.
pub fn remember(sets: &Sets<'_>) -> Vec<Action> {
    let Some(new) = &sets.new else { return Vec::new() };
    let current = new.metadata.annotations.clone().unwrap_or_default();
    let mut wanted = current.clone();
    wanted.extend(copied(sets.deployment));
    let (before, next) = (revision(&new.metadata), next_revision(sets));
    if before < next {
        wanted.insert(DEPLOYMENT_REVISION.to_owned(), next.to_string());
        if before > 0 {
            let earlier = current.get(DEPLOYMENT_REVISION_HISTORY).filter(|h| !h.is_empty());
            let all = earlier.map_or_else(|| before.to_string(), |e| format!("{e},{before}"));
            wanted.insert(DEPLOYMENT_REVISION_HISTORY.to_owned(), all);
        }
    }
    let wanted_revision = before.max(next).to_string();
    let mut actions = Vec::new();
    let min_ready = |s: Option<i32>| s.unwrap_or_default();
    let same_min_ready = min_ready(new.spec.as_ref().and_then(|s| s.min_ready_seconds))
        == min_ready(sets.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds));
    if wanted != current || !same_min_ready {
        actions.push(Action::Annotate(new.clone(), wanted));
    }
    let on_deployment =
        sets.deployment.metadata.annotations.as_ref().and_then(|a| a.get(DEPLOYMENT_REVISION));
    if on_deployment != Some(&wanted_revision) {
        actions.push(Action::Revision(wanted_revision));
    }
    actions
}

fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.into_iter().filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).collect()
}

/// Annotations with the Deployment's desired and maximum size, set on a ReplicaSet whenever it is scaled. A value that
/// differs from the Deployment's shows that the user has scaled the Deployment since.
pub fn size_annotations(sets: &Sets<'_>) -> BTreeMap<String, String> {
    [
        (DEPLOYMENT_DESIRED_REPLICAS.to_owned(), sets.replicas().to_string()),
        (DEPLOYMENT_MAX_REPLICAS.to_owned(), sets.max_replicas().to_string()),
    ]
    .into()
}

/// Creates the ReplicaSet of the current template with `replicas` replicas, and sets the Deployment's revision number.
pub fn new_set(sets: &Sets<'_>, replicas: i32) -> Vec<Action> {
    let deployment = sets.deployment;
    let Some(spec) = &deployment.spec else { return Vec::new() };
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let revision = next_revision(sets).to_string();
    let mut annotations = copied(deployment);
    annotations.extend(size_annotations(sets));
    annotations.insert(DEPLOYMENT_REVISION.to_owned(), revision.clone());
    let name = set_name(deployment.metadata.name.as_deref().unwrap_or_default(), &hash);
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owners::controller_reference(deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    vec![Action::Create(Box::new(set)), Action::Revision(revision)]
}

/// `OWNER-HASH`, with the owner's name truncated so that the whole has at most 253 bytes. If the names of two
/// Deployments' ReplicaSets collide by that, the collision count changes the hash.
pub(crate) fn set_name(owner: &str, hash: &str) -> String {
    const MAX_NAME: usize = 253;
    let most = MAX_NAME.saturating_sub(hash.len() + 1);
    // Names are ASCII. What is left must not end in what cannot stand before the dash.
    let stem = owner.get(..most).map_or(owner, |cut| cut.trim_end_matches(['.', '-']));
    format!("{stem}-{hash}")
}

/// A hash of a Pod template: ten letters and digits of [`ALPHABET`] from its SHA-256. A collision count above 0 changes
/// the hash, for use when the name with the hash is taken.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hasher = Sha256::new();
    // Plain data with string keys always serialises; were it not so, the name would collide and be counted up.
    hasher.update(serde_json::to_vec(template).unwrap_or_default());
    if collisions > 0 {
        hasher.update(collisions.to_le_bytes());
    }
    hasher
        .finalize()
        .iter()
        .take(10)
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// Deletes old ReplicaSets beyond the history limit, lowest revision first, if they have no replicas.
pub fn clean_up(sets: &Sets<'_>) -> Vec<Action> {
    let limit =
        sets.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(DEFAULT_HISTORY);
    let mut old: Vec<_> = sets.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    old.sort_by_key(|s| revision(&s.metadata));
    let empty = |s: &&Arc<ReplicaSet>| {
        let status = s.status.as_ref();
        let observed = status.and_then(|s| s.observed_generation).unwrap_or_default();
        size(s) == 0
            && status.is_none_or(|s| s.replicas == 0)
            && observed >= s.metadata.generation.unwrap_or_default()
    };
    old.into_iter().take(surplus).filter(empty).map(|s| Action::Delete(s.clone())).collect()
}
