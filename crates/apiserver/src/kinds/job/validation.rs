//! Rules of Jobs: their selector, their names and what may change.

use serde_json::{Map, Value, json};
use yado_types::names;

use super::spec::validate_spec;
use crate::edit::{copy, existing_at, list, text};
use crate::schema::validate::{Errors, Path, meta};

/// Labels of a Job's Pods, and whether their value is the Job's uid or its name.
const LABELS: [(&str, &str); 4] = [
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
];

/// Fields of the Pod template's spec that may change while a suspended Job has no Pods.
const WHILE_SUSPENDED: [&str; 3] = ["nodeSelector", "schedulingGates", "tolerations"];

/// Checks a Job, and its change from `old`.
pub fn validate_job(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    if old.is_none() {
        generated_selector(object, &at, errors);
    }
    validate_spec(spec, &at, errors);
    selector(object, &at, errors);
    match old {
        None => host_names(object, errors),
        Some(old) => update(spec, old, &at, errors),
    }
}

/// Each Pod of an Indexed Job has its Job's name and its index for a host name.
fn host_names(object: &Value, errors: &mut Errors) {
    let (root, name) = (Path::root(), text(&object["metadata"]["name"]));
    let completions = object["spec"]["completions"].as_i64().filter(|n| *n > 0);
    let Some(completions) = completions.filter(|_| object["spec"]["completionMode"] == "Indexed") else {
        return;
    };
    let last = format!("{name}-{}", completions - 1);
    if names::dns_label(&last).is_err() {
        let detail = format!("will not able to create pod with invalid DNS label: {last}");
        let metadata = root.field("metadata");
        errors.invalid_text(&metadata.field("name"), name, &detail);
    }
}

/// Unless its user takes care of the selector, the API server makes it, and labels that it matches.
fn generated_selector(object: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (selector, metadata) = (&object["spec"]["selector"], &object["metadata"]);
    // What the API server has not seen yet has no uid.
    if object["spec"]["manualSelector"] == true || selector.is_null() || metadata["uid"].is_null() {
        return;
    }
    let template_at = at.field("template");
    let metadata_at = template_at.field("metadata");
    let labels_at = metadata_at.field("labels");
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let mut generated = Map::new();
    for (label, field) in LABELS {
        let (expected, label_at) = (&metadata[field], labels_at.key(label));
        let detail = format!("must be '{}'", text(expected));
        match &labels[label] {
            Value::Null => errors.required(&label_at, &detail),
            given if given != expected => errors.invalid(&label_at, labels, &detail),
            _ => {}
        }
        generated.insert(label.into(), expected.clone());
    }
    if !meta::selects(selector, &Value::Object(generated)) {
        errors.invalid(&at.field("selector"), selector, "`selector` not auto-generated");
    }
}

fn selector(object: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (spec, selector_at) = (&object["spec"], at.field("selector"));
    let selector = &spec["selector"];
    if selector.is_null() {
        if spec["manualSelector"] == true || !object["metadata"]["uid"].is_null() {
            errors.required(&selector_at, "");
        }
        return;
    }
    meta::label_selector(selector, &selector_at, errors);
    let labels = &spec["template"]["metadata"]["labels"];
    if !meta::selects(selector, labels) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let template_at = at.field("template");
        let metadata_at = template_at.field("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata_at.field("labels"), &shown, detail);
    }
}

fn update(spec: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let before = &old["spec"];
    let mut immutable = |field: &str, same: bool| {
        if !same {
            errors.invalid(&at.field(field), &spec[field], "field is immutable");
        }
    };
    let same_completions = spec["completions"] == before["completions"];
    // An Indexed Job may grow and shrink with its parallelism.
    let elastic = spec["completionMode"] == "Indexed";
    immutable("completions", elastic || same_completions);
    immutable("selector", spec["selector"] == before["selector"]);
    immutable("template", same_template(spec, old));
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(field, spec[field] == before[field]);
    }
    let given = &spec["completions"];
    if elastic && !same_completions && !given.is_null() && *given != spec["parallelism"] {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.invalid(&at.field("completions"), given, detail);
    }
}

/// The template stays, but for the fields that say where Pods go and what they get, while a suspended Job has no Pods.
fn same_template(spec: &Value, old: &Value) -> bool {
    let (new, mut before) = (&spec["template"], old["spec"]["template"].clone());
    if old["spec"]["suspend"] == true && old["status"]["active"].as_i64().unwrap_or_default() == 0 {
        take_over(&mut before, new, &["metadata"], &["annotations", "labels"]);
        take_over(&mut before, new, &["spec"], &WHILE_SUSPENDED);
        take_over_node_affinity(&mut before, new);
        take_over_resources(&mut before, new);
    }
    *new == before
}

/// Makes fields of the object at `path` what they are in `new`.
fn take_over(before: &mut Value, new: &Value, path: &[&str], fields: &[&str]) {
    let new = path.iter().fold(new, |value, key| &value[*key]);
    let Some(before) = existing_at(before, path) else { return };
    fields.iter().for_each(|field| copy(new, before, field));
}

/// An affinity that holds nothing else may come and go with the node affinity.
fn take_over_node_affinity(before: &mut Value, new: &Value) {
    let Some(spec) = existing_at(before, &["spec"]) else { return };
    let affinity = spec.entry("affinity").or_insert_with(|| json!({}));
    if let Some(affinity) = affinity.as_object_mut() {
        copy(&new["spec"]["affinity"], affinity, "nodeAffinity");
        if affinity.is_empty() && new["spec"].get("affinity").is_none() {
            spec.shift_remove("affinity");
        }
    }
}

fn take_over_resources(before: &mut Value, new: &Value) {
    for kind in ["containers", "initContainers"] {
        let containers = before["spec"].get_mut(kind).and_then(Value::as_array_mut);
        for (container, new) in containers.into_iter().flatten().zip(list(&new["spec"][kind])) {
            let given = &new["resources"];
            if given.is_null() && container["resources"].is_null() {
                continue;
            }
            if let Some(container) = container.as_object_mut() {
                container.entry("resources").or_insert_with(|| json!({}));
            }
            take_over(container, new, &["resources"], &["limits", "requests"]);
            let empty = container["resources"].as_object().is_some_and(Map::is_empty);
            if let Some(container) = container.as_object_mut().filter(|_| empty && given.is_null()) {
                container.shift_remove("resources");
            }
        }
    }
}
