//! Typed access to mappings. A value of the wrong type is an error that names the expected type; an unknown field is an
//! error that suggests the most similar known name.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::{load::Loader, units};
use crate::{
    diagnostic::Position,
    yaml::{Entry, Mapping, Node, Value, scalar::ScalarMeaning},
};

/// A mapping whose fields are read once each.
pub(super) struct Fields<'n> {
    /// Its path: `services.web.deploy`.
    pub path: String,
    pub at: &'n Position,
    mapping: &'n Mapping,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Opens `node`; reports an error if it is not a mapping.
    pub fn open(node: &'n Node, path: String, loader: &mut Loader) -> Option<Self> {
        match &node.value {
            Value::Mapping(mapping) => Some(Fields { path, at: &node.at, mapping, known: Vec::new() }),
            _ => {
                wrong(node, &path, "a mapping", loader);
                None
            }
        }
    }

    /// The field `key`, which is marked as known.
    pub fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.known.push(key);
        self.mapping.get(key)
    }

    /// The value of `key` and its path.
    pub fn node(&mut self, key: &'static str) -> Option<(&'n Node, String)> {
        let path = format!("{}.{key}", self.path);
        self.entry(key).map(|e| (&e.value, path))
    }

    /// All fields that are present.
    pub fn written(&self) -> impl Iterator<Item = (&'n String, &'n Entry)> + use<'n> {
        self.mapping.iter().filter(|(key, _)| !key.starts_with("x-"))
    }

    /// A string; `None` if it is empty, for example because of a variable that is not set.
    pub fn text(&mut self, key: &'static str, loader: &mut Loader) -> Option<String> {
        let (node, path) = self.node(key)?;
        text(node, &path, loader).filter(|text| !text.is_empty())
    }

    /// A string that has to be one of `words`.
    pub fn word(&mut self, key: &'static str, words: &[&str], loader: &mut Loader) -> Option<String> {
        let (node, path) = self.node(key)?;
        let text = text(node, &path, loader)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        loader.found.error(&node.at, format!("{path} has to be {}, not {text:?}", any_of(words)));
        None
    }

    pub fn bool(&mut self, key: &'static str, loader: &mut Loader) -> Option<bool> {
        let (node, path) = self.node(key)?;
        bool(node, &path, loader)
    }

    pub fn int(&mut self, key: &'static str, loader: &mut Loader) -> Option<i64> {
        let (node, path) = self.node(key)?;
        int(node, &path, loader)
    }

    /// An integer that must not be negative.
    pub fn count(&mut self, key: &'static str, loader: &mut Loader) -> Option<u32> {
        let (node, path) = self.node(key)?;
        count(node, &path, loader)
    }

    pub fn number(&mut self, key: &'static str, loader: &mut Loader) -> Option<f64> {
        let (node, path) = self.node(key)?;
        number(node, &path, loader)
    }

    pub fn bytes(&mut self, key: &'static str, loader: &mut Loader) -> Option<u64> {
        let (node, path) = self.node(key)?;
        let size = signed_bytes(node, &path, loader)?;
        // In Docker, 0 or less means unlimited.
        u64::try_from(size).ok().filter(|s| *s > 0)
    }

    pub fn duration(&mut self, key: &'static str, loader: &mut Loader) -> Option<Duration> {
        let (node, path) = self.node(key)?;
        let text = text(node, &path, loader)?;
        let duration = units::duration(&text);
        if duration.is_none() {
            loader.found.error(&node.at, format!("{path} has to be a duration such as 1m30s, not {text:?}"));
        }
        duration
    }

    pub fn texts(&mut self, key: &'static str, loader: &mut Loader) -> Vec<String> {
        self.node(key).map(|(node, path)| texts(node, &path, loader)).unwrap_or_default()
    }

    /// A list of strings with duplicates, as in a command.
    pub fn texts_twice(&mut self, key: &'static str, loader: &mut Loader) -> Vec<String> {
        self.list(key, loader, text)
    }

    /// A string or a list of strings.
    pub fn text_or_list(&mut self, key: &'static str, loader: &mut Loader) -> Vec<String> {
        self.node(key).map(|(node, path)| text_or_list(node, &path, loader)).unwrap_or_default()
    }

    /// A list whose items are read by `read`.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        loader: &mut Loader,
        mut read: impl FnMut(&Node, &str, &mut Loader) -> Option<T>,
    ) -> Vec<T> {
        let Some((node, path)) = self.node(key) else { return Vec::new() };
        let items = list(node, &path, loader);
        let numbered = items.iter().enumerate();
        numbered.filter_map(|(i, item)| read(item, &format!("{path}[{i}]"), loader)).collect()
    }

    /// `KEY: value` or `- KEY=value`; a missing value is empty.
    pub fn labels(&mut self, key: &'static str, loader: &mut Loader) -> IndexMap<String, String> {
        let all = self.node(key).map(|(node, path)| pairs(node, &path, loader)).unwrap_or_default();
        all.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect()
    }

    /// `KEY: value` where values are text or numbers.
    pub fn options(&mut self, key: &'static str, loader: &mut Loader) -> IndexMap<String, String> {
        let Some((node, path)) = self.node(key) else { return IndexMap::new() };
        let Some(mapping) = mapping(node, &path, loader) else { return IndexMap::new() };
        let pairs = mapping.iter().filter_map(|(k, e)| {
            let value = scalar_text(&e.value, &format!("{path}.{k}"), loader)?;
            Some((k.clone(), value.unwrap_or_default()))
        });
        pairs.collect()
    }

    /// A path, absolute.
    pub fn path(&mut self, key: &'static str, loader: &mut Loader) -> Option<PathBuf> {
        let (node, path) = self.node(key)?;
        let text = text(node, &path, loader)?;
        Some(loader.resolve(&node.at, &text))
    }

    /// Reports fields that have not been read.
    pub fn close(self, loader: &mut Loader) {
        for (key, entry) in self.written() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let path = &self.path;
            let place = if path.is_empty() { "of a compose file".to_string() } else { format!("of {path}") };
            let sentence = match nearest(key, &self.known) {
                Some(near) => format!("{key:?} is not a field {place}: did you mean {near}?"),
                None => format!("{key:?} is not a field {place}; what only people read begins with x-"),
            };
            loader.found.error(&entry.at, sentence);
        }
    }
}

