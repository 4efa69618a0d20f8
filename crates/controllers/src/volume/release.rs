//! Decisions on a volume: its phase, reclaiming, and release of its finalizer.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use yado_types::labels::FINALIZER_VOLUME_IN_USE;

use super::provision::is_ours;

/// A write or event that the reconcile pass of a volume decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set its phase.
    Phase(&'static str),
    /// Remove its directory and delete the volume.
    Reclaim,
    /// Remove the in-use finalizer of a volume that is being deleted: it is bound to no claim.
    RemoveFinalizer,
    /// Record a warning event with this reason and message.
    Warn(&'static str, String),
}

/// Decides the phase of a volume and whether it is reclaimed. `claim` is the claim that its `claimRef` names, if it
/// exists.
pub fn reconcile(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<Action> {
    let spec = volume.spec.as_ref();
    let of = spec.and_then(|s| s.claim_ref.as_ref());
    let uid = of.and_then(|of| of.uid.as_deref()).filter(|uid| !uid.is_empty());
    let bound = claim.is_some_and(|c| c.metadata.uid.as_deref() == uid && uid.is_some());
    let wanted = match (of, uid) {
        (None, _) | (Some(_), None) => "Available",
        _ if bound => "Bound",
        _ => "Released",
    };
    let mut actions = Vec::new();
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if phase != wanted {
        actions.push(Action::Phase(wanted));
    }
    if volume.metadata.deletion_timestamp.is_some() {
        let held = volume.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER_VOLUME_IN_USE);
        if held && !bound {
            // The directory of a volume that a user deletes is kept: the user may want to delete only the object.
            actions.push(Action::RemoveFinalizer);
        }
        return actions;
    }
    if wanted == "Released" {
        match spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) {
            Some("Delete") if is_ours(volume) => actions.push(Action::Reclaim),
            Some(policy @ ("Delete" | "Recycle")) if phase != wanted => {
                let text = format!("no plugin can {} this volume", policy.to_lowercase());
                let reason = if policy == "Delete" { "VolumeFailedDelete" } else { "VolumeFailedRecycle" };
                actions.push(Action::Warn(reason, text));
            }
            _ => {}
        }
    }
    actions
}
