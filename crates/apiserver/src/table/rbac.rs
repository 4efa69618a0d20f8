//! The cells of role bindings.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{age, list, text_or};

/// RoleBindings and ClusterRoleBindings.
pub fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let of_kind = list(&object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let names = of_kind.map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text_or(&s["namespace"], ""), text_or(&s["name"], "")),
            _ => text_or(&s["name"], "").to_owned(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        object["metadata"]["name"].clone(),
        json!(format!("{}/{}", text_or(&role["kind"], ""), text_or(&role["name"], ""))),
        json!(age(object, now)),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
