//! Converts CustomResourceDefinitions of versions before `apiextensions.k8s.io/v1`.

use serde_json::{Map, Value, json};

/// Moves the single version and schema into a list of versions, each with its schema.
pub(super) fn modernise(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let keep_unknown = spec.shift_remove("preserveUnknownFields").is_none_or(|p| p == true);
    let common: Vec<(&str, Option<Value>)> = vec![
        ("schema", spec.shift_remove("validation")),
        ("subresources", spec.shift_remove("subresources")),
        ("additionalPrinterColumns", spec.shift_remove("additionalPrinterColumns").map(columns)),
    ];
    let version = spec.shift_remove("version");
    let versions = spec.entry("versions").or_insert_with(
        || json!([{ "name": version.unwrap_or_else(|| "v1".into()), "served": true, "storage": true }]),
    );
    for version in versions.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(own) = version.get_mut("additionalPrinterColumns") {
            *own = columns(own.take());
        }
        for (key, value) in &common {
            if let Some(value) = value {
                version.entry(*key).or_insert_with(|| value.clone());
            }
        }
        let schema = version.entry("schema").or_insert(json!({})).as_object_mut();
        if let Some(schema) = schema {
            structural(schema, keep_unknown);
        }
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(client) = conversion.shift_remove("webhookClientConfig")
    {
        let reviews =
            conversion.shift_remove("conversionReviewVersions").unwrap_or_else(|| json!(["v1beta1"]));
        conversion
            .insert("webhook".into(), json!({ "clientConfig": client, "conversionReviewVersions": reviews }));
    }
    spec.entry("scope").or_insert("Namespaced".into());
}

/// Adds the schema that every version requires; a version without one accepted any object.
fn structural(schema: &mut Map<String, Value>, keep_unknown: bool) {
    let root = schema.entry("openAPIV3Schema").or_insert(json!({}));
    if let Some(root) = root.as_object_mut() {
        root.entry("type").or_insert("object".into());
        if keep_unknown {
            root.entry("x-kubernetes-preserve-unknown-fields").or_insert(true.into());
        }
    }
}

fn columns(mut columns: Value) -> Value {
    for column in columns.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(path) = column.shift_remove("JSONPath") {
            column.insert("jsonPath".into(), path);
        }
    }
    columns
}
