//! Values as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::error::EvalError;
use super::library::time::format_duration;
use super::value::{Key, List, Map, Value};
use crate::schema::Values;

/// Bytes of all texts of a value: a request has not more. Values share their parts, JSON does not.
const MAX_TEXT: usize = 3 << 20;
/// The largest whole number up to which a double has all of them.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// The JSON of a value: times and durations as text, bytes in base64.
///
/// # Errors
/// Where it has no form in JSON, or a very large one.
pub fn to_json(value: &Value) -> Result<Json, EvalError> {
    Writer { values: Values::default(), text: MAX_TEXT }.value(value)
}

struct Writer {
    values: Values,
    /// Bytes of texts that may still follow.
    text: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<Json, EvalError> {
        self.values.take(1).map_err(|error| EvalError::Failed(error.to_string()))?;
        Ok(match value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Uint(n) => Json::from(*n),
            Value::Double(n) => number(*n)?,
            Value::String(text) => self.string(text)?,
            Value::Bytes(bytes) => self.string(&STANDARD.encode(bytes))?,
            Value::Duration(nanoseconds) => self.string(&format_duration(*nanoseconds))?,
            Value::Timestamp(time) => self.string(&time.to_string())?,
            Value::List(List::Json(items, _)) => self.copy_all(items.iter())?,
            Value::List(list) => list.iter().map(|item| self.value(&item?)).collect::<Result<_, _>>()?,
            Value::Map(Map::Json(map, _) | Map::Object(map, _)) => self.copy_map(map)?,
            Value::Map(Map::Made(entries)) => {
                let mut map = JsonMap::with_capacity(entries.len());
                for (key, value) in entries.iter() {
                    let Key::String(name) = key else {
                        let text = "a map whose keys are not all strings has no form in JSON";
                        return Err(EvalError::Failed(text.to_owned()));
                    };
                    self.count(name)?;
                    map.insert(name.to_string(), self.value(value)?);
                }
                Json::Object(map)
            }
            Value::Object(object) => {
                let mut map = JsonMap::with_capacity(object.fields.len());
                for (name, value) in &object.fields {
                    map.insert((*name).to_owned(), self.value(value)?);
                }
                Json::Object(map)
            }
            Value::Optional(Some(value)) => self.value(value)?,
            Value::Optional(None) => Json::Null,
            Value::Type(_) | Value::Opaque(_) => {
                let text = format!("a value of type {} has no form in JSON", value.type_name());
                return Err(EvalError::Failed(text));
            }
        })
    }

    fn count(&mut self, text: &str) -> Result<(), EvalError> {
        let left = self.text.checked_sub(text.len());
        self.text = left.ok_or_else(|| EvalError::failed("the texts of the result are too long"))?;
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<Json, EvalError> {
        self.count(text)?;
        Ok(Json::from(text))
    }

    /// What is JSON already keeps the form that it has.
    fn copy(&mut self, json: &Json) -> Result<Json, EvalError> {
        self.values.take(1).map_err(|error| EvalError::Failed(error.to_string()))?;
        match json {
            Json::String(text) => self.string(text),
            Json::Array(items) => self.copy_all(items.iter()),
            Json::Object(map) => self.copy_map(map),
            other => Ok(other.clone()),
        }
    }

    fn copy_all<'j>(&mut self, items: impl Iterator<Item = &'j Json>) -> Result<Json, EvalError> {
        items.map(|item| self.copy(item)).collect::<Result<Vec<_>, _>>().map(Json::Array)
    }

    fn copy_map(&mut self, map: &JsonMap<String, Json>) -> Result<Json, EvalError> {
        let mut copied = JsonMap::with_capacity(map.len());
        for (name, value) in map {
            self.count(name)?;
            copied.insert(name.clone(), self.copy(value)?);
        }
        Ok(Json::Object(copied))
    }
}

/// A whole number that was made by way of a double is written as one.
fn number(n: f64) -> Result<Json, EvalError> {
    let is_whole = n.fract() == 0.0 && n.abs() <= MAX_EXACT;
    let number = if is_whole { Some(Number::from(n as i64)) } else { Number::from_f64(n) };
    number.map(Json::Number).ok_or_else(|| EvalError::Failed(format!("the number {n} has no form in JSON")))
}
