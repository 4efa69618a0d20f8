//! JSON Patch (RFC 6902): operations by path, applied all or none.
//!
//! A patch of a few KiB must not make an object of gigabytes, nest it until the stack ends, or keep a processor busy: what
//! `copy` makes is bounded in all as Kubernetes does it, as is the depth, and the number of values that operations walk
//! through or move along.

use std::io;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{MAX_DEPTH, Values};

/// More operations are refused, as Kubernetes does.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of a patch may copy together: the size of a request. As in Kubernetes.
const MAX_COPIED: usize = 3 << 20;
/// Values that all operations of a patch may look at or move along in a list, some tens of milliseconds. An object of
/// the store's largest size has some hundred thousand.
const MAX_STEPS: usize = 20_000_000;

/// Applies a JSON patch; on an error `target` is as it was.
///
/// # Errors
/// [`PatchError::Malformed`] where the patch is none, [`PatchError::Operation`] where an operation does not fit the
/// object or a bound is exceeded.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = parse(patch)?;
    let mut work = Work { root: target.clone(), copied: 0, values: Values::default(), steps: 0 };
    for (index, operation) in operations.iter().enumerate() {
        work.apply(operation).map_err(|reason| PatchError::Operation {
            index,
            operation: operation.action.name(),
            path: operation.path.text.chars().take(256).collect(),
            reason,
            is_failed_test: work.could_pass(operation),
        })?;
    }
    *target = work.root;
    Ok(())
}

struct Operation<'a> {
    path: Pointer<'a>,
    action: Action<'a>,
}

enum Action<'a> {
    Add(&'a Value),
    Remove,
    Replace(&'a Value),
    Move(Pointer<'a>),
    Copy(Pointer<'a>),
    Test(&'a Value),
}

impl Action<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Remove => "remove",
            Self::Replace(_) => "replace",
            Self::Move(_) => "move",
            Self::Copy(_) => "copy",
            Self::Test(_) => "test",
        }
    }
}

/// A JSON Pointer (RFC 6901); without tokens it is the whole document.
struct Pointer<'a> {
    text: &'a str,
    tokens: Vec<String>,
}

impl<'a> Pointer<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { text, tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>()?;
        Some(Self { text, tokens })
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(c) = characters.next() {
        out.push(match c {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

fn parse(patch: &Value) -> Result<Vec<Operation<'_>>, PatchError> {
    let malformed = |why: String| PatchError::Malformed(format!("error decoding patch: {why}"));
    let list = patch.as_array().ok_or_else(|| malformed("a JSON patch is a list of operations".into()))?;
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            list.len()
        )));
    }
    let operations = list.iter().enumerate();
    operations.map(|(i, o)| operation(o).map_err(|why| malformed(format!("patch[{i}]: {why}")))).collect()
}

fn operation(given: &Value) -> Result<Operation<'_>, String> {
    let given = given.as_object().ok_or("an operation is an object")?;
    let pointer = |member: &str| {
        let text = given.get(member).ok_or_else(|| format!("{member:?} is missing"))?;
        let pointer = text.as_str().and_then(Pointer::parse);
        pointer.ok_or_else(|| format!("{member:?} has to be a JSON Pointer such as /metadata/labels"))
    };
    let value = || given.get("value").ok_or("\"value\" is missing".to_owned());
    let name = given.get("op").and_then(Value::as_str).ok_or("\"op\" is missing")?;
    let action = match name {
        "add" => Action::Add(value()?),
        "remove" => Action::Remove,
        "replace" => Action::Replace(value()?),
        "move" => Action::Move(pointer("from")?),
        "copy" => Action::Copy(pointer("from")?),
        "test" => Action::Test(value()?),
        other => return Err(format!("{other:?} is not an operation of JSON patches")),
    };
    Ok(Operation { path: pointer("path")?, action })
}

/// Size of a copied value.
struct Measure {
    bytes: usize,
    values: usize,
}

impl Measure {
    fn of(value: &Value) -> Self {
        let (values, _) = extent(value);
        let mut bytes = Count(0);
        // Counting cannot fail.
        let _ = serde_json::to_writer(&mut bytes, value);
        Self { bytes: bytes.0, values }
    }
}

