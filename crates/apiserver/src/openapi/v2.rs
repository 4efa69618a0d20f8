//! OpenAPI v2: one document of all kinds, by which kubectl and helm validated before version 3 existed, and from which
//! clients are generated.
//!
//! It is made from the parts of version 3, one group and version after the other, so that only one of them is in memory
//! as values. Version 2 has neither alternatives nor null: what a schema says by them is left out, as Kubernetes does,
//! so that a client which validates by it refuses nothing that the server takes.

mod protobuf;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{VERSION, hash, paths, schemas, versions};
use crate::resource::Resources;
use crate::schema::Kind;

const DEFINITIONS: &str = "#/definitions/";
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// How a document is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON text.
    Json,
    /// `openapi.v2.Document`, as gnostic defines it and Go clients ask for it.
    Protobuf,
}

/// A text that is equal as long as the document of these kinds is.
pub fn tag(served: &Resources, encoding: Encoding) -> String {
    let kinds = served.iter().filter(|r| r.is_stored()).map(|r| &*r.schema);
    format!("{}{}", hash(kinds), if encoding == Encoding::Json { "J" } else { "P" })
}

/// The document of all kinds that are served here, those of aggregated servers excepted. It takes some hundred
/// milliseconds and MiB to make.
pub fn document(served: &Resources, encoding: Encoding) -> Vec<u8> {
    let mut writer = Writer::new(encoding);
    let mut known = BTreeSet::new();
    for (group, version) in versions(served) {
        let kinds: Vec<&Kind> =
            served.of_version(group, version).filter(|r| r.is_stored()).map(|r| &*r.schema).collect();
        for (path, item) in paths::paths(&kinds) {
            writer.path(&path, &path_item(item));
        }
        for (name, mut definition) in schemas::schemas(&kinds) {
            if !known.contains(&name) {
                schema(&mut definition);
                writer.definition(&name, &definition);
                known.insert(name);
            }
        }
    }
    writer.finish()
}

/// Gathers the two large parts of a document in its encoding.
struct Writer {
    encoding: Encoding,
    paths: Vec<u8>,
    definitions: Vec<u8>,
}

impl Writer {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, paths: Vec::new(), definitions: Vec::new() }
    }

    fn path(&mut self, path: &str, item: &Value) {
        match self.encoding {
            Encoding::Json => json_entry(&mut self.paths, path, item),
            Encoding::Protobuf => protobuf::path(&mut self.paths, path, item),
        }
    }

    fn definition(&mut self, name: &str, schema: &Value) {
        match self.encoding {
            Encoding::Json => json_entry(&mut self.definitions, name, schema),
            Encoding::Protobuf => protobuf::definition(&mut self.definitions, name, schema),
        }
    }

    fn finish(self) -> Vec<u8> {
        let Self { encoding, paths, definitions } = self;
        match encoding {
            Encoding::Json => {
                let info = json!({"title": "Kubernetes", "version": VERSION});
                let mut text = format!(r#"{{"swagger":"2.0","info":{info},"paths":{{"#).into_bytes();
                text.extend(paths);
                text.extend(br#"},"definitions":{"#);
                text.extend(definitions);
                text.extend(b"}}");
                text
            }
            Encoding::Protobuf => protobuf::document(VERSION, &paths, &definitions),
        }
    }
}

fn json_entry(out: &mut Vec<u8>, name: &str, value: &Value) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend(format!("{}:{value}", Value::from(name)).into_bytes());
}

/// A path of version 3 in the form of version 2.
fn path_item(item: Value) -> Value {
    let Value::Object(members) = item else { return item };
    let converted = members.into_iter().map(|(key, value)| match key.as_str() {
        "parameters" => (key, parameters(&value).into()),
        _ => (key, operation(&value)),
    });
    Value::Object(converted.collect())
}

