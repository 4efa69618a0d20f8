//! The revision history: one ControllerRevision per template, named by a hash of it as in Kubernetes, and numbered in the
//! order in which the templates were last current.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Map, Value, json};
use yado_types::labels::CONTROLLER_REVISION_HASH;
use yado_types::selector::LabelSelector;

use super::{Action, Observed};
use crate::deployment::ALPHABET;
use crate::owners;

/// Old revisions kept if `revisionHistoryLimit` is not set; Kubernetes' default.
const DEFAULT_HISTORY: i32 = 10;
/// Label of a ControllerRevision with the hash of its data.
const DATA_HASH: &str = "controller.kubernetes.io/hash";

/// A template that Pods are made from.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The name of its ControllerRevision, which Pods carry as a label.
    pub name: String,
    /// The template.
    pub template: PodTemplateSpec,
}

/// The two revisions that a StatefulSet's Pods should have.
#[derive(Clone, Debug)]
pub struct History {
    /// The revision from which the last completed rollout made all Pods; the other one before there was any.
    pub current: Revision,
    /// The revision of the StatefulSet's template.
    pub update: Revision,
}

/// The revisions that a StatefulSet owns, lowest number first.
///
/// # Errors
/// The revisions to adopt first.
pub fn own_revisions(
    observed: &Observed<'_>,
    selector: &LabelSelector,
) -> Result<Vec<Arc<ControllerRevision>>, Vec<Action>> {
    let meta = &observed.set.metadata;
    // A revision keeps its owner also where its labels do not match: releasing it would lose history.
    let (mut owned, orphans): (Vec<_>, Vec<_>) =
        observed.revisions.iter().cloned().partition(|r| {
            owners::controller_uid(&r.metadata).is_some_and(|of| Some(of) == meta.uid.as_deref())
        });
    let adopted = |r: &Arc<ControllerRevision>| {
        owners::ownership(meta, selector, &r.metadata) == owners::Ownership::Adopt
    };
    let first: Vec<_> = orphans.into_iter().filter(adopted).map(Action::AdoptRevision).collect();
    if !first.is_empty() {
        return Err(first);
    }
    owned.sort_by(|a, b| order(a).cmp(&order(b)));
    Ok(owned)
}

fn order(revision: &ControllerRevision) -> impl Ord {
    let meta = &revision.metadata;
    (revision.revision, meta.creation_timestamp.as_ref().map(|t| t.0), meta.name.clone())
}

/// The revisions that Pods should have, and the write that gives the current template a ControllerRevision with the highest
/// number, unless it has one. `revisions` is sorted by number.
pub fn decide(set: &StatefulSet, revisions: &[Arc<ControllerRevision>]) -> (History, Vec<Action>) {
    let data = snapshot(set);
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let newest = revisions.last();
    let number = newest.map_or(1, |r| r.revision.saturating_add(1));
    let same = revisions.iter().rfind(|r| r.data.as_ref().is_some_and(|d| is_same(&d.0, &data)));
    let (name, actions) = match same {
        Some(same) if newest.is_some_and(|newest| Arc::ptr_eq(newest, same)) => (name_of(same), Vec::new()),
        Some(same) => (name_of(same), vec![Action::Renumber(same.clone(), number)]),
        None => {
            let revision = revision(set, data, number);
            (name_of(&revision), vec![Action::CreateRevision(Box::new(revision))])
        }
    };
    let update = Revision { name, template };
    let wanted = set.status.as_ref().and_then(|s| s.current_revision.as_deref()).unwrap_or_default();
    let current = revisions.iter().find(|r| r.metadata.name.as_deref() == Some(wanted));
    let current = current
        .and_then(|r| Some(Revision { name: name_of(r), template: template_of(r)? }))
        .unwrap_or_else(|| update.clone());
    (History { current, update }, actions)
}

fn name_of(revision: &ControllerRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

/// The template in a revision's data; `None` if there is none that could be read.
fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.shift_remove("$patch");
    serde_json::from_value(template).ok()
}

