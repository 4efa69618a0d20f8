//! Validation of custom objects by their schema, in the words of kube-openapi's validator.

use serde_json::Value;

use super::{Additional, Items, Structural, Type, formats};
use crate::schema::{FieldError, Reason};

/// Errors that are reported of one object; the first ones show what is wrong.
const MAX_ERRORS: usize = 100;

/// The errors of a value; `path` is its own, empty for a whole object.
pub fn validate(schema: &Structural, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, value, path, &mut errors);
    errors.truncate(MAX_ERRORS);
    errors
}

/// Whether a value violates nothing.
fn holds(schema: &Structural, value: &Value) -> bool {
    validate(schema, value, "").is_empty()
}

/// The path of a value in messages; that of a whole object is shown like this.
fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn add(errors: &mut Vec<FieldError>, path: &str, reason: Reason, message: String) {
    if errors.len() < MAX_ERRORS {
        errors.push(FieldError { field: shown(path).to_owned(), reason, message });
    }
}

fn invalid(errors: &mut Vec<FieldError>, path: &str, value: &Value, detail: &str) {
    let value = match value {
        Value::Object(_) | Value::Array(_) => value.to_string(),
        Value::Null => "\"null\"".to_owned(),
        scalar => scalar.to_string(),
    };
    add(errors, path, Reason::Invalid, format!("Invalid value: {value}: {detail}"));
}

fn check(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= MAX_ERRORS || (value.is_null() && schema.nullable) {
        return;
    }
    if !has_type(schema, value, path, errors) {
        return;
    }
    scalars(schema, value, path, errors);
    match value {
        Value::Object(map) => object(schema, map, value, path, errors),
        Value::Array(items) => list(schema, items, value, path, errors),
        _ => {}
    }
    conditions(schema, value, path, errors);
}

fn has_type(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let expected = match schema.kind {
        _ if schema.int_or_string => {
            let fits = value.is_string() || Type::Integer.fits(value);
            if fits {
                return true;
            }
            "integer,string"
        }
        Some(kind) if !kind.fits(value) => kind.name(),
        _ => return true,
    };
    let detail = format!("{} in body must be of type {expected}: \"{found}\"", path);
    add(errors, path, Reason::Invalid, format!("Invalid value: \"{found}\": {detail}"));
    false
}

fn scalars(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let limits = &schema.limits;
    if let Some(values) = limits.values.as_ref().filter(|values| !values.iter().any(|v| equal(v, value))) {
        let known: Vec<String> = values.iter().map(|v| v.to_string()).collect();
        let given = value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"));
        let message = format!("Unsupported value: {given}: supported values: {}", known.join(", "));
        add(errors, path, Reason::NotSupported, message);
    }
    if let Some(number) = value.as_f64() {
        if let Some((most, excluded)) = limits.maximum
            && (number > most || excluded && number >= most)
        {
            let than = if excluded { "less than" } else { "less than or equal to" };
            invalid(errors, path, value, &format!("{path} in body should be {than} {most}"));
        }
        if let Some((least, excluded)) = limits.minimum
            && (number < least || excluded && number <= least)
        {
            let than = if excluded { "greater than" } else { "greater than or equal to" };
            invalid(errors, path, value, &format!("{path} in body should be {than} {least}"));
        }
        if let Some(of) = limits.multiple_of.filter(|of| *of > 0.0 && (number / of).fract() != 0.0) {
            invalid(errors, path, value, &format!("{path} in body should be a multiple of {of}"));
        }
    }
    let Some(text) = value.as_str() else { return };
    let length = text.chars().count() as u64;
    if let Some(most) = limits.max_length.filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        add(errors, path, Reason::TooLong, message);
    }
    if let Some(least) = limits.min_length.filter(|least| length < *least) {
        invalid(errors, path, value, &format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = &limits.pattern
        && pattern.regex.as_ref().is_some_and(|regex| !regex.is_match(text))
    {
        invalid(errors, path, value, &format!("{path} in body should match '{}'", pattern.text));
    }
    if let Some(format) = limits.format.as_deref().filter(|format| !formats::fits(format, text)) {
        invalid(errors, path, value, &format!("{path} in body must be of type {format}: {text:?}"));
    }
}

fn object(
    schema: &Structural,
    map: &serde_json::Map<String, Value>,
    whole: &Value,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let limits = &schema.limits;
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let count = map.len() as u64;
    if let Some(most) = limits.max_properties.filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        add(errors, path, Reason::TooMany, message);
    }
    if let Some(least) = limits.min_properties.filter(|least| count < *least) {
        let detail = format!("{} in body should have at least {least} properties", path);
        invalid(errors, path, whole, &detail);
    }
    for name in limits.required.iter().filter(|name| !map.contains_key(*name)) {
        add(errors, &below(name), Reason::Required, "Required value".into());
    }
    for (name, value) in map {
        let property = schema.properties.get(name);
        if let Some(property) = property {
            check(property, value, &below(name), errors);
        } else if let Additional::Of(values) = &schema.additional {
            check(values, value, &below(name), errors);
        }
    }
}

fn list(schema: &Structural, items: &[Value], whole: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let limits = &schema.limits;
    let count = items.len() as u64;
    if let Some(most) = limits.max_items.filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        add(errors, path, Reason::TooMany, message);
    }
    if let Some(least) = limits.min_items.filter(|least| count < *least) {
        let detail = format!("{} in body should have at least {least} items", path);
        invalid(errors, path, whole, &detail);
    }
    if let Some(of) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            check(of, item, &format!("{path}[{at}]"), errors);
        }
    }
    duplicates(&schema.list, items, path, errors);
}

/// Items of sets and of lists with keys are there once.
fn duplicates(list: &Items, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let key = |item: &Value| match list {
        Items::Atomic => None,
        Items::Set => Some(item.to_string()),
        Items::Map(keys) => {
            let found = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
            Some(Value::Object(found).to_string())
        }
    };
    let mut seen = std::collections::HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let Some(key) = key(item) else { return };
        if !seen.insert(key.clone()) {
            add(errors, &format!("{path}[{at}]"), Reason::Duplicate, format!("Duplicate value: {key}"));
        }
    }
}

fn conditions(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for condition in &schema.all_of {
        check(condition, value, path, errors);
    }
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(|condition| holds(condition, value)) {
        invalid(errors, path, value, &format!("{path} in body must validate at least one schema (anyOf)"));
        if let Some(condition) = schema.any_of.first() {
            check(condition, value, path, errors);
        }
    }
    let matching = schema.one_of.iter().filter(|condition| holds(condition, value)).count();
    if !schema.one_of.is_empty() && matching != 1 {
        let found = if matching == 0 { "Found none valid" } else { "Found more than one valid" };
        let detail = format!("{path} in body must validate one and only one schema (oneOf). {found}");
        invalid(errors, path, value, &detail);
    }
    if schema.not.as_ref().is_some_and(|not| holds(not, value)) {
        invalid(errors, path, value, &format!("{path} in body must not validate the schema (not)"));
    }
}

/// Numbers are equal by value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
