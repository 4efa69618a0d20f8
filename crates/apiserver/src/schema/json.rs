//! Reading JSON while noticing keys that occur twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::bounds::{MAX_DEPTH, Values};

/// Why bytes are not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is not valid JSON: {0}")]
pub struct MalformedBody(#[from] serde_json::Error);

/// A body and what was odd about its text.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value; the last of duplicate keys wins.
    pub value: Value,
    /// The paths of keys that occurred twice, like `spec.replicas`; the first ones where there are many.
    pub duplicates: Vec<String>,
}

impl From<Value> for Parsed {
    /// A value whose text, if it had one, is not at hand.
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// Reads JSON.
///
/// # Errors
/// Fails for text that is not JSON, or exceeds [`MAX_DEPTH`](super::MAX_DEPTH) or [`MAX_VALUES`](super::MAX_VALUES).
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, MalformedBody> {
    parse_part(bytes, &mut Values::default())
}

/// The same for JSON within a body of another format, whose values are counted together.
pub fn parse_part(bytes: &[u8], values: &mut Values) -> Result<Parsed, MalformedBody> {
    let mut duplicates = Duplicates::default();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { duplicates: &mut duplicates, values, depth: 0 }.deserialize(&mut source)?;
    source.end()?;
    Ok(Parsed { value, duplicates: duplicates.paths })
}

/// Paths of duplicate keys, relative to what is being read.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    pub(super) paths: Vec<String>,
}

impl Duplicates {
    /// No more are told: each is written anew for each level that it is below.
    const MOST: usize = 100;

    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn push(&mut self, key: &str) {
        if self.paths.len() < Self::MOST {
            self.paths.push(key.chars().take(256).collect());
        }
    }

    /// Puts `step` before the paths found since `from`. Duplicates are rare, so paths cost nothing elsewhere.
    pub(super) fn prefix(&mut self, from: usize, step: &str) {
        for path in &mut self.paths[from..] {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{step:.256}{dot}{path}");
        }
    }
}

/// Builds a `Value`, counts the values in it and collects the paths, relative to it, of keys that came twice.
struct Reader<'a> {
    duplicates: &'a mut Duplicates,
    values: &'a mut Values,
    /// Collections that are open around it.
    depth: usize,
}

impl Reader<'_> {
    fn again(&mut self) -> Reader<'_> {
        Reader { duplicates: self.duplicates, values: self.values, depth: self.depth + 1 }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        match self.depth < MAX_DEPTH {
            true => Ok(()),
            false => Err(E::custom(format_args!("it is nested more than {MAX_DEPTH} levels deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        self.values.take(1).map_err(D::Error::custom)?;
        source.deserialize_any(self)
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        loop {
            let before = self.duplicates.len();
            let Some(item) = seq.next_element_seed(self.again())? else { break };
            if self.duplicates.len() > before {
                self.duplicates.prefix(before, &format!("[{}]", list.len()));
            }
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut source: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            let before = self.duplicates.len();
            let value = source.next_value_seed(self.again())?;
            self.duplicates.prefix(before, &key);
            if map.contains_key(&key) {
                self.duplicates.push(&key);
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
        let many = format!("[{}0]", "0,".repeat(300_000));
        for bad in ["", "{", "{}x", "{\"a\" 1}", &"[".repeat(1000), &many] {
            assert!(parse_json(bad.as_bytes()).is_err(), "{bad:.60}");
        }
        let twice = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(1000));
        assert_eq!(parse_json(twice.as_bytes()).expect("JSON").duplicates.len(), Duplicates::MOST);
    }
}
