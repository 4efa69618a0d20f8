//! Controller references: which object controls another, adoption and release.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use yado_types::selector::LabelSelector;

/// The owner reference that is marked as the object's controller, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
}

/// The uid of an object's controller, if it has one.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    controller_of(meta).map(|o| o.uid.as_str())
}

/// The owner reference that marks `owner` as controller, for objects that it creates. Foreground deletion of the owner
/// waits for them.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The relation of an object to a controller that selects objects by labels, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Controlled by it and selected, or controlled by it while it is being deleted.
    Owned,
    /// Selected and without a controller: to be adopted.
    Adopt,
    /// Controlled by it but no longer selected: to be released.
    Release,
    /// Controlled by another object or not selected.
    Unrelated,
}

/// Decides the relation of `object` to `owner`. An owner that is being deleted neither adopts nor releases objects, and no
/// object that is being deleted is adopted. An empty selector selects nothing.
pub fn ownership(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Ownership {
    static NO_LABELS: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    let selected = !selector.is_empty() && selector.matches(object.labels.as_ref().unwrap_or(&NO_LABELS));
    let deleting = owner.deletion_timestamp.is_some();
    match controller_uid(object) {
        Some(uid) if Some(uid) == owner.uid.as_deref() => {
            if selected || deleting {
                Ownership::Owned
            } else {
                Ownership::Release
            }
        }
        None if selected && !deleting && object.deletion_timestamp.is_none() => Ownership::Adopt,
        _ => Ownership::Unrelated,
    }
}

/// The merge patch that adds `owner` to an object's owner references. The server rejects it with 409 if the object has
/// changed since or is another one.
pub fn adoption(owner: OwnerReference, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != owner.uid);
    owners.push(owner);
    owners_patch(owners, object)
}

/// The merge patch that removes the owner with this uid from an object, with the same precondition as [`adoption`].
pub fn release(uid: &str, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != uid);
    owners_patch(owners, object)
}

/// The merge patch that gives an object these owner references, with the same precondition as [`adoption`].
pub fn owners_patch(owners: Vec<OwnerReference>, object: &ObjectMeta) -> serde_json::Value {
    let owners = if owners.is_empty() { serde_json::Value::Null } else { serde_json::json!(owners) };
    serde_json::json!({ "metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "ownerReferences": owners,
    } })
}

/// The candidates that a controller owns; or, where some have to be adopted or released first, the actions that do so:
/// what it owns is known only after them, and the changed objects trigger the next pass.
///
/// # Errors
/// The actions.
pub fn owned<'a, K, A>(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = &'a Arc<K>>,
    adopt: fn(Arc<K>) -> A,
    release: fn(Arc<K>) -> A,
) -> Result<Vec<Arc<K>>, Vec<A>>
where
    K: Resource + 'a,
{
    let (mut owned, mut first) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match ownership(owner, selector, candidate.meta()) {
            Ownership::Owned => owned.push(candidate.clone()),
            Ownership::Adopt => first.push(adopt(candidate.clone())),
            Ownership::Release => first.push(release(candidate.clone())),
            Ownership::Unrelated => {}
        }
    }
    if first.is_empty() { Ok(owned) } else { Err(first) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).expect("metadata")
    }

    #[test]
    fn objects_are_claimed_by_selector_and_controller() {
        let owned = |uid: &str| json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}]);
        let selector = LabelSelector::parse("app=a").expect("a selector");
        let rows = [
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "a"}, "ownerReferences": owned("u")}),
                Ownership::Owned,
            ),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "b"}, "ownerReferences": owned("u")}),
                Ownership::Release,
            ),
            (json!({"uid": "u"}), json!({"labels": {"app": "a"}}), Ownership::Adopt),
            (json!({"uid": "u"}), json!({"labels": {"app": "b"}}), Ownership::Unrelated),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "a"}, "ownerReferences": owned("w")}),
                Ownership::Unrelated,
            ),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "a"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Ownership::Unrelated,
            ),
            (
                json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                json!({"labels": {"app": "a"}}),
                Ownership::Unrelated,
            ),
        ];
        for (owner, object, expect) in rows {
            assert_eq!(
                ownership(&meta(owner.clone()), &selector, &meta(object.clone())),
                expect,
                "{owner} {object}"
            );
        }
    }
}
