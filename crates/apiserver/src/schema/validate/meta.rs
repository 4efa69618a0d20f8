//! Names, labels and what else all objects have; label selectors.

use std::collections::HashSet;

use serde_json::Value;
use yado_types::names;

use super::super::Kind;
use super::path::{Errors, Path};
use crate::edit::{list, text};

/// Managers of fields that an object may have. Each write walks through all of them; busy objects have a dozen.
const MAX_MANAGERS: usize = 1000;
/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub fn object_meta(kind: &Kind, meta: &Value, at: &Path<'_>, errors: &mut Errors) {
    let rule = kind.strategy().name_rule();
    let (name, prefix) = (text(&meta["name"]), text(&meta["generateName"]));
    if name.is_empty() && prefix.is_empty() {
        errors.required(&at.field("name"), "name or generateName is required");
    }
    if !name.is_empty() {
        errors.check_text(&at.field("name"), name, rule(name));
    }
    if !prefix.is_empty() {
        // The server shortens it and adds letters, so that it may end in dashes, which a name may not.
        let stem = prefix.trim_end_matches('-');
        let dashes = prefix.len() - stem.len();
        let example = if dashes == 0 { prefix.to_owned() } else { format!("{stem}{}", "a".repeat(dashes)) };
        errors.check_text(&at.field("generateName"), prefix, rule(&example));
    }
    let namespace = text(&meta["namespace"]);
    match (kind.namespaced, namespace) {
        (true, "") => errors.required(&at.field("namespace"), ""),
        (true, given) => errors.check_text(&at.field("namespace"), given, names::dns_label(given)),
        (false, "") => {}
        (false, _) => errors.forbidden(&at.field("namespace"), "not allowed on this type"),
    }
    labels(&meta["labels"], &at.field("labels"), errors);
    annotations(&meta["annotations"], &at.field("annotations"), errors);
    for (i, finalizer) in list(&meta["finalizers"]).iter().enumerate() {
        let finalizer = text(finalizer);
        errors.check_text(&at.field("finalizers").index(i), finalizer, names::qualified_name(finalizer));
    }
    if list(&meta["managedFields"]).len() > MAX_MANAGERS {
        errors.too_many(&at.field("managedFields"), list(&meta["managedFields"]).len(), MAX_MANAGERS);
    }
    owners(&meta["ownerReferences"], &at.field("ownerReferences"), errors);
}

fn owners(owners: &Value, at: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<&Value> = None;
    for (i, owner) in list(owners).iter().enumerate() {
        let at = at.index(i);
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(&owner[key]).is_empty() {
                errors.invalid_text(&at.field(key), "", &format!("{key} must not be empty"));
            }
        }
        if owner["controller"] == true {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    text(&first["kind"]),
                    text(&first["name"]),
                    text(&owner["kind"]),
                    text(&owner["name"]),
                );
                errors.invalid(&at, owner, &detail);
            }
            controller.get_or_insert(owner);
        }
    }
}

pub fn update(meta: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    for key in ["name", "namespace", "uid"] {
        let (new, old) = (text(&meta[key]), text(&old[key]));
        if !old.is_empty() && new != old {
            errors.invalid_text(&at.field(key), new, "field is immutable");
        }
    }
    // Whoever finalizes waits for the finalizers that there were when the deletion began.
    if old["deletionTimestamp"].is_string() {
        let known: HashSet<&str> = list(&old["finalizers"]).iter().map(text).collect();
        let added: Vec<&str> =
            list(&meta["finalizers"]).iter().map(text).filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(&at.field("finalizers"), &detail);
        }
    }
}

pub fn labels(labels: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.check_text(at, key, names::qualified_name(key));
        errors.check_text(at, text(value), names::label_value(text(value)));
    }
}

pub fn annotations(annotations: &Value, at: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        errors.check_text(at, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + text(value).len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(at, MAX_ANNOTATIONS);
    }
}

/// A label selector of the form with `matchLabels` and `matchExpressions`.
pub fn label_selector(selector: &Value, at: &Path<'_>, errors: &mut Errors) {
    labels(&selector["matchLabels"], &at.field("matchLabels"), errors);
    let expressions = at.field("matchExpressions");
    for (i, expression) in list(&selector["matchExpressions"]).iter().enumerate() {
        let at = expressions.index(i);
        let key = text(&expression["key"]);
        errors.check_text(&at.field("key"), key, names::qualified_name(key));
        let values = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&at.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid_text(&at.field("operator"), other, "not a valid selector operator"),
        }
    }
}

/// A map of labels as a selector, in the form `yado_types` matches.
pub fn is_empty_selector(selector: &Value) -> bool {
    let none = |key: &str| selector[key].as_object().is_none_or(serde_json::Map::is_empty);
    none("matchLabels") && list(&selector["matchExpressions"]).is_empty()
}

/// Whether the selector matches the labels; a selector that cannot be read matches nothing.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let Ok(api) = serde_json::from_value(selector.clone()) else { return false };
    let Ok(parsed) = yado_types::selector::LabelSelector::from_api(&api) else { return false };
    parsed.matches_with(|key| labels.get(key).and_then(Value::as_str))
}
