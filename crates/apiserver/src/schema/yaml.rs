//! Reading YAML as `sigs.k8s.io/yaml` does (YAML 1.1), event by event: nesting, copies by alias and the number of values
//! are bounded while the text is read, so that the time grows with its length only.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Map, Number, Value};

use super::bounds::{MAX_DEPTH, TooManyValues, Values};
use super::json::{Duplicates, Parsed};

/// Bytes of text that aliases may copy in all, as much as a body may have.
const MAX_COPIED: usize = 3 << 20;

/// Why a text is not read as YAML. Lines and columns count from 1.
#[derive(Debug, thiserror::Error)]
pub enum MalformedYaml {
    /// Bytes that are not UTF-8.
    #[error("error decoding YAML: it is not UTF-8")]
    NotText,
    /// The parser's own reason.
    #[error("error decoding YAML: line {line} column {column}: {why}")]
    Syntax {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// Description of the mistake.
        why: String,
    },
    /// More than [`MAX_DEPTH`] levels.
    #[error("error decoding YAML: line {line}: it is nested more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The line that opens one level too many.
        line: usize,
    },
    /// Aliases copy too much text.
    #[error("error decoding YAML: its aliases copy more than {MAX_COPIED} bytes")]
    TooMuchCopied,
    /// More than [`super::MAX_VALUES`] values.
    #[error("error decoding YAML: {0}")]
    TooManyValues(#[from] TooManyValues),
}

/// Reads one document; an empty text is null.
///
/// # Errors
/// Fails for text that is not YAML, has several documents, or exceeds a bound.
pub fn parse_yaml(bytes: &[u8]) -> Result<Parsed, MalformedYaml> {
    let text = std::str::from_utf8(bytes).map_err(|_| MalformedYaml::NotText)?;
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut reader = Reader::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| broken(&e))?;
        let at = (span.start.line(), span.start.col());
        reader.event(event, at)?;
    }
    Ok(Parsed { value: reader.document.unwrap_or_default(), duplicates: reader.duplicates.paths })
}

fn broken(error: &ScanError) -> MalformedYaml {
    let (line, column) = (error.marker().line(), error.marker().col());
    match error.kind() {
        // The parser's own bound, which tokens read ahead may reach before their events come.
        ErrorKind::RecursionLimitExceeded => MalformedYaml::TooDeep { line },
        _ => syntax(line, column, error.info()),
    }
}

fn syntax(line: usize, column: usize, why: impl Into<String>) -> MalformedYaml {
    MalformedYaml::Syntax { line, column: column + 1, why: why.into() }
}

/// Size of a copied value.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    text: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.values += other.values;
        self.text += other.text;
    }
}

/// A collection that is not closed yet.
struct Open {
    value: Value,
    size: Size,
    anchor: usize,
    /// In a mapping: the key that waits for its value.
    key: Option<String>,
    /// In a mapping: what `<<` brings, to be applied when it is closed, since its own keys win.
    merged: Vec<Map<String, Value>>,
    /// How many duplicate keys were known when it was opened.
    duplicates: usize,
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    document: Option<Value>,
    anchors: HashMap<usize, (Value, Size)>,
    values: Values,
    copied: usize,
    duplicates: Duplicates,
}

type At = (usize, usize);