/// `a`, `b` or `c`.
fn any_of(words: &[&str]) -> String {
    // An empty word is accepted but not suggested.
    let words: Vec<&str> = words.iter().copied().filter(|w| !w.is_empty()).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).into(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// Reports that `node` does not have the expected type.
pub(super) fn wrong(node: &Node, path: &str, expected: &str, loader: &mut Loader) {
    let is = match (&node.value, node.meaning()) {
        (Value::Mapping(_), _) => "a mapping",
        (Value::Sequence(_), _) => "a list",
        (_, Some(ScalarMeaning::Null)) => "empty",
        (_, Some(ScalarMeaning::Bool(_))) => "a boolean",
        (_, Some(ScalarMeaning::Int(_) | ScalarMeaning::Float(_))) => "a number",
        _ => "text",
    };
    let quote = match (is, expected) {
        ("a number" | "a boolean", "text") => ": put it in quotes",
        _ => "",
    };
    loader.found.error(&node.at, format!("{path} has to be {expected} but is {is}{quote}"));
}

pub(super) fn text(node: &Node, path: &str, loader: &mut Loader) -> Option<String> {
    match (&node.value, node.meaning()) {
        (Value::Scalar(scalar), Some(ScalarMeaning::Text)) => Some(scalar.text.clone()),
        _ => {
            wrong(node, path, "text", loader);
            None
        }
    }
}

/// A string, number or boolean as a string; `Some(None)` for null.
pub(super) fn scalar_text(node: &Node, path: &str, loader: &mut Loader) -> Option<Option<String>> {
    match &node.value {
        Value::Scalar(_) => Some(node.printed()),
        _ => {
            wrong(node, path, "text, a number or a boolean", loader);
            None
        }
    }
}

/// A string or number as a string.
pub(super) fn text_or_number(node: &Node, path: &str, loader: &mut Loader) -> Option<String> {
    match node.meaning() {
        Some(ScalarMeaning::Text | ScalarMeaning::Int(_) | ScalarMeaning::Float(_)) => node.printed(),
        _ => {
            wrong(node, path, "text or a number", loader);
            None
        }
    }
}

pub(super) fn bool(node: &Node, path: &str, loader: &mut Loader) -> Option<bool> {
    if let Some(ScalarMeaning::Bool(b)) = node.meaning() {
        return Some(b);
    }
    let text = node.printed().unwrap_or_default().to_lowercase();
    let (value, word) = match text.as_str() {
        "true" => return Some(true),
        "false" => return Some(false),
        "y" | "yes" | "on" => (true, "true"),
        "n" | "no" | "off" => (false, "false"),
        _ => {
            wrong(node, path, "true or false", loader);
            return None;
        }
    };
    loader.found.warn(&node.at, format!("{path}: {text} is not a boolean in YAML 1.2: write {word}"));
    Some(value)
}

pub(super) fn int(node: &Node, path: &str, loader: &mut Loader) -> Option<i64> {
    let value = match node.meaning() {
        Some(ScalarMeaning::Int(i)) => i64::try_from(i).ok(),
        Some(ScalarMeaning::Float(f)) if f.fract() == 0.0 && f.abs() < 9e15 => Some(f as i64),
        Some(ScalarMeaning::Text) => node.printed().and_then(|t| t.parse().ok()),
        _ => None,
    };
    if value.is_none() {
        wrong(node, path, "a whole number", loader);
    }
    value
}

pub(super) fn count(node: &Node, path: &str, loader: &mut Loader) -> Option<u32> {
    let value = int(node, path, loader)?;
    let count = u32::try_from(value).ok();
    if count.is_none() {
        loader.found.error(&node.at, format!("{path} has to be 0 or more, not {value}"));
    }
    count
}

pub(super) fn number(node: &Node, path: &str, loader: &mut Loader) -> Option<f64> {
    let value = match node.meaning() {
        Some(ScalarMeaning::Int(i)) => Some(i as f64),
        Some(ScalarMeaning::Float(f)) => Some(f),
        Some(ScalarMeaning::Text) => node.printed().and_then(|t| t.parse().ok()),
        _ => None,
    };
    let value = value.filter(|v: &f64| v.is_finite());
    if value.is_none() {
        wrong(node, path, "a number", loader);
    }
    value
}

pub(super) fn signed_bytes(node: &Node, path: &str, loader: &mut Loader) -> Option<i64> {
    let size = match node.meaning() {
        Some(ScalarMeaning::Int(i)) => i64::try_from(i).ok(),
        Some(ScalarMeaning::Float(f)) if f.fract() == 0.0 && f.abs() < 9e15 => Some(f as i64),
        Some(ScalarMeaning::Text) => node.printed().and_then(|t| units::bytes(&t)),
        _ => None,
    };
    if size.is_none() {
        wrong(node, path, "a size such as 512m or 1.5g", loader);
    }
    size
}

pub(super) fn mapping<'n>(node: &'n Node, path: &str, loader: &mut Loader) -> Option<&'n Mapping> {
    let mapping = node.as_mapping();
    if mapping.is_none() {
        wrong(node, path, "a mapping", loader);
    }
    mapping
}

