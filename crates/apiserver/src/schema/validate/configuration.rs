//! ConfigMaps, Secrets, Nodes and the small kinds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::path::{Errors, Path, list, text};

/// The data of a ConfigMap or Secret together.
const MAX_DATA: usize = 1024 * 1024;

fn key_rule(key: &str) -> Result<(), String> {
    if key.len() > 253 {
        return Err("must be no more than 253 characters".into());
    }
    if matches!(key, "." | "..") {
        return Err(format!("must not be '{key}'"));
    }
    if key.starts_with("..") {
        return Err("must not start with '..'".into());
    }
    if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Ok(());
    }
    Err("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
         or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        .into())
}

fn decoded_len(value: &Value) -> usize {
    STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len())
}

/// Names and sizes of the entries of `key`.
fn entries(object: &Value, key: &str, size: fn(&Value) -> usize, errors: &mut Errors) -> usize {
    let root = Path::root();
    let at = root.field(key);
    let mut total = 0;
    for (name, value) in object[key].as_object().into_iter().flatten() {
        errors.check_text(&at.key(name), name, key_rule(name));
        total += size(value);
    }
    total
}

fn immutable(object: &Value, old: Option<&Value>, keys: &[&str], errors: &mut Errors) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let root = Path::root();
    if object["immutable"] != true {
        errors.forbidden(&root.field("immutable"), "field is immutable when `immutable` is set");
    }
    for key in keys.iter().filter(|key| old[**key] != object[**key]) {
        errors.forbidden(&root.field(key), "field is immutable when `immutable` is set");
    }
}

pub fn config_map(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let size = entries(object, "data", |v| text(v).len(), errors)
        + entries(object, "binaryData", decoded_len, errors);
    let both = object["binaryData"].as_object().into_iter().flatten();
    for (name, _) in both.filter(|(name, _)| !object["data"][name.as_str()].is_null()) {
        let at = root.field("data");
        errors.invalid_text(&at.key(name), name, "duplicate of key present in binaryData");
    }
    if size > MAX_DATA {
        errors.too_long(&root, MAX_DATA);
    }
    immutable(object, old, &["data", "binaryData"], errors);
}

pub fn secret(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let at = root.field("data");
    if entries(object, "data", decoded_len, errors) > MAX_DATA {
        errors.too_long(&at, MAX_DATA);
    }
    let needed: &[&str] = match text(&object["type"]) {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" => {
            if object["data"]["username"].is_null() && object["data"]["password"].is_null() {
                errors.required(&at.key("username"), "");
                errors.required(&at.key("password"), "");
            }
            &[]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| object["data"][**key].is_null()) {
        errors.required(&at.key(key), "");
    }
    if old.is_some_and(|old| old["type"] != object["type"]) {
        errors.invalid(&root.field("type"), &object["type"], "field is immutable");
    }
    immutable(object, old, &["data"], errors);
}

pub fn node(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let spec = root.field("spec");
    let at = spec.field("taints");
    for (i, taint) in list(&object["spec"]["taints"]).iter().enumerate() {
        let at = at.index(i);
        let key = text(&taint["key"]);
        errors.check_text(&at.field("key"), key, yado_types::names::qualified_name(key));
        let value = text(&taint["value"]);
        errors.check_text(&at.field("value"), value, yado_types::names::label_value(value));
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if taint["effect"].is_null() {
            errors.required(&at.field("effect"), "");
        }
        errors.one_of(&at.field("effect"), &taint["effect"], &effects);
    }
}

pub fn event(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let about = root.field("involvedObject");
    let (namespace, own) =
        (text(&object["involvedObject"]["namespace"]), text(&object["metadata"]["namespace"]));
    // Events about what has no namespace are kept in the default one.
    let fits = if namespace.is_empty() { matches!(own, "default" | "") } else { namespace == own };
    if !fits {
        errors.invalid_text(&about.field("namespace"), namespace, "does not match event.namespace");
    }
}

pub fn binding(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (target, at) = (&object["target"], root.field("target"));
    errors.one_of(&at.field("kind"), &target["kind"], &["Node", "<empty>"]);
    if text(&target["name"]).is_empty() {
        errors.required(&at.field("name"), "");
    }
}

pub fn lease(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
        errors.invalid(
            &at.field("leaseDurationSeconds"),
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        );
    }
    errors.at_least(&at.field("leaseTransitions"), &spec["leaseTransitions"], 0);
}
