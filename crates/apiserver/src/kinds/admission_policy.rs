//! What the kinds of admission policies and of their bindings share.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::admission::conditions::compile as compile_condition;
use crate::admission::expressions::{self, Results};
use crate::admission::params::resource_of;
use crate::cel::rules::is_reserved;
use crate::cel::{Composition, Type};
use crate::edit::{existing, fill, list, objects, text};
use crate::object;
use crate::rbac::{Attributes, Target};
use crate::resource::Resource;
use crate::schema::validate::{Errors, Path, meta};
use crate::schema::{FieldError, Reason};
use crate::status::Result;
use crate::table::Column;
use crate::table::format::{age, selector};
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
    for (field, words) in
        [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")]
    {
        let given = list(&rule[field]);
        if given.is_empty() {
            errors.required(&at.field(field), "");
        }
        if given.len() > 1 && given.iter().any(|word| word == "*") {
            let detail = format!("if '*' is present, must not specify other {words}");
            errors.invalid(&at.field(field), &rule[field], &detail);
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
    let versions = at.field("apiVersions");
    for (i, version) in list(&rule["apiVersions"]).iter().enumerate() {
        if text(version).is_empty() {
            errors.required(&versions.index(i), "");
        }
    }
    resources(&rule["resources"], &at.field("resources"), errors);
    errors.one_of(&at.field("scope"), &rule["scope"], &["*", "Cluster", "Namespaced"]);
}

/// Checks the resources of a rule, of which a wildcard must not say again what another one says.
fn resources(given: &Value, at: &Path<'_>, errors: &mut Errors) {
    let words: Vec<&str> = list(given).iter().map(text).collect();
    if words.is_empty() {
        errors.required(at, "");
    }
    let mut wildcards: Vec<&str> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        if word.is_empty() {
            errors.required(&at.index(i), "");
        }
        let Some((resource, part)) = word.split_once('/') else { continue };
        for wildcard in [format!("{resource}/*"), format!("*/{part}")] {
            if wildcards.contains(&&*wildcard) {
                let detail = format!("if '{wildcard}' is present, must not specify {word}");
                errors.invalid_text(&at.index(i), word, &detail);
            }
        }
        if resource == "*" || part == "*" {
            wildcards.push(word);
        }
    }
    if words.len() > 1 && words.contains(&"*/*") {
        errors.invalid(at, given, "if '*/*' is present, must not specify other resources");
    }
    // As in Kubernetes, the last one without a part decides.
    let last = words.iter().rfind(|word| !word.contains('/') && !word.is_empty());
    if words.contains(&"*") && last.is_some_and(|last| *last != "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(at, given, detail);
    }
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
/// `ParamKind`, null where it is not known; the verb is that of reading the parameters of this namespace and name.
fn authorize_params(
    ctx: &WriteContext<'_>,
    object_name: &str,
    kind: &Value,
    (verb, namespace, name): (&str, &str, &str),
    (field, sentence): (&str, &str),
) -> Result<()> {
    let resources = ctx.server.registry.current();
    let api_version = text(&kind["apiVersion"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let attributes = |group, resource| Attributes {
        verb,
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

/// Refuses a policy whose writer may not read the parameters that its expressions, or their messages, tell of.
pub fn authorize_param_kind(ctx: &WriteContext<'_>, policy: &Value, old: Option<&Value>) -> Result<()> {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() || old.is_some_and(|old| old["spec"]["paramKind"] == *kind) {
        return Ok(());
    }
    let sentence = format!(
        "must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        text(&kind["kind"]),
        text(&kind["apiVersion"])
    );
    let place = ("get", "*", "*");
    authorize_params(ctx, object::meta(policy, "name"), kind, place, ("spec.paramKind", &sentence))
}

/// The same for a binding of one of these policies.
pub fn authorize_param_ref(
    ctx: &WriteContext<'_>,
    policies: Option<&'static Arc<Resource>>,
    binding: &Value,
    old: Option<&Value>,
) -> Result<()> {
    let spec = &binding["spec"];
    let reference = &spec["paramRef"];
    let is_same =
        |old: &Value| ["paramRef", "policyName"].iter().all(|field| old["spec"][*field] == spec[*field]);
    if reference.is_null() || old.is_some_and(is_same) {
        return Ok(());
    }
    let policy = policies.and_then(|p| ctx.server.find(p, "", text(&spec["policyName"])).ok());
    let kind = policy.map(|policy| policy.value()["spec"]["paramKind"].clone()).unwrap_or_default();
    let name = text(&reference["name"]);
    let verb = if name.is_empty() { "list" } else { "get" };
    let sentence = format!("does not have {verb:?} permission on the object referenced by paramRef");
    let place = (verb, text(&reference["namespace"]), name);
    authorize_params(ctx, object::meta(binding, "name"), &kind, place, ("spec.paramRef", &sentence))
}

/// Checks what the specifications of all policies begin with, after defaulting.
pub fn policy_head(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    errors.one_of(&at.field("failurePolicy"), &spec["failurePolicy"], &["Fail", "Ignore"]);
    param_kind(&spec["paramKind"], &at.field("paramKind"), errors);
    let constraints = at.field("matchConstraints");
    match &spec["matchConstraints"] {
        Value::Null => errors.required(&constraints, ""),
        given => {
            match_resources(given, &constraints, errors);
            if list(&given["resourceRules"]).is_empty() {
                errors.required(&constraints.field("resourceRules"), "");
            }
        }
    }
}

/// Checks what the specifications of all bindings have in common.
pub fn binding_head(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    match text(&spec["policyName"]) {
        "" => errors.required(&at.field("policyName"), ""),
        name => errors.check_text(&at.field("policyName"), name, names::dns_subdomain(name)),
    }
    param_ref(&spec["paramRef"], &at.field("paramRef"), errors);
    match_resources(&spec["matchResources"], &at.field("matchResources"), errors);
}

/// Checks the named expressions and returns them, as those after them see them.
pub fn variables(given: &Value, known: &[(String, Type)], at: &Path<'_>, errors: &mut Errors) -> Composition {
    let mut composition = Composition::empty();
    for (i, variable) in list(given).iter().enumerate() {
        let at = at.index(i);
        let (name, expression) = (text(&variable["name"]), text(&variable["expression"]));
        if name.trim().is_empty() {
            errors.required(&at.field("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid_text(&at.field("name"), name, "name is not a valid CEL identifier");
        }
        if expression.trim().is_empty() {
            errors.required(&at.field("expression"), "expression is not specified");
            continue;
        }
        let program = expressions::compile(expression, known, Some(&composition), Results::Any);
        if let Err(why) = &program {
            errors.invalid_text(&at.field("expression"), expression, why);
        }
        composition.push(name, program);
    }
    composition
}

fn is_identifier(name: &str) -> bool {
    let starts = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit()) && !is_reserved(name)
}

/// The cells of a policy in a Table: its name, how many of these it has, its kind of parameters, its age.
pub fn cells(policy: &Value, counted: &str, now: Timestamp) -> Vec<Value> {
    let spec = &policy["spec"];
    let kind = match &spec["paramKind"] {
        Value::Null => "<unset>".to_owned(),
        kind => format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])),
    };
    let count = list(&spec[counted]).len();
    vec![policy["metadata"]["name"].clone(), json!(count), json!(kind), json!(age(policy, now))]
}

/// The columns of bindings in Tables.
pub const BINDING_COLUMNS: &[Column] =
    &[Column::NAME, Column::text("PolicyName"), Column::text("ParamRef"), Column::AGE];

/// The cells of a binding.
pub fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &binding["spec"];
    let reference = &spec["paramRef"];
    let params = match (text(&reference["namespace"]), text(&reference["name"])) {
        _ if reference.is_null() => "<unset>".to_owned(),
        (_, "") => selector(&reference["selector"]),
        // Whether the parameters are in Namespaces is not known here.
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![
        binding["metadata"]["name"].clone(),
        spec["policyName"].clone(),
        json!(params),
        json!(age(binding, now)),
    ]
}
