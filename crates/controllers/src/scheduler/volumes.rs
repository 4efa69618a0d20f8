//! Requirements of a Pod's PersistentVolumeClaims on its node.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use yado_reconcile::{Change, ObjectKey};
use yado_types::labels::SELECTED_NODE;

use super::filter::Reason;
use super::{NodeInfo, PodInfo};
use crate::volume::{class_of, find_match, fits_node};

/// The provisioner of classes whose volumes an administrator creates; Kubernetes' name.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// All PersistentVolumeClaims, PersistentVolumes and StorageClasses of the cluster.
#[derive(Default)]
pub struct Volumes {
    claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
}

/// The state of a Pod's claims.
#[derive(Default)]
pub struct Needs<'a> {
    /// Volumes of the bound claims.
    bound: Vec<&'a PersistentVolume>,
    /// Unbound claims that are bound once a node is selected, with the node that has been selected.
    open: Vec<(&'a PersistentVolumeClaim, Option<&'a str>)>,
}

impl Volumes {
    /// Applies the change of a claim.
    pub fn claim_changed(&mut self, change: &Change<PersistentVolumeClaim>) {
        match &change.new {
            Some(claim) => _ = self.claims.insert(change.key.clone(), claim.clone()),
            None => _ = self.claims.remove(&change.key),
        }
    }

    /// Applies the change of a volume.
    pub fn volume_changed(&mut self, change: &Change<PersistentVolume>) {
        match &change.new {
            Some(volume) => _ = self.volumes.insert(change.key.name.clone(), volume.clone()),
            None => _ = self.volumes.remove(&change.key.name),
        }
    }

    /// Applies the change of a class.
    pub fn class_changed(&mut self, change: &Change<StorageClass>) {
        match &change.new {
            Some(class) => _ = self.classes.insert(change.key.name.clone(), class.clone()),
            None => _ = self.classes.remove(&change.key.name),
        }
    }

    /// Looks up a Pod's claims. `node_exists` tells whether a selected node still exists.
    ///
    /// # Errors
    /// If no node is feasible because of a claim, with the reason as Kubernetes words it.
    pub(super) fn needs<'a>(
        &'a self,
        pod: &PodInfo,
        node_exists: impl Fn(&str) -> bool,
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
                    needs.open.push((claim, selected.map(String::as_str).filter(|n| node_exists(n))));
                }
            }
        }
        Ok(needs)
    }

    /// Whether the claim's class has the binding mode `WaitForFirstConsumer`.
    fn waits(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.classes.get(class_of(claim));
        class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
    }

    /// Checks whether the volumes of bound claims can be used on the node, and whether unbound claims can get one there.
    pub(super) fn check(&self, needs: &Needs<'_>, node: &NodeInfo) -> Result<(), Reason> {
        if !needs.bound.iter().all(|v| fits_node(v, &node.name, &node.labels)) {
            return Err(Reason::VolumeNodeAffinity);
        }
        let can_have = |(claim, selected): &(&PersistentVolumeClaim, Option<&str>)| {
            if let Some(selected) = selected {
                return *selected == &*node.name;
            }
            let class = self.classes.get(class_of(claim));
            let provisioned = class.is_some_and(|c| c.provisioner != NO_PROVISIONER);
            let here = |v: &PersistentVolume| fits_node(v, &node.name, &node.labels);
            provisioned || find_match(claim, self.volumes.values(), here).is_some()
        };
        if needs.open.iter().all(can_have) { Ok(()) } else { Err(Reason::NoVolume) }
    }
}

impl Needs<'_> {
    /// Whether all claims are bound, so that the Pod can be.
    pub fn are_met(&self) -> bool {
        self.open.is_empty()
    }

    /// Unbound claims without a selected node.
    pub fn without_node(&self) -> Vec<ObjectKey> {
        let without = self.open.iter().filter(|(_, selected)| selected.is_none());
        without.map(|(claim, _)| ObjectKey::of(&claim.metadata)).collect()
    }
}
