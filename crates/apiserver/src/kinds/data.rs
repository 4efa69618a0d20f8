//! Rules for the data of ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::edit::text;
use crate::schema::validate::{Errors, Path};

/// Bytes of the data of one object.
pub const MAX_DATA: usize = 1024 * 1024;

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

/// Bytes of a value in base64.
pub fn decoded_len(value: &Value) -> usize {
    STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len())
}

/// Checks the names of the entries in the field `key`, and returns the sum of their sizes.
pub fn entries(object: &Value, key: &str, size: fn(&Value) -> usize, errors: &mut Errors) -> usize {
    let root = Path::root();
    let at = root.field(key);
    let mut total = 0;
    for (name, value) in object[key].as_object().into_iter().flatten() {
        errors.check_text(&at.key(name), name, key_rule(name));
        total += size(value);
    }
    total
}

/// An object that has made itself immutable stays so, and keeps the fields `keys`.
pub fn immutable(object: &Value, old: Option<&Value>, keys: &[&str], errors: &mut Errors) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let root = Path::root();
    if object["immutable"] != true {
        errors.forbidden(&root.field("immutable"), "field is immutable when `immutable` is set");
    }
    for key in keys.iter().filter(|key| old[**key] != object[**key]) {
        errors.forbidden(&root.field(key), "field is immutable when `immutable` is set");
    }
}
