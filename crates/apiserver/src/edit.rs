//! Reading and changing fields of JSON objects, none of which panics: assigning by index
//! (`object["spec"]["replicas"] = 1.into()`) does where something other than an object is in the way.

use serde_json::{Map, Value};

/// Sets a field that is absent.
pub fn fill(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !object.contains_key(key) {
        object.insert(key.to_owned(), value.into());
    }
}

/// The object in a field, made where the field is absent or null. `None` where something else is there, which decoding
/// excludes.
pub fn within<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The object at the end of a path of fields, made with those on the way where they are absent or null. `None` where
/// something else is there.
pub fn map_at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(value.as_object_mut()?, |object, key| within(object, key))
}

/// The object in a field, if there is one.
pub fn existing<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

/// The object at the end of a path of fields, if there is one.
pub fn existing_at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(value.as_object_mut()?, |object, key| existing(object, key))
}

/// The objects in a list field.
pub fn objects<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Makes a field what it is in another object: set, or absent.
pub fn copy(from: &Value, to: &mut Map<String, Value>, key: &str) {
    match from.get(key) {
        Some(value) => _ = to.insert(key.to_owned(), value.clone()),
        None => _ = to.shift_remove(key),
    }
}

/// The text in a field; empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The list in a field; empty where there is none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_made_on_the_way_and_nothing_else_is_replaced() {
        for (given, expect) in [
            (json!({}), json!({"a": {"b": {"x": 1}}})),
            (json!({"a": null}), json!({"a": {"b": {"x": 1}}})),
            (json!({"a": {"b": {"y": 2}}}), json!({"a": {"b": {"y": 2, "x": 1}}})),
            (json!({"a": "text"}), json!({"a": "text"})),
            (json!({"a": {"b": [1]}}), json!({"a": {"b": [1]}})),
            (json!("text"), json!("text")),
        ] {
            let mut value = given.clone();
            if let Some(map) = map_at(&mut value, &["a", "b"]) {
                map.insert("x".into(), 1.into());
            }
            assert_eq!(value, expect, "{given}");
        }
    }
}
