//! RoleBindings and ClusterRoleBindings.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{existing, fill, list, objects, text};
use crate::kinds::grants;
use crate::kinds::strategy::{NameRule, Strategy};
use crate::schema::RBAC_GROUP;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::table::format::age;
use crate::write::context::WriteContext;

/// Both kinds; only a RoleBinding may name a Role of its Namespace.
#[derive(Debug)]
pub struct RoleBinding {
    /// It is a RoleBinding, and not a ClusterRoleBinding.
    pub namespaced: bool,
}

impl Strategy for RoleBinding {
    fn name_rule(&self) -> NameRule {
        names::path_segment
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        default_binding(object);
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, object: &mut Value, old: Option<&Value>) -> Result<()> {
        grants::check(ctx, object, old)
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        validate_binding(self.namespaced, object, old, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

/// Names the API group of the role, and of the users and groups that are bound to it; ServiceAccounts are of the core
/// group.
fn default_binding(object: &mut Map<String, Value>) {
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

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Role"),
    Column::AGE,
    Column::wide("Users"),
    Column::wide("Groups"),
    Column::wide("ServiceAccounts"),
];

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let of_kind = list(&object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let names = of_kind.map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text(&s["namespace"]), text(&s["name"])),
            _ => text(&s["name"]).to_owned(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        object["metadata"]["name"].clone(),
        json!(format!("{}/{}", text(&role["kind"]), text(&role["name"]))),
        json!(age(object, now)),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

/// A RoleBinding or ClusterRoleBinding; the latter cannot bind a Role, which belongs to a namespace.
fn validate_binding(namespaced: bool, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (role, at) = (&object["roleRef"], root.field("roleRef"));
    errors.supported(&at.field("apiGroup"), text(&role["apiGroup"]), &[RBAC_GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    errors.supported(&at.field("kind"), text(&role["kind"]), kinds);
    match text(&role["name"]) {
        "" => errors.required(&at.field("name"), ""),
        name => errors.check_text(&at.field("name"), name, names::path_segment(name)),
    }
    // Whoever holds the right to bind one role must not exchange it for another afterwards.
    if old.is_some_and(|old| old["roleRef"] != *role) {
        errors.invalid(&at, role, "cannot change roleRef");
    }
    let at = root.field("subjects");
    for (i, given) in list(&object["subjects"]).iter().enumerate() {
        validate_subject(namespaced, given, &at.index(i), errors);
    }
}

fn validate_subject(namespaced: bool, subject: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (name, group) = (text(&subject["name"]), text(&subject["apiGroup"]));
    if name.is_empty() {
        errors.required(&at.field("name"), "");
    }
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.check_text(&at.field("name"), name, names::dns_subdomain(name));
            }
            errors.supported(&at.field("apiGroup"), group, &[""]);
            if !namespaced && text(&subject["namespace"]).is_empty() {
                errors.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" => errors.supported(&at.field("apiGroup"), group, &[RBAC_GROUP]),
        other => errors.supported(&at.field("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}
