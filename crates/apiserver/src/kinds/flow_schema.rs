//! FlowSchemas: which requests belong to which priority level.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{existing, list, text};
use crate::flow_control::defaults;
use crate::kinds::strategy::Strategy;
use crate::object::meta;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{NONE, age, text_or};

/// Stands for everything of a list, alone.
const ALL: &str = "*";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_PRECEDENCE: i64 = 10_000;

#[derive(Debug)]
pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = existing(object, "spec")
            && spec.get("matchingPrecedence").is_none_or(|precedence| *precedence == 0)
        {
            spec.insert("matchingPrecedence".into(), 1000.into());
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        let name = meta(object, "name");
        precedence(&spec["matchingPrecedence"], name, &at.field("matchingPrecedence"), errors);
        if spec["distinguisherMethod"].is_object() {
            let method = at.field("distinguisherMethod");
            let given = text(&spec["distinguisherMethod"]["type"]);
            errors.supported(&method.field("type"), given, &["ByNamespace", "ByUser"]);
        }
        let level = at.field("priorityLevelConfiguration");
        match text(&spec["priorityLevelConfiguration"]["name"]) {
            "" => errors.required(&level.field("name"), "must reference a priority level"),
            name => errors.check_text(&level.field("name"), name, names::dns_subdomain(name)),
        }
        let rules = at.field("rules");
        for (i, rule) in list(&spec["rules"]).iter().enumerate() {
            policy_rule(rule, &rules.index(i), errors);
        }
        if defaults::mandatory_spec("FlowSchema", name).is_some_and(|fixed| fixed != *spec) {
            errors.invalid(&at, spec, &format!("spec of '{name}' must equal the fixed value"));
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("PriorityLevel"),
                Column::integer("MatchingPrecedence"),
                Column::text("DistinguisherMethod"),
                Column::AGE,
                Column::text("MissingPL"),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let mut conditions = list(&object["status"]["conditions"]).iter();
        let dangling = conditions.find(|condition| condition["type"] == "Dangling");
        vec![
            object["metadata"]["name"].clone(),
            spec["priorityLevelConfiguration"]["name"].clone(),
            spec["matchingPrecedence"].clone(),
            json!(text_or(&spec["distinguisherMethod"]["type"], NONE)),
            json!(age(object, now)),
            json!(dangling.map_or("?", |condition| text(&condition["status"]))),
        ]
    }
}

fn precedence(value: &Value, name: &str, at: &Path<'_>, errors: &mut Errors) {
    match value.as_i64().unwrap_or_default() {
        ..=0 => errors.invalid(at, value, "must be a positive value"),
        1 if name != defaults::EXEMPT => {
            errors.invalid(at, value, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        given if given > MAX_PRECEDENCE => {
            errors.invalid(at, value, &format!("must not be greater than {MAX_PRECEDENCE}"));
        }
        _ => {}
    }
}

fn policy_rule(rule: &Value, at: &Path<'_>, errors: &mut Errors) {
    let subjects = at.field("subjects");
    if list(&rule["subjects"]).is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for (i, given) in list(&rule["subjects"]).iter().enumerate() {
        subject(given, &subjects.index(i), errors);
    }
    let (resources, paths) = (list(&rule["resourceRules"]), list(&rule["nonResourceRules"]));
    if resources.is_empty() && paths.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let field = at.field("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(rule, &field.index(i), errors);
    }
    let field = at.field("nonResourceRules");
    for (i, rule) in paths.iter().enumerate() {
        path_rule(rule, &field.index(i), errors);
    }
}

fn subject(subject: &Value, at: &Path<'_>, errors: &mut Errors) {
    let kinds = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = text(&subject["kind"]);
    let Some((_, own)) = kinds.iter().find(|(known, _)| *known == kind) else {
        return errors.supported(&at.field("kind"), kind, &kinds.map(|(known, _)| known));
    };
    for (other, field) in kinds.iter().filter(|(_, field)| field != own) {
        if !subject[field].is_null() {
            errors.forbidden(
                &at.field(field),
                &format!("{field} is forbidden when subject kind is not '{other}'"),
            );
        }
    }
    let (given, at) = (&subject[own], at.field(own));
    if given.is_null() {
        return errors.required(&at, &format!("{own} is required when subject kind is '{kind}'"));
    }
    let name = text(&given["name"]);
    if name.is_empty() {
        errors.required(&at.field("name"), "");
    }
    if kind != "ServiceAccount" {
        return;
    }
    if name != ALL && !name.is_empty() {
        errors.check_text(&at.field("name"), name, names::dns_subdomain(name));
    }
    match text(&given["namespace"]) {
        "" => errors.required(&at.field("namespace"), "must specify namespace for service account"),
        namespace => errors.check_text(&at.field("namespace"), namespace, names::dns_label(namespace)),
    }
}

/// A list that is not empty, and in which `*` stands alone; `others` names what it must not stand with. Returns whether
/// it has words that have to be looked at.
fn words(value: &Value, at: &Path<'_>, missing: &str, others: &str, errors: &mut Errors) -> bool {
    let words = list(value);
    let has_all = words.iter().any(|word| word == ALL);
    if words.is_empty() {
        errors.required(at, missing);
    } else if has_all && words.len() > 1 {
        errors.invalid(at, value, &format!("if '*' is present, must not specify other {others}"));
    }
    !has_all
}

fn verbs(rule: &Value, at: &Path<'_>, errors: &mut Errors) {
    let field = at.field("verbs");
    if words(&rule["verbs"], &field, "verbs must contain at least one value", "verbs", errors) {
        for (i, verb) in list(&rule["verbs"]).iter().enumerate() {
            errors.supported(&field.index(i), text(verb), &VERBS);
        }
    }
}

fn resource_rule(rule: &Value, at: &Path<'_>, errors: &mut Errors) {
    verbs(rule, at, errors);
    let missing = "resource rules must supply at least one api group";
    words(&rule["apiGroups"], &at.field("apiGroups"), missing, "api groups", errors);
    let missing = "resource rules must supply at least one resource";
    words(&rule["resources"], &at.field("resources"), missing, "resources", errors);
    let (namespaces, field) = (&rule["namespaces"], at.field("namespaces"));
    if list(namespaces).is_empty() && rule["clusterScope"] == true {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if words(namespaces, &field, missing, "namespaces", errors) {
        for (i, namespace) in list(namespaces).iter().enumerate() {
            let intro = "each member of this list must be '*' or a DNS-1123 label; ";
            let rule = names::dns_label(text(namespace)).map_err(|detail| format!("{intro}{detail}"));
            errors.check_text(&field.index(i), text(namespace), rule);
        }
    }
}

fn path_rule(rule: &Value, at: &Path<'_>, errors: &mut Errors) {
    verbs(rule, at, errors);
    let field = at.field("nonResourceURLs");
    let missing = "nonResourceURLs must contain at least one value";
    if words(&rule["nonResourceURLs"], &field, missing, "non-resource URLs", errors) {
        for (i, path) in list(&rule["nonResourceURLs"]).iter().enumerate() {
            errors.check_text(&field.index(i), text(path), non_resource_path(text(path)));
        }
    }
}

fn non_resource_path(path: &str) -> Result<(), String> {
    let stars = path.matches('*').count();
    let broken = match path {
        "" => "must not be empty",
        _ if !path.starts_with('/') => "must start with slash",
        _ if path.contains(' ') => "must not contain white-space",
        _ if path.contains("//") => "must not contain double slash",
        _ if stars > 1 || stars == 1 && !path.ends_with("/*") => "wildcard can only do suffix matching",
        _ => return Ok(()),
    };
    Err(broken.to_owned())
}