/// The number of values and the levels of collections.
fn extent(value: &Value) -> (usize, usize) {
    let below = |items: &mut dyn Iterator<Item = &Value>| {
        let (mut values, mut depth) = (1, 0);
        for item in items {
            let (more, deep) = extent(item);
            (values, depth) = (values + more, depth.max(deep));
        }
        (values, depth + 1)
    };
    match value {
        Value::Array(items) => below(&mut items.iter()),
        Value::Object(map) => below(&mut map.values()),
        _ => (1, 0),
    }
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Work {
    root: Value,
    copied: usize,
    values: Values,
    steps: usize,
}

impl Work {
    fn apply(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let path = &operation.path.tokens;
        match &operation.action {
            Action::Add(value) => self.add(path, (*value).clone()),
            Action::Remove => self.remove(path).map(drop),
            Action::Replace(value) => self.replace(path, value),
            Action::Test(value) => self.test(path, value),
            Action::Copy(from) => {
                let value = self.at(&from.tokens)?;
                let size = Measure::of(value);
                self.walk(size.values)?;
                self.copied += size.bytes;
                if self.copied > MAX_COPIED {
                    return Err(format!("copies of this patch exceed {MAX_COPIED} bytes in all"));
                }
                self.values.take(size.values).map_err(|e| format!("its copies are too large: {e}"))?;
                let value = self.at(&from.tokens)?.clone();
                self.add(path, value)
            }
            Action::Move(from) => {
                if path.starts_with(&from.tokens) {
                    self.at(&from.tokens)?;
                    return match path.len() == from.tokens.len() {
                        true => Ok(()),
                        false => Err("a value cannot be moved into itself".into()),
                    };
                }
                let value = self.remove(&from.tokens)?;
                self.add(path, value)
            }
        }
    }

    fn walk(&mut self, values: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(values);
        match self.steps > MAX_STEPS {
            true => Err(format!("operations of this patch touch more than {MAX_STEPS} values in all")),
            false => Ok(()),
        }
    }

    fn at(&self, path: &[String]) -> Result<&Value, String> {
        path.iter().enumerate().try_fold(&self.root, |value, (i, token)| {
            let found = match value {
                Value::Object(map) => map.get(token),
                Value::Array(items) => items.get(index(token, items.len())?),
                _ => None,
            };
            found.ok_or_else(|| missing(&path[..=i]))
        })
    }

    /// The collection that holds the last token of a path, and that token.
    fn holder<'s>(&mut self, path: &'s [String]) -> Result<(&mut Value, &'s str), String> {
        let Some((last, above)) = path.split_last() else {
            return Err("the whole object cannot be removed".into());
        };
        let mut holder = &mut self.root;
        for (i, token) in above.iter().enumerate() {
            let found = match holder {
                Value::Object(map) => map.get_mut(token),
                Value::Array(items) => {
                    let at = index(token, items.len())?;
                    items.get_mut(at)
                }
                _ => None,
            };
            holder = found.ok_or_else(|| missing(&above[..=i]))?;
        }
        match holder {
            Value::Object(_) | Value::Array(_) => Ok((holder, last)),
            _ => Err(format!("{} is neither an object nor a list", shown(above))),
        }
    }

    fn add(&mut self, path: &[String], value: Value) -> Result<(), String> {
        let (values, depth) = extent(&value);
        self.walk(values)?;
        if path.len() + depth > MAX_DEPTH {
            return Err(format!("the object would be nested more than {MAX_DEPTH} levels deep"));
        }
        if path.is_empty() {
            self.root = value;
            return Ok(());
        }
        let moved = match self.holder(path)? {
            (Value::Array(items), "-") => {
                items.push(value);
                0
            }
            (Value::Array(items), token) => {
                let at = index(token, items.len())?;
                if at > items.len() {
                    return Err(format!("index {at} is beyond the end of a list of {}", items.len()));
                }
                items.insert(at, value);
                items.len() - at
            }
            (Value::Object(map), token) => {
                map.insert(token.to_owned(), value);
                0
            }
            _ => 0,
        };
        self.walk(moved)
    }

    fn remove(&mut self, path: &[String]) -> Result<Value, String> {
        let (found, moved) = match self.holder(path)? {
            (Value::Array(items), token) => {
                let at = index(token, items.len())?;
                let found = (at < items.len()).then(|| items.remove(at));
                (found, items.len().saturating_sub(at))
            }
            (Value::Object(map), token) => (map.shift_remove(token), map.len()),
            _ => (None, 0),
        };
        self.walk(moved)?;
        found.ok_or_else(|| missing(path))
    }

    fn replace(&mut self, path: &[String], value: &Value) -> Result<(), String> {
        self.at(path)?;
        let (_, depth) = extent(value);
        if path.len() + depth > MAX_DEPTH {
            return Err(format!("the object would be nested more than {MAX_DEPTH} levels deep"));
        }
        if path.is_empty() {
            self.root = value.clone();
            return Ok(());
        }
        match self.holder(path)? {
            (Value::Object(map), token) => _ = map.insert(token.to_owned(), value.clone()),
            (Value::Array(items), token) => {
                let at = index(token, items.len())?;
                items[at] = value.clone();
            }
            _ => {}
        }
        Ok(())
    }

    /// Kubernetes takes an absent member for null, by which clients test that something is not there.
    fn test(&self, path: &[String], value: &Value) -> Result<(), String> {
        match self.at(path) {
            Ok(found) if same(found, value) => Ok(()),
            Ok(found) => Err(format!("the value there is {}, not {}", brief(found), brief(value))),
            Err(_) if value.is_null() && path.split_last().is_some_and(|(_, above)| self.has(above)) => {
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// Whether an operation is a test that another object could pass: what holds the tested value is there.
    fn could_pass(&self, operation: &Operation<'_>) -> bool {
        let above = operation.path.tokens.split_last().map_or(&[][..], |(_, above)| above);
        matches!(operation.action, Action::Test(_)) && self.at(above).is_ok()
    }

    fn has(&self, path: &[String]) -> bool {
        self.at(path).is_ok_and(Value::is_object)
    }
}

/// A place in a list: a number without leading zeros; the length stands for the end.
fn index(token: &str, len: usize) -> Result<usize, String> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    match token.parse() {
        Ok(at) if plain => Ok(at),
        _ if token == "-" => Ok(len),
        _ => Err(format!("{token:.64?} is not an index of a list (0, 1, ... or - for its end)")),
    }
}

fn shown(path: &[String]) -> String {
    let text: String = path.iter().flat_map(|token| ["/", token]).collect();
    match text.char_indices().nth(256) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None if text.is_empty() => "the object".into(),
        None => text,
    }
}

fn missing(path: &[String]) -> String {
    format!("{} does not exist", shown(path))
}

/// A value as an error shows it.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) => format!("an object of {} fields", map.len()),
        Value::String(text) if text.len() > 64 => format!("a text of {} bytes", text.len()),
        plain => plain.to_string(),
    }
}