/// A StatefulSet's template in the form in which `kubectl rollout undo` sends it back: a strategic merge patch that
/// replaces the template. Its fields are those that a program in Go writes, so that the hash is Kubernetes'.
fn snapshot(set: &StatefulSet) -> Value {
    let mut template = json!(set.spec.as_ref().map(|s| &s.template));
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
        template.entry("metadata").or_insert_with(|| json!({}));
        let volumes =
            template.get_mut("spec").and_then(|s| s.get_mut("volumes")).and_then(Value::as_array_mut);
        for volume in volumes.into_iter().flatten() {
            let claim = volume.pointer_mut("/ephemeral/volumeClaimTemplate").and_then(Value::as_object_mut);
            if let Some(claim) = claim {
                claim.entry("metadata").or_insert_with(|| json!({}));
            }
        }
    }
    json!({ "spec": { "template": template } })
}

/// Whether two revisions hold the same template.
pub fn is_same_data(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    let (a, b) = (a.data.as_ref(), b.data.as_ref());
    a.zip(b).is_some_and(|(a, b)| is_same(&a.0, &b.0))
}

/// Whether two snapshots hold the same template. Servers before 1.34 wrote a `creationTimestamp` of null.
fn is_same(a: &Value, b: &Value) -> bool {
    fn without_nulls(value: &Value) -> Cow<'_, Value> {
        match value {
            Value::Object(map) => {
                let kept = map.iter().filter(|(_, v)| !v.is_null());
                let kept = kept.map(|(k, v)| (k.clone(), without_nulls(v).into_owned()));
                Cow::Owned(Value::Object(kept.collect()))
            }
            Value::Array(list) => Cow::Owned(list.iter().map(|v| without_nulls(v).into_owned()).collect()),
            other => Cow::Borrowed(other),
        }
    }
    a == b || without_nulls(a) == without_nulls(b)
}

fn revision(set: &StatefulSet, data: Value, number: i64) -> ControllerRevision {
    let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
    let hash = hash(&data, collisions);
    let template = set.spec.as_ref().map(|s| &s.template);
    let mut labels = template.and_then(|t| t.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    labels.insert(DATA_HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![owners::controller_reference(set)]),
            ..Default::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Kubernetes' hash of a revision's data: FNV-1 of its JSON and the collision count, as a decimal number whose digits are
/// replaced by letters that make no words (`history.HashControllerRevision`).
fn hash(data: &Value, collisions: i32) -> String {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let text = format!("{}{collisions}", as_go_writes(data));
    let sum = text.bytes().fold(OFFSET, |sum, byte| sum.wrapping_mul(PRIME) ^ u32::from(byte));
    let digits = sum.to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// JSON as Go's encoder writes maps: sorted keys, and no characters that have a meaning in HTML.
fn as_go_writes(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut fields: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(Map::from_iter(fields))
            }
            Value::Array(list) => list.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    let mut text = String::new();
    for c in sorted(value).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => text.push(other),
        }
    }
    text
}

/// Deletes the oldest revisions beyond the history limit; those that the StatefulSet or one of its Pods has are kept.
pub fn clean_up(
    set: &StatefulSet,
    history: &History,
    pods: &[Arc<Pod>],
    revisions: &[Arc<ControllerRevision>],
) -> Vec<Action> {
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(DEFAULT_HISTORY);
    // A negative limit keeps all, as in Kubernetes.
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let mut in_use: BTreeSet<&str> = pods.iter().filter_map(|pod| revision_of(pod)).collect();
    in_use.extend([history.current.name.as_str(), history.update.name.as_str()]);
    let old: Vec<_> = revisions
        .iter()
        .filter(|r| !in_use.contains(r.metadata.name.as_deref().unwrap_or_default()))
        .collect();
    let surplus = old.len().saturating_sub(limit);
    old.into_iter().take(surplus).map(|r| Action::DeleteRevision(r.clone())).collect()
}

/// The name of the revision that a Pod was made from.
pub fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(CONTROLLER_REVISION_HASH).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_kubernetes() {
        // A ControllerRevision of a cluster of 2022, `nginx-sts-6798d68dcd`.
        let data = json!({"spec": {"template": {
            "metadata": {"creationTimestamp": null, "labels": {"app": "nginx-sts"}},
            "$patch": "replace",
            "spec": {
                "containers": [{
                    "name": "nginx", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
        }}});
        assert_eq!(hash(&data, 0), "6798d68dcd");
        assert_ne!(hash(&data, 1), hash(&data, 0));
        assert_eq!(as_go_writes(&json!({"b": "<&>", "a": 1})), r#"{"a":1,"b":"\u003c\u0026\u003e"}"#);
        let mut newer = data.clone();
        newer["spec"]["template"]["metadata"] = json!({"labels": {"app": "nginx-sts"}});
        assert!(is_same(&data, &newer));
    }
}
