//! Request bodies in `application/vnd.kubernetes.protobuf`, which kubectl and helm send for built-in kinds.
//!
//! A body is `k8s\0` and a `runtime.Unknown` message, which names the kind and holds the object's own message. Fields
//! are told by the numbers of the table in [`crate::schema`]. Go writes every field that is no pointer, so zero values
//! are dropped where they mean nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::schema::{Field, Inner, KINDS, Message, Shape, TooManyValues, Values, message, parse_part};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// No `k8s\0` at the start, or no `runtime.Unknown` after it.
    #[error("the body is not Kubernetes protobuf: it has no \"k8s\\0\" envelope")]
    NoEnvelope,
    /// A kind without protobuf form here.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"; send it as JSON")]
    UnknownKind {
        /// The value in the envelope.
        api_version: String,
        /// The value in the envelope.
        kind: String,
    },
    /// The bytes end early or contradict the table.
    #[error("the protobuf body of a {message} is damaged at field {number}")]
    Damaged {
        /// The type that was being read.
        message: &'static str,
        /// The field's number, 0 where even that could not be read.
        number: u32,
    },
    /// More values than a body may have.
    #[error("the protobuf body is too large: {0}")]
    TooManyValues(#[from] TooManyValues),
}

/// The object as JSON, with `apiVersion` and `kind`.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let type_meta = bytes_field(unknown, 1).ok_or(ProtobufError::NoEnvelope)?;
    let body = bytes_field(unknown, 2).unwrap_or_default();
    let text = |number| {
        let found = bytes_field(type_meta, number).unwrap_or_default();
        String::from_utf8(found.to_vec()).map_err(|_| ProtobufError::NoEnvelope)
    };
    let (api_version, kind) = (text(1)?, text(2)?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    // Clients label options with the version of the resource they go to; their form is the same everywhere.
    let is_meta = |message: &str| message.starts_with("meta.");
    let found = KINDS
        .iter()
        .find(|k| k.kind == kind && (is_meta(k.message) || k.group == group && k.version == version));
    let Some(message) = found.and_then(|k| message(k.message)) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    read_message(message, body, &mut object, &mut Values::default())?;
    Ok(Value::Object(object))
}

/// One field as it travels.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(_) => None,
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    // Ten bytes of seven bits are the longest form of 64 bits.
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The next field's number and content.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let content = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => {
            let (fixed, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Wire::Number(u64::from_le_bytes(*fixed))
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(content)
        }
        5 => {
            let (fixed, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Wire::Number(u32::from_le_bytes(*fixed).into())
        }
        _ => return None,
    };
    Some((number, content))
}

/// The last field of this number, read as bytes.
fn bytes_field(mut bytes: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut found = None;
    while !bytes.is_empty() {
        let (number, content) = next(&mut bytes)?;
        if number == wanted {
            found = content.bytes();
        }
    }
    found
}

fn number_field(mut bytes: &[u8], wanted: u32) -> u64 {
    let mut found = 0;
    while let Some((number, content)) = next(&mut bytes) {
        if number == wanted {
            found = content.number().unwrap_or(0);
        }
    }
    found
}

