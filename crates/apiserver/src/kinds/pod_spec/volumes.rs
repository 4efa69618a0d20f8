//! Rules of the volumes of a Pod.

use std::collections::HashSet;

use serde_json::{Map, Value};
use yado_types::names;

use crate::edit::{list, text};
use crate::schema::validate::{Errors, Path};
use crate::tokens::lifetime_error;

/// Checks the volumes and returns their names.
pub fn validate_volumes<'a>(volumes: &'a Value, at: &Path<'_>, errors: &mut Errors) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for (i, volume) in list(volumes).iter().enumerate() {
        let at = at.index(i);
        let name = text(&volume["name"]);
        if name.is_empty() {
            errors.required(&at.field("name"), "");
        } else {
            errors.check_text(&at.field("name"), name, names::dns_label(name));
            if !seen.insert(name) {
                errors.duplicate(&at.field("name"), &volume["name"]);
            }
        }
        if let Value::Object(volume) = volume {
            source(volume, &at, errors);
        }
    }
    seen
}

fn source(volume: &Map<String, Value>, at: &Path<'_>, errors: &mut Errors) {
    let mut sources = volume.iter().filter(|(key, _)| *key != "name");
    let Some((key, source)) = sources.next() else {
        errors.required(at, "must specify a volume type");
        return;
    };
    for (key, _) in sources {
        errors.forbidden(&at.field(key), "may not specify more than 1 volume type");
    }
    let at = at.field(key);
    let needed = match key.as_str() {
        "secret" => "secretName",
        "configMap" => "name",
        "hostPath" => "path",
        "persistentVolumeClaim" => "claimName",
        "projected" => return projected_tokens(source, &at, errors),
        _ => return,
    };
    if text(&source[needed]).is_empty() {
        errors.required(&at.field(needed), "");
    }
    if key == "hostPath" && text(&source["path"]).split('/').any(|part| part == "..") {
        errors.invalid(&at.field("path"), &source["path"], "must not contain '..'");
    }
    let mode = &source["defaultMode"];
    if mode.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&at.field("defaultMode"), mode, detail);
    }
    for (i, item) in list(&source["items"]).iter().enumerate() {
        let items = at.field("items");
        let at = items.index(i);
        for part in ["key", "path"] {
            if text(&item[part]).is_empty() {
                errors.required(&at.field(part), "");
            }
        }
        relative_path(&item["path"], &at.field("path"), errors);
    }
}

fn relative_path(path: &Value, at: &Path<'_>, errors: &mut Errors) {
    let path = text(path);
    if path.starts_with('/') {
        errors.invalid_text(at, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        errors.invalid_text(at, path, "must not contain '..'");
    }
}

fn projected_tokens(projected: &Value, at: &Path<'_>, errors: &mut Errors) {
    let sources = at.field("sources");
    for (i, source) in list(&projected["sources"]).iter().enumerate() {
        let token = &source["serviceAccountToken"];
        if !token.is_object() {
            continue;
        }
        let (at, seconds) = (sources.index(i), &token["expirationSeconds"]);
        let at = at.field("serviceAccountToken");
        if text(&token["path"]).is_empty() {
            errors.required(&at.field("path"), "");
        }
        relative_path(&token["path"], &at.field("path"), errors);
        if let Some(why) = seconds.as_i64().and_then(lifetime_error) {
            errors.invalid(&at.field("expirationSeconds"), seconds, why);
        }
    }
}
