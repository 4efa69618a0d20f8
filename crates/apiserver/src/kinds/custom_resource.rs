//! Objects of custom kinds: their CustomResourceDefinition is their strategy.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cel::Budget;
use crate::edit::map_at;
use crate::kinds::strategy::{Strategy, reset_all_but};
use crate::resource::Subresource;
use crate::schema::structural;
use crate::schema::validate::Errors;
use crate::schema::{Custom, JsonPath};
use crate::table::Column;
use crate::table::format::since;

impl Strategy for Custom {
    fn counts_generations(&self) -> bool {
        true
    }

    /// Of the metadata, a write of the status changes nothing but who manages which fields, as in Kubernetes.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            let managed = new["metadata"].get("managedFields").cloned();
            reset_all_but(&["status"], new, old);
            if let (Some(managed), Some(metadata)) = (managed, map_at(new, &["metadata"])) {
                metadata.insert("managedFields".into(), managed);
            }
        }
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let mut value = Value::Object(std::mem::take(object));
        structural::fill(self.schema(), &mut value);
        if let Value::Object(filled) = value {
            *object = filled;
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let found = structural::validate(self.schema(), object, "");
        // Rules rest on the types of what they read.
        let is_sound = found.is_empty();
        errors.extend(found);
        if is_sound && !self.rules().is_empty() {
            errors.extend(self.rules().check(object, old, &mut Budget::default()));
        }
    }

    fn field<'a>(&self, object: &'a Value, path: &str) -> Cow<'a, str> {
        let Some(known) = self.selectable.iter().find(|known| known.name() == path) else {
            return crate::object::field_at(object, path);
        };
        match known.find(object).first() {
            Some(Value::String(text)) => text.as_str().into(),
            None | Some(Value::Null) => "".into(),
            Some(other) => other.to_string().into(),
        }
    }

    fn selectable_fields(&self) -> Vec<&str> {
        self.selectable.iter().map(JsonPath::name).collect()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        let printed = self.columns.iter().skip(1).zip(&self.paths);
        std::iter::once(name).chain(printed.map(|(column, path)| cell(column, path, object, now))).collect()
    }
}

/// The value of a column; `null` where there is none, or one of another type.
fn cell(column: &Column, path: &JsonPath, object: &Value, now: Timestamp) -> Value {
    let found = path.find(object);
    let Some(first) = found.first() else { return Value::Null };
    match (&*column.kind, first) {
        ("integer", Value::Number(n)) => match n.as_i64().or_else(|| n.as_f64().map(|n| n as i64)) {
            Some(n) => n.into(),
            None => Value::Null,
        },
        ("integer", Value::String(text)) => text.parse::<i64>().map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", _) => match found.as_slice() {
            [Value::String(text)] => text.as_str().into(),
            [only] => only.to_string().into(),
            all => {
                let text = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                all.iter().map(text).collect::<Vec<_>>().join(",").into()
            }
        },
        ("date", Value::String(_)) => since(first, now).into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::kinds_of;

    #[test]
    fn columns_show_what_their_paths_lead_to() {
        let column =
            |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let definition = json!({
            "metadata": {"name": "tabs.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
                "additionalPrinterColumns": [
                    column("Replicas", "integer", ".spec.replicas"), column("Hosts", "string", ".spec.hosts[*]"),
                    column("Ready", "boolean", ".status.ready"), column("Age", "date", ".metadata.creationTimestamp"),
                    column("None", "string", ".spec.nothing"),
                ],
            }]},
            "status": {"acceptedNames": {"plural": "tabs", "singular": "tab", "kind": "Tab", "listKind": "TabList"}},
        });
        let kinds = kinds_of(&definition);
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "hosts": ["x", "y"]}, "status": {"ready": true},
        });
        let now = "2026-01-01T00:05:00Z".parse().expect("a time");
        let strategy = kinds[0].strategy();
        assert_eq!(
            strategy.cells(&object, now),
            json!(["a", 3, "x,y", true, "5m", null]).as_array().cloned().unwrap_or_default()
        );
        assert_eq!(strategy.columns().len(), 6);
    }
}
