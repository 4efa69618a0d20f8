//! A Namespace is held by the finalizer of its spec until the Namespace controller has emptied it.

use serde_json::{Value, json};

/// Label by which selectors find a Namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn before_create(object: &mut Value) {
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    object["status"] = json!({"phase": "Active"});
    label(object);
}

/// The finalizers of the spec change by the finalize subresource only.
pub(super) fn before_update(new: &mut Value, old: &Value) {
    new["spec"] = old["spec"].clone();
    label(new);
}

fn label(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"][NAME_LABEL] = name;
}
