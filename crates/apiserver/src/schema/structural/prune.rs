//! Pruning: fields that a custom kind's schema does not describe are dropped.

use serde_json::Value;

use super::{Additional, Structural};

/// Fields that every object has, whatever its schema says of them; their own rules hold for them.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// Fields that are named in the answer: the first ones show what is wrong.
const MAX_NAMED: usize = 100;

/// Drops what the schema of a kind does not describe from one of its objects. Returns the paths of what was dropped,
/// like `spec.replica`, at most 100 of them.
pub fn prune_object(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { dropped: Vec::new() };
    pruner.object(schema, object, "", true, false);
    pruner.dropped
}

/// The same for a value within an object.
pub fn prune(schema: &Structural, value: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { dropped: Vec::new() };
    pruner.value(schema, value, "", false);
    pruner.dropped
}

struct Pruner {
    dropped: Vec<String>,
}

impl Pruner {
    /// A value within an object. `keeps` is whether the array that it is an item of keeps what its items' schema does not
    /// describe.
    fn value(&mut self, schema: &Structural, value: &mut Value, path: &str, keeps: bool) {
        match value {
            Value::Object(_) => self.object(schema, value, path, schema.embedded, keeps),
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    self.value(of, item, &format!("{path}[{at}]"), keeps || schema.preserves_unknown);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Structural, value: &mut Value, path: &str, is_object: bool, keeps: bool) {
        let Value::Object(map) = value else { return };
        let of_object = |name: &str| is_object && OBJECT_FIELDS.contains(&name);
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let keeps_unknown = keeps || schema.preserves_unknown || matches!(schema.additional, Additional::Any);
        if !keeps_unknown && !matches!(schema.additional, Additional::Of(_)) {
            let dropped = &mut self.dropped;
            map.retain(|name, _| {
                let known = schema.properties.contains_key(name) || of_object(name);
                if !known && dropped.len() < MAX_NAMED {
                    dropped.push(at(name));
                }
                known
            });
        }
        for (name, value) in map.iter_mut().filter(|(name, _)| !of_object(name)) {
            if let Some(property) = schema.property(name) {
                self.value(property, value, &at(name), false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_are_not_described_are_dropped_and_named() {
        let known = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let rows = [
            (known.clone(), json!({"a": 1, "b": 2}), json!({"a": 1}), vec!["spec.b"]),
            (json!({"type": "object"}), json!({"a": {"b": 1}}), json!({}), vec!["spec.a"]),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"n": known}}),
                json!({"x": {"y": 1}, "n": {"a": 1, "c": 3}}),
                json!({"x": {"y": 1}, "n": {"a": 1}}),
                vec!["spec.n.c"],
            ),
            (
                json!({"type": "object", "additionalProperties": known}),
                json!({"x": {"a": 1, "b": 2}}),
                json!({"x": {"a": 1}}),
                vec!["spec.x.b"],
            ),
            (
                json!({"type": "object", "additionalProperties": true}),
                json!({"x": {"a": 1}}),
                json!({"x": {"a": 1}}),
                vec![],
            ),
            (
                json!({"type": "array", "items": known}),
                json!([{"a": 1}, {"b": 1}]),
                json!([{"a": 1}, {}]),
                vec!["spec[1].b"],
            ),
            (
                json!({"type": "array", "x-kubernetes-preserve-unknown-fields": true,
                    "items": {"type": "object", "properties": {"n": known}}}),
                json!([{"x": {"y": 1}, "n": {"a": 1, "c": 3}}]),
                json!([{"x": {"y": 1}, "n": {"a": 1}}]),
                vec!["spec[0].n.c"],
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": {"spec": {"type": "object"}}}),
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"a": 1}, "status": {}}),
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "spec": {}}),
                vec!["spec.status", "spec.spec.a"],
            ),
        ];
        for (schema, given, expect, dropped) in rows {
            let schema = json!({"type": "object", "properties": {"spec": schema}});
            let mut object =
                json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "spec": given});
            assert_eq!(prune_object(&Structural::read(&schema), &mut object), dropped, "{schema}");
            assert_eq!(object["spec"], expect, "{schema}");
            assert_eq!(object["metadata"]["name"], "a");
        }
    }
}
