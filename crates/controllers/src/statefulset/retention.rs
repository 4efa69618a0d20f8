//! Owner references of claims by which `persistentVolumeClaimRetentionPolicy` lets the garbage collector delete them: with
//! the StatefulSet (`whenDeleted`), or with a Pod that is surplus (`whenScaled`). Kubernetes' KEP-1847.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::owners;

/// The Pod of a replica, which need not exist.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    /// The Pod's name.
    pub name: &'a str,
    /// The Pod, if it exists.
    pub pod: Option<&'a Pod>,
    /// Whether its ordinal is beyond those of the replicas.
    pub is_surplus: bool,
}

/// What has to change in the owner references of a claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The references that it should have, if it has others.
    pub owners: Option<Vec<OwnerReference>>,
    /// Another controller owns the claim, so that the policy does not hold for it.
    pub is_conflict: bool,
}

/// Whether claims go with Pods that a smaller number of replicas ends.
pub fn deletes_when_scaled(set: &StatefulSet) -> bool {
    policy(set).1
}

/// `(whenDeleted, whenScaled)`: whether each is `Delete`.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
    (
        deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        deletes(policy.and_then(|p| p.when_scaled.as_ref())),
    )
}

/// Whether the claim still belongs to an earlier Pod of the same name, with which the garbage collector is about to delete
/// it: a new Pod must not use it.
pub fn is_stale(claim: &PersistentVolumeClaim, holder: Holder<'_>) -> bool {
    refers_to::<Pod>(claim, holder.name).is_some_and(|owner| Some(&owner.uid) != uid_of(holder))
}

/// The controller reference that a new claim needs.
pub fn owner(set: &StatefulSet, holder: Holder<'_>) -> Option<OwnerReference> {
    let (when_deleted, when_scaled) = policy(set);
    match holder.pod.filter(|_| when_scaled && holder.is_surplus) {
        Some(pod) => Some(owners::controller_reference(pod)),
        None if when_deleted => Some(owners::controller_reference(set)),
        None => None,
    }
}

/// Compares a claim's owners with those that the policy asks for.
pub fn change(set: &StatefulSet, holder: Holder<'_>, claim: &PersistentVolumeClaim) -> Change {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let stale_set =
        refers_to::<StatefulSet>(claim, set_name).is_some_and(|o| Some(&o.uid) != set.metadata.uid.as_ref());
    if stale_set || is_stale(claim, holder) {
        // The garbage collector decides about what an earlier owner of the same name has left.
        return Change::default();
    }
    let present = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let is_ours = |owner: &&OwnerReference| {
        Some(&owner.uid) == set.metadata.uid.as_ref() || Some(&owner.uid) == uid_of(holder)
    };
    let others: Vec<_> = present.iter().filter(|owner| !is_ours(owner)).cloned().collect();
    let ours: Vec<_> = present.iter().filter(is_ours).cloned().collect();
    let (when_deleted, when_scaled) = policy(set);
    let is_conflict =
        (when_deleted || when_scaled) && others.iter().any(|owner| owner.controller == Some(true));
    let wanted = owner(set, holder).filter(|_| !is_conflict);
    let is_right = |owner: &OwnerReference| {
        owner.controller == Some(true) && wanted.as_ref().is_some_and(|wanted| wanted.uid == owner.uid)
    };
    if ours.iter().all(is_right) && ours.is_empty() == wanted.is_none() {
        return Change::default();
    }
    Change { owners: Some(others.into_iter().chain(wanted).collect()), is_conflict }
}

fn uid_of<'a>(holder: Holder<'a>) -> Option<&'a String> {
    holder.pod.and_then(|pod| pod.metadata.uid.as_ref())
}

/// The owner reference of a claim that names an object of this kind.
fn refers_to<'a, K: Resource<DynamicType = ()>>(
    claim: &'a PersistentVolumeClaim,
    name: &str,
) -> Option<&'a OwnerReference> {
    let ObjectMeta { owner_references, .. } = &claim.metadata;
    owner_references.iter().flatten().find(|owner| {
        owner.name == name && owner.kind == K::kind(&()) && owner.api_version == K::api_version(&())
    })
}
