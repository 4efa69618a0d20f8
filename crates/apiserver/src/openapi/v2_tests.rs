use super::*;
use crate::resource::BUILT_IN;

#[test]
fn schemas_lose_what_version_2_has_no_words_for() {
    let reference = json!({"$ref": "#/components/schemas/io.k8s.A"});
    let text = json!({"type": "string"});
    for (name, given, expected) in [
        (
            "a reference",
            json!({"allOf": [reference], "default": {}, "description": "d"}),
            json!({"$ref": "#/definitions/io.k8s.A", "description": "d"}),
        ),
        (
            "a number or a text",
            json!({"oneOf": [text, {"type": "integer"}], "format": "int-or-string"}),
            json!({"type": "string", "format": "int-or-string"}),
        ),
        (
            "the same of a custom kind",
            json!({"anyOf": [text], "x-kubernetes-int-or-string": true}),
            json!({"x-kubernetes-int-or-string": true}),
        ),
        (
            "null",
            json!({"type": "object", "properties": {"a": {"type": "string", "nullable": true}, "b": text}, "required": ["a", "b"]}),
            json!({"type": "object", "properties": {"a": {}, "b": text}, "required": ["b"]}),
        ),
        (
            "unknown fields",
            json!({"type": "object", "properties": {"a": text}, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true}),
        ),
        (
            "a list of anything",
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"x-kubernetes-preserve-unknown-fields": true}),
        ),
        (
            "properties that are called like keywords",
            json!({"properties": {"default": text, "not": text, "$ref": {"type": "array", "items": reference}}}),
            json!({"properties": {"default": text, "not": text, "$ref": {"type": "array", "items": {"$ref": "#/definitions/io.k8s.A"}}}}),
        ),
        (
            "any properties",
            json!({"type": "object", "additionalProperties": {"type": "integer", "default": 1}}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        ),
    ] {
        assert_eq!(rewritten(&given), expected, "{name}");
    }
}

/// All `$ref` targets that are texts.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(target) = value["$ref"].as_str() {
        found.insert(target.to_owned());
    }
    match value {
        Value::Object(map) => map.values().for_each(|value| references(value, found)),
        Value::Array(list) => list.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_closed_and_has_every_kind() {
    let text = document(&BUILT_IN, Encoding::Json);
    let document: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(document["swagger"], "2.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 300, "{}", found.len());
    for target in found {
        let name = target.strip_prefix(DEFINITIONS).unwrap_or_else(|| panic!("{target}"));
        assert!(document["definitions"].get(name).is_some(), "{target}");
    }
    for kind in BUILT_IN.iter().filter(|r| r.is_stored()).map(|r| &r.schema) {
        let definition = &document["definitions"][schemas::definition_name(kind)];
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        assert_eq!(definition["x-kubernetes-group-version-kind"], json!([gvk]));
    }
    let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods"];
    let (list, create) = (&pods["get"], &pods["post"]);
    assert_eq!(list["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodList");
    let body = json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}});
    assert_eq!(create["parameters"].as_array().expect("a list").last(), Some(&body));
    assert_eq!(
        pods["parameters"][0],
        json!({"name": "namespace", "in": "path", "required": true, "type": "string", "uniqueItems": true})
    );
}

/// The fields of a message: number, bytes of a length-delimited field.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn number(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        match key & 7 {
            0 => drop(number(&mut message)),
            1 => message = &message[8..],
            _ => {
                let len = number(&mut message) as usize;
                found.push((key >> 3, &message[..len]));
                message = &message[len..];
            }
        }
    }
    found
}

fn only(message: &[u8], number: u64) -> &[u8] {
    let mut of = fields(message).into_iter().filter(|(n, _)| *n == number);
    let (_, found) = of.next().unwrap_or_else(|| panic!("field {number} is missing"));
    assert!(of.next().is_none(), "field {number} is there twice");
    found
}

#[test]
fn the_messages_are_those_of_gnostic() {
    let bytes = document(&BUILT_IN, Encoding::Protobuf);
    assert_eq!(only(&bytes, 1), b"2.0");
    let named = |map, number: u64, name: &str| {
        let entries = fields(map).into_iter().filter(|(n, _)| *n == number);
        let mut entries = entries.map(|(_, entry)| (only(entry, 1), only(entry, 2)));
        entries.find(|(n, _)| *n == name.as_bytes()).unwrap_or_else(|| panic!("no {name}")).1
    };
    let definitions = only(&bytes, 9);
    let pod = named(definitions, 1, "io.k8s.api.core.v1.Pod");
    assert_eq!(only(only(pod, 22), 1), b"object");
    let spec = named(only(pod, 25), 1, "spec");
    assert_eq!(only(spec, 1), b"#/definitions/io.k8s.api.core.v1.PodSpec");
    let gvk = only(named(pod, 31, "x-kubernetes-group-version-kind"), 2);
    let gvk: Value = serde_json::from_slice(gvk).expect("JSON");
    assert_eq!(gvk, json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let pod_spec = named(definitions, 1, "io.k8s.api.core.v1.PodSpec");
    let selector = named(only(pod_spec, 25), 1, "nodeSelector");
    assert_eq!(only(only(only(only(selector, 21), 1), 22), 1), b"string");
    let pods = named(only(&bytes, 8), 2, "/api/v1/namespaces/{namespace}/pods");
    let create = only(pods, 4);
    let body = fields(create).into_iter().rfind(|(n, _)| *n == 8).expect("parameters").1;
    let body = only(only(body, 1), 1);
    assert_eq!((only(body, 2), only(body, 3)), (&b"body"[..], &b"body"[..]));
    assert_eq!(only(only(body, 5), 1), b"#/definitions/io.k8s.api.core.v1.Pod");
    let answer = named(only(create, 9), 1, "200");
    assert_eq!(only(only(only(only(answer, 1), 2), 1), 1), b"#/definitions/io.k8s.api.core.v1.Pod");
}
