//! Decisions on a claim: binding, provisioning, expansion and release of its finalizer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use yado_types::labels::{FINALIZER_CLAIM_IN_USE, LOCAL_PROVISIONER, SELECTED_NODE};

use super::matching::{capacity, class_of, find_match, fits_node, is_free, is_reserved_for, request};
use super::{Action, BIND_COMPLETED, Observed};

/// Decides what brings a claim closer to being bound, or how its phase and events explain why it is not.
pub fn reconcile(observed: &Observed<'_>) -> Vec<Action> {
    let claim = observed.claim;
    if claim.metadata.deletion_timestamp.is_some() {
        let held = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER_CLAIM_IN_USE);
        return if held && observed.users.is_empty() { vec![Action::RemoveFinalizer] } else { Vec::new() };
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if name.is_empty() { choose(observed) } else { hold(observed, name) }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn set_phase(claim: &PersistentVolumeClaim, wanted: &'static str) -> Option<Action> {
    (phase(claim) != wanted).then_some(Action::Phase(wanted))
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A claim with a `volumeName`: set by the user, or bound before.
fn hold(observed: &Observed<'_>, name: &str) -> Vec<Action> {
    let claim = observed.claim;
    let was_bound = annotation(claim, BIND_COMPLETED).is_some();
    let volume = observed.volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name));
    let Some(volume) = volume else {
        if !was_bound {
            return set_phase(claim, "Pending").into_iter().collect();
        }
        let lost = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        let told = Action::Event(true, "ClaimLost", lost.into());
        return set_phase(claim, "Lost").map(|action| vec![action, told]).unwrap_or_default();
    };
    if is_reserved_for(volume, claim) {
        if was_bound && phase(claim) == "Bound" {
            return grow(observed, volume);
        }
        return vec![Action::Reserve(volume.clone()), Action::Bind(volume.clone())];
    }
    if is_free(volume) {
        return vec![Action::Reserve(volume.clone()), Action::Bind(volume.clone())];
    }
    if was_bound {
        let lost = "Bound claim has lost reference to its PersistentVolume. Data on the volume is lost!";
        let told = Action::Event(true, "ClaimMisbound", lost.into());
        return set_phase(claim, "Lost").map(|action| vec![action, told]).unwrap_or_default();
    }
    let message = format!("volume \"{name}\" already bound to a different claim.");
    set_phase(claim, "Pending").into_iter().chain([Action::Event(true, "FailedBinding", message)]).collect()
}

/// Expands a provisioned volume to the claim's request. A directory has no size, so only the recorded capacity changes.
fn grow(observed: &Observed<'_>, volume: &std::sync::Arc<PersistentVolume>) -> Vec<Action> {
    let claim = observed.claim;
    if !super::provision::is_ours(volume) {
        return Vec::new();
    }
    let wanted = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let told = claim.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    match wanted {
        Some(size) if request(claim) > capacity(volume) => vec![Action::Grow(volume.clone(), size.0.clone())],
        // The volume was expanded, but the claim's status still has the old capacity.
        Some(_) if told.and_then(|t| t.0.parse().ok()) < capacity(volume) => {
            vec![Action::Bind(volume.clone())]
        }
        _ => Vec::new(),
    }
}

/// A claim without a `volumeName`: binds it to an existing volume, or has one provisioned.
fn choose(observed: &Observed<'_>) -> Vec<Action> {
    let claim = observed.claim;
    let class = observed.class.as_deref();
    let waits = class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let selected = annotation(claim, SELECTED_NODE);
    let empty = BTreeMap::new();
    let may_be_on = |volume: &PersistentVolume| match &observed.node {
        Some(node) => {
            let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
            fits_node(volume, node.metadata.name.as_deref().unwrap_or_default(), labels)
        }
        None => !waits,
    };
    if let Some(volume) = find_match(claim, &observed.volumes, may_be_on) {
        return vec![Action::Reserve(volume.clone()), Action::Bind(volume.clone())];
    }
    let mut actions: Vec<_> = set_phase(claim, "Pending").into_iter().collect();
    let Some(class) = class else {
        actions.push(match class_of(claim) {
            "" => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                Action::Event(false, "FailedBinding", text.into())
            }
            name => {
                let text = format!("storageclass.storage.k8s.io \"{name}\" not found");
                Action::Event(true, "ProvisioningFailed", text)
            }
        });
        return actions;
    };
    let Some(selected) = selected.or((!waits).then_some("")) else {
        let text = "waiting for first consumer to be created before binding";
        actions.push(Action::Event(false, "WaitForFirstConsumer", text.into()));
        return actions;
    };
    actions.extend(match (class.provisioner.as_str(), &observed.provider) {
        (LOCAL_PROVISIONER, Some(provider)) if selected.is_empty() || selected == provider => {
            let block = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref()) == Some("Block");
            if block {
                let text = "directories are not block devices; request volumeMode Filesystem";
                vec![Action::Event(true, "ProvisioningFailed", text.into())]
            } else {
                vec![Action::Provision { node: provider.clone() }]
            }
        }
        (LOCAL_PROVISIONER, provider) => {
            let text = match provider {
                Some(provider) => {
                    format!("volumes are provisioned on node {provider} only, not on {selected}")
                }
                None => "this cluster provisions no volumes".into(),
            };
            let forget = (!selected.is_empty()).then_some(Action::ForgetNode);
            [Action::Event(true, "ProvisioningFailed", text)].into_iter().chain(forget).collect()
        }
        ("kubernetes.io/no-provisioner", _) => {
            let text = "no persistent volume matches this claim, and its class provisions none";
            vec![Action::Event(false, "FailedBinding", text.into())]
        }
        (other, _) => {
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running \
                 and correctly registered."
            );
            vec![Action::Event(false, "ExternalProvisioning", text)]
        }
    });
    actions
}