impl Reader {
    fn event(&mut self, event: Event<'_>, at: At) -> Result<(), MalformedYaml> {
        match event {
            Event::DocumentStart(..) if self.document.is_some() => {
                Err(syntax(at.0, at.1, "there is a second document; send one object"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let is_key = self.waits_for_key();
                // A key is text whatever it looks like, as JSON's are.
                let value = if is_key && plain {
                    Value::String(key_text(&text))
                } else {
                    scalar(&text, plain, tag.as_deref()).map_err(|why| syntax(at.0, at.1, why))?
                };
                let size = Size { values: 1, text: text.len() };
                self.values.take(1)?;
                self.add(value, size, anchor, at)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Value::Array(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.begin(Value::Object(Map::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => {
                let Some((value, size)) = self.anchors.get(&anchor) else {
                    return Err(syntax(at.0, at.1, "an alias within its own anchor has no end"));
                };
                let (size, copied) = (*size, self.copied + size.text);
                if copied > MAX_COPIED {
                    return Err(MalformedYaml::TooMuchCopied);
                }
                self.values.take(size.values)?;
                if self.open.len() + depth(value) > MAX_DEPTH {
                    return Err(MalformedYaml::TooDeep { line: at.0 });
                }
                let value = value.clone();
                self.copied = copied;
                self.add(value, size, 0, at)
            }
            _ => Ok(()),
        }
    }

    fn waits_for_key(&self) -> bool {
        self.open.last().is_some_and(|o| o.value.is_object() && o.key.is_none())
    }

    fn begin(&mut self, value: Value, anchor: usize, at: At) -> Result<(), MalformedYaml> {
        if self.open.len() >= MAX_DEPTH {
            return Err(MalformedYaml::TooDeep { line: at.0 });
        }
        self.values.take(1)?;
        let (size, duplicates) = (Size { values: 1, text: 0 }, self.duplicates.len());
        self.open.push(Open { value, size, anchor, key: None, merged: Vec::new(), duplicates });
        Ok(())
    }

    fn end(&mut self, at: At) -> Result<(), MalformedYaml> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if let Value::Object(map) = &mut open.value {
            for merged in open.merged {
                for (key, value) in merged {
                    map.entry(key).or_insert(value);
                }
            }
        }
        let step = self.open.last().map(|outer| match (&outer.key, &outer.value) {
            (Some(key), _) => key.clone(),
            (None, Value::Array(items)) => format!("[{}]", items.len()),
            (None, _) => String::new(),
        });
        if let Some(step) = step {
            self.duplicates.prefix(open.duplicates, &step);
        }
        self.add(open.value, open.size, open.anchor, at)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, value: Value, size: Size, anchor: usize, at: At) -> Result<(), MalformedYaml> {
        if anchor != 0 {
            // What an anchor keeps is a copy, too.
            self.values.take(size.values)?;
            self.copied += size.text;
            if self.copied > MAX_COPIED {
                return Err(MalformedYaml::TooMuchCopied);
            }
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.document = Some(value);
            return Ok(());
        };
        open.size.add(size);
        let map = match &mut open.value {
            Value::Array(items) => {
                items.push(value);
                return Ok(());
            }
            Value::Object(map) => map,
            _ => return Ok(()),
        };
        let Some(key) = open.key.take() else {
            let Value::String(key) = value else {
                return Err(syntax(at.0, at.1, "a key has to be text"));
            };
            open.key = Some(key);
            return Ok(());
        };
        if key == "<<" {
            let merges = match value {
                Value::Object(merged) => vec![Value::Object(merged)],
                Value::Array(items) => items,
                other => vec![other],
            };
            for merge in merges {
                let Value::Object(merged) = merge else {
                    return Err(syntax(at.0, at.1, "<< takes a mapping or a list of mappings"));
                };
                open.merged.push(merged);
            }
            return Ok(());
        }
        if map.contains_key(&key) {
            self.duplicates.push(&key);
        }
        map.insert(key, value);
        Ok(())
    }
}

/// Levels of collections; 0 for a scalar.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let core = |tag: &&Tag| matches!(tag.handle(), "tag:yaml.org,2002:" | "!!");
    match tag.filter(core).map(Tag::suffix) {
        Some("str") => Ok(text.into()),
        Some("binary") => {
            let packed: String = text.split_whitespace().collect();
            let bytes = STANDARD.decode(packed).map_err(|_| "it has the tag !!binary but is not base64")?;
            Ok(String::from_utf8_lossy(&bytes).into())
        }
        Some("int" | "float" | "bool" | "null") => word(text),
        _ if plain => word(text),
        _ => Ok(text.into()),
    }
}

/// The value of a plain scalar in YAML 1.1.
fn word(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Ok(true.into());
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Ok(false.into());
        }
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.trim_start_matches(['+', '-']), ".inf" | ".nan") {
        return Err(format!("{text} is a number that JSON does not have; quote it if it is text"));
    }
    // Longer texts are no numbers that anything holds; this keeps the rest cheap.
    let number_like = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.bytes().any(|b| b.is_ascii_digit());
    if !number_like {
        return Ok(text.into());
    }
    let digits = text.replace('_', "");
    Ok(integer(&digits).or_else(|| float(&digits)).map_or_else(|| text.into(), Value::Number))
}

/// As Go's `ParseInt` with base 0: `0x`, `0o`, `0b` and a leading zero name a base.
fn integer(text: &str) -> Option<Number> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = rest.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from)).ok()
}

