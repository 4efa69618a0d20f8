//! The messages of `openapi.v2` (gnostic's `openapiv2/OpenAPIv2.proto`), as far as the documents here use them.

use serde_json::{Map, Value};

/// How the members of a JSON object become the fields of a message.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// The number under which members that begin with `x-` are.
    extensions: u32,
}

/// How a value becomes a field.
enum Form {
    Text,
    /// A list of texts, or one.
    Texts,
    Flag,
    Integer,
    Double,
    /// A value of any type, as its text in YAML, of which JSON is a part.
    Any,
    /// A list of such values.
    Anys,
    /// A message inside messages in which it has these numbers.
    In(&'static [u32], &'static Message),
    /// A map by names to such messages, in a message of its own where its entries have number 1.
    Named(&'static [u32], &'static Message),
    /// `additionalProperties`: a schema, or whether there may be any.
    Additional,
    /// `type`: texts in a message of their own.
    Type,
    /// Parameters, whose message their place tells.
    Parameters,
}

use Form::{Additional, Any, Anys, Double, Flag, In, Integer, Named, Parameters, Text, Texts, Type};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Additional),
        ("type", 22, Type),
        ("items", 23, In(&[1], &SCHEMA)),
        ("properties", 25, Named(&[], &SCHEMA)),
        ("example", 30, Any),
    ],
    extensions: 31,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Parameters),
        ("responses", 9, Named(&[1], &RESPONSE)),
        ("schemes", 10, Texts),
    ],
    extensions: 13,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, In(&[1], &SCHEMA))], extensions: 5 };

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, In(&[], &OPERATION)),
        ("put", 3, In(&[], &OPERATION)),
        ("post", 4, In(&[], &OPERATION)),
        ("delete", 5, In(&[], &OPERATION)),
        ("patch", 8, In(&[], &OPERATION)),
        ("parameters", 9, Parameters),
    ],
    extensions: 10,
};

static BODY_PARAMETER: Message = Message {
    fields: &[("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, In(&[], &SCHEMA))],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("uniqueItems", 20, Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("uniqueItems", 19, Flag),
    ],
    extensions: 22,
};

/// Appends a path to the `Paths` of a document.
pub fn path(paths: &mut Vec<u8>, path: &str, item: &Value) {
    entry(paths, 2, path, &message(&PATH_ITEM, item));
}

/// Appends a schema to the `Definitions` of a document.
pub fn definition(definitions: &mut Vec<u8>, name: &str, schema: &Value) {
    entry(definitions, 1, name, &message(&SCHEMA, schema));
}

/// The document of these parts.
pub fn document(version: &str, paths: &[u8], definitions: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    bytes(&mut info, 1, b"Kubernetes");
    bytes(&mut info, 2, version.as_bytes());
    let mut document = Vec::with_capacity(paths.len() + definitions.len() + 64);
    bytes(&mut document, 1, b"2.0");
    bytes(&mut document, 2, &info);
    bytes(&mut document, 8, paths);
    bytes(&mut document, 9, definitions);
    document
}

fn message(of: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let Value::Object(members) = value else { return out };
    for (key, value) in members {
        if key.starts_with("x-") {
            entry(&mut out, of.extensions, key, &any(value));
        } else if let Some((_, number, form)) = of.fields.iter().find(|(name, ..)| name == key) {
            field(&mut out, *number, form, value);
        } else {
            debug_assert!(false, "{key} has no place in a message of OpenAPI v2");
        }
    }
    out
}

fn field(out: &mut Vec<u8>, number: u32, form: &Form, value: &Value) {
    let items = || value.as_array().into_iter().flatten();
    match form {
        Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Texts => texts(out, number, value),
        Flag => varint_field(out, number, value.as_bool().unwrap_or_default().into()),
        // Two's complement, as protobuf has it for `int64`.
        Integer => varint_field(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Double => {
            varint(out, u64::from(number) << 3 | 1);
            out.extend(value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Any => bytes(out, number, &any(value)),
        Anys => items().for_each(|item| bytes(out, number, &any(item))),
        In(path, of) => bytes(out, number, &within(path, message(of, value))),
        Named(path, of) => {
            let mut map = Vec::new();
            for (name, value) in value.as_object().map(Map::iter).into_iter().flatten() {
                entry(&mut map, 1, name, &within(path, message(of, value)));
            }
            bytes(out, number, &map);
        }
        Additional => {
            let mut item = Vec::new();
            match value {
                Value::Bool(any) => varint_field(&mut item, 2, (*any).into()),
                schema => bytes(&mut item, 1, &message(&SCHEMA, schema)),
            }
            bytes(out, number, &item);
        }
        Type => {
            let mut types = Vec::new();
            texts(&mut types, 1, value);
            bytes(out, number, &types);
        }
        Parameters => {
            for parameter in items() {
                let (path, of): (&[u32], _) = match parameter["in"].as_str() {
                    Some("body") => (&[1, 1], &BODY_PARAMETER),
                    Some("path") => (&[1, 2, 4], &PATH_PARAMETER),
                    _ => (&[1, 2, 3], &QUERY_PARAMETER),
                };
                bytes(out, number, &within(path, message(of, parameter)));
            }
        }
    }
}

fn texts(out: &mut Vec<u8>, number: u32, value: &Value) {
    let one = std::slice::from_ref(value);
    let list = value.as_array().map_or(one, Vec::as_slice);
    list.iter().filter_map(Value::as_str).for_each(|text| bytes(out, number, text.as_bytes()));
}

/// `Any`: its text is field 2.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

/// Wraps a message in others, in which it has these numbers, from the outermost.
fn within(path: &[u32], inner: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(inner, |inner, number| {
        let mut outer = Vec::with_capacity(inner.len() + 6);
        bytes(&mut outer, *number, &inner);
        outer
    })
}

/// An entry of a map: its name is field 1, its value field 2.
fn entry(out: &mut Vec<u8>, number: u32, name: &str, value: &[u8]) {
    let mut pair = Vec::with_capacity(name.len() + value.len() + 12);
    bytes(&mut pair, 1, name.as_bytes());
    bytes(&mut pair, 2, value);
    bytes(out, number, &pair);
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    varint(out, u64::from(number) << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