pub(super) fn list<'n>(node: &'n Node, path: &str, loader: &mut Loader) -> &'n [Node] {
    node.as_sequence().unwrap_or_else(|| {
        wrong(node, path, "a list", loader);
        &[]
    })
}

/// A list of strings without duplicates.
pub(super) fn texts(node: &Node, path: &str, loader: &mut Loader) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (i, item) in list(node, path, loader).iter().enumerate() {
        if let Some(text) = text(item, &format!("{path}[{i}]"), loader).filter(|t| !all.contains(t)) {
            all.push(text);
        }
    }
    all
}

pub(super) fn text_or_list(node: &Node, path: &str, loader: &mut Loader) -> Vec<String> {
    if let Value::Scalar(_) = node.value {
        return text(node, path, loader).into_iter().collect();
    }
    texts(node, path, loader)
}

/// `KEY: value` or `- KEY=value`; the last value of a key counts.
pub(super) fn pairs(node: &Node, path: &str, loader: &mut Loader) -> IndexMap<String, Option<String>> {
    let mut all = IndexMap::new();
    match &node.value {
        Value::Mapping(mapping) => {
            for (key, entry) in mapping {
                if let Some(value) = scalar_text(&entry.value, &format!("{path}.{key}"), loader) {
                    all.insert(key.clone(), value);
                }
            }
        }
        Value::Sequence(items) => {
            for (i, item) in items.iter().enumerate() {
                let Some(text) = text(item, &format!("{path}[{i}]"), loader) else { continue };
                match text.split_once('=') {
                    Some((key, _)) if key.ends_with(char::is_whitespace) => {
                        loader
                            .found
                            .error(&item.at, format!("{path}: there is a space between {key:?} and the ="));
                    }
                    Some((key, value)) => drop(all.insert(key.into(), Some(value.into()))),
                    None => drop(all.insert(text, None)),
                }
            }
        }
        Value::Scalar(_) => wrong(node, path, "a mapping or a list of KEY=value", loader),
    }
    all
}

/// Whether the source of a mount is a path and not the name of a volume.
pub(super) fn is_path(source: &str) -> bool {
    let mut bytes = source.bytes();
    match bytes.next() {
        Some(b'.' | b'/' | b'~') => true,
        Some(b'\\') => source.starts_with("\\\\"),
        Some(b) => b.is_ascii_alphabetic() && bytes.next() == Some(b':'),
        None => false,
    }
}

/// The most similar known name within a small edit distance.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = name.to_lowercase().replace(['-', ' '], "_");
    let allowed = (lower.len() / 3).clamp(1, 3);
    let near = known.iter().map(|k| (distance(&lower, k), *k)).filter(|(d, _)| *d <= allowed);
    near.min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// The edit distance, with transpositions.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
