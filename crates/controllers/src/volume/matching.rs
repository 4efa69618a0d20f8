//! Matching volumes with claims and nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use yado_types::placement::NodeTerm;
use yado_types::quantity::Quantity;
use yado_types::selector::LabelSelector;

/// Annotation with the class of objects from before the field `storageClassName`.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Name of the claim's StorageClass; empty if it has none.
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let annotation = claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    let field = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    annotation.or(field).map_or("", String::as_str)
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotation = volume.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    let field = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    annotation.or(field).map_or("", String::as_str)
}

/// Whether the volume's `claimRef` names this claim: with its uid, or without any.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(of) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    of.name == claim.metadata.name
        && of.namespace == claim.metadata.namespace
        && of.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

/// Whether the volume has no `claimRef` and is not being deleted.
pub fn is_free(volume: &PersistentVolume) -> bool {
    volume.metadata.deletion_timestamp.is_none()
        && volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none())
}

/// Whether the volume's node affinity permits a node with this name and these labels.
pub fn fits_node(volume: &PersistentVolume, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|required| {
        required.node_selector_terms.iter().any(|t| NodeTerm::of(t).matches(name, labels))
    })
}

/// The volume's storage capacity in bytes; `None` if it has none or it is not a valid quantity.
pub fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse().ok()
}

/// The claim's storage request in bytes; `None` if it has none or it is not a valid quantity.
pub fn request(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}

/// Whether a volume meets a claim's access modes, selector, class, volume mode and size. Its `claimRef` is not considered.
pub fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(asks)) = (&volume.spec, &claim.spec) else { return false };
    let modes = asks.access_modes.iter().flatten();
    let all_modes = modes.into_iter().all(|m| has.access_modes.iter().flatten().any(|h| h == m));
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".into());
    let empty = BTreeMap::new();
    let labels = volume.metadata.labels.as_ref().unwrap_or(&empty);
    let selected = asks
        .selector
        .as_ref()
        .is_none_or(|s| LabelSelector::from_api(s).is_ok_and(|selector| selector.matches(labels)));
    all_modes
        && selected
        && class_of_volume(volume) == class_of(claim)
        && mode(&has.volume_mode) == mode(&asks.volume_mode)
        && capacity(volume) >= request(claim)
}

/// The volume for a claim: the one that is reserved for it, else the smallest free one that meets its requirements and for
/// which `may_be_on` is true.
pub fn find_match<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a Arc<PersistentVolume>>,
    may_be_on: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let mut best: Option<&Arc<PersistentVolume>> = None;
    for volume in volumes {
        if volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if is_reserved_for(volume, claim) {
            return Some(volume);
        }
        let rank = |v: &PersistentVolume| (capacity(v), v.metadata.name.clone());
        if is_free(volume)
            && suits(volume, claim)
            && may_be_on(volume)
            && best.is_none_or(|b| rank(volume) < rank(b))
        {
            best = Some(volume);
        }
    }
    best
}
