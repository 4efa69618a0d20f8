//! Who controls an object: owner references, adoption and release.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use yado_types::selector::LabelSelector;

/// The reference of the one controller among an object's owners.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
}

/// The uid of an object's controller.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    controller_of(meta).map(|o| o.uid.as_str())
}

/// The reference by which `owner` controls what it makes; foreground deletion of it waits for them.
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

/// What an object is to a controller that selects by labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Controlled by it and selected.
    Mine,
    /// Selected and controlled by nobody: it is taken in.
    Adopt,
    /// Controlled by it but no longer selected: it is let go.
    Release,
    /// None of its business.
    Other,
}

/// Decides what `object` is to `owner`. An owner that is being deleted neither takes in nor lets go.
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    static NO_LABELS: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    let selected = !selector.is_empty() && selector.matches(object.labels.as_ref().unwrap_or(&NO_LABELS));
    let deleting = owner.deletion_timestamp.is_some();
    match controller_uid(object) {
        Some(uid) if Some(uid) == owner.uid.as_deref() => {
            if selected || deleting {
                Claim::Mine
            } else {
                Claim::Release
            }
        }
        None if selected && !deleting && object.deletion_timestamp.is_none() => Claim::Adopt,
        _ => Claim::Other,
    }
}

/// The merge patch that makes `owner` the controller of an object that has these owners, if it is still the same.
pub fn adoption(owner: OwnerReference, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != owner.uid);
    owners.push(owner);
    owners_patch(owners, object)
}

/// The merge patch that takes the owner `uid` off an object, if it is still the same.
pub fn release(uid: &str, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != uid);
    owners_patch(owners, object)
}

fn owners_patch(owners: Vec<OwnerReference>, object: &ObjectMeta) -> serde_json::Value {
    let owners = if owners.is_empty() { serde_json::Value::Null } else { serde_json::json!(owners) };
    serde_json::json!({ "metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "ownerReferences": owners,
    } })
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
                Claim::Mine,
            ),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "b"}, "ownerReferences": owned("u")}),
                Claim::Release,
            ),
            (json!({"uid": "u"}), json!({"labels": {"app": "a"}}), Claim::Adopt),
            (json!({"uid": "u"}), json!({"labels": {"app": "b"}}), Claim::Other),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "a"}, "ownerReferences": owned("w")}),
                Claim::Other,
            ),
            (
                json!({"uid": "u"}),
                json!({"labels": {"app": "a"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Claim::Other,
            ),
            (
                json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                json!({"labels": {"app": "a"}}),
                Claim::Other,
            ),
        ];
        for (owner, object, expect) in rows {
            assert_eq!(
                claim(&meta(owner.clone()), &selector, &meta(object.clone())),
                expect,
                "{owner} {object}"
            );
        }
    }
}