/// Equality as the RFC defines it: numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_members(a, b),
        _ => a == b,
    }
}

fn same_members(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: &Value, patch: Value, expect: Result<Value, &str>) {
        let mut target = object.clone();
        match (json_patch(&mut target, &patch), expect) {
            (Ok(()), Ok(expect)) => assert_eq!(target, expect, "{patch}"),
            (Err(error), Err(expect)) => {
                assert!(error.to_string().contains(expect), "{patch:.200}: {error}");
                assert_eq!(&target, object, "{patch:.200}");
            }
            (got, expect) => panic!("{patch:.200}: {got:?} for {expect:?}"),
        }
    }

    #[test]
    fn operations_apply_whole_or_not_at_all() {
        let object = json!({"m": {"a": "b", "x/y": 1, "~": 2}, "l": [1, 2, 3]});
        let with = |change: fn(&mut Value)| {
            let mut object = object.clone();
            change(&mut object);
            Ok(object)
        };
        let rows = [
            (json!([]), with(|_| {})),
            (json!([{"op": "add", "path": "/l/-", "value": 4}]), with(|o| o["l"] = json!([1, 2, 3, 4]))),
            (json!([{"op": "add", "path": "/l/3", "value": 4}]), with(|o| o["l"] = json!([1, 2, 3, 4]))),
            (json!([{"op": "add", "path": "/l/0", "value": 0}]), with(|o| o["l"] = json!([0, 1, 2, 3]))),
            (json!([{"op": "add", "path": "/m/x~1y", "value": null}]), with(|o| o["m"]["x/y"] = json!(null))),
            (json!([{"op": "add", "path": "", "value": {"n": 1}}]), Ok(json!({"n": 1}))),
            (json!([{"op": "remove", "path": "/l/1"}]), with(|o| o["l"] = json!([1, 3]))),
            (json!([{"op": "replace", "path": "/m/~0", "value": 3}]), with(|o| o["m"]["~"] = json!(3))),
            (json!([{"op": "replace", "path": "/l/0", "value": 9}]), with(|o| o["l"] = json!([9, 2, 3]))),
            (
                json!([{"op": "copy", "from": "/m/a", "path": "/l/0"}]),
                with(|o| o["l"] = json!(["b", 1, 2, 3])),
            ),
            (json!([{"op": "move", "from": "/l/0", "path": "/l/-"}]), with(|o| o["l"] = json!([2, 3, 1]))),
            (json!([{"op": "move", "from": "/l", "path": "/l"}]), with(|_| {})),
            (json!([{"op": "test", "path": "/l", "value": [1.0, 2, 3]}]), with(|_| {})),
            (json!([{"op": "test", "path": "/m/none", "value": null}]), with(|_| {})),
            (
                json!([{"op": "test", "path": "/m/a", "value": "c"}]),
                Err("patch[0]: test \"/m/a\": the value there is \"b\", not \"c\""),
            ),
            (
                json!([{"op": "remove", "path": "/l"}, {"op": "test", "path": "/l", "value": 1}]),
                Err("patch[1]: test \"/l\": /l does not exist"),
            ),
            (json!([{"op": "test", "path": "/none/x", "value": null}]), Err("/none does not exist")),
            (
                json!([{"op": "remove", "path": "/none"}]),
                Err("patch[0]: remove \"/none\": /none does not exist"),
            ),
            (json!([{"op": "remove", "path": "/l/3"}]), Err("/l/3 does not exist")),
            (json!([{"op": "remove", "path": ""}]), Err("the whole object cannot be removed")),
            (json!([{"op": "replace", "path": "/l/-", "value": 1}]), Err("/l/- does not exist")),
            (json!([{"op": "replace", "path": "/m/none", "value": 1}]), Err("/m/none does not exist")),
            (
                json!([{"op": "add", "path": "/l/4", "value": 1}]),
                Err("index 4 is beyond the end of a list of 3"),
            ),
            (json!([{"op": "add", "path": "/l/-1", "value": 1}]), Err("\"-1\" is not an index of a list")),
            (json!([{"op": "add", "path": "/l/01", "value": 1}]), Err("\"01\" is not an index of a list")),
            (json!([{"op": "add", "path": "/none/x", "value": 1}]), Err("/none does not exist")),
            (
                json!([{"op": "add", "path": "/m/a/x", "value": 1}]),
                Err("/m/a is neither an object nor a list"),
            ),
            (json!([{"op": "move", "from": "/m", "path": "/m/n"}]), Err("cannot be moved into itself")),
            (json!([{"op": "jump", "path": ""}]), Err("patch[0]: \"jump\" is not an operation")),
            (json!([{"op": "add", "path": "/m"}]), Err("\"value\" is missing")),
            (json!([{"op": "add", "path": "m", "value": 1}]), Err("has to be a JSON Pointer")),
            (json!([{"op": "add", "path": "/~2", "value": 1}]), Err("has to be a JSON Pointer")),
            (json!([{"op": "copy", "path": "/m"}]), Err("\"from\" is missing")),
            (json!([1]), Err("an operation is an object")),
            (json!({"op": "remove"}), Err("a list of operations")),
        ];
        for (patch, expect) in rows {
            check(&object, patch, expect);
        }
    }

    #[test]
    fn what_a_small_patch_could_make_large_is_bounded() {
        let object = json!({"data": {"b": "x".repeat(1000)}, "list": vec![json!(0); 5000]});
        let copies = |count: usize, from: &str, to: &str| -> Value {
            (0..count).map(|i| json!({"op": "copy", "from": from, "path": format!("{to}{i}")})).collect()
        };
        let deepen: Value = (1..12)
            .map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data{}", "/a".repeat(1 << i >> 1))}))
            .collect();
        let deeper: Value = (1..200)
            .map(|i| json!({"op": "add", "path": "/data".to_owned() + &"/a".repeat(i), "value": {}}))
            .collect();
        let sink: Value = (1..200)
            .flat_map(|i| {
                [
                    json!({"op": "add", "path": format!("/n{i}"), "value": {}}),
                    json!({"op": "move", "from": format!("/n{}", i - 1), "path": format!("/n{i}/n")}),
                ]
            })
            .collect();
        let sink: Value = std::iter::once(json!({"op": "add", "path": "/n0", "value": {}}))
            .chain(sink.as_array().expect("a list").clone())
            .collect();
        let shifts: Value =
            (0..9000).map(|_| json!({"op": "move", "from": "/list/0", "path": "/list/-"})).collect();
        for (patch, expect) in [
            (copies(16, "/data", "/data/c"), "copies of this patch exceed 3145728 bytes in all"),
            (copies(10_000, "/data/b", "/d"), "copies of this patch exceed 3145728 bytes in all"),
            (copies(100, "/list", "/list2"), "more than 262144 values"),
            (deepen, "nested more than 100 levels"),
            (deeper, "nested more than 100 levels"),
            (sink, "nested more than 100 levels"),
            (shifts, "touch more than 20000000 values"),
            (copies(10_001, "/data/b", "/d"), "maximum operations in a JSON patch is 10000, got 10001"),
        ] {
            check(&object, patch, Err(expect));
        }
        let mut target = object.clone();
        json_patch(&mut target, &copies(1000, "/data/b", "/data/c")).expect("a megabyte may be copied");
        assert_eq!(target["data"].as_object().map(Map::len), Some(1001));
    }
}