fn read_message(
    message: &'static Message,
    mut bytes: &[u8],
    object: &mut Map<String, Value>,
    values: &mut Values,
) -> Result<(), ProtobufError> {
    let damaged = |number| ProtobufError::Damaged { message: message.name, number };
    while !bytes.is_empty() {
        let (number, content) = next(&mut bytes).ok_or_else(|| damaged(0))?;
        if let Some(inlined) = message.inlined(number) {
            read_message(inlined, content.bytes().ok_or_else(|| damaged(number))?, object, values)?;
            continue;
        }
        // A field that is newer than the table is dropped, as by an older API server.
        let Some(field) = message.numbered(number) else { continue };
        match field.shape {
            Shape::Single => {
                let value = read_value(field, content, values)?.ok_or_else(|| damaged(number))?;
                if !is_zero(field, &value) {
                    object.insert(field.name.into(), value);
                }
            }
            Shape::List => {
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { continue };
                read_items(field, content, list, values)?.ok_or_else(|| damaged(number))?;
            }
            Shape::Map => {
                let entry = content.bytes().ok_or_else(|| damaged(number))?;
                let (key, value) = read_entry(field, entry, values)?.ok_or_else(|| damaged(number))?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

/// Adds one item, or several where numbers are packed.
fn read_items(
    field: &Field,
    content: Wire<'_>,
    list: &mut Vec<Value>,
    values: &mut Values,
) -> Result<Option<()>, ProtobufError> {
    if let (&Wire::Bytes(mut packed), Inner::Int32 | Inner::Int64 | Inner::Bool) = (&content, field.inner) {
        while !packed.is_empty() {
            let Some(number) = varint(&mut packed) else { return Ok(None) };
            list.extend(read_value(field, Wire::Number(number), values)?);
        }
        return Ok(Some(()));
    }
    Ok(read_value(field, content, values)?.map(|value| list.push(value)))
}

fn read_entry(
    field: &Field,
    mut entry: &[u8],
    values: &mut Values,
) -> Result<Option<(String, Value)>, ProtobufError> {
    values.take(1)?;
    let mut key = String::new();
    // An absent value is the empty one.
    let mut value = match field.inner {
        Inner::Message(_) => Value::Object(Map::new()),
        Inner::Strings => Value::Array(Vec::new()),
        _ => Value::String(String::new()),
    };
    while !entry.is_empty() {
        let read = match next(&mut entry) {
            Some((1, Wire::Bytes(text))) => std::str::from_utf8(text).ok().map(|text| key = text.to_owned()),
            Some((2, content)) => read_value(field, content, values)?.map(|read| value = read),
            Some(_) => Some(()),
            None => None,
        };
        if read.is_none() {
            return Ok(None);
        }
    }
    Ok(Some((key, value)))
}

/// One value; `None` where the bytes do not fit the field. An absent time is `null`.
fn read_value(field: &Field, content: Wire<'_>, values: &mut Values) -> Result<Option<Value>, ProtobufError> {
    values.take(1)?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Value::from);
    Ok(match (field.inner, content) {
        (Inner::Bool, Wire::Number(n)) => Some((n != 0).into()),
        // Negative numbers travel as 64 bits in two's complement, whatever their size.
        (Inner::Int32, Wire::Number(n)) => Some((n as i32).into()),
        (Inner::Int64, Wire::Number(n)) => Some((n as i64).into()),
        (Inner::Double, Wire::Number(n)) => Some(f64::from_bits(n).into()),
        (Inner::String, Wire::Bytes(bytes)) => text(bytes),
        (Inner::Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Inner::Time, Wire::Bytes(bytes)) => read_time(bytes, "%Y-%m-%dT%H:%M:%SZ"),
        (Inner::MicroTime, Wire::Bytes(bytes)) => read_time(bytes, "%Y-%m-%dT%H:%M:%S%.6fZ"),
        (Inner::Quantity, Wire::Bytes(bytes)) => text(bytes_field(bytes, 1).unwrap_or(b"0")),
        (Inner::IntOrString, Wire::Bytes(bytes)) => match number_field(bytes, 1) {
            0 => Some((number_field(bytes, 2) as i32).into()),
            _ => text(bytes_field(bytes, 3).unwrap_or_default()),
        },
        (Inner::Any, Wire::Bytes(bytes)) => match bytes_field(bytes, 1) {
            None => Some(Value::Null),
            Some(json) => parse_part(json, values).ok().map(|parsed| parsed.value),
        },
        (Inner::Strings, Wire::Bytes(mut bytes)) => {
            let mut items = Vec::new();
            while !bytes.is_empty() {
                values.take(1)?;
                match next(&mut bytes).and_then(|(_, item)| text(item.bytes()?)) {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            Some(Value::Array(items))
        }
        (Inner::Message(reference), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            read_message(reference.get(), bytes, &mut object, values)?;
            match reference.get().union {
                true => Some(union_value(&mut object)),
                false => Some(Value::Object(object)),
            }
        }
        _ => None,
    })
}

/// The JSON of a union, of which Go writes all fields: the schema or the list where it has one, else its truth value.
fn union_value(fields: &mut Map<String, Value>) -> Value {
    let lists = ["schema", "schemas", "property", "allows"];
    let given = lists.into_iter().find_map(|name| fields.shift_remove(name));
    given.unwrap_or_else(|| Value::Array(Vec::new()))
}

/// Go's zero time is the first second of the year 1 and stands for no time.
fn read_time(bytes: &[u8], format: &str) -> Option<Value> {
    const GO_ZERO: i64 = -62_135_596_800;
    let (seconds, nanos) = (number_field(bytes, 1) as i64, number_field(bytes, 2) as i32);
    if (seconds == 0 && nanos == 0) || seconds == GO_ZERO {
        return Some(Value::Null);
    }
    Timestamp::new(seconds, nanos).ok().map(|time| time.strftime(format).to_string().into())
}

fn is_zero(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        _ if field.keeps_zero => false,
        Value::Bool(yes) => !yes,
        Value::Number(n) => n.as_i64() == Some(0) && field.inner != Inner::IntOrString,
        Value::String(text) => text.is_empty() || (field.inner == Inner::Quantity && text == "0"),
        Value::Object(object) => object.is_empty(),
        Value::Array(_) => false,
    }
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
