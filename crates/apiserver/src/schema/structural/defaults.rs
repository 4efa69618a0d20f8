//! Defaulting: values that a custom kind's schema fills in.

use serde_json::Value;

use super::{Additional, Structural};

/// Fills in the defaults of what is absent, from the outside in, so that the defaults of a default's own fields apply
/// too. A `null` that the schema does not allow counts as absent.
pub fn fill(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let is_absent = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !property.nullable,
                    Some(_) => false,
                };
                match &property.default {
                    Some(default) if is_absent => _ = map.insert(name.clone(), default.clone()),
                    None if is_absent => continue,
                    _ => {}
                }
                if let Some(value) = map.get_mut(name) {
                    fill(property, value);
                }
            }
            if let Additional::Of(values) = &schema.additional {
                for (_, value) in map.iter_mut() {
                    if let (Value::Null, false, Some(default)) = (&*value, values.nullable, &values.default) {
                        *value = default.clone();
                    }
                    fill(values, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for item in items {
                if let (Value::Null, false, Some(default)) = (&*item, of.nullable, &of.default) {
                    *item = default.clone();
                }
                fill(of, item);
            }
        }
        _ => {}
    }
}

/// Drops fields that are `null` where the schema neither allows `null` nor has a default: clients write them for fields
/// that they do not set.
pub fn drop_nulls(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let property = schema.properties.get(name);
                !value.is_null()
                    || property.is_none_or(|p| p.nullable || p.kind.is_none() || p.default.is_some())
            });
            for (name, value) in map.iter_mut() {
                if let Some(property) = schema.property(name) {
                    drop_nulls(property, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(of, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_is_filled_in_from_the_outside_in() {
        let schema = json!({"type": "object", "properties": {
            "n": {"type": "integer", "default": 1},
            "o": {"type": "object", "default": {}, "properties": {"p": {"type": "string", "default": "x"}}},
            "q": {"type": "object", "properties": {"p": {"type": "string", "default": "x"}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "integer", "default": 7}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string", "default": "d"}},
            "z": {"type": "string", "nullable": true, "default": "never"},
        }});
        let rows = [
            (json!({}), json!({"n": 1, "o": {"p": "x"}, "z": "never"})),
            (
                json!({"n": 5, "o": {"p": "y"}, "q": {}, "l": [{}, {"k": 1}], "m": {"a": null}, "z": null}),
                json!({"n": 5, "o": {"p": "y"}, "q": {"p": "x"}, "l": [{"k": 7}, {"k": 1}], "m": {"a": "d"}, "z": null}),
            ),
            (json!({"n": null}), json!({"n": 1, "o": {"p": "x"}, "z": "never"})),
        ];
        for (mut given, expect) in rows {
            fill(&Structural::read(&schema), &mut given);
            assert_eq!(given, expect);
        }
    }
}
