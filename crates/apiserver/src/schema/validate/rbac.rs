//! Roles and their bindings.

use serde_json::Value;
use yado_types::names;

use super::super::{Kind, RBAC_GROUP};
use super::meta;
use super::path::{Errors, Path, list, text};

pub fn role(object: &Value, errors: &mut Errors) {
    rules(object, true, errors);
}

pub fn cluster_role(object: &Value, errors: &mut Errors) {
    rules(object, false, errors);
    let aggregation = &object["aggregationRule"];
    if aggregation.is_null() {
        return;
    }
    let (root, selectors) = (Path::root(), list(&aggregation["clusterRoleSelectors"]));
    let at = root.field("aggregationRule");
    let at = at.field("clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors.iter().enumerate() {
        meta::label_selector(selector, &at.index(i), errors);
    }
}

fn rules(object: &Value, namespaced: bool, errors: &mut Errors) {
    let root = Path::root();
    let at = root.field("rules");
    for (i, rule) in list(&object["rules"]).iter().enumerate() {
        policy_rule(rule, namespaced, &at.index(i), errors);
    }
}

fn policy_rule(rule: &Value, namespaced: bool, at: &Path<'_>, errors: &mut Errors) {
    let has = |key: &str| !list(&rule[key]).is_empty();
    if !has("verbs") {
        errors.required(&at.field("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let (at, urls) = (at.field("nonResourceURLs"), &rule["nonResourceURLs"]);
        if namespaced {
            errors.invalid(&at, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&at, urls, detail);
        }
        return;
    }
    if !has("apiGroups") {
        errors.required(&at.field("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        errors.required(&at.field("resources"), "resource rules must supply at least one resource");
    }
}

/// A RoleBinding or ClusterRoleBinding; the latter cannot bind a Role, which belongs to a namespace.
pub fn binding(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (role, at) = (&object["roleRef"], root.field("roleRef"));
    errors.supported(&at.field("apiGroup"), text(&role["apiGroup"]), &[RBAC_GROUP]);
    let kinds: &[&str] = if kind.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
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
        subject(kind, given, &at.index(i), errors);
    }
}

fn subject(kind: &Kind, subject: &Value, at: &Path<'_>, errors: &mut Errors) {
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
            if !kind.namespaced && text(&subject["namespace"]).is_empty() {
                errors.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" => errors.supported(&at.field("apiGroup"), group, &[RBAC_GROUP]),
        other => errors.supported(&at.field("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}
