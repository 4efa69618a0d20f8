//! What a Pod's claims ask of its node.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use yado_reconcile::{Change, ObjectKey};
use yado_types::labels::SELECTED_NODE;

use super::filter::Reason;
use super::{NodeInfo, PodInfo};
use crate::volume::{class_of, find_match, fits_node};

/// The class of volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Claims, volumes and classes; as many as the cluster has.
#[derive(Default)]
pub struct Volumes {
    claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
}

/// What a Pod's claims have come to.
#[derive(Default)]
pub struct Needs<'a> {
    bound: Vec<&'a PersistentVolume>,
    /// Claims that are bound once a node is named on them, with the one that is.
    open: Vec<(&'a PersistentVolumeClaim, Option<&'a str>)>,
}

impl Volumes {
    /// Takes in the change of a claim.
    pub fn claim_changed(&mut self, change: &Change<PersistentVolumeClaim>) {
        match &change.new {
            Some(claim) => _ = self.claims.insert(change.key.clone(), claim.clone()),
            None => _ = self.claims.remove(&change.key),
        }
    }

    /// The same for a volume.
    pub fn volume_changed(&mut self, change: &Change<PersistentVolume>) {
        match &change.new {
            Some(volume) => _ = self.volumes.insert(change.key.name.clone(), volume.clone()),
            None => _ = self.volumes.remove(&change.key.name),
        }
    }

    /// The same for a class.
    pub fn class_changed(&mut self, change: &Change<StorageClass>) {
        match &change.new {
            Some(class) => _ = self.classes.insert(change.key.name.clone(), class.clone()),
            None => _ = self.classes.remove(&change.key.name),
        }
    }

    /// What a Pod's claims ask for; an error says why no node will do.
    pub(super) fn needs<'a>(
        &'a self,
        pod: &PodInfo,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<Needs<'a>, String> {
        let mut needs = Needs::default();
        for key in &pod.claims {
            let name = &key.name;
            let Some(claim) = self.claims.get(key) else {
                return Err(format!("persistentvolumeclaim \"{name}\" not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
            let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
            match (phase, self.volumes.get(volume)) {
                (Some("Lost"), _) => {
                    return Err(format!(
                        "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume"
                    ));
                }
                (Some("Bound"), Some(volume)) => needs.bound.push(volume),
                _ if !volume.is_empty() || !self.waits(claim) => {
                    return Err("pod has unbound immediate PersistentVolumeClaims".into());
                }
                _ => {
                    let selected = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
                    needs.open.push((claim, selected.map(String::as_str).filter(|n| is_there(n))));
                }
            }
        }
        Ok(needs)
    }

    /// Whether a claim is bound only when its Pod's node is known.
    fn waits(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.classes.get(class_of(claim));
        class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
    }

    /// Whether a node will do for these needs.
    pub(super) fn check(&self, needs: &Needs<'_>, node: &NodeInfo) -> Result<(), Reason> {
        if !needs.bound.iter().all(|v| fits_node(v, &node.name, &node.labels)) {
            return Err(Reason::VolumeNodeAffinity);
        }
        let can_have = |(claim, selected): &(&PersistentVolumeClaim, Option<&str>)| {
            if let Some(selected) = selected {
                return *selected == &*node.name;
            }
            let class = self.classes.get(class_of(claim));
            let is_made = class.is_some_and(|c| c.provisioner != NO_PROVISIONER);
            let here = |v: &PersistentVolume| fits_node(v, &node.name, &node.labels);
            is_made || find_match(claim, self.volumes.values(), here).is_some()
        };
        if needs.open.iter().all(can_have) { Ok(()) } else { Err(Reason::NoVolume) }
    }
}

impl Needs<'_> {
    /// Nothing has to be bound before the Pod is.
    pub fn are_met(&self) -> bool {
        self.open.is_empty()
    }

    /// Claims on which no node is named yet.
    pub fn unnamed(&self) -> Vec<ObjectKey> {
        let unnamed = self.open.iter().filter(|(_, selected)| selected.is_none());
        unnamed.map(|(claim, _)| ObjectKey::of(&claim.metadata)).collect()
    }
}
