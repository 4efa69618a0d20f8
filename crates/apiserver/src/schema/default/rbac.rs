//! Defaults of role bindings.

use serde_json::{Map, Value};

use super::{existing, fill, objects};
use crate::schema::RBAC_GROUP;

/// Names the API group of the role, and of the users and groups that are bound to it; ServiceAccounts are of the core
/// group.
pub fn binding(object: &mut Map<String, Value>) {
    if let Some(role) = existing(object, "roleRef") {
        fill_empty(role);
    }
    for subject in objects(object, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            fill_empty(subject);
        }
    }
}

fn fill_empty(reference: &mut Map<String, Value>) {
    if reference.get("apiGroup").is_some_and(|group| group == "") {
        reference.shift_remove("apiGroup");
    }
    fill(reference, "apiGroup", RBAC_GROUP);
}