fn float(text: &str) -> Option<Number> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let value: f64 = text.chars().all(is_number).then(|| text.parse().ok())??;
    // A whole number has no point in Go's JSON.
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

fn key_text(key: &str) -> String {
    match word(key) {
        Ok(Value::Bool(yes)) => yes.to_string(),
        Ok(Value::Number(number)) => number.to_string(),
        Ok(Value::Null) if !key.is_empty() => "null".into(),
        _ => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_the_json_of_kubernetes_readers() {
        for (text, expect) in [
            (
                "a: 1\nb: [x, 'y', \"z\", ~, true, yes, 0644, 0x10, 1.5, 2.0]\n",
                json!({"a": 1, "b": ["x", "y", "z", null, true, true, 420, 16, 1.5, 2]}),
            ),
            (
                "a: &x {k: v}\nb: *x\nc: {<<: *x, d: 1}\nd: {<<: [*x, {k: w}], k: own}\n",
                json!({"a": {"k": "v"}, "b": {"k": "v"}, "c": {"d": 1, "k": "v"}, "d": {"k": "own"}}),
            ),
            ("1: a\ntrue: b\n\"on\": c\n", json!({"1": "a", "true": "b", "on": "c"})),
            (
                "a: |\n  x\n  y\nb: >\n  x\n  y\nc: !!str 1\nd: !!binary aGk=\n",
                json!({"a": "x\ny\n", "b": "x y\n", "c": "1", "d": "hi"}),
            ),
            ("{\"a\": {\"b\": [1, {\"c\": \"d\"}]}}", json!({"a": {"b": [1, {"c": "d"}]}})),
            ("", json!(null)),
            ("a:\nb: 1.2.3\nc: 1_000\nd:\n-\n", json!({"a": null, "b": "1.2.3", "c": 1000, "d": [null]})),
        ] {
            assert_eq!(
                parse_yaml(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}")).value,
                expect,
                "{text}"
            );
        }
    }

    #[test]
    fn duplicate_keys_are_told_with_their_path() {
        for (text, expect) in [
            ("a: 1\na: 2\n", vec!["a"]),
            ("spec: {c: [{k: 1}, {k: 1, k: 2}], r: 1, r: 2}\n", vec!["spec.c[1].k", "spec.r"]),
        ] {
            assert_eq!(parse_yaml(text.as_bytes()).expect(text).duplicates, expect, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_or_beyond_a_bound_is_refused() {
        let laughs: String = (0..30)
            .map(|i| match i {
                0 => "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(),
                _ => format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", i - 1),
            })
            .collect();
        let nested_anchors: String =
            "a: ".to_owned() + &(0..200).map(|i| format!("&a{i} [")).collect::<String>() + &"]".repeat(200);
        let large = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(100));
        let deep_alias = (1..200)
            .fold("a0: &a0 []\n".to_owned(), |text, i| text + &format!("a{i}: &a{i} [*a{}]\n", i - 1));
        for (text, expect) in [
            ("a: [".to_owned(), "error decoding YAML: line"),
            ("a: 1\n---\nb: 2\n".to_owned(), "second document"),
            ("a: *none\n".to_owned(), "error decoding YAML"),
            ("a: .inf\n".to_owned(), "JSON does not have"),
            ("[a]: 1\n".to_owned(), "a key has to be text"),
            ("a: ".to_owned() + &"[".repeat(200_000), "nested more than 100"),
            ("a: ".to_owned() + &"{a: ".repeat(200_000), "nested more than 100"),
            ("- ".repeat(200_000), "nested more than 100"),
            ("? ".repeat(200_000), "nested more than 100"),
            ((0..300).map(|i| " ".repeat(i) + "a:\n").collect(), "nested more than 100"),
            (nested_anchors, "nested more than 100"),
            (deep_alias, "nested more than 100"),
            (laughs, "more than 262144 values"),
            (large, "aliases copy more than"),
            ("[".to_owned() + &"a,".repeat(300_000) + "]", "more than 262144 values"),
        ] {
            let error = parse_yaml(text.as_bytes()).expect_err(expect).to_string();
            assert!(error.contains(expect), "{:.60}: {error}", text);
        }
        assert!(parse_yaml(b"\xff").is_err());
    }
}
