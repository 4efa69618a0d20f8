//! The identity of a replica: its ordinal, and the Pod and claims whose names and labels follow from that.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use yado_types::labels::CONTROLLER_REVISION_HASH;
use yado_types::selector::LabelSelector;

use super::{Action, Observed};
use crate::owners;
use crate::replicaset::pod_of;

/// Label of a Pod with its own name, so that a Service can select one replica.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label of a Pod with its ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of the first replica.
pub fn first_ordinal(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.ordinals.as_ref()?.start).unwrap_or_default()
}

/// How many replicas are desired.
pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0)
}

/// The name of the Pod with this ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The ordinal in the name of a Pod; `None` if no replica of the StatefulSet has that name.
pub fn ordinal(set: &StatefulSet, pod: &ObjectMeta) -> Option<i32> {
    let name = pod.name.as_deref()?;
    let ordinal = name.rsplit_once('-')?.1.parse().ok().filter(|ordinal| *ordinal >= 0)?;
    (pod_name(set, ordinal) == name).then_some(ordinal)
}

/// The Pods that a StatefulSet owns: only those with the name of a replica are its own.
///
/// # Errors
/// The Pods to adopt and to release first.
pub fn own_pods(observed: &Observed<'_>, selector: &LabelSelector) -> Result<Vec<Arc<Pod>>, Vec<Action>> {
    let set = observed.set;
    let (members, others): (Vec<_>, Vec<_>) =
        observed.candidates.iter().partition(|pod| ordinal(set, &pod.metadata).is_some());
    let strangers = others.into_iter().filter(|pod| {
        set.metadata.deletion_timestamp.is_none()
            && owners::controller_uid(&pod.metadata).is_some_and(|of| Some(of) == set.metadata.uid.as_deref())
    });
    let mut first: Vec<_> = strangers.cloned().map(Action::Release).collect();
    let owned = owners::owned(&set.metadata, selector, members, Action::Adopt, Action::Release);
    let pods = owned.unwrap_or_else(|actions| {
        first.extend(actions);
        Vec::new()
    });
    if first.is_empty() { Ok(pods) } else { Err(first) }
}

/// Names of all claims that a StatefulSet's replicas and these Pods of it have.
pub fn claim_names(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let templates = claim_templates(set.spec.as_ref());
    if templates.is_empty() {
        return Vec::new();
    }
    let first = first_ordinal(set);
    let wanted = first..first.saturating_add(replicas(set));
    let surplus = pods.iter().filter_map(|pod| ordinal(set, &pod.metadata)).filter(|o| !wanted.contains(o));
    let ordinals = wanted.clone().chain(surplus);
    ordinals.flat_map(|ordinal| templates.iter().map(move |t| claim_name(set, t, ordinal))).collect()
}

/// Whether a claim of this name is one of a StatefulSet's replicas, of any ordinal.
pub fn has_claim(set: &StatefulSet, claim: &str) -> bool {
    let ordinal = claim.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok());
    let named = |ordinal| {
        claim_templates(set.spec.as_ref()).iter().any(|template| claim_name(set, template, ordinal) == claim)
    };
    ordinal.is_some_and(named)
}

/// The claims of the replica with this ordinal, without owners.
pub fn claims(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = PersistentVolumeClaim> {
    let spec = set.spec.as_ref();
    let selected = spec.and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    claim_templates(spec).iter().map(move |template| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(set, template, ordinal)),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                finalizers: template.metadata.finalizers.clone(),
                owner_references: template.metadata.owner_references.clone(),
                ..Default::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    })
}

fn claim_templates(spec: Option<&StatefulSetSpec>) -> &[PersistentVolumeClaim] {
    spec.and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", template.metadata.name.as_deref().unwrap_or_default(), pod_name(set, ordinal))
}

/// The Pod of a revision with this ordinal. Its host name is its own, in the domain of the headless Service that governs
/// the StatefulSet.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let mut pod = pod_of(template, &namespace, owners::controller_reference(set));
    let name = pod_name(set, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity_labels(&name, ordinal));
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    spec.volumes = with_claims(set, ordinal, spec.volumes.take());
    pod.metadata.name = Some(name);
    pod
}

fn identity_labels(name: &str, ordinal: i32) -> BTreeMap<String, String> {
    [(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())].into()
}

/// Volumes of a Pod with those of its claims, which replace others of the same name.
fn with_claims(set: &StatefulSet, ordinal: i32, others: Option<Vec<Volume>>) -> Option<Vec<Volume>> {
    let templates = claim_templates(set.spec.as_ref());
    let claimed = templates.iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Default::default()
    });
    let named = |volume: &Volume| templates.iter().any(|t| t.metadata.name.as_ref() == Some(&volume.name));
    let others = others.into_iter().flatten().filter(|volume| !named(volume));
    let volumes: Vec<_> = claimed.chain(others).collect();
    (!volumes.is_empty()).then_some(volumes)
}

/// The merge patch that gives a Pod the label and volumes of its identity, if it lacks them: an adopted Pod may. The server
/// refuses other volumes than a Pod has, as in Kubernetes; the event says so, and the user deletes the Pod.
pub fn repair(set: &StatefulSet, pod: &Pod) -> Option<serde_json::Value> {
    let ordinal = ordinal(set, &pod.metadata)?;
    let name = pod_name(set, ordinal);
    let labelled = pod.metadata.labels.as_ref().and_then(|l| l.get(POD_NAME)) == Some(&name);
    let present = pod.spec.as_ref().and_then(|s| s.volumes.clone());
    let claims = |volume: &Volume| volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    let has = |template: &PersistentVolumeClaim| {
        let wanted = claim_name(set, template, ordinal);
        let volume = present.iter().flatten().find(|v| Some(&v.name) == template.metadata.name.as_ref());
        volume.and_then(claims) == Some(wanted)
    };
    let stored = claim_templates(set.spec.as_ref()).iter().all(has);
    let mut patch =
        json!({ "metadata": { "uid": pod.metadata.uid, "labels": identity_labels(&name, ordinal) } });
    if !stored {
        patch["spec"] = json!({ "volumes": with_claims(set, ordinal, present) });
    }
    (!labelled || !stored).then_some(patch)
}
