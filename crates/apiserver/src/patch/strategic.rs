//! Strategic merge patch: a merge patch that knows which lists are merged by which key.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Kind, Message, Shape, message};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of `kind`; on an error `target` is as it was.
pub fn strategic_merge(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed("a strategic merge patch must be a JSON object"));
    };
    let mut result = match target {
        Value::Object(object) => object.clone(),
        _ => Map::new(),
    };
    merge_object(message(kind.message), &mut result, patch)?;
    *target = Value::Object(result);
    Ok(())
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

/// The directive in a `$patch` key.
#[derive(PartialEq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, PatchError> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(malformed(format!("Unknown patch type found: {other}"))),
    }
}

fn merge_object(
    schema: Option<&'static Message>,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Delete => {
            target.clear();
            return Ok(());
        }
        Directive::Replace => {
            *target =
                patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
    }
    if let Some(keep) = patch.get(RETAIN_KEYS) {
        let keep = list(RETAIN_KEYS, keep)?;
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            let gone = list(key, value)?;
            if let Some(Value::Array(items)) = target.get_mut(name) {
                items.retain(|item| !gone.contains(item));
            }
        } else if let Some(name) = key.strip_prefix(SET_ORDER) {
            // Together with the list's own entry, if the patch has one.
            if !patch.contains_key(name) {
                let field = schema.and_then(|m| m.field(name));
                reorder_only(field, target, name, list(key, value)?);
            }
        } else {
            let field = schema.and_then(|m| m.field(key));
            let order = patch.get(&format!("{SET_ORDER}{key}"));
            let order = order.map(|o| list(SET_ORDER, o)).transpose()?;
            merge_field(field, target, key, value, order)?;
        }
    }
    Ok(())
}

fn list<'a>(what: &str, value: &'a Value) -> Result<&'a [Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| malformed(format!("{what} must be a list")))
}

fn merge_field(
    field: Option<&'static Field>,
    target: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    order: Option<&[Value]>,
) -> Result<(), PatchError> {
    match value {
        Value::Null => {
            target.shift_remove(key);
        }
        Value::Object(patch) => {
            // Values of a map are plain, so what is below one has no schema.
            let schema = field.filter(|f| f.shape == Shape::Single).and_then(|f| f.inner.message());
            let mut object = match target.get_mut(key) {
                Some(Value::Object(object)) => std::mem::take(object),
                _ if directive(patch)? == Directive::Delete => return Ok(()),
                _ => Map::new(),
            };
            merge_object(schema, &mut object, patch)?;
            if directive(patch)? == Directive::Delete && object.is_empty() {
                target.shift_remove(key);
            } else {
                target.insert(key.to_owned(), Value::Object(object));
            }
        }
        Value::Array(items) => match field.filter(|f| f.merges && f.shape == Shape::List) {
            None => {
                target.insert(key.to_owned(), value.clone());
            }
            Some(field) => {
                let mut current = match target.get_mut(key) {
                    Some(Value::Array(current)) => std::mem::take(current),
                    _ => Vec::new(),
                };
                merge_list(field, &mut current, items, order)?;
                target.insert(key.to_owned(), Value::Array(current));
            }
        },
        plain => {
            target.insert(key.to_owned(), plain.clone());
        }
    }
    Ok(())
}

/// The identity of a list item: its merge key's value, or, for plain values, itself. `None` where it lacks the key.
fn identity(key: Option<&str>, item: &Value) -> Option<String> {
    match key {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    }
}

/// Where each item is first.
fn places(key: Option<&str>, items: &[Value]) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        if let Some(identity) = identity(key, item) {
            places.entry(identity).or_insert(at);
        }
    }
    places
}

fn merge_list(
    field: &'static Field,
    current: &mut Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
) -> Result<(), PatchError> {
    let key = field.merge_key;
    let before = places(key, current);
    match key {
        None => {
            let mut known = places(None, current);
            for item in patch {
                if let Slot::Vacant(slot) = known.entry(item.to_string()) {
                    slot.insert(current.len());
                    current.push(item.clone());
                }
            }
        }
        Some(key) => merge_keyed(field, key, current, patch)?,
    }
    // Without a stated order it is that of the patch, as `mergeSlice` in k8s.io/apimachinery has it: what is new to the
    // list then comes before what only the server knows.
    put_in_order(key, current, order.unwrap_or(patch), &before);
    Ok(())
}

fn merge_keyed(
    field: &'static Field,
    key: &str,
    current: &mut Vec<Value>,
    patch: &[Value],
) -> Result<(), PatchError> {
    let mut replaces = false;
    for item in patch {
        let Value::Object(object) = item else {
            return Err(malformed(format!("the list \"{}\" holds objects, not {item}", field.name)));
        };
        replaces |= directive(object)? == Directive::Replace && !object.contains_key(key);
    }
    if replaces {
        *current = patch.iter().filter(|item| item.get(PATCH).is_none()).cloned().collect();
        return Ok(());
    }
    let schema = field.inner.message();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, item) in current.iter().enumerate() {
        if let Some(identity) = identity(Some(key), item) {
            places.entry(identity).or_default().push(at);
        }
    }
    for item in patch.iter().filter_map(Value::as_object) {
        if !item.contains_key(key) {
            return Err(malformed(format!(
                "map: {} does not contain declared merge key: {key}",
                Value::Object(item.clone())
            )));
        }
        let identity = item[key].to_string();
        match (directive(item)?, places.get(&identity).and_then(|found| found.first())) {
            (Directive::Delete, _) => {
                // Their places stay until the end, so that those of others hold.
                for at in places.remove(&identity).into_iter().flatten() {
                    current[at] = Value::Null;
                }
            }
            (_, Some(&at)) => {
                if let Value::Object(object) = &mut current[at] {
                    merge_object(schema, object, item)?;
                }
            }
            (_, None) => {
                let mut object = Map::new();
                merge_object(schema, &mut object, item)?;
                places.insert(identity, vec![current.len()]);
                current.push(Value::Object(object));
            }
        }
    }
    current.retain(|item| !item.is_null());
    Ok(())
}