fn operation(described: &Value) -> Value {
    let mut operation = Map::new();
    let kept = |key: &str| key.starts_with("x-") || ["operationId", "tags"].contains(&key);
    for (key, value) in described.as_object().into_iter().flatten().filter(|(key, _)| kept(key)) {
        operation.insert(key.clone(), value.clone());
    }
    let mut parameters = parameters(&described["parameters"]);
    let body = &described["requestBody"];
    if let Some(content) = body["content"].as_object() {
        let schema = content.values().next().map_or(Value::Null, |c| rewritten(&c["schema"]));
        let required = body["required"].as_bool().unwrap_or(false);
        parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
        operation.insert("consumes".into(), content.keys().cloned().collect());
    }
    operation.insert("parameters".into(), parameters.into());
    operation.insert("produces".into(), json!(MEDIA_TYPES));
    operation.insert("schemes".into(), json!(["https"]));
    let responses = described["responses"].as_object().into_iter().flatten().map(|(code, response)| {
        let mut converted = json!({"description": response["description"]});
        let schema = &response["content"]["application/json"]["schema"];
        if !schema.is_null() {
            converted["schema"] = rewritten(schema);
        }
        (code.clone(), converted)
    });
    operation.insert("responses".into(), Value::Object(responses.collect()));
    Value::Object(operation)
}

/// Parameters whose schemas' members stand beside their names.
fn parameters(described: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut parameter = parameter.clone();
        let schema = parameter.as_object_mut().and_then(|p| p.remove("schema"));
        for (key, value) in schema.as_ref().and_then(Value::as_object).into_iter().flatten() {
            parameter[key] = value.clone();
        }
        parameter
    };
    described.as_array().into_iter().flatten().map(flat).collect()
}

fn rewritten(described: &Value) -> Value {
    let mut converted = described.clone();
    schema(&mut converted);
    converted
}

/// Brings a schema of version 3 into the form of version 2.
fn schema(described: &mut Value) {
    let Value::Object(object) = described else { return };
    let all_of = object.remove("allOf");
    if let Some(target) = all_of.as_ref().and_then(|all| all.pointer("/0/$ref")) {
        object.insert("$ref".into(), target.clone());
    }
    if let Some(Value::String(target)) = object.get_mut("$ref") {
        *target = target.replacen(schemas::PREFIX, DEFINITIONS, 1);
    }
    let is_number_or_text = object.remove("oneOf").is_some() && !object.contains_key("type");
    if is_number_or_text && !object.contains_key("x-kubernetes-int-or-string") {
        object.insert("type".into(), "string".into());
    }
    for unknown in ["anyOf", "not", "default"] {
        object.remove(unknown);
    }
    let is_set = |object: &Map<String, Value>, key: &str| object.get(key) == Some(&Value::Bool(true));
    let is_nullable = is_set(object, "nullable");
    object.remove("nullable");
    if is_nullable {
        // Null would be refused as of another type.
        for typed in ["type", "items", "properties", "additionalProperties", "required"] {
            object.remove(typed);
        }
    }
    if is_set(object, "x-kubernetes-preserve-unknown-fields") {
        // Clients take properties for the only ones there may be.
        object.remove("items");
        let is_kind = object.contains_key("x-kubernetes-group-version-kind");
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            properties
                .retain(|name, _| is_kind && ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        }
    }
    // kubectl fails on such a list.
    if !object.contains_key("items") && object.get("type").is_some_and(|kind| kind == "array") {
        object.remove("type");
    }
    nested(object);
}

/// Converts the schemas in a schema.
fn nested(object: &mut Map<String, Value>) {
    let mut nullable = BTreeSet::new();
    for (name, property) in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        if property["nullable"] == true {
            nullable.insert(name.clone());
        }
        schema(property);
    }
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name.as_str().is_none_or(|name| !nullable.contains(name)));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            schema(inner);
        }
    }
}

#[cfg(test)]
#[path = "v2_tests.rs"]
mod tests;
