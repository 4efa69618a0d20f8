//! Reading JSON while noticing keys that occur twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why bytes are not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is not valid JSON: {0}")]
pub struct MalformedBody(#[from] serde_json::Error);

/// A body and what was odd about its text.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value; the last of duplicate keys wins.
    pub value: Value,
    /// The paths of keys that occurred twice, like `spec.replicas`.
    pub duplicates: Vec<String>,
}

impl From<Value> for Parsed {
    /// A value whose text, if it had one, is not at hand.
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// Reads JSON.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, MalformedBody> {
    let mut duplicates = Vec::new();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = Reader(&mut duplicates).deserialize(&mut source)?;
    source.end()?;
    Ok(Parsed { value, duplicates })
}

/// Builds a `Value` and collects the paths, relative to it, of keys that came twice.
struct Reader<'a>(&'a mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

/// Puts `step` before the paths found since `from`. Duplicates are rare, so paths cost nothing elsewhere.
fn prefix(found: &mut [String], from: usize, step: &str) {
    for path in &mut found[from..] {
        let dot = if path.starts_with('[') { "" } else { "." };
        *path = format!("{step}{dot}{path}");
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let before = self.0.len();
            let Some(item) = seq.next_element_seed(Reader(self.0))? else { break };
            prefix(self.0, before, &format!("[{}]", list.len()));
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            let before = self.0.len();
            let value = source.next_value_seed(Reader(self.0))?;
            prefix(self.0, before, &key);
            if map.contains_key(&key) {
                self.0.push(key.clone());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_told_with_their_path() {
        let rows: &[(&str, &[&str])] = &[
            (r#"{"a":1,"b":[1,"x",null,true,-1,1.5]}"#, &[]),
            (r#"{"a":1,"a":2}"#, &["a"]),
            (r#"{"spec":{"c":[{"n":1},{"n":1,"n":2}],"r":1,"r":2}}"#, &["spec.c[1].n", "spec.r"]),
        ];
        for (text, expect) in rows {
            let parsed = parse_json(text.as_bytes()).expect(text);
            assert_eq!(parsed.duplicates, *expect, "{text}");
            assert_eq!(parsed.value, serde_json::from_str::<Value>(text).expect(text));
        }
        for bad in ["", "{", "{}x", "{\"a\" 1}", &"[".repeat(1000)] {
            assert!(parse_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