fn reorder_only(field: Option<&'static Field>, target: &mut Map<String, Value>, name: &str, order: &[Value]) {
    if let (Some(field), Some(Value::Array(items))) =
        (field.filter(|f| f.merges && f.shape == Shape::List), target.get_mut(name))
    {
        let before = places(field.merge_key, items);
        put_in_order(field.merge_key, items, order, &before);
    }
}

/// Items that `order` names come in its order. The others, which only the server knows, keep their place before those
/// named items that stood behind them in the list as it was.
fn put_in_order(key: Option<&str>, items: &mut Vec<Value>, order: &[Value], before: &HashMap<String, usize>) {
    let order = places(key, order);
    let place = |list: &HashMap<String, usize>, item: &Value| list.get(&identity(key, item)?).copied();
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|item| place(&order, item).is_some());
    named.sort_by_cached_key(|item| place(&order, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(a), Some(b)) = (others.peek(), named.peek()) {
        let stood_before =
            matches!((place(before, a), place(before, b)), (Some(a_at), Some(b_at)) if a_at < b_at);
        items.extend(if stood_before { others.next() } else { named.next() });
    }
    items.extend(others);
    items.extend(named);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::find;

    fn check(kind: &str, mut target: Value, patch: Value, expect: Value) {
        let kind = find("", "v1", kind).or_else(|| find("apps", "v1", kind)).expect("a kind");
        strategic_merge(kind, &mut target, &patch).unwrap_or_else(|e| panic!("{patch}: {e}"));
        assert_eq!(target.to_string(), expect.to_string(), "{patch}");
    }

    #[test]
    fn lists_merge_by_their_key() {
        let pod =
            || json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let rows = [
            (
                json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "2"}]}}),
                json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "2"}, {"name": "b", "image": "1"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
                json!({"spec": {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!({"spec": {"containers": [{"name": "b", "image": "1"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
                json!({"spec": {"containers": [{"name": "z"}]}}),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "n"}, {"name": "b"}, {"name": "a"}],
                    "containers": [{"name": "n"}]}}),
                json!({"spec": {"containers": [{"name": "n"}, {"name": "b", "image": "1"}, {"name": "a", "image": "1"}]}}),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "n"}], "containers": [{"name": "n"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}, {"name": "n"}]}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "image": null, "command": ["x"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "command": ["x"]}, {"name": "b", "image": "1"}]}}),
            ),
        ];
        for (patch, expect) in rows {
            check("Pod", pod(), patch, expect);
        }
    }

    #[test]
    fn directives_and_plain_fields() {
        let meta = |m: Value| json!({"metadata": m});
        let rows = [
            (
                "Pod",
                meta(json!({"labels": {"a": "1"}})),
                meta(json!({"labels": {"b": "2", "a": null}})),
                meta(json!({"labels": {"b": "2"}})),
            ),
            (
                "Pod",
                meta(json!({"finalizers": ["a", "b"]})),
                meta(json!({"finalizers": ["c"]})),
                meta(json!({"finalizers": ["c", "a", "b"]})),
            ),
            (
                "Pod",
                meta(json!({"finalizers": ["a", "b"]})),
                meta(
                    json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}),
                ),
                meta(json!({"finalizers": ["c", "b"]})),
            ),
            (
                "Deployment",
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                "Pod",
                json!({"spec": {"nodeSelector": {"a": "b"}}}),
                json!({"spec": {"nodeSelector": {"$patch": "replace", "c": "d"}}}),
                json!({"spec": {"nodeSelector": {"c": "d"}}}),
            ),
            (
                "Pod",
                json!({"spec": {"securityContext": {"runAsUser": 1}}}),
                json!({"spec": {"securityContext": {"$patch": "delete"}}}),
                json!({"spec": {}}),
            ),
            (
                "Pod",
                json!({"spec": {"tolerations": [{"key": "a"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
                json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
                json!({"spec": {"ports": [{"port": 80, "nodePort": 30000, "targetPort": "http"}]}}),
            ),
        ];
        for (kind, target, patch, expect) in rows {
            check(kind, target, patch, expect);
        }
    }

    #[test]
    fn malformed_patches_change_nothing() {
        let pod = find("", "v1", "Pod").expect("a kind");
        let rows = [
            (
                json!({"metadata": {"name": "y"}, "spec": {"containers": [{"image": "x"}]}}),
                "does not contain declared merge key: name",
            ),
            (json!({"spec": {"$patch": "jump"}}), "Unknown patch type found: jump"),
            (json!([1]), "must be a JSON object"),
            (json!({"spec": {"containers": ["x"]}}), "holds objects"),
        ];
        for (patch, expect) in rows {
            let mut target = json!({"metadata": {"name": "x"}});
            let error = strategic_merge(pod, &mut target, &patch).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error}");
            assert_eq!(target, json!({"metadata": {"name": "x"}}));
        }
    }
}
