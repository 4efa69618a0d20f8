//! What the kinds of admission policies and of their bindings share.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use yado_types::names;

use crate::admission::conditions::compile as compile_condition;
use crate::admission::validating_policies::resource_of;
use crate::cel::Type;
use crate::edit::{existing, fill, list, objects, text};
use crate::rbac::{Attributes, Target};
use crate::schema::validate::{Errors, Path, meta};
use crate::schema::{FieldError, Reason};
use crate::status::Result;
use crate::write::context::WriteContext;
use crate::write::refuse_invalid;

/// Conditions that a policy may have.
const MAX_CONDITIONS: usize = 64;

/// Fills in what `MatchResources` leaves out.
pub fn default_match_resources(spec: &mut Map<String, Value>, field: &str) {
    let Some(resources) = existing(spec, field) else { return };
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        objects(resources, rules).for_each(|rule| fill(rule, "scope", "*"));
    }
}

/// Checks `MatchResources`, after defaulting; null is no mistake.
pub fn match_resources(resources: &Value, at: &Path<'_>, errors: &mut Errors) {
    if resources.is_null() {
        return;
    }
    errors.one_of(&at.field("matchPolicy"), &resources["matchPolicy"], &["Equivalent", "Exact"]);
    for selector in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(&resources[selector], &at.field(selector), errors);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let rules = at.field(field);
        for (i, given) in list(&resources[field]).iter().enumerate() {
            let at = rules.index(i);
            let names_at = at.field("resourceNames");
            let mut seen = BTreeSet::new();
            for (i, name) in list(&given["resourceNames"]).iter().enumerate() {
                errors.check_text(&names_at.index(i), text(name), names::path_segment(text(name)));
                if !seen.insert(text(name)) {
                    errors.duplicate(&names_at.index(i), name);
                }
            }
            rule(given, &at, errors);
        }
    }
}

/// Checks a rule that names operations on resources.
pub fn rule(rule: &Value, at: &Path<'_>, errors: &mut Errors) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        if list(&rule[field]).is_empty() {
            errors.required(&at.field(field), "");
        }
    }
    let operations = at.field("operations");
    for (i, operation) in list(&rule["operations"]).iter().enumerate() {
        errors.supported(
            &operations.index(i),
            text(operation),
            &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"],
        );
    }
    errors.one_of(&at.field("scope"), &rule["scope"], &["*", "Cluster", "Namespaced"]);
}

/// Checks match conditions, whose expressions may use these variables.
pub fn match_conditions(
    conditions: &Value,
    variables: &[(String, Type)],
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let conditions = list(conditions);
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(at, conditions.len(), MAX_CONDITIONS);
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let (name, expression) = (text(&condition["name"]), text(&condition["expression"]));
        match expression.trim() {
            "" => errors.required(&at.field("expression"), ""),
            expression => {
                let compiled = compile_condition(expression, variables).map(drop);
                errors.check_text(&at.field("expression"), expression, compiled);
            }
        }
        match name {
            "" => errors.required(&at.field("name"), ""),
            name => errors.check_text(&at.field("name"), name, names::qualified_name(name)),
        }
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&at.field("name"), &condition["name"]);
        }
    }
}

/// Checks a `ParamKind`; null is no mistake.
pub fn param_kind(kind: &Value, at: &Path<'_>, errors: &mut Errors) {
    if kind.is_null() {
        return;
    }
    let version_at = at.field("apiVersion");
    match text(&kind["apiVersion"]) {
        "" => errors.required(&version_at, ""),
        given if given.matches('/').count() > 1 => {
            errors.invalid_text(&version_at, given, &format!("unexpected GroupVersion string: {given}"));
        }
        given => {
            let (group, version) = given.split_once('/').unwrap_or(("", given));
            if !group.is_empty() {
                errors.check_text(&version_at, group, names::dns_subdomain(group));
            }
            match version {
                "" => errors.invalid_text(&version_at, given, "version must be specified"),
                version => errors.check_text(&version_at, version, names::dns_1035_label(version)),
            }
        }
    }
    match text(&kind["kind"]) {
        "" => errors.required(&at.field("kind"), ""),
        given => {
            let rule = names::dns_1035_label(&given.to_lowercase());
            let rule = rule.map_err(|why| format!("may have mixed case, but should otherwise match: {why}"));
            errors.check_text(&at.field("kind"), given, rule);
        }
    }
}

/// Checks a `ParamRef`; null is no mistake.
pub fn param_ref(reference: &Value, at: &Path<'_>, errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    let (name, selector) = (text(&reference["name"]), &reference["selector"]);
    if !name.is_empty() {
        errors.check_text(&at.field("name"), name, names::path_segment(name));
    }
    if !selector.is_null() {
        meta::label_selector(selector, &at.field("selector"), errors);
    }
    match (name.is_empty(), selector.is_null()) {
        (false, false) => {
            for field in ["name", "selector"] {
                errors.forbidden(&at.field(field), "name and selector are mutually exclusive");
            }
        }
        (true, true) => errors.required(at, "one of name or selector must be specified"),
        _ => {}
    }
    let action = at.field("parameterNotFoundAction");
    match text(&reference["parameterNotFoundAction"]) {
        "" => errors.required(&action, ""),
        given => errors.supported(&action, given, &["Deny", "Allow"]),
    }
}

/// Refuses a policy or a binding whose writer may not read the parameters that it would tell them of. `kind` is the
/// `ParamKind`, null where it is not known; `place` is the namespace and the name of the parameters.
pub fn authorize_params(
    ctx: &WriteContext<'_>,
    object_name: &str,
    kind: &Value,
    (namespace, name): (&str, &str),
    (field, sentence): (&str, &str),
) -> Result<()> {
    let resources = ctx.server.registry.current();
    let api_version = text(&kind["apiVersion"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let attributes = |group, resource| Attributes {
        verb: "get",
        target: Target::Resource { namespace, group, resource, subresource: "", name },
    };
    let asked = match resource_of(&resources, kind) {
        Some(resource) => attributes(&resource.group, &resource.plural),
        None if kind.is_null() => attributes("*", "*"),
        None => attributes(group, "*"),
    };
    if ctx.server.authorizer.allows(ctx.user, &asked) {
        return Ok(());
    }
    let message = format!("Forbidden: user {:?} {sentence}", ctx.user.user);
    let error = FieldError { field: field.to_owned(), reason: Reason::Forbidden, message };
    refuse_invalid(ctx.resource, object_name, vec![error])
}
