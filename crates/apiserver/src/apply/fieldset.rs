//! Sets of field paths, in the form in which `managedFields` holds them.

use serde_json::{Map, Value};

/// A set of paths as a tree: `{"f:spec": {"f:replicas": {}}}` holds `.spec.replicas`. An empty object is a path that
/// belongs to the set; in an object that is not empty, `.` says that its own path belongs too. It is the JSON of
/// `fieldsV1` itself, so that reading and writing it costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(pub Map<String, Value>);

const SELF: &str = ".";

/// Whether a node's own path belongs to its set.
pub fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

impl FieldSet {
    /// Reads `fieldsV1`.
    pub fn read(value: &Value) -> Self {
        Self(value.as_object().cloned().unwrap_or_default())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    /// The paths in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    /// The paths in `self` only.
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Adds the paths of another set.
    pub fn extend(&mut self, other: &Self) {
        extend(&mut self.0, &other.0);
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        Self(children(&self.0, &other.0, keep))
    }

    /// Whether a path is in both.
    pub fn meets(&self, other: &Self) -> bool {
        meet(&self.0, &other.0)
    }

    /// The paths as text, like `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.0, &mut String::new(), &mut paths);
        paths
    }

    /// Adds a path's last step with what is below it; the path itself too, if `member`.
    pub fn insert(&mut self, step: &str, mut below: FieldSet, member: bool) {
        if member && !below.is_empty() {
            below.0.insert(SELF.into(), Value::Object(Map::new()));
        }
        if member || !below.is_empty() {
            self.0.insert(step.to_owned(), Value::Object(below.0));
        }
    }
}

fn extend(a: &mut Map<String, Value>, b: &Map<String, Value>) {
    for (step, b) in b.iter().filter(|(step, _)| *step != SELF) {
        match (a.get_mut(step), b) {
            (Some(Value::Object(a)), Value::Object(b)) => {
                let member = is_member(a) || is_member(b);
                a.shift_remove(SELF);
                extend(a, b);
                if member && !a.is_empty() {
                    a.insert(SELF.into(), Value::Object(Map::new()));
                }
            }
            _ => _ = a.insert(step.clone(), b.clone()),
        }
    }
}

fn meet(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.iter().filter(|(step, _)| *step != SELF).any(|(step, a)| match (a, b.get(step)) {
        (Value::Object(a), Some(Value::Object(b))) => (is_member(a) && is_member(b)) || meet(a, b),
        _ => false,
    })
}

fn children(
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    keep: fn(bool, bool) -> bool,
) -> Map<String, Value> {
    let only_b = b.keys().filter(|key| !a.contains_key(*key));
    let mut result = Map::new();
    for key in a.keys().chain(only_b).filter(|key| *key != SELF) {
        let (a, b) = (a.get(key).and_then(Value::as_object), b.get(key).and_then(Value::as_object));
        if let Some(node) = node(a, b, keep) {
            result.insert(key.clone(), Value::Object(node));
        }
    }
    result
}

fn node(
    a: Option<&Map<String, Value>>,
    b: Option<&Map<String, Value>>,
    keep: fn(bool, bool) -> bool,
) -> Option<Map<String, Value>> {
    let empty = Map::new();
    let member = keep(a.is_some_and(is_member), b.is_some_and(is_member));
    let mut below = children(a.unwrap_or(&empty), b.unwrap_or(&empty), keep);
    if below.is_empty() {
        return member.then_some(below);
    }
    if member {
        below.insert(SELF.into(), Value::Object(Map::new()));
    }
    Some(below)
}

fn collect(node: &Map<String, Value>, path: &mut String, paths: &mut Vec<String>) {
    for (step, below) in node {
        let Value::Object(below) = below else { continue };
        if step == SELF {
            continue;
        }
        let length = path.len();
        path.push_str(&step_text(step));
        if is_member(below) {
            paths.push(path.clone());
        }
        collect(below, path, paths);
        path.truncate(length);
    }
}

pub fn step_text(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("i", index)) => format!("[{index}]"),
        _ => step.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_combine() {
        let a =
            FieldSet::read(&json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {".": {}, "f:e": {}}, "f:x": {}}));
        let b = FieldSet::read(&json!({"f:a": {"f:b": {}}, "f:d": {}, "f:x": {"f:y": {}}}));
        assert_eq!(
            a.union(&b).0,
            *json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {".": {}, "f:e": {}}, "f:x": {".": {}, "f:y": {}}})
                .as_object()
                .expect("a map")
        );
        let mut both = a.clone();
        both.extend(&b);
        assert_eq!(both, a.union(&b));
        assert_eq!(a.intersection(&b).0, *json!({"f:a": {"f:b": {}}, "f:d": {}}).as_object().expect("a map"));
        assert_eq!(
            a.minus(&b).0,
            *json!({"f:a": {"f:c": {}}, "f:d": {"f:e": {}}, "f:x": {}}).as_object().expect("a map")
        );
        assert!(a.minus(&a).is_empty());
        assert!(a.meets(&b) && !a.minus(&b).meets(&b));
    }

    #[test]
    fn paths_read_as_kubectl_prints_them() {
        let set = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}});
        assert_eq!(
            FieldSet::read(&set).paths(),
            [
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".metadata.finalizers[=\"x\"]",
            ]
        );
    }
}
