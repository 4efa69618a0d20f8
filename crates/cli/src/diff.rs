//! What is different between two states of an object, as a person would say it.

use std::collections::BTreeSet;

use serde_json::Value;

/// What no description says of an object, or what says which object it is.
const ASIDE: [&str; 3] = ["apiVersion", "kind", "status"];
/// Fields shown of one object: more is no overview.
const SHOWN: usize = 8;
/// Characters shown of one value.
const LONGEST: usize = 40;

/// `spec.replicas: 1 -> 2`, for each field that is different, the first few. Values of Secrets are not shown.
pub fn changes(before: &Value, after: &Value) -> Vec<String> {
    let secret = after["kind"] == "Secret";
    let mut found = Vec::new();
    let parts = before.as_object().into_iter().chain(after.as_object()).flat_map(|o| o.keys());
    let parts: BTreeSet<&String> = parts.filter(|part| !ASIDE.contains(&part.as_str())).collect();
    for part in parts {
        walk(part.clone(), &before[part], &after[part], &mut found);
    }
    let left = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let line = |(path, from, to): (String, &Value, &Value)| {
        if secret && !path.starts_with("metadata") {
            return path;
        }
        match (short(from), short(to)) {
            (None, Some(to)) => format!("{path}: {to}"),
            (Some(from), None) => format!("{path}: {from} -> gone"),
            (Some(from), Some(to)) => format!("{path}: {from} -> {to}"),
            (None, None) => path,
        }
    };
    let mut lines: Vec<String> = found.into_iter().map(line).collect();
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    lines
}

/// What the server keeps count with, which changes along with anything.
const BOOKKEEPING: [&str; 5] = [
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.uid",
    "metadata.creationTimestamp",
];

type Difference<'a> = (String, &'a Value, &'a Value);

fn walk<'a>(path: String, before: &'a Value, after: &'a Value, found: &mut Vec<Difference<'a>>) {
    static NULL: Value = Value::Null;
    if before == after || BOOKKEEPING.contains(&path.as_str()) {
        return;
    }
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys {
                // A key with dots, such as an annotation's, would look like a path.
                let step = if key.contains('.') { format!("[{key}]") } else { format!(".{key}") };
                let (a, b) = (a.get(key).unwrap_or(&NULL), b.get(key).unwrap_or(&NULL));
                walk(format!("{path}{step}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => arrays(&path, a, b, found),
        _ => found.push((path, before, after)),
    }
}

/// Items that have names are compared by name, others by place.
fn arrays<'a>(path: &str, before: &'a [Value], after: &'a [Value], found: &mut Vec<Difference<'a>>) {
    static NULL: Value = Value::Null;
    let named = |list: &[Value]| list.iter().all(|v| v["name"].is_string());
    if named(before) && named(after) {
        let get = |list: &'a [Value], name: &Value| list.iter().find(|v| v["name"] == *name).unwrap_or(&NULL);
        let added = after.iter().filter(|v| !before.iter().any(|b| b["name"] == v["name"]));
        for item in before.iter().chain(added) {
            let name = &item["name"];
            let step = format!("{path}[{}]", name.as_str().unwrap_or_default());
            walk(step, get(before, name), get(after, name), found);
        }
        return;
    }
    for i in 0..before.len().max(after.len()) {
        let (a, b) = (before.get(i).unwrap_or(&NULL), after.get(i).unwrap_or(&NULL));
        walk(format!("{path}[{i}]"), a, b, found);
    }
}

/// A value in a few characters; none for what is not there.
fn short(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => format!("{text:?}"),
        Value::Object(_) if value["value"].is_string() && value["name"].is_string() => {
            value["value"].to_string()
        }
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return Some(text);
    }
    Some(text.chars().take(LONGEST).chain("...".chars()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_said_by_field() {
        let check = |before: Value, after: Value, expect: &[&str]| {
            assert_eq!(changes(&before, &after), expect, "{before} {after}");
        };
        let deployment = |replicas: i32, image: &str| {
            json!({"kind": "Deployment", "metadata": {"generation": replicas, "labels": {"a.b/c": "d"}},
                "spec": {"replicas": replicas, "template": {"spec": {"containers": [
                    {"name": "web", "image": image, "args": ["a"]}]}}}})
        };
        check(deployment(1, "a"), deployment(1, "a"), &[]);
        check(
            deployment(1, "a"),
            deployment(2, "b"),
            &["spec.replicas: 1 -> 2", "spec.template.spec.containers[web].image: \"a\" -> \"b\""],
        );
        check(
            json!({"metadata": {"annotations": {"a/b.c": "1"}}}),
            json!({"metadata": {"annotations": {}}}),
            &["metadata.annotations[a/b.c]: \"1\" -> gone"],
        );
        let secret = |word: &str| json!({"kind": "Secret", "data": {"password": word}});
        check(secret("eA=="), secret("eQ=="), &["data.password"]);
        let map = |n: usize| json!({"data": (0..n).map(|i| (i.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>()});
        assert_eq!(changes(&map(0), &map(12)).last().unwrap(), "and 4 more");
    }
}
