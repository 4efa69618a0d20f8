//! Roles and ClusterRoles.

use serde_json::Value;
use yado_types::names;

use crate::edit::list;
use crate::kinds::grants;
use crate::kinds::strategy::{NameRule, Strategy};
use crate::schema::validate::{Errors, Path, meta};
use crate::status::Result;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct Role;

impl Strategy for Role {
    /// Names like `system:node` are common.
    fn name_rule(&self) -> NameRule {
        names::path_segment
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, object: &mut Value, old: Option<&Value>) -> Result<()> {
        grants::check(ctx, object, old)
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        rules(object, true, errors);
    }
}

#[derive(Debug)]
pub struct ClusterRole;

impl Strategy for ClusterRole {
    fn name_rule(&self) -> NameRule {
        names::path_segment
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, object: &mut Value, old: Option<&Value>) -> Result<()> {
        grants::check(ctx, object, old)
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
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
