//! What a volume needs: the phase that tells what it is, and its end.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use yado_types::labels::FINALIZER_VOLUME_IN_USE;

use super::provision::is_ours;

/// What is to be done for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write its phase.
    Phase(&'static str),
    /// Remove what it holds, and it.
    Reclaim,
    /// No claim has it: it may go.
    LetGo,
    /// Tell the user.
    Warn(&'static str, String),
}

/// Decides what a volume needs. `claim` is the one of the name that it is reserved for, as the server has it.
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
            // What is deleted by hand keeps its directory: its user may have meant the object alone.
            actions.push(Action::LetGo);
        }
        return actions;
    }
    if wanted == "Released" {
        match spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) {
            Some("Delete") if is_ours(volume) => actions.push(Action::Reclaim),
            Some(policy @ ("Delete" | "Recycle")) if phase != wanted => {
                let text = format!("nobody here can {} this volume", policy.to_lowercase());
                let reason = if policy == "Delete" { "VolumeFailedDelete" } else { "VolumeFailedRecycle" };
                actions.push(Action::Warn(reason, text));
            }
            _ => {}
        }
    }
    actions
}
