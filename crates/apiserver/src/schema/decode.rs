//! From JSON as sent to an object of a kind: unknown fields, wrong types, canonical forms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields::{Field, Inner, Message, Shape, message};
use super::json::Parsed;
use super::{Custom, Kind, Name, structural};

/// Handling of unknown and duplicate fields; the `fieldValidation` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them in silence.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty is the default, `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Warn" => Self::Warn,
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// Why a body is no object of its kind. The answer is 400 `BadRequest` with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in version \"{version}\" cannot be handled as a {kind}: {problem}")]
pub struct DecodeError {
    /// The kind that was meant.
    pub kind: Name,
    /// Its version.
    pub version: Name,
    /// Description of the mistake.
    pub problem: String,
}

/// No request says more than this many oddities: the first ones show what is wrong, and the answer stays small.
const MAX_ODDITIES: usize = 100;

/// Makes `parsed` an object of `kind`: checks types, drops nulls, unknown fields and zero values that Kubernetes does
/// not store (`""`, `0`, `false`, `[]` where they mean the same as nothing), writes quantities and times in their
/// canonical form. Returns the object and the warnings to send (empty unless `Warn`).
pub fn decode(
    kind: &Kind,
    parsed: Parsed,
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    let fail = |problem| DecodeError { kind: kind.kind.clone(), version: kind.version.clone(), problem };
    let mut value = parsed.value;
    let mut odd = match &kind.custom {
        Some(custom) => custom_object(custom, &mut value).map_err(fail)?,
        None => {
            // A kind without fields in the table cannot occur: a test walks all kinds.
            let root = message(kind.message).ok_or_else(|| fail("its fields are not known".into()))?;
            table_object(root, &mut value).map_err(fail)?
        }
    };
    if mode == FieldValidation::Ignore {
        return Ok((value, Vec::new()));
    }
    odd.extend(parsed.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")));
    odd.truncate(MAX_ODDITIES);
    match mode {
        FieldValidation::Strict if !odd.is_empty() => {
            Err(fail(format!("strict decoding error: {}", odd.join(", "))))
        }
        _ => Ok((value, odd)),
    }
}

/// Decodes an object of a built-in type; returns what is unknown in it.
fn table_object(root: &'static Message, value: &mut Value) -> Result<Vec<String>, String> {
    let mut decoder = Decoder { path: Vec::new(), odd: Vec::new() };
    match value {
        Value::Object(object) => decoder.object(root, object)?,
        other => {
            let found = json_type(other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type {}", root.go_name()));
        }
    }
    Ok(decoder.odd)
}

/// Decodes an object of a custom kind: its metadata as that of any object, the rest by its schema. Types are checked when
/// it is validated.
fn custom_object(custom: &Custom, value: &mut Value) -> Result<Vec<String>, String> {
    let Some(object) = value.as_object_mut() else {
        let found = json_type(value);
        return Err(format!(
            "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        ));
    };
    let mut decoder = Decoder { path: vec![Step::Name("metadata")], odd: Vec::new() };
    match (object.get_mut("metadata"), message("meta.v1.ObjectMeta")) {
        (Some(Value::Object(metadata)), Some(fields)) => decoder.object(fields, metadata)?,
        (None | Some(Value::Null), _) | (_, None) => {}
        (Some(other), _) => {
            let found = json_type(other);
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field .metadata of type v1.ObjectMeta"
            ));
        }
    }
    structural::drop_nulls(custom.schema(), value);
    let unknown = structural::prune_object(custom.schema(), value);
    decoder.odd.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    Ok(decoder.odd)
}

enum Step {
    Name(&'static str),
    Key(String),
    Index(usize),
}

struct Decoder {
    path: Vec<Step>,
    odd: Vec<String>,
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Decoder {
    /// `spec.containers[0].image`; without indexes and keys of maps it is how type errors name it.
    fn path(&self, with_indexes: bool) -> String {
        let mut text = String::new();
        for step in &self.path {
            let name = match step {
                Step::Name(name) => *name,
                Step::Key(key) if with_indexes => key.as_str(),
                Step::Index(at) if with_indexes => {
                    text.push_str(&format!("[{at}]"));
                    continue;
                }
                Step::Key(_) | Step::Index(_) => continue,
            };
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }

    fn object(&mut self, message: &'static Message, object: &mut Map<String, Value>) -> Result<(), String> {
        let mut dropped = Vec::new();
        for (key, value) in object.iter_mut() {
            let Some(field) = message.field(key) else {
                if !(message.typed && matches!(key.as_str(), "apiVersion" | "kind")) {
                    self.unknown(key);
                    dropped.push(key.clone());
                }
                continue;
            };
            if !value.is_null() {
                self.path.push(Step::Name(field.name));
                self.field(message, field, value)?;
                self.path.pop();
            }
            if is_nothing(field, value) {
                dropped.push(key.clone());
            }
        }
        for key in dropped {
            object.shift_remove(&key);
        }
        Ok(())
    }

    fn unknown(&mut self, key: &str) {
        if self.odd.len() < MAX_ODDITIES {
            let path = self.path(true);
            let dot = if path.is_empty() { "" } else { "." };
            self.odd.push(format!("unknown field \"{path}{dot}{key}\""));
        }
    }

    fn field(
        &mut self,
        owner: &'static Message,
        field: &'static Field,
        value: &mut Value,
    ) -> Result<(), String> {
        match (field.shape, value) {
            (Shape::Single, value) => self.one(owner, field, value),
            (Shape::List, Value::Array(list)) => {
                for (at, item) in list.iter_mut().enumerate() {
                    self.path.push(Step::Index(at));
                    if item.is_null() && matches!(field.inner, Inner::Message(_)) {
                        *item = Value::Object(Map::new());
                    }
                    self.one(owner, field, item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Shape::Map, Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    if item.is_null() && field.inner == Inner::String {
                        *item = Value::String(String::new());
                    }
                    self.path.push(Step::Key(key.clone()));
                    self.one(owner, field, item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (_, value) => Err(self.wrong_type(owner, field, value, true)),
        }
    }

    fn one(
        &mut self,
        owner: &'static Message,
        field: &'static Field,
        value: &mut Value,
    ) -> Result<(), String> {
        let good = match (field.inner, &*value) {
            (Inner::Message(reference), value_now) if reference.get().union => {
                return match reference.get().member(value_now) {
                    Some(member) => self.field(reference.get(), member, value),
                    None => Err(self.wrong_type(owner, field, value, false)),
                };
            }
            (Inner::Message(reference), Value::Object(_)) => {
                let Value::Object(object) = value else { return Ok(()) };
                return self.object(reference.get(), object);
            }
            (Inner::Bool, Value::Bool(_)) | (Inner::String, Value::String(_)) | (Inner::Any, _) => true,
            (Inner::Int32, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Inner::Int64, Value::Number(n)) => n.is_i64(),
            (Inner::Double, Value::Number(_)) | (Inner::IntOrString, Value::String(_)) => true,
            (Inner::IntOrString, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Inner::Strings, Value::Array(list)) => list.iter().all(Value::is_string),
            (Inner::Bytes, Value::String(text)) => {
                STANDARD
                    .decode(text)
                    .map_err(|e| format!("illegal base64 data at input byte {}", at_byte(e)))?;
                true
            }
            (Inner::Time | Inner::MicroTime, Value::String(text)) => {
                let time = canonical_time(text, field.inner == Inner::MicroTime)?;
                *value = Value::String(time);
                true
            }
            (Inner::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                *value = Value::String(yado_types::quantity::canonical(&text).ok_or(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                )?);
                true
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(self.wrong_type(owner, field, value, false)) }
    }

    fn wrong_type(&self, owner: &Message, field: &Field, value: &Value, whole: bool) -> String {
        let found = match value {
            Value::Number(n) if matches!(field.inner, Inner::Int32 | Inner::Int64) && !whole => {
                format!("number {n}")
            }
            other => json_type(other).to_owned(),
        };
        let inner = match field.inner {
            Inner::Bool => "bool",
            Inner::Int32 => "int32",
            Inner::Int64 => "int64",
            Inner::Double => "float64",
            Inner::String => "string",
            Inner::Strings => "[]string",
            Inner::Bytes => "[]uint8",
            Inner::Time => "string",
            Inner::MicroTime => "string",
            Inner::Quantity => "resource.Quantity",
            Inner::IntOrString => "intstr.IntOrString",
            Inner::Any => "interface {}",
            Inner::Message(reference) => reference.get().go_name(),
        };
        let shape = match field.shape {
            Shape::List if whole => "[]",
            Shape::Map if whole => "map[string]",
            _ => "",
        };
        format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {shape}{inner}",
            owner.short_name(),
            self.path(false)
        )
    }
}

fn at_byte(error: base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        base64::DecodeError::InvalidLength(at) => at,
        base64::DecodeError::InvalidPadding => 0,
    }
}

/// Whether the value means the same as no value, so that Kubernetes does not keep it.
fn is_nothing(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    if field.shape != Shape::Single {
        return match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty() && !matches!(field.inner, Inner::Any),
            _ => false,
        };
    }
    if field.keeps_zero {
        return false;
    }
    match (field.inner, value) {
        (Inner::String, Value::String(text)) => text.is_empty(),
        (Inner::Bool, Value::Bool(yes)) => !yes,
        (Inner::Int32 | Inner::Int64, Value::Number(n)) => n.as_i64() == Some(0),
        _ => false,
    }
}

/// RFC 3339 in UTC, to the second or to the microsecond.
fn canonical_time(text: &str, micro: bool) -> Result<String, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let time: Timestamp = text.parse().map_err(|_| {
        format!("parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\"")
    })?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
